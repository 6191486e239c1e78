"""Where files are: local or in object storage, and names that may be put into a path."""

from __future__ import annotations

import hashlib
import os
import re
import string
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol, TypeGuard
from urllib.parse import unquote_to_bytes

from airflow_provider_kling.api.exceptions import DownloadError, InvalidRequestError, Recovery
from airflow_provider_kling.api.redaction import clean, shown

PLACEHOLDERS: Final = ("generation_id", "model", "client_request_id", "loop_index")
"""What a target path may name in braces."""

UNKNOWN_MODEL: Final = "unknown-model"
"""What ``{model}`` becomes if the model is unknown: a paid video is saved anyway."""

DEFAULT_NAME: Final = "{generation_id}.mp4"
"""What a target path that ends with a slash is completed with."""

LONGEST_NAME: Final = 255
"""Bytes of one name that file systems take."""

LONGEST_KEY: Final = 1024
"""Bytes of an object's key that S3 and Google Cloud Storage take."""

_LONGEST_READABLE: Final = 80  # characters of an id that its name keeps; uuid and model are 79 at most today
_DIGEST_DIGITS: Final = 12
_PLAIN = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9_-])?")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")
_LIKE_OURS = re.compile(rf".*_[0-9a-f]{{{_DIGEST_DIGITS}}}")
_RANDOM_ENOUGH: Final = 16
"""Characters from which no two ids differ in upper and lower case alone; the vendor's short ids have 21."""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
"""Names that Windows and its network shares keep for devices, with any suffix."""

LONGEST_SAFE_NAME: Final = _LONGEST_READABLE + 1 + _DIGEST_DIGITS
"""Characters, all ASCII, of the longest name that :func:`safe_name` makes."""

_HOME_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))(?=/|$)", re.ASCII)
_PASSWORD: Final = re.compile(r"[a-z0-9+.-]+://[^/@]*:[^/@]*@", re.IGNORECASE)
_UNSTORABLE: Final = re.compile("[\ud800-\udfff]")
_NOT_WRITTEN: Final = ("http", "https", "data")
_LOCAL_PROTOCOLS: Final = ("", "file", "local")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(file):/", re.IGNORECASE)
TEMPLATE_MARKS: Final = ("{{", "{%", "{#")


class StoragePath(Protocol):
    """What is used here of a path in object storage.

    Airflow's ``ObjectStoragePath`` is one, and universal_pathlib's ``UPath``.
    """

    @property
    def fs(self) -> Any:
        """The fsspec filesystem, authenticated."""

    @property
    def path(self) -> str:
        """The path as its filesystem takes it, without the protocol."""

    @property
    def protocol(self) -> str:
        """For example ``s3``; empty or ``file`` for local files."""


def scheme_of(value: str) -> str:
    """The scheme in lower case: ``s3``, ``file`` or ``data``, for example; empty for a local path."""
    if value[:5].lower() == "data:":
        return "data"
    scheme = _SCHEME.match(value)
    return (scheme[1] or scheme[2]).lower() if scheme else ""


def file_of(uri: str) -> Path:
    """The local file that a ``file:`` URI names; for reading and for writing.

    :raises ValueError: it names a host, in words that follow the URI.
    """
    # by hand: urlsplit would take a '#' or '?' in a file's name for the end of the path
    rest = uri.partition(":")[2]
    host, slash, path = rest[2:].partition("/") if rest.startswith("//") else ("", *rest.partition("/")[1:])
    if host.lower() not in ("", "localhost"):
        raise ValueError("names a host; write file:///path with three slashes, or the path alone")
    return Path(os.fsdecode(unquote_to_bytes(os.fsencode(slash + path))))


def is_stored(place: object) -> TypeGuard[StoragePath]:
    """Whether a path object is in object storage, and not a local file.

    The object's class is asked first, because the object would open a connection to answer for
    its filesystem. Being a ``pathlib.Path`` says nothing: old versions of ``UPath`` all are.
    """
    if not all(hasattr(type(place), name) for name in ("fs", "path", "protocol")):
        return False
    return getattr(place, "protocol", "") not in _LOCAL_PROTOCOLS


def local_path(place: object) -> Path:
    """The local file that a path stands for.

    :param place: a str, an ``os.PathLike``, or a storage path with the protocol of local files.
    :raises TypeError: when it is none of these; a URI as text is not.
    :raises ValueError: see :func:`at_home`.
    """
    return Path(at_home(_local_text(place)))


def _local_text(place: object) -> str:
    if isinstance(place, str) and "://" in place:
        raise TypeError("a URI has to be opened first, as an ObjectStoragePath for example")
    if getattr(place, "protocol", None) in _LOCAL_PROTOCOLS:
        return str(getattr(place, "path", place))
    if isinstance(place, str | os.PathLike):
        return os.fsdecode(place)
    raise TypeError(f"neither a path nor an object-storage path: {type(place).__name__}")


def text_of(path: object) -> str:
    """A path object as text: a local path, or the URI of an object in storage.

    Nothing is encoded in a path object. Of a local file it is the path, then, that says what is meant.

    :raises TypeError: it is no path.
    """
    return str(path) if is_stored(path) else _local_text(path)


def safe_name(value: str) -> str:
    """The name of an id: the same for the same id, another for another, and allowed by every storage.

    An id that is plain, as ``vIvy_TKgZ0vwl7ZYG6Hy0`` and ``789392067490349060`` are, is its own name. Of
    any other the readable part is kept, and a digest of the whole id tells it apart:
    ``<uuid>:klingai/avatar-pro`` becomes ``<uuid>-klingai-avatar-pro_0b1c2d3e4f56``. A digest is also added
    where a file system that ignores case, or Windows, would take two names for one.

    :return: 1 to :data:`LONGEST_SAFE_NAME` characters of ``A-Z a-z 0-9 . _ -``, with no dot at either end.
    :raises ValueError: the id is empty.
    """
    if not value:
        raise ValueError("it is empty")
    mixed_case = value != value.lower() and len(value) < _RANDOM_ENOUGH
    ambiguous = mixed_case or _LIKE_OURS.fullmatch(value) or _RESERVED.fullmatch(value)
    if _PLAIN.fullmatch(value) and not ambiguous:
        return value
    readable = _NOT_PLAIN.sub("-", value)[:_LONGEST_READABLE].strip("-.") or "id"
    if _RESERVED.fullmatch(readable):
        readable = readable.replace(".", "-")
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()
    return f"{readable}_{digest[:_DIGEST_DIGITS]}"


def at_home(path: str) -> str:
    """A local path whose leading ``~``, ``~user``, ``$HOME`` or other variable stands for what it names.

    :raises ValueError: the variable is not set, or there is no such user; in words that follow
        "the path cannot be used:".
    """
    if variable := _HOME_VARIABLE.match(path):
        name = variable[1] or variable[2]
        value = os.environ.get(name) or (os.path.expanduser("~") if name == "HOME" else "")
        if not value:
            raise ValueError(
                f"it begins with ${name}, an environment variable that is not set on this machine"
            )
        return value + path[variable.end() :]
    if path.startswith("~"):
        expanded = os.path.expanduser(path)
        if expanded == path and (path == "~" or "/" in path):
            user = path.partition("/")[0]
            raise ValueError(f"it begins with {user}, and this machine has no such user's home directory")
        return expanded
    return path


def tells_apart(path: str) -> bool:
    """Whether a target path gives each generation's video a place of its own."""
    own = ("{generation_id}", "{client_request_id}")
    return path.endswith("/") or any(placeholder in path for placeholder in own)


def check_path(path: object) -> None:
    """Check a target path as its author wrote it, before anything is spent.

    :param path: see :func:`expand_path`.
    :raises InvalidRequestError: an unknown placeholder, stray braces, a template that is not rendered,
        a ``..`` in it, a file URI with a host, or a path object that names no file.
    """
    try:
        _expand(path, dict.fromkeys(PLACEHOLDERS, "x"))
    except ValueError as error:
        raise InvalidRequestError(f"The path {clean(str(path))!r} cannot be used: {error}.") from None


def expand_path(path: object, facts: Mapping[str, str | None]) -> str:
    """Put a generation's facts into a target path: ``s3://videos/{model}/{generation_id}.mp4``.

    A path that ends with a slash is completed with ``{generation_id}.mp4``. Slashes in a model id
    become ``-``. Ids go into it as :func:`safe_name` makes them; a local path that begins with ``~`` or a
    variable such as ``$HOME`` is completed, see :func:`at_home`. A model that is not known becomes
    ``unknown-model``, a client request id that is not known the generation's id. The index of a loop's pass
    has to be known, as the next pass would save at the same place.

    :param path: a local path, a ``file:`` URI or the URI of an object in storage, as text; or a path
        object, which has to name a file.
    :param facts: values for :data:`PLACEHOLDERS`; ``generation_id`` is always needed.
    :return: a local path without ``file:``, or the URI of an object.
    :raises DownloadError: what :func:`check_path` refuses, a name that is too long, or a home directory
        that is not known.
    """
    try:
        whole = _expand(path, facts)
        if "://" in whole:
            _check_key(whole)
            return whole
        whole = at_home(whole)
        _check_names(whole)
        return whole
    except ValueError as error:
        raise DownloadError(
            f"The video cannot be written to {clean(str(path))!r}: {error}.",
            advice="Correct the path and clear the task: the same generation is used.",
            recovery=Recovery.GIVE_UP,
            generation_id=facts.get("generation_id"),
        ) from None


def _expand(path: object, facts: Mapping[str, str | None]) -> str:
    text = path if isinstance(path, str) else _named(path)
    if not text.strip():
        raise ValueError("it is empty")
    if any(part.strip() == "None" for part in text.split("/")):
        raise ValueError("it has 'None' in it, which is what a template leaves whose value is missing")
    if marks := [mark for mark in TEMPLATE_MARKS if mark in text]:
        raise ValueError(
            f"it has {shown(marks[0])} in it, and a template is rendered only in a path that is given as text"
        )
    if text.endswith("/"):
        text += DEFAULT_NAME
    variable = _HOME_VARIABLE.match(text)  # ${HOME} is no placeholder
    expanded = [variable[0] if variable else ""]
    for literal, field, spec, conversion in string.Formatter().parse(text[len(expanded[0]) :]):
        expanded.append(literal)
        if field is None:
            continue
        if spec or conversion or field not in PLACEHOLDERS:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"{{{field}}} is not a placeholder; there are {known}")
        expanded.append(_value(field, facts))
    whole = "".join(expanded)
    if isinstance(path, str) and scheme_of(whole) == "file":
        try:
            whole = str(file_of(whole))
        except ValueError as error:
            raise ValueError(f"it {error}") from None
    if scheme_of(whole) in _NOT_WRITTEN:
        raise ValueError("nothing is saved at such an address; give a local path or the URI of an object")
    if _PASSWORD.match(whole):
        raise ValueError("it has a password in it; name an Airflow connection instead: s3://conn@bucket/key")
    # last, when nothing will be decoded any more
    if ".." in whole.replace("\\", "/").split("/"):
        raise ValueError("'..' climbs out of the directory that was given")
    if any(unicodedata.category(char) == "Cc" for char in whole):
        raise ValueError("it has control characters in it")
    if _UNSTORABLE.search(whole):
        raise ValueError("it has a character in it that Airflow's database cannot store")
    return whole


def _check_names(path: str) -> None:
    for name in path.split("/"):
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise ValueError(f"the name {name[:20]}… in it is longer than {LONGEST_NAME} bytes")


def _check_key(uri: str) -> None:
    bucket, _, key = uri.partition("://")[2].partition("/")
    if bucket.endswith("@"):
        raise ValueError("it names a connection, but no bucket")
    if len(key.encode(errors="surrogatepass")) > LONGEST_KEY:
        raise ValueError(f"its key is longer than {LONGEST_KEY} bytes")


def _named(path: object) -> str:
    try:
        text = text_of(path)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if not PurePosixPath(text).suffix:
        raise ValueError(
            "a path object drops the slash at its end, so a directory looks the same as a file "
            "without a suffix; write the path as text, or name a file"
        )
    return text


def _value(field: str, facts: Mapping[str, str | None]) -> str:
    value = facts.get(field)
    if value is None and field == "model":
        return UNKNOWN_MODEL
    if value is None and field == "client_request_id":
        field, value = "generation_id", facts.get("generation_id")
    if value is None and field == "loop_index":
        raise ValueError("{loop_index} is only known of a generation that was submitted in a loop")
    if value is None:
        raise ValueError(f"{{{field}}} is not known here")
    try:
        return safe_name(value.replace("/", "-") if field == "model" else value)
    except ValueError as error:
        raise ValueError(f"{{{field}}}: {error}") from None

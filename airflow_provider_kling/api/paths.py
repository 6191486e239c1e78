"""Where files are: local or in object storage, and names that may be put into a path."""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol, TypeGuard
from urllib.parse import unquote_to_bytes

from airflow_provider_kling.api.exceptions import DownloadError, InvalidRequestError, Recovery

PLACEHOLDERS: Final = ("generation_id", "model", "client_request_id")
"""What a target path may name in braces."""

DEFAULT_NAME: Final = "{generation_id}.mp4"
"""What a target path that ends with a slash is completed with."""

_LONGEST_NAME: Final = 200  # bytes; file systems take 255, and temporary names need some of them
_SEPARATORS: Final = "/\\"
_MEANING_IN_STORAGE_URLS: Final = "?#%*"
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, invisible, half a character, line breaks
_LOCAL_PROTOCOLS: Final = ("", "file", "local")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://|(file):/", re.IGNORECASE)
_TEMPLATE_MARKS: Final = ("{{", "{%", "{#")


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
    """
    if isinstance(place, str) and "://" in place:
        raise TypeError("a URI has to be opened first, as an ObjectStoragePath for example")
    if getattr(place, "protocol", None) in _LOCAL_PROTOCOLS:
        return Path(str(getattr(place, "path", place)))
    if isinstance(place, str | os.PathLike):
        return Path(os.fsdecode(place))
    raise TypeError(f"neither a path nor an object-storage path: {type(place).__name__}")


def text_of(path: object) -> str:
    """A path object as text: a local path, or the URI of an object in storage.

    Nothing is encoded in a path object. Of a local file it is the path, then, that says what is meant.

    :raises TypeError: it is no path.
    """
    return str(path if is_stored(path) else local_path(path))


def temporary_name(name: str, token: str) -> str:
    """A hidden name for a file that is to become ``name``, short enough for any file system."""
    kept = os.fsencode(name)[:_LONGEST_NAME].decode(errors="ignore")
    return f".{kept}.{token}.part"


def safe_name(value: str) -> str:
    """A value that may stand for one part of a path; ids are the vendor's, and opaque.

    :raises ValueError: it is empty, has a separator, control or URL characters in it, is made of
        dots, or is too long.
    """
    if not value.strip(". "):
        raise ValueError("it is empty or made of dots")
    for char in value:
        if char in _SEPARATORS + _MEANING_IN_STORAGE_URLS or unicodedata.category(char) in _UNSEEN:
            raise ValueError(f"it has {char!r} in it")
    if len(value.encode(errors="surrogatepass")) > _LONGEST_NAME:
        raise ValueError(f"it is longer than {_LONGEST_NAME} bytes")
    return value


def tells_apart(path: str) -> bool:
    """Whether a target path gives each generation's video a place of its own."""
    own = ("{generation_id}", "{client_request_id}")
    return path.endswith("/") or any(placeholder in path for placeholder in own)


def check_path(path: object) -> None:
    """Check a target path as its author wrote it, before anything is spent.

    :param path: see :func:`expand_path`.
    :raises InvalidRequestError: an unknown placeholder, stray braces, a template that nobody renders,
        a ``..`` in it, a file URI with a host, or a path object that names no file.
    """
    try:
        _expand(path, dict.fromkeys(PLACEHOLDERS, "x"))
    except ValueError as error:
        raise InvalidRequestError(f"The path {str(path)!r} cannot be used: {error}.") from None


def expand_path(path: object, facts: Mapping[str, str | None]) -> str:
    """Put a generation's facts into a target path: ``s3://videos/{model}/{generation_id}.mp4``.

    A path that ends with a slash is completed with ``{generation_id}.mp4``. Slashes in a model id
    become ``-``.

    :param path: a local path, a ``file:`` URI or the URI of an object in storage, as text; or a path
        object, which has to name a file.
    :param facts: values for :data:`PLACEHOLDERS`; ``generation_id`` is always needed.
    :return: a local path without ``file:``, or the URI of an object.
    :raises DownloadError: what :func:`check_path` refuses, or an id that would leave its place in
        the path.
    """
    try:
        return _expand(path, facts)
    except ValueError as error:
        raise DownloadError(
            f"The video cannot be written to {str(path)!r}: {error}.",
            advice="Correct the path and clear the task: the same generation is used.",
            recovery=Recovery.GIVE_UP,
            generation_id=facts.get("generation_id"),
        ) from None


def _expand(path: object, facts: Mapping[str, str | None]) -> str:
    text = path if isinstance(path, str) else _named(path)
    if not text.strip():
        raise ValueError("it is empty")
    if marks := [mark for mark in _TEMPLATE_MARKS if mark in text]:
        raise ValueError(
            f"it has {marks[0]!r} in it, and a template is rendered only in a path that is given as text"
        )
    if text.endswith("/"):
        text += DEFAULT_NAME
    expanded = []
    for literal, field, spec, conversion in string.Formatter().parse(text):
        expanded.append(literal)
        if field is None:
            continue
        if spec or conversion or field not in PLACEHOLDERS:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"{{{field}}} is not a placeholder; there are {known}")
        expanded.append(_value(field, facts.get(field)))
    whole = "".join(expanded)
    if isinstance(path, str) and scheme_of(whole) == "file":
        try:
            whole = str(file_of(whole))
        except ValueError as error:
            raise ValueError(f"it {error}") from None
    # last, when nothing will be decoded any more
    if ".." in whole.replace("\\", "/").split("/"):
        raise ValueError("'..' climbs out of the directory that was given")
    if any(unicodedata.category(char) == "Cc" for char in whole):
        raise ValueError("it has control characters in it")
    return whole


def _named(path: object) -> str:
    try:
        text = text_of(path)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if not PurePosixPath(text).suffix:
        raise ValueError(
            "a path object drops the slash at its end, so that a directory cannot be told from a file "
            "without a suffix; write the path as text, or name a file"
        )
    return text


def _value(field: str, value: str | None) -> str:
    if value is None:
        raise ValueError(f"{{{field}}} is not known here")
    try:
        return safe_name(value.replace("/", "-") if field == "model" else value)
    except ValueError as error:
        raise ValueError(f"{{{field}}} is {value[:_LONGEST_NAME]!r}, and {error}") from None

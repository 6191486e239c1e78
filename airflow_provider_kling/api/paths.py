"""Where files are: local or in object storage, and names that may be put into a path."""

from __future__ import annotations

import os
import string
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeGuard

from airflow_provider_kling.api.errors import DownloadError, InvalidRequestError, Recovery

PLACEHOLDERS: Final = ("generation_id", "model", "client_request_id")
"""What a target path may name in braces."""

DEFAULT_NAME: Final = "{generation_id}.mp4"
"""What a target path that ends with a slash is completed with."""

_LONGEST_NAME: Final = 200  # bytes; file systems take 255, and temporary names need some of them
_SEPARATORS: Final = "/\\"
_MEANING_IN_STORAGE_URLS: Final = "?#%*"
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, invisible, half a character, line breaks
_LOCAL_PROTOCOLS: Final = ("", "file", "local")


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


def check_path(path: str) -> None:
    """Check a target path as its author wrote it, before anything is spent.

    :raises InvalidRequestError: an unknown placeholder, stray braces, or a ``..`` in it.
    """
    try:
        _expand(path, dict.fromkeys(PLACEHOLDERS, "x"))
    except ValueError as error:
        raise InvalidRequestError(f"The path {path!r} cannot be used: {error}.") from None


def expand_path(path: str, facts: Mapping[str, str | None]) -> str:
    """Put a generation's facts into a target path: ``s3://videos/{model}/{generation_id}.mp4``.

    A path that ends with a slash is completed with ``{generation_id}.mp4``. Slashes in a model id
    become ``-``.

    :param facts: values for :data:`PLACEHOLDERS`; ``generation_id`` is always needed.
    :raises DownloadError: a placeholder that is unknown or has no value here, an id that would
        leave its place in the path, or a ``..``.
    """
    try:
        return _expand(path, facts)
    except ValueError as error:
        raise DownloadError(
            f"The video cannot be written to {path!r}: {error}.",
            advice="Correct the path and clear the task: the same generation is used.",
            recovery=Recovery.GIVE_UP,
            generation_id=facts.get("generation_id"),
        ) from None


def _expand(path: str, facts: Mapping[str, str | None]) -> str:
    if not path.strip():
        raise ValueError("it is empty")
    if path.endswith("/"):
        path += DEFAULT_NAME
    expanded = []
    for text, field, spec, conversion in string.Formatter().parse(path):
        expanded.append(text)
        if field is None:
            continue
        if spec or conversion or field not in PLACEHOLDERS:
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise ValueError(f"{{{field}}} is not a placeholder; there are {known}")
        expanded.append(_value(field, facts.get(field)))
    whole = "".join(expanded)
    if ".." in whole.replace("\\", "/").split("/"):
        raise ValueError("'..' climbs out of the directory that was given")
    if any(unicodedata.category(char) == "Cc" for char in whole):
        raise ValueError("it has control characters in it")
    return whole


def _value(field: str, value: str | None) -> str:
    if value is None:
        raise ValueError(f"{{{field}}} is not known here")
    try:
        return safe_name(value.replace("/", "-") if field == "model" else value)
    except ValueError as error:
        raise ValueError(f"{{{field}}} is {value[:_LONGEST_NAME]!r}, and {error}") from None

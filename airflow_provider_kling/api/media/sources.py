"""Brings in what a media value points to: a data URI, a local file, an object in storage."""

from __future__ import annotations

import binascii
import errno
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from airflow_provider_kling.api.exceptions import KlingError, Money, Recovery
from airflow_provider_kling.api.paths import StoragePath, file_of, is_stored, local_path, scheme_of
from airflow_provider_kling.api.redaction import clean, hide_secrets, logger
from airflow_provider_kling.api.temporary_files import scratch_file

log = logger(__name__)

OpenPath = Callable[[str], Any]
"""Gives the path object for a URI such as ``s3://conn@bucket/key``: ``ObjectStoragePath``."""

_CHUNK: Final = 1024 * 1024  # bytes, and characters of base64: a multiple of 4
_BLOCK: Final = 8 * 1024 * 1024  # bytes that a storage is asked for at once
_BARE_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{200,}={0,2}\s*")
_BASE64_SPELLINGS: Final = str.maketrans("-_", "+/", " \t\r\n\f\v")
_LONGEST_NAME: Final = 300  # characters of a file's name that a message shows


class UnusableError(ValueError):
    """The value points to nothing that can be read.

    :param name: what a message may call it; no content, no signature.
    :param what: what is wrong, in words that follow the name.
    :param too_large: whether it is that it has too many bytes.
    """

    def __init__(self, name: str, what: str, *, too_large: bool = False) -> None:
        super().__init__(f"{name} {what}")
        self.too_large = too_large


@dataclass(frozen=True, slots=True)
class Found:
    """A medium, copied to where nothing else can change it.

    :param name: what a message may call it.
    :param file: the copy, open at its start.
    :param stored: the path in object storage, where it is there.
    """

    name: str
    file: io.BufferedRandom
    stored: StoragePath | None = None

    def signed_url(self, seconds: int) -> str | None:
        """A URL that gives the content for so many seconds; None where the storage cannot sign."""
        if self.stored is None:
            return None
        try:
            return str(self.stored.fs.sign(self.stored.path, expiration=seconds))
        except Exception as error:  # some raise what they like where their credentials cannot sign
            why = f"{type(error).__name__}: {clean(str(error))}".rstrip(": ")
            log.info("%s cannot be presigned, so its bytes are sent (%s).", self.name, why)
            return None


@contextmanager
def opened(
    value: str | os.PathLike[str] | StoragePath, open_path: OpenPath, most_bytes: int
) -> Iterator[Found]:
    """Copy a medium to a temporary file: what is checked then is what is sent, whatever becomes of it.

    :param most_bytes: nothing longer is read.
    :raises UnusableError: it is not there, is no file, is too long, or is no base64.
    :raises KlingError: the storage did not answer, or the disk is full; a retry may help.
    """
    stored = None
    if isinstance(value, str) and scheme_of(value) == "data":
        name = "the data URI"
        chunks = _decoded(value, name)
    else:
        place = _place_of(value, open_path) if isinstance(value, str) else value
        if is_stored(place):
            name, stored = _name(place), place
            chunks = _fetched(place, name, most_bytes)
        else:
            path = local_path(place)
            name = _name(path)
            chunks = _read(path, name, most_bytes)
    with scratch_file() as copy:
        with _troubles(name):
            for chunk in chunks:
                copy.write(chunk)
                _check_size(name, copy.tell(), most_bytes)
            copy.seek(0)
        yield Found(name, copy, stored)


def _place_of(value: str, open_path: OpenPath) -> Path | StoragePath:
    scheme = scheme_of(value)
    if scheme == "file":
        try:
            return file_of(value)
        except ValueError as error:
            raise UnusableError(_name(value), str(error)) from None
    if not scheme:
        try:
            return local_path(value)
        except (TypeError, ValueError) as error:
            raise UnusableError(_name(value), f"is no path: {error}") from None
    with _troubles(_name(value)):
        place: StoragePath = open_path(value)
    return place


def _read(path: Path, name: str, most_bytes: int) -> Iterator[bytes]:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UnusableError(name, "is a directory")
        if not stat.S_ISREG(status.st_mode):
            raise UnusableError(name, "is not a regular file")
        _check_size(name, status.st_size, most_bytes)
        file = path.open("rb")
    except PermissionError:
        raise UnusableError(name, "may not be read by the worker's user") from None
    except OSError as error:
        if _BARE_BASE64.fullmatch(str(path)):
            raise UnusableError(
                "the value",
                "looks like bare base64; write data:image/png;base64, in front, or give a path",
            ) from None
        if not isinstance(error, FileNotFoundError):
            raise UnusableError(name, f"cannot be opened ({error.strerror})") from None
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise UnusableError(name, f"does not exist on this worker{where}") from None
    except ValueError as error:
        if isinstance(error, UnusableError):
            raise
        raise UnusableError(name, f"is no path ({error})") from error
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _fetched(path: StoragePath, name: str, most_bytes: int) -> Iterator[bytes]:
    try:
        fs = path.fs
    except (ImportError, ValueError) as error:  # nobody here knows this kind of storage
        raise UnusableError(name, f"cannot be opened: {clean(str(error))}") from error
    info = fs.info(path.path)
    if info.get("type") == "directory":
        raise UnusableError(name, "is a directory")
    _check_size(name, info.get("size") or 0, most_bytes)
    # of its own, s3fs would read ahead 50 MiB at once
    with fs.open(path.path, "rb", block_size=_BLOCK) as stored:
        while chunk := stored.read(_CHUNK):
            yield chunk


def _decoded(value: str, name: str) -> Iterator[bytes]:
    """The content of a data URI, also where its base64 has line breaks, no padding, or the URL's alphabet."""
    start = value.find(",", 0, 200) + 1
    if not value[:start].lower().replace(" ", "").endswith(";base64,"):
        raise UnusableError(name, "is not of the form data:<type>;base64,<content>")
    if value.find("%", start) >= 0:  # as a URL has it
        value, start = unquote(value[start:]), 0
    rest = ""
    for position in range(start, len(value), _CHUNK):
        rest += value[position : position + _CHUNK].translate(_BASE64_SPELLINGS)
        end = rest.find("=")
        whole = len(rest) // 4 * 4 if end < 0 else end
        if rest[whole:].strip("=") and end >= 0:
            raise UnusableError(name, "is not valid base64 (it ends before its end)")
        if end < 0:
            yield _bytes_of(rest[:whole], name)
            rest = rest[whole:]
    rest = rest.rstrip("=")
    yield _bytes_of(rest + "=" * (-len(rest) % 4), name)


def _bytes_of(base64: str, name: str) -> bytes:
    try:
        return binascii.a2b_base64(base64, strict_mode=bool(base64))
    except ValueError as error:  # also characters that are not ASCII
        raise UnusableError(name, f"is not valid base64 ({error})") from None


def _name(path: object) -> str:
    """A path as a message may call it: its end, where it is long."""
    text = hide_secrets(" ".join(str(path).split()))
    return text if len(text) <= _LONGEST_NAME else f"…{text[-_LONGEST_NAME:]}"


def _check_size(name: str, size: int, most_bytes: int) -> None:
    if size > most_bytes:
        most = f"{most_bytes // 1024**2} MB"
        raise UnusableError(name, f"has {size:,} bytes or more; at most {most} are allowed", too_large=True)


@contextmanager
def _troubles(name: str) -> Iterator[None]:
    """Tell what is not there from a storage that fails. Storage libraries raise what they like."""
    try:
        yield
    except (UnusableError, KlingError):
        raise
    except FileNotFoundError:
        raise UnusableError(name, "does not exist in the storage") from None
    except PermissionError as error:
        raise UnusableError(name, f"may not be read ({clean(str(error))})") from error
    except IsADirectoryError:
        raise UnusableError(name, "is a directory") from None
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise KlingError(
            f"Could not read {name}: {type(error).__name__}: {clean(str(error))}.",
            money=Money.NOT_SPENT,
            advice="Make room for temporary files on the worker."
            if full
            else "A retry helps if the storage was in trouble; otherwise check its connection.",
            recovery=Recovery.RETRY_TASK,
        ) from error

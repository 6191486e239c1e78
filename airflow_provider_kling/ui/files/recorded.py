"""Videos and reference pictures, read only from the places that a task has recorded."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, Final
from urllib.parse import quote

from airflow_provider_kling.api.media.file_types import HEAD, content_of
from airflow_provider_kling.api.paths import is_stored, local_path, scheme_of
from airflow_provider_kling.hooks.object_storage import place_of

VIDEO_TYPES: Final = {
    "MP4": "video/mp4",
    "QuickTime": "video/quicktime",
    "Matroska or WebM": "video/webm",
}
PICTURE_TYPES: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WebP": "image/webp"}
"""The served types, by content. None of them can run in a browser."""
MOST_PICTURE_BYTES: Final = 20 * 1024 * 1024
CHUNK: Final = 256 * 1024
_VERSIONS: Final = ("ETag", "etag", "mtime", "LastModified")
"""The names under which storage libraries have an object's version."""
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class UnavailableError(Exception):
    """A recorded file cannot be served; its text says why, and names no path that was not recorded."""


class RangeError(Exception):
    """A range that the file does not have.

    :param size: bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"The range is not within the {size} bytes of the file.")


@dataclass(slots=True)
class OpenFile:
    """A recorded file, open for reading. Close it, or read :meth:`chunks` to the end.

    :param size: bytes.
    :param mime: by its content.
    :param version: tells it from an older file at the same path.
    """

    file: IO[bytes]
    size: int
    mime: str
    version: str

    def chunks(self, first: int, last: int) -> Iterator[bytes]:
        """Bytes from one to another, both inclusive, in pieces; closes the file."""
        with self.file as file:
            file.seek(first)
            left = last - first + 1
            while left > 0 and (chunk := file.read(min(CHUNK, left))):
                left -= len(chunk)
                yield chunk


def open_recorded(path: str, types: dict[str, str]) -> OpenFile:
    """Open a file that a task has recorded.

    :param path: a local path, a ``file:`` URI or the URI of an object in storage.
    :param types: the kinds of content that may be served, with their MIME types.
    :raises UnavailableError: it is not there, cannot be reached from here, or is something else.
    """
    file, size, version = open_file(path)
    try:
        kind = content_of(file.read(HEAD))
        file.seek(0)
    except Exception as error:
        file.close()
        raise UnavailableError(f"The API server cannot read it ({type(error).__name__}).") from None
    if kind not in types:
        file.close()
        raise UnavailableError("What is there is not of the kind that was recorded.")
    return OpenFile(file, size, types[kind], version)


def open_file(path: str) -> tuple[IO[bytes], int, str]:
    """Open a file, whatever is in it.

    :return: the file, its size in bytes, and what tells it from an older one at the same path.
    :raises UnavailableError: it is not there, or cannot be reached from here.
    """
    if scheme_of(path) in ("http", "https", "data"):
        raise UnavailableError("It is not a file or an object in storage.")
    try:
        place = place_of(path)
        stored = is_stored(place)
        return _open_stored(place) if stored else _open_local(place)
    except UnavailableError:
        raise
    except Exception as error:  # storage libraries raise what they like
        raise unavailable(error) from None


def unavailable(error: Exception) -> UnavailableError:
    """Why a file cannot be served, without the text of an error, which may hold secrets."""
    if isinstance(error, FileNotFoundError):
        return UnavailableError("There is no such file where the API server looks.")
    if isinstance(error, PermissionError):
        return UnavailableError("The API server may not read it.")
    return UnavailableError(f"The API server cannot open it ({type(error).__name__}).")


def _open_local(place: Any) -> tuple[IO[bytes], int, str]:
    # Opened without blocking, as it could be a pipe by now, and asked what it is afterwards.
    descriptor = os.open(local_path(place), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise UnavailableError("What is there is not a file.")
    return os.fdopen(descriptor, "rb"), found.st_size, f"{found.st_size:x}-{found.st_mtime_ns:x}"


def _open_stored(place: Any) -> tuple[IO[bytes], int, str]:
    file = place.fs.open(place.path, "rb", block_size=1024 * 1024)
    size = int(file.size)
    details = getattr(file, "details", None) or {}
    version = next((details[name] for name in _VERSIONS if details.get(name)), None)
    return file, size, hashlib.sha256(f"{size} {version}".encode()).hexdigest()[:20]


def requested_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a ``Range``; None where the whole file is asked for.

    :raises RangeError: it names no bytes of the file, or several ranges.
    """
    if header is None:
        return None
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        raise RangeError(size)
    if not found[1]:
        length = int(found[2])
        if not length or not size:
            raise RangeError(size)
        return max(0, size - length), size - 1
    first, last = int(found[1]), min(int(found[2] or size), size - 1)
    if first >= size or last < first:
        raise RangeError(size)
    return first, last


def disposition(path: str, *, download: bool, fallback: str) -> str:
    """A ``Content-Disposition`` with the name of a recorded file."""
    name = PurePosixPath(path.rstrip("/")).name or fallback
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)[:120]
    kind = "attachment" if download else "inline"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name[:120], safe='')}"


def read_picture(path: str, sha256: str) -> tuple[bytes, str]:
    """A reference picture, if it is still the one that was sent.

    :param sha256: of its content, as it was recorded.
    :return: its bytes and its MIME type.
    :raises UnavailableError: it is gone, was changed since, or is too large.
    """
    found = open_recorded(path, PICTURE_TYPES)
    with found.file as file:
        if found.size > MOST_PICTURE_BYTES:
            raise UnavailableError("It is larger than any picture that can be sent.")
        try:
            content = file.read(MOST_PICTURE_BYTES + 1)
        except Exception as error:
            raise UnavailableError(f"The API server cannot read it ({type(error).__name__}).") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UnavailableError("The file at this path was changed after the picture was sent.")
    return content, found.mime

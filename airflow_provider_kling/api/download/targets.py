"""Where a video lands: a local file or an object in storage, whole under its name or not at all."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol

from airflow_provider_kling.api.exceptions import DownloadError, KlingError, Recovery
from airflow_provider_kling.api.paths import StoragePath, is_stored, local_path, temporary_name
from airflow_provider_kling.api.redaction import clean

log = logging.getLogger(__name__)

_PART: Final = 5 * 1024 * 1024
"""Bytes of one part of an upload; the storage libraries' own 50 MiB, ten at once, are too many."""

_ATOMIC_PUT: Final[dict[str, dict[str, Any]]] = {
    **{protocol: {"chunksize": _PART, "max_concurrency": 1} for protocol in ("s3", "s3a")},
    **{protocol: {"chunksize": _PART} for protocol in ("gs", "gcs")},
    **{protocol: {"max_concurrency": 1, "overwrite": True} for protocol in ("abfs", "abfss", "az")},
}
"""Protocols whose objects appear whole when the upload is committed, and how their fsspec
filesystems are told to upload in constant memory. All others get a temporary name and a move."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_FOR_A_PERSON: Final = (
    FileNotFoundError,  # a bucket, for example; directories are made
    PermissionError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
)
_FOR_A_PERSON_TOO: Final = (errno.EROFS, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP)


class TakenError(Exception):
    """Somebody wrote the target since we looked, and it may not be overwritten."""


class Target(Protocol):
    """A place for one video."""

    shown: str

    def size(self) -> int | None:
        """Bytes of what is there already; None where nothing is."""

    def copy(self) -> Any:
        """Context manager that gives a local path to read what is there already."""

    def staging(self) -> Any:
        """Context manager that gives a fresh local path to write to; gone when it is left."""

    def flush(self, staged: Path) -> None:
        """Have the staged file reach the disk, where it is to stay.

        Before it gets its name, so that a power cut leaves the whole file or none.
        """

    def place(self, staged: Path, *, overwrite: bool) -> None:
        """Make the staged file the target, in one step for every reader.

        :raises TakenError: there is something by now, and ``overwrite`` is False.
        """


def target_for(place: object, generation_id: str) -> Target:
    """The target that a path stands for.

    :param place: a str, ``os.PathLike`` or :class:`~airflow_provider_kling.api.paths.StoragePath`.
    :param generation_id: for messages.
    """
    if is_stored(place):
        return StorageTarget(place, generation_id)
    return LocalTarget(local_path(place), str(place), generation_id)


class LocalTarget:
    """A file on this machine: written beside its final name, flushed, and renamed."""

    def __init__(self, path: Path, shown: str, generation_id: str) -> None:
        self.shown = shown
        self._path = path
        self._generation_id = generation_id

    def size(self) -> int | None:
        """Bytes of the file that is there; None where nothing is."""
        with _troubles("look for", self.shown, self._generation_id):
            if self._path.is_dir():
                raise _is_directory(self.shown, self._generation_id)
            try:
                return self._path.stat().st_size
            except FileNotFoundError:
                return None

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """The file itself."""
        with _troubles("read", self.shown, self._generation_id):
            yield self._path

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A hidden name in the same directory, which is made where it is missing."""
        staged = self._path.with_name(temporary_name(self._path.name, secrets.token_hex(4)))
        with _troubles("write", self.shown, self._generation_id):
            if self._path.is_dir():
                raise _is_directory(self.shown, self._generation_id)
            staged.parent.mkdir(parents=True, exist_ok=True)
            try:
                yield staged
            finally:
                staged.unlink(missing_ok=True)

    def flush(self, staged: Path) -> None:
        """Write it out."""
        with staged.open("rb+") as file:
            os.fsync(file.fileno())

    def place(self, staged: Path, *, overwrite: bool) -> None:
        """Rename; without ``overwrite`` by a hard link, which refuses an existing name."""
        if overwrite:
            os.replace(staged, self._path)
        else:
            try:
                os.link(staged, self._path)
            except OSError:  # the name is taken, or this file system has no hard links
                if self._path.exists():
                    raise TakenError from None
                os.replace(staged, self._path)
        _flush_directory(self._path.parent)


class StorageTarget:
    """An object in storage: staged on the local disk, and put in one step once it is verified."""

    def __init__(self, place: StoragePath, generation_id: str) -> None:
        self.shown = str(place)
        with _troubles("reach", self.shown, generation_id, Exception):
            self._fs = place.fs
        self._path = place.path
        self._put_options = _ATOMIC_PUT.get(place.protocol)
        self._generation_id = generation_id

    def size(self) -> int | None:
        """Bytes of the object that is there; None where nothing is."""
        with _troubles("look for", self.shown, self._generation_id, Exception):
            info = self._info(self._path)
            if info is not None and info["type"] == "directory":
                raise _is_directory(self.shown, self._generation_id)
            return None if info is None else int(info["size"])

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """A copy on the local disk, gone when it is left."""
        with self.staging() as local:
            with (
                _troubles("read", self.shown, self._generation_id, Exception),
                local.open("xb") as file,
                self._fs.open(self._path, "rb") as stored,
            ):
                shutil.copyfileobj(stored, file, _PART)
            yield local

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A file in a temporary directory of its own, on the local disk."""
        # the suffix stays: storage libraries take the content type from it
        with (
            _troubles("stage", self.shown, self._generation_id),
            tempfile.TemporaryDirectory(prefix="kling-") as directory,
        ):
            yield Path(directory, "video").with_suffix(Path(self._path).suffix)

    def flush(self, staged: Path) -> None:
        """Nothing: it is gone as soon as it is uploaded."""

    def place(self, staged: Path, *, overwrite: bool) -> None:
        """Upload; by a temporary name and a move where an upload is seen before it is complete."""
        with _troubles("write", self.shown, self._generation_id, Exception):
            if not overwrite and self._info(self._path) is not None:
                raise TakenError
            if self._put_options is not None:
                self._fs.put_file(str(staged), self._path, **self._put_options)
            else:
                self._put_and_move(staged)
            # What is there is not removed: it may be another task's, and whole.
            self._check(
                self._path,
                staged,
                "Nothing was removed, as another task may write there too; {generation_id} in the path keeps "
                "them apart. Run the task again: it lands the same generation.",
            )

    def _put_and_move(self, staged: Path) -> None:
        parent, _, name = self._path.rpartition("/")
        temporary = f"{parent}/{temporary_name(name, secrets.token_hex(4))}"
        try:
            if parent:
                self._fs.makedirs(parent, exist_ok=True)
            self._fs.put_file(str(staged), temporary)
            self._check(temporary, staged, "Run the task again: it lands the same generation.")
            self._fs.mv(temporary, self._path)
        except BaseException:
            self._forget(temporary)
            raise

    def _check(self, path: str, staged: Path, advice: str) -> None:
        expected, info = staged.stat().st_size, self._info(path)
        if info is None or info["size"] != expected:
            stored = "nothing is" if info is None else f"{info['size']} bytes are"
            raise DownloadError(
                f"The video of generation {self._generation_id} has {expected} bytes, and {stored} at "
                f"{path if path != self._path else self.shown} right after it was written there.",
                advice=advice,
                generation_id=self._generation_id,
            )

    def _forget(self, path: str) -> None:
        try:
            with suppress(FileNotFoundError):
                self._fs.rm_file(path)
        except Exception as error:
            log.warning("Could not remove %s: %s", path, clean(str(error)))

    def _info(self, path: str) -> dict[str, Any] | None:
        self._fs.invalidate_cache()  # another task may have written since the listing was cached
        try:
            info: dict[str, Any] = self._fs.info(path)
        except FileNotFoundError:
            return None
        return info


@contextmanager
def _troubles(verb: str, shown: str, generation_id: str, kinds: type[Exception] = OSError) -> Iterator[None]:
    """Say what a failing disk or storage means.

    :param kinds: ``Exception`` for storage libraries, which raise what they like.
    """
    try:
        yield
    except (KlingError, TakenError):
        raise
    except kinds as error:
        number = error.errno if isinstance(error, OSError) else None
        advice = "Run the task again: it lands the same generation, and nothing is left half written."
        recovery = Recovery.RETRY_TASK
        if number in _FULL:
            why = "no space is left on the disk"
            advice = f"Make room on the worker (temporary files go to {tempfile.gettempdir()}). {advice}"
        else:
            why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        if isinstance(error, _FOR_A_PERSON) or number in _FOR_A_PERSON_TOO:
            recovery = Recovery.GIVE_UP
            advice = "Correct the path or its permissions, and clear the task: the same generation is used."
        raise DownloadError(
            f"Could not {verb} {shown} for the video of generation {generation_id}: "
            f"{clean(why).rstrip('.')}.",
            advice=advice,
            recovery=recovery,
            generation_id=generation_id,
        ) from error


def _is_directory(shown: str, generation_id: str) -> DownloadError:
    return DownloadError(
        f"{shown} is a directory; the video of generation {generation_id} needs a file name.",
        advice="End the path with a slash to get <generation id>.mp4 in it, or name a file.",
        recovery=Recovery.GIVE_UP,
        generation_id=generation_id,
    )


def _flush_directory(directory: Path) -> None:
    """Make the new name survive a power cut, where the file system can."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

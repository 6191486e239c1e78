"""Where a video is saved: a local file or an object in storage, complete under its name or not at all."""

from __future__ import annotations

import errno
import inspect
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from airflow_provider_kling.api.download.write_probe import probe_write
from airflow_provider_kling.api.exceptions import DownloadError, KlingError, Recovery
from airflow_provider_kling.api.paths import StoragePath, is_stored, local_path
from airflow_provider_kling.api.redaction import clean, logger
from airflow_provider_kling.api.temporary_files import (
    locked,
    part_name,
    staging_folder,
    sweep_folder,
    sweep_storage,
)

log = logger(__name__)

_PART: Final = 5 * 1024 * 1024
"""Bytes of one part of an upload; the storage libraries' own 50 MiB, ten at once, are too many."""

_ATOMIC_PUT: Final[dict[str, dict[str, Any]]] = {
    **{protocol: {"chunksize": _PART, "max_concurrency": 1} for protocol in ("s3", "s3a")},
    **{protocol: {"chunksize": _PART} for protocol in ("gs", "gcs")},
    **{protocol: {"max_concurrency": 1, "overwrite": True} for protocol in ("abfs", "abfss", "az")},
}
"""Protocols whose objects appear whole when the upload is committed, and how their fsspec
filesystems are asked to upload in constant memory. All others get a temporary name and a move."""

_FOLDER_TRIES: Final = 5
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
    """The target was written since it was checked, and it may not be overwritten."""


@dataclass(frozen=True, slots=True)
class _Unseen:
    """The connection has no permission to look up what is there."""

    why: str


def target_for(place: object, generation_id: str) -> Target:
    """The target that a path stands for.

    :param place: a str, ``os.PathLike`` or :class:`~airflow_provider_kling.api.paths.StoragePath`.
    :param generation_id: for messages.
    """
    if is_stored(place):
        return StorageTarget(place, generation_id)
    return LocalTarget(local_path(place), str(place), generation_id)


class LocalTarget:
    """A file on this machine: written beside its final name, flushed, and renamed.

    Where the file system cannot rename or rewrite a file, as with many mounted buckets, the video is
    staged in the folder of temporary files, and written once from its start to its end.
    """

    def __init__(self, path: Path, shown: str, generation_id: str) -> None:
        self.shown = shown
        self._path = path
        self._generation_id = generation_id

    def size(self) -> int | None:
        """Bytes of the file that is there; None where nothing is."""
        with _troubles("look for", self.shown, self._generation_id):
            status = self._status()
            return None if status is None else status.st_size

    def check_writable(self, *, free: bool) -> None:
        """Make the folder and a temporary file in it, rename that, and remove both.

        :param free: whether the name has to be free. False where it is only as long as the real one, or
            where what is there may be replaced.
        :raises DownloadError: no video can be written there.
        """
        with _troubles("write", self.shown, self._generation_id):
            if self._status() is not None and free:
                raise FileExistsError(errno.EEXIST, "another file is there", self.shown)
            parents = [each for each in self._path.parents if not each.exists()]
            try:
                with self._in_folder():
                    pass
            finally:
                for each in parents:  # the deepest first
                    with suppress(OSError):  # another task has saved a video in it
                        each.rmdir()

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """The file itself."""
        with _troubles("read", self.shown, self._generation_id):
            yield self._path

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A hidden name in the same directory, which is made where it is missing."""
        with _troubles("write", self.shown, self._generation_id), ExitStack() as stack:
            self._status()
            # of a link it is the file behind it that is written, as with any program
            self._path = self._path.resolve() if self._path.is_symlink() else self._path
            sweep_folder(self._path.parent, self._generation_id)
            staged = stack.enter_context(self._in_folder())
            if staged is None:
                log.info(
                    "The file system of %s cannot rename or rewrite files; writing the video there once.",
                    self.shown,
                )
                staged = stack.enter_context(staging_folder()) / "video"
            yield staged

    def flush(self, staged: Path) -> None:
        """Have the staged file reach the disk before it gets its name: a power cut leaves it whole or not."""
        _flush(staged)

    def place(self, staged: Path, *, overwrite: bool) -> None:
        """Rename; without ``overwrite`` by a hard link, which refuses an existing name.

        :raises TakenError: there is something by now, and ``overwrite`` is False.
        """
        if staged.parent != self._path.parent:
            self._write_once(staged, overwrite)
        elif overwrite:
            os.replace(staged, self._path)
        else:
            try:
                os.link(staged, self._path)
            except OSError:  # the name is taken, or this file system has no hard links
                if os.path.lexists(self._path):
                    raise TakenError from None
                os.replace(staged, self._path)
        _flush(self._path.parent)

    @contextmanager
    def _in_folder(self) -> Iterator[Path | None]:
        """As :meth:`_part`, in a folder that is made where it is missing."""
        with ExitStack() as stack:
            for left in range(_FOLDER_TRIES, 0, -1):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    part = stack.enter_context(self._part())
                    break
                except FileNotFoundError:  # another task made the folder to try it, and removed it again
                    if left == 1:
                        raise
            yield part

    @contextmanager
    def _part(self) -> Iterator[Path | None]:
        """An empty temporary file beside the target; None where one could not be renamed later."""
        first, part = (
            self._path.with_name(part_name(self._path.name, self._generation_id)) for _ in range(2)
        )
        with locked(first):
            try:
                try:
                    with first.open("rb+") as file:
                        file.write(b"?")
                        file.seek(0)
                        file.truncate()
                    os.rename(first, part)
                except OSError as error:
                    if error.errno in _FULL:
                        raise
                    yield None
                else:
                    yield part
            finally:
                for each in (first, part):
                    with suppress(OSError):  # a mounted bucket may allow no removal either
                        each.unlink(missing_ok=True)

    def _write_once(self, staged: Path, overwrite: bool) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with staged.open("rb") as source, self._path.open("wb" if overwrite else "xb") as file:
                try:
                    shutil.copyfileobj(source, file, _PART)
                    file.flush()
                    with suppress(OSError):
                        os.fsync(file.fileno())
                except BaseException:
                    with suppress(OSError):
                        self._path.unlink()
                    raise
        except FileExistsError:
            raise TakenError from None
        written, expected = self._path.stat().st_size, staged.stat().st_size
        if written != expected:
            raise OSError(errno.EIO, f"{written} bytes of {expected} are there after writing")

    def _status(self) -> os.stat_result | None:
        """What is there; None where nothing is.

        :raises DownloadError: a directory, or something else that no video can take the place of.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            if self._path.is_symlink():
                raise _no_place(
                    f"{self.shown} is a symbolic link to a file that does not exist", self._generation_id
                ) from None
            return None
        if stat.S_ISDIR(status.st_mode):
            raise _is_directory(self.shown, self._generation_id)
        if not stat.S_ISREG(status.st_mode):
            raise _no_place(f"{self.shown} is a device, a pipe or a socket", self._generation_id)
        return status


class StorageTarget:
    """An object in storage: staged on the local disk, and put in one step once it is verified.

    Permission to write is enough: what may not be looked up is written without checking, and never in
    place of something else where the storage can tell.
    """

    def __init__(self, place: StoragePath, generation_id: str) -> None:
        self.shown = str(place)
        with _troubles("reach", self.shown, generation_id, Exception):
            self._fs = place.fs
        self._path = place.path
        self._protocol = place.protocol
        self._generation_id = generation_id

    def size(self) -> int | None:
        """Bytes of the object that is there; None where nothing is, or where it may not be seen."""
        with _troubles("look for", self.shown, self._generation_id, Exception):
            info = self._info(self._path)
            if isinstance(info, _Unseen) or info is None:
                return None
            if info["type"] == "directory":
                raise _is_directory(self.shown, self._generation_id)
            return int(info["size"])

    def check_writable(self, *, free: bool) -> None:
        """See :func:`.probe_write`; whether the name is free is looked up where that is allowed."""
        if free and self.size() is not None:
            with _troubles("write", self.shown, self._generation_id):
                raise FileExistsError(errno.EEXIST, "another object is there", self.shown)
        with _troubles("write", self.shown, self._generation_id, Exception):
            moves = self._protocol not in _ATOMIC_PUT
            probe_write(self._fs, self._protocol, self._path, self._generation_id, moves=moves)

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
        with _troubles("stage", self.shown, self._generation_id), staging_folder() as folder:
            yield (folder / "video").with_suffix(Path(self._path).suffix)

    def flush(self, staged: Path) -> None:
        """Nothing: it is gone as soon as it is uploaded."""

    def place(self, staged: Path, *, overwrite: bool) -> None:
        """Upload; by a temporary name and a move where an upload is seen before it is complete."""
        with _troubles("write", self.shown, self._generation_id, Exception):
            there = None if overwrite else self._info(self._path)
            options = dict(_ATOMIC_PUT.get(self._protocol, {}))
            if isinstance(there, _Unseen):
                log.info(
                    "This connection has no permission to look up %s (%s); writing without checking first.",
                    self.shown,
                    there.why,
                )
                try:
                    self._put(staged, options | self._without_replacing())
                except Exception as error:
                    if "not implemented" not in str(error).lower():
                        raise
                    self._put(staged, options)  # S3 of another maker, which takes no conditions
            elif there is not None:
                raise TakenError
            elif options:
                self._put(staged, options)
            else:
                self._put_and_move(staged)
            # What is there is not removed: it may be another task's, and whole.
            self._check(
                self._path,
                staged,
                "Nothing was removed, as another task may write there too; {generation_id} in the path keeps "
                "them apart. Run the task again: it saves the same generation.",
            )

    def _put(self, staged: Path, options: dict[str, Any]) -> None:
        try:
            self._fs.put_file(str(staged), self._path, **options)
        except FileExistsError:
            raise TakenError from None

    def _without_replacing(self) -> dict[str, Any]:
        """How to make this filesystem write only where nothing exists, as far as it can."""
        put = getattr(self._fs, "_put_file", None) or self._fs.put_file
        parameters = inspect.signature(put).parameters
        if self._protocol in _ATOMIC_PUT:
            if "mode" in parameters:
                return {"mode": "create"}
            if "overwrite" in parameters:
                return {"overwrite": False}
        return {}

    def _put_and_move(self, staged: Path) -> None:
        parent, _, name = self._path.rpartition("/")
        temporary = f"{parent}/{part_name(name, self._generation_id)}"
        sweep_storage(self._fs, parent, self._generation_id)
        try:
            if parent:
                self._fs.makedirs(parent, exist_ok=True)
            self._fs.put_file(str(staged), temporary)
            self._check(temporary, staged, "Run the task again: it saves the same generation.")
            self._fs.mv(temporary, self._path)
        except BaseException:
            self._forget(temporary)
            raise

    def _check(self, path: str, staged: Path, advice: str) -> None:
        expected, info = staged.stat().st_size, self._info(path)
        if isinstance(info, _Unseen):
            log.info(
                "This connection has no permission to look up %s; the storage accepted the upload.",
                self.shown,
            )
        elif info is None or info["size"] != expected:
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

    def _info(self, path: str) -> dict[str, Any] | _Unseen | None:
        """What is there; None where nothing is."""
        self._fs.invalidate_cache()  # another task may have written since the listing was cached
        try:
            info: dict[str, Any] = self._fs.info(path)
        except FileNotFoundError:
            return None
        except PermissionError as error:  # where listing is not allowed, also for a missing object
            return _Unseen(clean(str(error)))
        return info


Target: TypeAlias = LocalTarget | StorageTarget
"""A place for one video: the staged file becomes it in one step for every reader."""


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
        advice = "Run the task again: it saves the same generation. No incomplete file is left."
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


def _no_place(what: str, generation_id: str) -> DownloadError:
    return DownloadError(
        f"{what}; the video of generation {generation_id} was not written there.",
        advice="Nothing was replaced. Remove it or choose another path, and clear the task: the same "
        "generation is used.",
        recovery=Recovery.GIVE_UP,
        generation_id=generation_id,
    )


def _flush(path: Path) -> None:
    """Make a file, or the names in a directory, survive a power cut, where the file system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder that one may write to, and not list
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (*_FULL, errno.EIO):
            raise
    finally:
        os.close(descriptor)

"""Temporary files: how each is named, and the removal of what a killed save left.

A temporary file of a save is locked while in use and names the generation it is for. A save removes what
an interrupted save of the same generation left in the folder, and what any save left there more than a day
ago. Files of others, and files that are locked, are never touched.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from airflow_provider_kling.api.redaction import logger

log = logger(__name__)

STALE_AFTER: Final = 24 * 3600  # seconds
_PART = re.compile(r"\..*\.kling-([0-9a-f]{12})-[0-9a-f]{8}\.part", re.DOTALL)
_LONGEST_KEPT: Final = 200  # bytes of a name that its temporary name keeps
_SCRATCH: Final = "kling-"
_STAGING: Final = "kling-save-"


def temporary_name(name: str, token: str) -> str:
    """A hidden name for a file that is to become ``name``, short enough for any file system."""
    kept = os.fsencode(name)[:_LONGEST_KEPT].decode(errors="ignore")
    return f".{kept}.{token}.part"


def part_name(name: str, generation_id: str) -> str:
    """A temporary name for the video of a generation that is to become ``name``."""
    return temporary_name(name, f"kling-{_tag(generation_id)}-{secrets.token_hex(4)}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Create a temporary file and hold its lock, so that no sweep takes it.

    A process that is killed loses the lock with its life.

    :raises OSError: it cannot be created, or is there already.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with suppress(OSError):  # without locks on this file system it is swept after a day
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def sweep_folder(folder: Path, generation_id: str) -> None:
    """Remove what interrupted saves left in a folder. Never fails.

    :param folder: where a save of this generation is about to write.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            part = _PART.fullmatch(entry.name)
            if part is None or not entry.is_file(follow_symlinks=False):
                continue
            mine = part[1] == _tag(generation_id)
            if (mine or _is_stale(entry.stat().st_mtime)) and _is_abandoned(entry.path, mine):
                _removed(entry.path)


def sweep_storage(fs: Any, folder: str, generation_id: str) -> None:
    """Remove temporary objects of interrupted saves, by their age alone. Never fails.

    :param fs: the fsspec filesystem.
    """
    try:
        for info in fs.ls(folder, detail=True):
            modified = info.get("mtime") or info.get("LastModified") or info.get("created")
            seconds = modified.timestamp() if hasattr(modified, "timestamp") else modified
            name = str(info["name"]).rpartition("/")[2]
            if _PART.fullmatch(name) and isinstance(seconds, int | float) and _is_stale(seconds):
                fs.rm_file(info["name"])
                log.info("Removed %s, which an interrupted save left more than a day ago.", info["name"])
    except Exception as error:  # storage libraries raise what they like
        log.debug("Did not search %s for leftovers of interrupted saves (%s).", folder, type(error).__name__)


@contextmanager
def staging_folder() -> Iterator[Path]:
    """A temporary folder on the local disk; those that killed saves left a day ago are removed."""
    root = Path(tempfile.gettempdir())
    with suppress(OSError):
        for folder in root.glob(f"{_STAGING}*"):
            status = folder.lstat()
            if status.st_uid == os.geteuid() and folder.is_dir() and not folder.is_symlink():
                newest = max([status.st_mtime, *(each.lstat().st_mtime for each in folder.iterdir())])
                if _is_stale(newest):
                    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_STAGING) as folder_name:
        yield Path(folder_name)


def scratch_file() -> io.BufferedRandom:
    """A temporary file on the local disk that no folder lists: it is gone with its last user."""
    return tempfile.TemporaryFile(prefix=_SCRATCH)


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder on the local disk, removed when its context is left."""
    return tempfile.TemporaryDirectory(prefix=_SCRATCH)


def _tag(generation_id: str) -> str:
    return hashlib.sha256(generation_id.encode(errors="surrogatepass")).hexdigest()[:12]


def _is_stale(modified: float) -> bool:
    return time.time() - modified > STALE_AFTER


def _is_abandoned(path: str, mine: bool) -> bool:
    """Whether the lock is free. Where there are no locks, only age decides."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return not mine or _is_stale(os.fstat(descriptor).st_mtime)
    else:
        return True
    finally:
        os.close(descriptor)


def _removed(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
        log.info("Removed %s, which an interrupted save left.", path)

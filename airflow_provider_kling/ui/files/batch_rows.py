"""The rows of a batch: from its manifest, and while it runs from the records of its rows.

Both are where the task has said that they are. A viewer names a row, and a row is only looked up among
those that are there; the file of a row is served if it is below the folder of the batch.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import PurePosixPath
from threading import Lock
from typing import Any, Final

from airflow_provider_kling.api.paths import is_stored, local_path, safe_name
from airflow_provider_kling.hooks.object_storage import place_of
from airflow_provider_kling.ui.files.recorded import UnavailableError, open_file, unavailable

MOST_MANIFEST_BYTES: Final = 64 * 1024 * 1024
_MOST_KEPT_BYTES: Final = 2 * MOST_MANIFEST_BYTES
_MOST_RECORD_BYTES: Final = 1024 * 1024


def rows_of(batch: Mapping[str, Any]) -> Manifest | Records:
    """The rows of a batch.

    :param batch: its XCom.
    :raises UnavailableError: it has not said where its rows are, or they cannot be read.
    """
    finished = batch.get("finished", True)
    path = batch.get("manifest" if finished else "records")
    if not isinstance(path, str):
        raise UnavailableError("The task has not recorded where its rows are.")
    return _read_manifest(path) if finished else Records(path)


class Manifest:
    """The rows of a manifest, kept as text.

    :param content: the file.
    """

    complete = True
    """Whether all rows are there, and not only those of which something is recorded by now."""

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._lines: list[bytes] = []
        self._statuses: list[str] = []
        self._keys: list[str] = []
        self._numbers: dict[str, int] = {}
        for line in content.splitlines():
            row = _parsed(line)
            if row is None:
                continue
            key = str(row.get("key") or "-")
            self._numbers.setdefault(safe_name(key), len(self._lines))
            self._lines.append(line)
            self._statuses.append(str(row.get("status")))
            self._keys.append(key)

    def page(self, first: int, count: int, *, status: str | None, text: str | None) -> tuple[list[Any], int]:
        """Some rows in the order of the source, and how many there are in all.

        :param first: how many to leave out.
        :param status: of the rows.
        :param text: has to be in the key, whatever its case.
        """
        wanted = text.casefold() if text else ""
        numbers = [
            number
            for number, (its_status, key) in enumerate(zip(self._statuses, self._keys, strict=True))
            if (status is None or status == its_status) and wanted in key.casefold()
        ]
        return [self._row(number) for number in numbers[first : first + count]], len(numbers)

    def find(self, name: str) -> Mapping[str, Any] | None:
        """One row; None where there is none of this name."""
        number = self._numbers.get(name)
        return None if number is None else self._row(number)

    def _row(self, number: int) -> Mapping[str, Any]:
        row: dict[str, Any] = json.loads(self._lines[number])
        return {**row, "name": safe_name(self._keys[number])}


_kept: OrderedDict[tuple[str, str], Manifest] = OrderedDict()
_kept_lock: Final = Lock()


def _read_manifest(path: str) -> Manifest:
    """A manifest, read again when its file has changed."""
    file, size, version = open_file(path)
    with file:
        with _kept_lock:
            if (path, version) in _kept:
                _kept.move_to_end((path, version))
                return _kept[path, version]
        if size > MOST_MANIFEST_BYTES:
            raise UnavailableError(f"The manifest is too large for this page: {size:,} bytes.")
        try:
            found = Manifest(file.read(MOST_MANIFEST_BYTES))
        except Exception as error:  # storage libraries raise what they like
            raise unavailable(error) from None
    with _kept_lock:
        for outdated in [key for key in _kept if key[0] == path]:
            del _kept[outdated]
        _kept[path, version] = found
        while sum(each.size for each in _kept.values()) > _MOST_KEPT_BYTES and len(_kept) > 1:
            _kept.popitem(last=False)
    return found


class Records:
    """The rows of a batch that runs: those that were submitted or have ended, the latest first.

    :param folder: of the records, local or in object storage.
    """

    complete = False

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def page(self, first: int, count: int, *, status: str | None, text: str | None) -> tuple[list[Any], int]:
        """As of :class:`Manifest`; the status is not looked at, as it would mean to read every record.

        :raises UnavailableError: they cannot be read.
        """
        wanted = text.casefold() if text else ""
        found = [(changed, name) for name, changed in self._names().items() if wanted in name.casefold()]
        names = [name for _, name in sorted(found, reverse=True)]
        rows = (self._read(name) for name in names[first : first + count])
        return [row for row in rows if row is not None], len(names)

    def find(self, name: str) -> Mapping[str, Any] | None:
        """One row; None where there is none of this name."""
        return self._read(name) if name in self._names() else None

    def _names(self) -> dict[str, float]:
        """Name of a row -> when its record was written."""
        try:
            place: Any = place_of(self._folder)
            stored: bool = is_stored(place)
            if stored:
                place.fs.invalidate_cache(place.path)
                found = [(each["name"], _changed(each)) for each in place.fs.ls(place.path, detail=True)]
            else:
                with os.scandir(local_path(place)) as listed:
                    found = [(each.name, each.stat().st_mtime) for each in listed]
        except FileNotFoundError:
            return {}
        except Exception as error:  # storage libraries raise what they like
            raise unavailable(error) from None
        named = ((PurePosixPath(name).name, changed) for name, changed in found)
        return {name.removesuffix(".json"): changed for name, changed in named if name.endswith(".json")}

    def _read(self, name: str) -> Mapping[str, Any] | None:
        try:
            file, _, _ = open_file(f"{self._folder}/{name}.json")
        except UnavailableError:
            return None  # replaced or removed since
        with file:
            row = _parsed(file.read(_MOST_RECORD_BYTES))
        return None if row is None else {"key": name, **row, "name": name}


def _changed(listed: Mapping[str, Any]) -> float:
    found = next((listed[name] for name in ("LastModified", "mtime", "updated") if listed.get(name)), 0.0)
    return float(found.timestamp()) if hasattr(found, "timestamp") else float(found)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def is_below(path: str, manifest: str) -> bool:
    """Whether a file is in the folder of a batch, or below it.

    :param manifest: as the task has recorded it.
    """
    if ".." in PurePosixPath(path).parts:
        return False
    file: Any = place_of(path)
    folder: Any = place_of(manifest.rpartition("/")[0] or ".")
    stored: bool = is_stored(file)
    if stored != is_stored(folder):
        return False
    if stored:
        named, wanted = ((each.protocol, _connection(str(each))) for each in (file, folder))
        return named == wanted and file.path.startswith(folder.path.rstrip("/") + "/")
    inside = os.path.realpath(local_path(file))
    return inside.startswith(os.path.realpath(local_path(folder)).rstrip("/") + "/")


def _connection(uri: str) -> str:
    """The connection in a URI, ``my_aws`` in ``s3://my_aws@bucket/key``; empty where there is none."""
    return uri.partition("://")[2].partition("/")[0].rpartition("@")[0]

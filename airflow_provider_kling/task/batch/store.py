"""Where a batch keeps what it must not forget: a record for each row, beside the results.

Airflow's task state store is too small for it and forgets. A record is one small file that is written in
one step, before a row is submitted, after the vendor accepted it, and when its video is saved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.exceptions import KlingError, Recovery
from airflow_provider_kling.api.paths import is_stored, local_path
from airflow_provider_kling.api.redaction import clean, logger
from airflow_provider_kling.hooks.object_storage import place_of, write_text

log = logger(__name__)

FOLDER: Final = ".kling-batch"
"""Beside the videos; each batch has a folder of its own in it, so that two runs do not mix."""
SCHEMA: Final = 1


class BatchStore:
    """The records of one batch.

    :param path: the target path of the videos, as the task has it.
    :param attempt: of the task instance whose batch it is; each record that it writes names its number.
    """

    def __init__(self, path: str, attempt: TaskAttempt) -> None:
        self._attempt = attempt.number
        folder = path.partition("{")[0].rpartition("/")[0]
        self.folder = f"{folder or '.'}/{FOLDER}/{attempt.identity[:24]}"
        self.records = f"{self.folder}/records"
        self._state = f"{self.folder}/state.json"
        self._begun = f"{self.folder}/batch.json"

    @property
    def begun(self) -> dict[str, Any] | None:
        """What :meth:`begin` was told; None where this batch never began, or its folder was removed."""
        return self._read(self._begun)

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Say that the batch began: from now on a row without a record was not submitted."""
        self._write(self._begun, {"schema": SCHEMA, **facts})

    def load(self, name: str) -> dict[str, Any] | None:
        """The record of a row; None where it has none.

        :param name: see :attr:`.Row.name`.
        :raises KlingError: it cannot be read; the row is not submitted.
        """
        return self._read(f"{self.records}/{name}.json")

    def save(self, name: str, record: Mapping[str, Any]) -> None:
        """Write the record of a row in one step.

        :raises KlingError: it could not be written.
        """
        self._write(f"{self.records}/{name}.json", {"schema": SCHEMA, **record, "attempt": self._attempt})

    def names(self) -> Iterator[str]:
        """The names of all records.

        :raises KlingError: the storage cannot be asked.
        """
        try:
            place: Any = place_of(self.records)
            stored: bool = is_stored(place)
            folder = place if stored else local_path(place)
            found = [PurePosixPath(str(each)).name for each in folder.iterdir()] if folder.exists() else []
        except Exception as error:  # storage libraries raise what they like
            raise _unusable("listed", self.records, error) from error
        return (name.removesuffix(".json") for name in found if name.endswith(".json"))

    def load_state(self) -> dict[str, Any] | None:
        """What a part of the task left for the next one; None where nothing usable is there."""
        try:
            return self._read(self._state)
        except KlingError as error:
            log.warning("%s The state is read again from the records.", error.what)
            return None

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Leave something for the next part of the task; what it says can also be made from the records."""
        self._write(self._state, {"schema": SCHEMA, **state})

    def _read(self, path: str) -> dict[str, Any] | None:
        try:
            place: Any = place_of(path)
            stored: bool = is_stored(place)
            with place.open("rb") if stored else local_path(place).open("rb") as file:
                record = json.loads(file.read())
        except FileNotFoundError:
            return None
        except Exception as error:  # storage libraries raise what they like
            raise _unusable("read", path, error) from error
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            raise _unusable("read", path, ValueError("it is not of this version"))
        return record

    def _write(self, path: str, record: Mapping[str, Any]) -> None:
        try:
            write_text(path, json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
        except Exception as error:  # storage libraries raise what they like
            raise _unusable("written", path, error) from error


def _unusable(done: str, path: str, error: Exception) -> KlingError:
    return KlingError(
        f"The batch's record {path} could not be {done}: {type(error).__name__}: {clean(str(error))}.",
        recovery=Recovery.RETRY_TASK,
        advice="Nothing was submitted without a record. Correct the storage, then retry or clear the task: "
        "the batch continues with what is recorded.",
    )

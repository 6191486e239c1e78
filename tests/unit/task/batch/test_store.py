"""The records of a batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.exceptions import KlingError, Recovery
from airflow_provider_kling.task.batch.rows import Row
from airflow_provider_kling.task.batch.store import BatchStore

TASK = TaskAttempt("dag", "run", "task")
ROW = Row(1, "a/b: c").name


@pytest.fixture
def store(tmp_path: Path) -> BatchStore:
    return BatchStore(f"{tmp_path}/clips/{{key}}.mp4", TASK)


def test_it_remembers(store: BatchStore):
    assert store.begun is None
    assert store.load(ROW) is None
    store.begin({"begun_at": 1.0})
    store.save(ROW, {"key": "a/b: c", "generation_id": "g"})
    store.save_state({"attempt": 1})
    again = BatchStore(store.folder.partition("/.kling")[0] + "/{key}.mp4", TASK)
    assert (again.begun or {})["begun_at"] == 1.0
    record = again.load(ROW)
    assert record is not None
    assert (record["key"], record["generation_id"], record["attempt"]) == ("a/b: c", "g", 1)
    assert list(again.names()) == [ROW]
    assert (again.load_state() or {})["attempt"] == 1


def test_two_runs_do_not_mix(store: BatchStore, tmp_path: Path):
    other = BatchStore(f"{tmp_path}/clips/{{key}}.mp4", TaskAttempt("dag", "run 2", "task"))
    store.save(ROW, {"status": "saved"})
    assert other.load(ROW) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 99}', b"\xff"])
def test_a_damaged_record_is_no_missing_one(store: BatchStore, content: bytes):
    store.save(ROW, {"status": "submitted"})
    Path(store.folder, "records", f"{ROW}.json").write_bytes(content)
    with pytest.raises(KlingError, match="could not be read") as caught:
        store.load(ROW)
    assert caught.value.recovery is Recovery.RETRY_TASK


def test_a_damaged_state_is_read_again_from_the_records(store: BatchStore):
    store.save_state({"attempt": 1})
    Path(store.folder, "state.json").write_bytes(b"{")
    assert store.load_state() is None


def test_a_place_where_nothing_can_be_written(tmp_path: Path):
    (tmp_path / "clips").write_text("a file")
    store = BatchStore(f"{tmp_path}/clips/{{key}}.mp4", TASK)
    with pytest.raises(KlingError, match="could not be written"):
        store.save(ROW, {})

"""How far a batch is, in XCom ``batch``."""

from __future__ import annotations

from typing import Any

from airflow_provider_kling.task.batch.progress import Progress
from airflow_provider_kling.task.batch.state import STATUSES, BatchState

PLACES = {"manifest": "s3://clips/manifest-1.jsonl", "records": "s3://clips/.kling-batch/1/records"}


def test_it_tells_the_counts_and_where_the_rows_are() -> None:
    pushed: list[tuple[str, Any]] = []
    state = BatchState(1, total=9)
    state.counts.update(saved=5, failed=1, submitted=2, pending=1)
    Progress(lambda key, value: pushed.append((key, value)), PLACES).push(state)
    ((key, told),) = pushed
    assert key == "batch"
    assert {status: told[status] for status in STATUSES if told[status]} == dict(state.counts)
    assert (told["total"], told["finished"]) == (9, False)
    assert told.items() >= PLACES.items()


def test_it_tells_once_a_minute() -> None:
    pushed: list[str] = []
    progress = Progress(lambda key, value: pushed.append(key), PLACES)
    progress.tell(BatchState(1))
    assert pushed == []
    progress._told_at -= 61
    progress.tell(BatchState(1))
    progress.tell(BatchState(1))
    assert pushed == ["batch"]

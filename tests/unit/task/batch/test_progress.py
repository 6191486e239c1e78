"""How far a batch is."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from airflow_provider_kling.task.batch.progress import Progress, estimated_end, summary
from airflow_provider_kling.task.batch.state import FAILED, PENDING, SAVED, BatchState


def state(saved: int, pending: int, **more: Any) -> BatchState:
    counts = Counter({SAVED: saved, PENDING: pending, FAILED: 1})
    return BatchState(1, total=saved + pending + 1, counts=counts, begun_at=100.0, **more)


@pytest.mark.parametrize(
    ("saved", "pending", "done_before", "now", "expected"),
    [
        (9, 10, 0, 200.0, 300),
        (9, 10, 5, 200.0, 400),
        (3, 10, 0, 200.0, None),
        (9, 0, 0, 200.0, None),
        (9, 10, 0, 100.0, None),
    ],
)
def test_the_estimated_end(
    saved: int, pending: int, done_before: int, now: float, expected: float | None
) -> None:
    assert estimated_end(state(saved, pending, done_before=done_before), now) == expected


def test_the_xcom_adds_up() -> None:
    pushed: dict[str, Any] = {}
    progress = Progress(pushed.__setitem__, {"manifest": "/clips/manifest.jsonl"})
    progress.push(state(4, 5, spent_usd=1.25))
    said = pushed["batch"]
    counts = ("saved", "reused", "failed", "invalid", "submitted", "uncertain", "pending")
    assert sum(said[name] for name in counts) == said["total"] == 10
    assert (said["cost_usd"], said["finished"]) == (1.25, False)
    progress.tell(state(5, 4))  # not again within a minute
    assert pushed["batch"] is said
    assert summary(state(4, 5))["done"] == 4

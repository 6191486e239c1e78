"""How far a batch is: a line in the task's log each minute, and XCom ``batch``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.task import xcom
from airflow_provider_kling.task.batch.state import DONE, STATUSES, BatchState
from airflow_provider_kling.triggers.batch import PROGRESS_EVERY, progress_line

log = logger(__name__)

FEWEST_ENDED: Final = 5
"""Rows that must have ended in an attempt before its end is estimated."""


class Progress:
    """Tells how far a batch is.

    :param push: pushes an XCom: key, value.
    :param places: where the manifest will be and where the records are, for the tab in Airflow's UI.
    """

    def __init__(self, push: Callable[[str, Any], None], places: Mapping[str, str]) -> None:
        self._push = push
        self._places = places
        self._told_at = time.monotonic()

    def tell(self, state: BatchState) -> None:
        """Write a line and push XCom ``batch``, if the last time was a minute ago."""
        if time.monotonic() - self._told_at >= PROGRESS_EVERY:
            log.info("%s", progress_line(summary(state)))
            self.push(state)

    def push(self, state: BatchState) -> None:
        """Push XCom ``batch``."""
        self._told_at = time.monotonic()
        said = summary(state)
        for name in ("done", "active"):
            del said[name]
        now = round(time.time(), 1)
        self._push(xcom.BATCH, {**said, **self._places, "updated_at": now, "finished": False})


def summary(state: BatchState) -> dict[str, Any]:
    """Counts by status, how many are done and active, the cost, and when the batch ends, as far as known."""
    return {
        "total": state.total,
        **{status: state.counts[status] for status in STATUSES},
        "done": sum(state.counts[status] for status in DONE),
        "active": state.active,
        "cost_usd": round(state.spent_usd, 6),
        "estimated_end": estimated_end(state, time.time()),
    }


def estimated_end(state: BatchState, now: float) -> float | None:
    """Epoch seconds at which the last row ends if the rest go as fast as those of this attempt have.

    :param now: epoch seconds.
    """
    ended = state.ended - state.done_before
    left = state.total - state.ended
    if ended < FEWEST_ENDED or left <= 0 or now <= state.begun_at:
        return None
    return round(now + left * (now - state.begun_at) / ended)

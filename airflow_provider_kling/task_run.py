"""What an operator's run says of its work: who asks, why it runs, and where it can remember."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.durable.decision import (
    Attempt,
)
from airflow_provider_kling.api.durable.identity import (
    Work,
)
from airflow_provider_kling.api.durable.record import (
    NOTHING,
)

if TYPE_CHECKING:
    from airflow_provider_kling.version_compat import (
        BaseOperator,
        Context,
    )

log = logging.getLogger(__name__)

RECORD_KEY: Final = "kling_generation"
"""Key of the record in Airflow's task state store."""


class TaskRun:
    """One try of one task instance.

    :param context: Airflow's.
    :param task: the operator that runs.
    :param variant: which of several generations of this task instance; None where it makes one.
    """

    def __init__(self, context: Context, task: BaseOperator, variant: int | None = None) -> None:
        ti: Any = context["ti"]
        self._store: Any = context.get("task_state_store")
        self._dag_run: Any = context.get("dag_run")
        delay: Any = task.retry_delay
        self._retry_delay = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        self.work = Work(
            ti.dag_id, ti.run_id, ti.task_id, ti.map_index if ti.map_index is not None else -1, variant
        )
        self._key = RECORD_KEY if variant is None else f"{RECORD_KEY}_{variant}"
        self.tries: int = ti.try_number
        # Airflow raises max_tries with each clear, so that "retries" more tries follow; the first of
        # them is the one that a person asked for.
        self.first_try: int = ti.max_tries - (task.retries or 0) + 1

    @property
    def is_first(self) -> bool:
        """Whether nothing was submitted before, as far as can be told without the vendor's logs."""
        if self.remembers:
            return self.recall() in (None, NOTHING)
        return Attempt.of(self.tries, self.first_try) is Attempt.FIRST

    @property
    def remembers(self) -> bool:
        """Whether what is remembered survives a retry: Airflow 3.3 and newer."""
        return self._store is not None

    def recall(self) -> Any:
        """What was remembered last, as plain JSON; None for nothing."""
        return self._store.get(self._key, None) if self.remembers else None

    @property
    def remember(self) -> Callable[[Mapping[str, Any]], None]:
        """Stores a record where it survives a retry, as far as this Airflow can."""

        def store(record: Mapping[str, Any]) -> None:
            if self.remembers:
                self._store.set(self._key, dict(record))

        return store

    @property
    def earlier(self) -> tuple[float, float]:
        """Epoch seconds between which earlier tries of this task ran, as far as the dag run tells."""
        moments = (getattr(self._dag_run, name, None) for name in ("logical_date", "queued_at", "start_date"))
        starts = [moment.timestamp() for moment in moments if isinstance(moment, datetime)]
        now = time.time()
        # an automatic retry comes no earlier than its delay; a person may clear at any moment
        again = Attempt.of(self.tries, self.first_try) is Attempt.RETRY
        waited = self._retry_delay if again else 0.0
        return min(starts, default=now - 86_400.0), now - waited

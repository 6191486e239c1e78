"""Lenient parsing of serialized trigger arguments.

Rows outlive upgrades and downgrades, and people write them by hand. Airflow stops the triggerer
when a trigger's constructor raises (3.3), so nothing is checked there, and what cannot be read
here costs the wait nothing but its finer points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID


@dataclass(frozen=True, slots=True)
class TriggerArguments:
    """A trigger's arguments, usable.

    :param generation_id: empty where there is none.
    :param deadline: epoch seconds; infinite where there is none.
    :param submitted_at: epoch seconds; None where it is not known.
    :param since: epoch seconds that the schedule counts from, where ``submitted_at`` is not known.
    :param odd: names of the arguments that could not be read; their defaults are taken.
    """

    generation_id: str
    conn_id: str
    deadline: float
    schedule: Schedule
    submitted_at: float | None
    since: float | None
    model: str | None
    odd: tuple[str, ...]

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> TriggerArguments:
        """Read the arguments that a trigger was made with; never raises."""
        generation_id, conn_id, model = map(
            _text, map(given.get, ("generation_id", "kling_conn_id", "model"))
        )
        deadline, submitted_at, since = map(_seconds, map(given.get, ("deadline", "submitted_at", "since")))
        schedule = _schedule(given.get("schedule"))
        read = {
            "generation_id": generation_id,
            "kling_conn_id": conn_id,
            "deadline": deadline,
            "schedule": schedule,
            "submitted_at": submitted_at,
            "since": since,
            "model": model,
        }
        return cls(
            generation_id=generation_id or "",
            conn_id=conn_id or DEFAULT_CONNECTION_ID,
            deadline=math.inf if deadline is None else deadline,
            schedule=schedule or Schedule.adaptive(),
            submitted_at=submitted_at,
            since=since,
            model=model,
            odd=tuple(name for name, value in read.items() if value is None and given.get(name) is not None),
        )

    @property
    def counted_from(self) -> float | None:
        """Epoch seconds that the schedule counts from, where they are known."""
        return self.since if self.submitted_at is None else self.submitted_at


def _text(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and value.strip() else None


def _seconds(value: Any) -> float | None:
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def _schedule(value: Any) -> Schedule | None:
    if value is None:
        return Schedule.adaptive()
    try:
        return Schedule.from_dict(value)
    except (AttributeError, TypeError, ValueError):
        return None

"""Trigger arguments of any age and hand: readable ones count, others fall back to their defaults."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.triggers.arguments import TriggerArguments

NAMES = ("generation_id", "kling_conn_id", "deadline", "schedule", "submitted_at", "since", "model")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def test_what_a_trigger_wrote_is_read_as_it_was() -> None:
    schedule = Schedule.fixed(30)
    read = TriggerArguments.read(
        {
            "generation_id": "g",
            "kling_conn_id": "mine",
            "deadline": 99.5,
            "schedule": schedule.as_dict(),
            "submitted_at": 1,
            "since": 2,
            "model": "m",
        }
    )
    assert read == TriggerArguments("g", "mine", 99.5, schedule, 1.0, 2.0, "m", ())
    assert read.counted_from == 1.0


def test_nothing_is_needed() -> None:
    read = TriggerArguments.read({})
    assert (read.generation_id, read.conn_id, read.deadline, read.odd) == ("", "kling_default", math.inf, ())
    assert read.counted_from is None


def test_what_cannot_be_read_is_named_and_replaced_by_its_default() -> None:
    read = TriggerArguments.read({"generation_id": 5, "deadline": "soon", "submitted_at": True, "since": 3})
    assert read.generation_id == "5"
    assert read.deadline == math.inf
    assert read.counted_from == 3.0
    assert read.odd == ("deadline", "submitted_at")


@given(st.dictionaries(st.sampled_from(NAMES), JSON))
def test_no_argument_stops_a_triggerer(arguments: dict[str, Any]) -> None:
    read = TriggerArguments.read(arguments)
    assert isinstance(read.schedule, Schedule)
    assert not math.isnan(read.deadline)
    assert set(read.odd) <= {name for name, value in arguments.items() if value is not None}

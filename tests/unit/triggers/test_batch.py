"""The trigger of a batch: its arguments, its event, and the line that it logs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.durable.record import Record
from airflow_provider_kling.api.durable.search import SubmitSearch
from airflow_provider_kling.api.durable.submit import PendingSearch
from airflow_provider_kling.api.exceptions import KlingError, Recovery
from airflow_provider_kling.operators.batch import MOST_ACTIVE
from airflow_provider_kling.task.batch.run import MOST_UNCERTAIN
from airflow_provider_kling.triggers.batch import (
    KlingBatchTrigger,
    is_batch_event,
    progress_line,
    read_batch_event,
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(ANYTHING, ANYTHING, ANYTHING)
def test_whatever_it_is_given_it_can_be_made_and_asked(generations: Any, deadline: Any, schedule: Any):
    trigger = KlingBatchTrigger(generations=generations, deadline=deadline, schedule=schedule, later="x")
    path, arguments = trigger.serialize()
    assert path.endswith(".KlingBatchTrigger")
    assert arguments["later"] == "x"
    assert all(each.generation_id for each in trigger.waits())


def test_what_it_waits_for():
    trigger = KlingBatchTrigger({"m": [["a", 5.0], ["b", 6.0, 7.0]], "": [["c"]]}, "other", deadline=9.0)
    waits = {each.generation_id: each for each in trigger.waits()}
    assert [(each.submitted_at, each.since, each.model) for each in waits.values()] == [
        (5.0, None, "m"),
        (6.0, 7.0, "m"),
        (None, None, None),
    ]
    assert {each.conn_id for each in waits.values()} == {"other"}


def test_its_row_is_small_at_its_largest():
    attempt = TaskAttempt("d" * 250, "r" * 250, "t" * 250, variant="k" * 200)
    record = Record(
        identity=attempt.identity,
        client_request_id="c" * 128,
        model="kling-video/v1.6/standard/text-to-video",
        fingerprint={f"parameter number {n}": "f" * 64 for n in range(12)},
        count=1,
        intended_at=1.7e9,
        attempt=1,
        key_mark="k" * 64,
    )
    search = SubmitSearch(("c" * 128,), record.model, 1.7e9, 1.7e9)
    pending = PendingSearch(search, record, "retry", True, 1).as_dict()
    generations = {
        "kling-video/v1.6/standard/text-to-video": [
            [f"{n}".rjust(80, "g"), 1_700_000_000.5, 1_700_000_000.5] for n in range(MOST_ACTIVE)
        ]
    }
    searches = [{"variant": "k" * 93, **pending}] * MOST_UNCERTAIN
    trigger = KlingBatchTrigger(generations, searches=searches, progress={"done": 1, "total": 10_000})
    assert len(json.dumps(trigger.serialize()[1])) < 64 * 1024


@given(ANYTHING)
def test_what_is_no_event_is_told_loudly(event: Any):
    assert not is_batch_event(event)
    with pytest.raises(KlingError, match="cannot be read") as caught:
        read_batch_event(event)
    assert caught.value.recovery is Recovery.RETRY_TASK


def test_an_event_of_trouble():
    with pytest.raises(KlingError, match="The connection is gone") as caught:
        read_batch_event({"schema": 1, "ended": [], "error": "The connection is gone", "recovery": "GIVE_UP"})
    assert caught.value.recovery is Recovery.GIVE_UP


def test_an_event():
    event = read_batch_event(
        {
            "schema": 1,
            "ended": ["a"],
            "polled": {"b": 5.0, "c": "?"},
            "deadline": 9.0,
            "unanswered": {"row": {"message": "The log cannot be read.", "recovery": "RETRY_TASK"}},
        }
    )
    assert (event.ended, event.polled, event.deadline) == (["a"], {"b": 5.0}, 9.0)
    assert str(event.unanswered["row"]) == "The log cannot be read."


def test_a_line_of_progress():
    said = {"done": 3, "total": 9, "active": 2, "failed": 1, "cost_usd": 1.5, "estimated_end": 1_800_000_000}
    assert progress_line(said) == (
        "3 of 9 done, 2 active, 1 failed; about 1.5 USD spent. Estimated end: 2027-01-15 08:00+00:00."
    )
    assert progress_line({"done": 1, "total": 3}) == "1 of 3 done, 0 active, 0 failed."

"""When previous attempts can have submitted, as far as Airflow tells."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.task import submit
from airflow_provider_kling.task.submit import STOPPING, attempt_of

HOUR = 3600.0
DAY = 24 * HOUR
RUN: dict[str, Any] = {"clear_number": 0}


def id_made(at: float) -> UUID:
    """The id of a task instance's attempt: UUID version 7."""
    number = uuid4().int & ~(0xFFFFFFFFFFFF << 80) | (int(at * 1000) << 80)
    return UUID(int=number & ~(0xF << 76) | (7 << 76))


def moment(seconds_ago: float) -> datetime:
    return datetime.fromtimestamp(time.time() - seconds_ago, UTC)


def context(number: int = 2, max_tries: int = 3, **facts: Any) -> Any:
    """Of a task with three retries, which was cleared where ``max_tries`` says so."""
    run = facts.pop("run", RUN)
    task = {"retries": 3, "retry_delay": timedelta(hours=1), "retry_exponential_backoff": 0}
    task |= {name: facts.pop(name) for name in list(facts) if name in task}
    ti = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": number}
    return {
        "ti": SimpleNamespace(**ti, max_tries=max_tries, **facts),
        "task": SimpleNamespace(**task),
        "dag_run": SimpleNamespace(**run),
    }


@given(ago=st.floats(0, 30 * DAY), cleared=st.booleans(), as_text=st.booleans())
def test_airflow_makes_the_id_of_an_attempt_when_the_one_before_has_ended(
    ago: float, cleared: bool, as_text: bool
) -> None:
    now = time.time()
    made = id_made(now - ago)
    facts: dict[str, Any] = {"id": str(made) if as_text else made}
    attempt = attempt_of(context(max_tries=4 if cleared else 3, **facts))

    assert attempt.kind == ("clear" if cleared else "retry")
    assert attempt.previous_until >= now - ago - 0.001
    assert attempt.previous_until <= time.time()
    expected = min(time.time(), now - ago + STOPPING)
    assert attempt.previous_until == pytest.approx(expected, abs=1.0)


@pytest.mark.parametrize(
    ("facts", "seconds_ago"),
    [
        ({}, HOUR),
        ({"retry_delay": 60.0}, 60.0),
        ({"retry_exponential_backoff": True}, 0.0),  # begins with half the delay
        ({"max_tries": 4}, 0.0),  # cleared
        ({"id": uuid4()}, HOUR),  # tells no time
    ],
)
def test_without_such_an_id_a_retry_comes_after_its_delay_and_a_clear_at_any_moment(
    facts: dict[str, Any], seconds_ago: float
) -> None:
    attempt = attempt_of(context(**facts))
    assert attempt.previous_until == pytest.approx(time.time() - seconds_ago, abs=1.0)


@pytest.mark.parametrize(
    ("run", "days_ago"),
    [
        ({"start_date": 1, "run_after": 400, "logical_date": 400, "clear_number": 0}, 1),  # a backfill
        ({"start_date": 1, "run_after": 9, "logical_date": None, "clear_number": 1}, 9),
        ({"start_date": 1, "logical_date": 9, "clear_number": 2}, 9),  # Airflow 2.11
        ({"start_date": 1, "queued_at": 2, "logical_date": 9}, 9),
        ({"start_date": 1, "queued_at": 2, "clear_number": 0}, 2),
        ({"clear_number": 0}, 1),
    ],
)
def test_they_began_no_earlier_than_the_run(run: dict[str, Any], days_ago: float) -> None:
    dates = {name: moment(value * DAY) for name, value in run.items() if name != "clear_number" and value}
    attempt = attempt_of(context(run=run | dates))
    assert attempt.previous_since == pytest.approx(time.time() - days_ago * DAY, abs=1.0)


@pytest.mark.parametrize(
    ("map_index", "clear_number", "number", "on_3_4", "replaced"),
    [(2, 1, 1, True, True), (-1, 1, 1, True, False), (2, 0, 1, True, False), (2, 1, 2, True, False),
     (2, 1, 1, False, False)],
)  # fmt: skip
def test_a_mapped_task_of_a_cleared_run_may_have_taken_the_place_of_an_older_one(
    map_index: int, clear_number: int, number: int, on_3_4: bool, replaced: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(submit, "REPLACES_MAPPED_TASKS", on_3_4)
    given = context(number=number, run={"clear_number": clear_number}, id=id_made(time.time() - 5))
    given["ti"].map_index = map_index
    saved: dict[str, Any] = {}
    given["task_state_store"] = SimpleNamespace(
        get=lambda key, default: saved.get(key, default),
        set=lambda key, value, retention: saved.update({key: value}),
    )
    monkeypatch.setattr(submit, "never_expire", lambda: None)

    attempt = attempt_of(given)
    submit.begin_attempt(given, [None])

    assert attempt.replaced is replaced
    assert (attempt.previous_until < time.time() - DAY + 60) is replaced
    assert bool(saved) is (number == 1 and not replaced)

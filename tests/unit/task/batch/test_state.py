"""What a batch hands from one part of its task to the next."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.paths import LONGEST_SAFE_NAME
from airflow_provider_kling.operators.batch import MOST_ACTIVE
from airflow_provider_kling.task.batch.run import LONGEST_PROBLEM, MOST_UNCERTAIN, PROBLEMS_SHOWN
from airflow_provider_kling.task.batch.state import PENDING, SAVED, BatchState, InFlight

LONGEST_ID = 80
"""Characters; a UUID and a model's name have 79 at most today."""


def again(state: BatchState, attempt: int = 2) -> BatchState | None:
    return BatchState.decode(json.loads(json.dumps(state.encode())), attempt)


@given(st.sets(st.integers(1, 20_000)))
def test_it_survives_a_deferral(todo: set[int]):
    state = BatchState(2, total=9, todo=todo, counts=Counter({SAVED: 2, PENDING: 2}), spent_usd=0.5)
    state.in_flight["g"] = InFlight(2, "name", 1.5, "model", 0.25, 7.5)
    state.uncertain["other"] = 3
    known = again(state)
    assert known == state
    assert known.committed_usd == 0.75
    assert known.active == 2


def test_that_of_another_attempt_is_not_used():
    assert again(BatchState(1)) is None
    assert BatchState.decode(None, 1) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"todo": "?"},
        {"todo": None},
        {"counts": 7},
        {"in_flight": {"m": [1]}},
        {"in_flight": []},
    ],
)
def test_a_damaged_one_is_not_used(damage: dict[str, Any]):
    assert BatchState.decode({**BatchState(2).encode(), **damage}, 2) is None


@pytest.mark.parametrize("every", [1, 2, 3])
def test_it_is_small_at_its_largest(every: int):
    state = BatchState(1, source="x" * 16, total=10_000, todo=set(range(1, 10_001, every)))
    for n in range(MOST_ACTIVE):
        name, model = f"{n}".rjust(LONGEST_SAFE_NAME, "x"), "kling-video/v1.6/standard/text-to-video"
        state.in_flight[f"{n}".rjust(LONGEST_ID, "g")] = InFlight(n, name, 1.7e9 + n, model, 0.28875, 1.7e9)
    state.uncertain = {f"{n}".rjust(LONGEST_SAFE_NAME, "u"): n for n in range(MOST_UNCERTAIN)}
    state.errors = ["e" * LONGEST_PROBLEM] * PROBLEMS_SHOWN
    assert len(json.dumps(state.encode())) < 64 * 1024

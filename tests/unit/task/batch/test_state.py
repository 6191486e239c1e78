"""What a batch hands from one part of its task to the next."""

from __future__ import annotations

import json
from collections import Counter, deque

from airflow_provider_kling.task.batch.state import PENDING, SAVED, BatchState, InFlight


def test_it_survives_a_deferral():
    state = BatchState(2, total=9, todo=deque([3, 4]), counts=Counter({SAVED: 2, PENDING: 2}), spent_usd=0.5)
    state.in_flight["g"] = InFlight(2, "key", 1.5, "model", 0.25)
    known = BatchState.decode(json.loads(json.dumps(state.encode())), 2)
    assert known == state
    assert known is not None
    assert known.committed_usd == 0.75


def test_that_of_another_attempt_is_not_used():
    assert BatchState.decode(BatchState(1).encode(), 2) is None
    assert BatchState.decode(None, 1) is None

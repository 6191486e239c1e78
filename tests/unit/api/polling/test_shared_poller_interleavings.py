"""No order of coming, going, trouble and time loses a waiter of the waiting room."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_kling.api.transport.messages import HttpResponse
from tests.unit.api.polling.test_shared_poller import House, answer, assert_left
from tests.virtual_time import run

ENTER = st.tuples(st.just("enter"), st.floats(0, 40))
CANCEL = st.tuples(st.just("cancel"), st.integers(0, 30))
TIME = st.tuples(st.just("time"), st.sampled_from([0.0, 0.001, 0.02, 0.05, 0.1, 1.0, 9.0, 60.0]))
TROUBLE = st.tuples(st.just("trouble"), st.sampled_from(["none", "503", "429", "raise"]))
YIELD = st.tuples(st.just("yield"), st.integers(1, 4))
LATENCY = st.tuples(st.just("latency"), st.sampled_from([0.0, 0.02, 3.0]))
STEPS = st.lists(st.one_of(ENTER, ENTER, CANCEL, TIME, TROUBLE, YIELD, LATENCY), max_size=60)


class _TroubleError(Exception):
    pass


async def play(steps: list[tuple[str, Any]], workers: int) -> None:
    house = House()
    house.poller._workers = workers
    kind = "none"

    def trouble(_: str) -> HttpResponse | Exception | None:
        match kind:
            case "503" | "429":
                return answer(int(kind), {"message": "busy"})
            case "raise":
                return _TroubleError()
        return None

    house.vendor.trouble = trouble
    waits: list[asyncio.Task[Any]] = []
    cancelled: set[int] = set()
    for step, value in steps:
        match step:
            case "enter":
                waits.append(house.enter(f"g{len(waits)}", house.vendor.now + value, timeout=7200))
            case "cancel" if waits:
                i = value % len(waits)
                if waits[i].cancel():
                    cancelled.add(i)
            case "time":
                await asyncio.sleep(value)
            case "yield":
                for _ in range(value):
                    await asyncio.sleep(0)
            case "trouble":
                kind = value
            case "latency":
                house.vendor.latency = value
    kind = "none"
    if waits:
        _, lost = await asyncio.wait(waits, timeout=3600)
        assert not lost
    for i, wait in enumerate(waits):
        if i in cancelled:
            assert wait.cancelled() or wait.exception() or wait.result().id == f"g{i}"
        elif wait.exception() is not None:
            assert isinstance(wait.exception(), _TroubleError)
        else:
            assert wait.result().id == f"g{i}"
    assert_left(house)


@settings(max_examples=max(300, settings.default.max_examples))
@given(STEPS, st.sampled_from([1, 2, 16]))
# The last wait leaves while another one enters: a worker of the ending session took the new one's request.
@example([("enter", 0.0), ("time", 0.0), ("cancel", 0), ("enter", 0.0)], 1)
def test_no_interleaving_loses_a_wait(steps: list[tuple[str, Any]], workers: int):
    run(play(steps, workers))

"""The waiting room, in virtual time: a fake vendor behind the sender, everything else is real."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import logging
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.exceptions import (
    GenerationFailedError,
    GenerationTimeoutError,
    InsufficientBalanceError,
)
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.polling.shared_poller import (
    MOST_UNDER_WAY,
    MOST_WORKERS,
    OVERDUE_CHECK,
    STUCK_AFTER,
    TICK,
    OverdueError,
    SharedPoller,
)
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.messages import (
    ConnectionLost,
    FailureReason,
    Flow,
    HttpRequest,
    HttpResponse,
    Send,
    Sleep,
)
from airflow_provider_kling.api.transport.rate_limiter import Limiter
from tests.virtual_time import VirtualLoop, run, this_loop

SETTINGS = Settings("key", "http://127.0.0.1")
BALANCE = {"message": "You have run out of credits."}


def answer(status: int, body: Any, **headers: str) -> HttpResponse:
    return HttpResponse(status, headers, json.dumps(body).encode())


@dataclass
class Vendor:
    """What a room sends to; made anew each time it opens.

    :param done_at: generation id -> seconds after the start at which it is completed.
    :param latency: seconds that an answer takes.
    """

    done_at: dict[str, float] = field(default_factory=dict)
    latency: float = 0.05
    trouble: Callable[[str], HttpResponse | Exception | None] = lambda _: None
    opened: int = 0
    closed: int = 0
    under_way: int = 0
    most_under_way: int = 0
    asked: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start = this_loop().time()

    def __call__(self) -> Vendor:
        return self

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1

    async def send(self, request: HttpRequest, at_most: float | None = None) -> HttpResponse | ConnectionLost:
        generation_id = dict(request.params)["generation_id"]
        self.asked.append((self.now, generation_id))
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            await asyncio.sleep(self.latency)
        finally:
            self.under_way -= 1
        if trouble := self.trouble(generation_id):
            if isinstance(trouble, Exception):
                raise trouble
            return trouble
        return self.status(generation_id)

    def status(self, generation_id: str) -> HttpResponse:
        if self.now < self.done_at[generation_id]:
            return answer(200, {"id": generation_id, "status": "generating"})
        video = {"url": f"https://cdn.example.com/{generation_id}.mp4"}
        return answer(200, {"id": generation_id, "status": "completed", "video": video})

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return this_loop().time() - self.start


class House:
    """A room, its vendor, and an epoch clock that can be set."""

    def __init__(self, per_minute: float | None = None, **vendor: Any) -> None:
        self.vendor = Vendor(**vendor)
        loop = this_loop()
        self.jump = 0.0
        self.rng = random.Random(7)
        self.limiter = Limiter(per_minute, clock=loop.time, random=self.rng.random)
        self.calls = VendorCalls(Endpoints(SETTINGS, self.now), now=self.now, rng=self.rng.random)
        self.poller = SharedPoller(self.vendor, self.limiter)

    def now(self) -> float:
        return 1_800_000_000.0 + this_loop().time() + self.jump

    def flow(
        self,
        generation_id: str,
        done_at: float,
        *,
        timeout: float = 3600.0,
        interval: float | None = None,
        **options: Any,
    ) -> Flow[Generation]:
        self.vendor.done_at[generation_id] = done_at
        return self.calls.wait_until_complete(
            generation_id,
            schedule=Schedule.fixed(interval) if interval else Schedule.adaptive(),
            deadline=self.now() + timeout,
            submitted_at=self.now(),
            **options,
        )

    def enter(self, generation_id: str, done_at: float, **options: Any) -> asyncio.Task[Generation]:
        return asyncio.create_task(self.poller.wait(self.flow(generation_id, done_at, **options)))


def assert_left(house: House) -> None:
    """Nothing is left of a room that everybody has left."""
    assert len(house.poller) == 0
    assert not house.poller.is_open
    assert house.vendor.closed == house.vendor.opened
    assert house.vendor.under_way == 0
    assert this_loop().timers == 0
    assert len(asyncio.all_tasks()) == 1


def test_it_opens_with_the_first_closes_with_the_last_and_opens_again():
    async def main():
        house = House()
        assert not house.poller.is_open
        first, second = house.enter("a", 30), house.enter("b", 60)
        assert (await first).id == "a"
        assert house.poller.is_open
        assert len(house.poller) == 1
        assert (await second).video_url == "https://cdn.example.com/b.mp4"
        assert house.vendor.opened == 1
        assert_left(house)

        assert (await house.enter("c", 0)).id == "c"
        assert house.vendor.opened == 2
        assert_left(house)

    run(main())


def test_one_who_comes_while_it_closes_is_served():
    async def main():
        house = House()
        closing = asyncio.Event()

        async def slow_close():
            closing.set()
            await asyncio.sleep(5)
            house.vendor.closed += 1

        house.vendor.close = slow_close
        last = house.enter("a", 0)
        await closing.wait()
        assert not last.done()
        newcomer = house.enter("b", 0)
        assert (await newcomer).id == "b"
        assert (await last).id == "a"
        assert_left(house)

    run(main())


def test_nothing_wakes_the_loop_while_nobody_is_due():
    async def main():
        house = House()
        loop = this_loop()
        before = loop.wake_ups
        await house.enter("a", 2999, interval=3000)
        assert len(house.vendor.asked) <= 3
        # For each look a tick and the answer; and the look for those who are overdue.
        assert loop.wake_ups - before <= 2 * len(house.vendor.asked) + house.vendor.now / OVERDUE_CHECK

    run(main())


def test_what_is_due_within_a_tick_goes_together():
    async def main():
        house = House(latency=0.0)
        waits = [house.enter(f"g{i}", 50, interval=10) for i in range(200)]
        await asyncio.sleep(0.5)
        before = this_loop().wake_ups
        await asyncio.sleep(20)
        ticks = {round(at / TICK) for at, _ in house.vendor.asked if at > 0.5}
        assert this_loop().wake_ups - before <= len(ticks) + 5
        assert sum(at > 0.5 for at, _ in house.vendor.asked) > 300
        await asyncio.gather(*waits)

    run(main())


def test_no_more_requests_are_under_way_than_it_has_connections():
    async def main():
        house = House(latency=1.0)
        await asyncio.gather(*(house.enter(f"g{i}", 30) for i in range(300)))
        assert house.vendor.most_under_way == MOST_WORKERS
        assert_left(house)

    run(main())


def test_when_it_cannot_keep_up_everybody_is_late_alike():
    async def main():
        house = House(latency=1.0)  # 16 a second, and 40 a second are due
        waits = [house.enter(f"g{i}", 200, interval=5) for i in range(200)]
        await asyncio.sleep(150)
        looks = Counter(generation_id for _, generation_id in house.vendor.asked)
        assert len(looks) == 200
        assert max(looks.values()) - min(looks.values()) <= 2
        await asyncio.gather(*waits)

    run(main())


@pytest.mark.parametrize("after", [0.0, 0.01, 0.06, 3.0, 11.02])
def test_who_is_cancelled_takes_nothing_from_the_others(after: float):
    """In the queue, under way, and between two looks."""

    async def main():
        house = House(latency=0.05)
        waits = {i: house.enter(f"g{i}", 60) for i in range(100)}
        await asyncio.sleep(after)
        for i in range(0, 100, 2):
            waits[i].cancel()
        ends = await asyncio.gather(*waits.values(), return_exceptions=True)
        for i, end in enumerate(ends):
            if i % 2:
                assert end.id == f"g{i}"
            else:
                assert isinstance(end, asyncio.CancelledError)
        assert_left(house)

    run(main())


def test_a_flow_that_is_cancelled_is_closed():
    closed = []

    def flow() -> Flow[None]:
        try:
            yield Sleep(100)
        finally:
            closed.append(True)

    async def main():
        house = House()
        wait = asyncio.create_task(house.poller.wait(flow()))
        await asyncio.sleep(1)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert closed == [True]
        assert_left(house)

    run(main())


def test_many_who_come_and_go_leave_nothing_behind():
    async def main():
        house = House()
        stays = house.enter("stays", 5000, interval=3600, timeout=1e6)
        for round_ in range(30):
            waits = [house.enter(f"{round_} {i}", 1e6, interval=3600) for i in range(100)]
            await asyncio.sleep(10)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        assert len(house.poller) == 1
        assert len(house.poller._later) < 250
        await stays
        assert_left(house)

    run(main())


def test_trouble_of_one_is_not_the_others():
    def raising() -> Flow[None]:
        yield Sleep(20)
        raise ZeroDivisionError

    def odd() -> Flow[None]:
        yield "not an effect"  # type: ignore[misc]  # that is the point

    def watch(generation: Generation) -> None:
        raise LookupError(generation.id)

    def trouble(generation_id: str) -> HttpResponse | Exception | None:
        if generation_id == "unsendable":
            return RuntimeError("session is closed")
        if generation_id == "failed":
            return answer(200, {"id": "failed", "status": "error", "error": {"name": "N", "message": "M"}})
        if generation_id == "garbage":
            return HttpResponse(200, {}, b"\xff\x00")
        return None

    async def main():
        house = House(trouble=trouble)
        good = [house.enter(f"g{i}", 60) for i in range(20)]
        bad = {
            ZeroDivisionError: asyncio.create_task(house.poller.wait(raising())),
            TypeError: asyncio.create_task(house.poller.wait(odd())),
            LookupError: house.enter("watched", 60, watch=watch),
            RuntimeError: house.enter("unsendable", 60),
            GenerationFailedError: house.enter("failed", 60),
            GenerationTimeoutError: house.enter("garbage", 60, timeout=300),
        }
        for kind, wait in bad.items():
            with pytest.raises(kind):
                await wait
        assert [end.id for end in await asyncio.gather(*good)] == [f"g{i}" for i in range(20)]
        assert_left(house)

    run(main())


def test_a_poller_that_cannot_open_says_so_to_everybody_and_tries_again_for_the_next():
    async def main():
        house = House()
        opens = house.vendor.open

        async def failing() -> None:
            await opens()
            raise OSError("no certificates")

        house.vendor.open = failing
        ends = await asyncio.gather(*(house.enter(f"g{i}", 0) for i in range(5)), return_exceptions=True)
        assert [str(end) for end in ends] == ["no certificates"] * 5
        house.vendor.open = opens
        assert (await house.enter("a", 0)).id == "a"
        assert_left(house)

    run(main())


def test_who_leaves_a_poller_that_cannot_open_lets_it_close():
    async def main():
        house = House()
        closing = asyncio.Event()

        async def failing() -> None:
            house.vendor.opened += 1
            raise OSError("no certificates")

        async def slow_close() -> None:
            closing.set()
            await asyncio.sleep(5)
            house.vendor.closed += 1

        house.vendor.open, house.vendor.close = failing, slow_close
        wait = house.enter("a", 0)
        await closing.wait()
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert_left(house)

    run(main())


def no_sender() -> Vendor:
    raise ZeroDivisionError


async def fails() -> None:
    raise ZeroDivisionError


async def is_cancelled(*_: Any) -> HttpResponse:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("broken", "seen"),
    [
        ({"connect": no_sender}, ZeroDivisionError),
        ({"open": fails}, ZeroDivisionError),
        ({"open": fails, "close": is_cancelled}, RuntimeError),
        ({"open": is_cancelled}, RuntimeError),
        ({"send": is_cancelled}, RuntimeError),
        ({"close": fails}, None),
        ({"close": is_cancelled}, None),
    ],
    ids=["connect", "open", "open, then close", "open cancelled", "send", "close", "close cancelled"],
)
def test_whatever_ends_its_session_nobody_waits_in_vain(broken: dict[str, Any], seen: type[Exception] | None):
    async def main():
        house = House()
        whole = {name: getattr(house.vendor, name) for name in ("open", "send", "close")}
        for name, part in broken.items():
            setattr(*((house.poller, "_connect") if name == "connect" else (house.vendor, name)), part)
        ends = await asyncio.gather(*(house.enter(f"g{i}", 0) for i in range(5)), return_exceptions=True)
        assert {None if isinstance(end, Generation) else type(end) for end in ends} == {seen}
        for name, part in whole.items():
            setattr(house.vendor, name, part)
        house.poller._connect = house.vendor
        assert (await house.enter("later", house.vendor.now + 20)).id == "later"
        house.vendor.closed = house.vendor.opened
        assert_left(house)

    run(main())


def test_it_closes_with_its_event_loop():
    vendors = []

    async def main():
        house = House()
        vendors.append(house.vendor)

        async def slow_close():
            await asyncio.sleep(1)
            house.vendor.closed += 1

        house.vendor.close = slow_close
        house.enter("a", 1000)
        house.enter("b", 1000)
        await asyncio.sleep(5)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert vendors[0].opened == vendors[0].closed == 1


def test_a_429_stops_everybody_for_what_it_says_and_is_logged_once(caplog: pytest.LogCaptureFixture):
    async def main():
        house = House()
        refused: list[float] = []

        def trouble(generation_id: str) -> HttpResponse | None:
            if 20 < house.vendor.now < 25:
                refused.append(house.vendor.now)
                return answer(429, {"message": "Too many requests"}, **{"retry-after": "30"})
            return None

        house.vendor.trouble = trouble
        with caplog.at_level(logging.WARNING, "airflow_provider_kling.api.transport.shared_rate_limiter"):
            ends = await asyncio.gather(*(house.enter(f"g{i}", 90, interval=5) for i in range(400)))
        assert len(ends) == 400
        first = refused[0]
        silence = [at for at, _ in house.vendor.asked if first + house.vendor.latency < at < first + 30]
        assert silence == []
        # What was under way already is all that is refused.
        assert len(refused) <= MOST_WORKERS
        told = [
            r for r in caplog.records if r.name.endswith("shared_rate_limiter") and "429" in r.getMessage()
        ]
        assert len(told) == 1
        assert "127.0.0.1" in told[0].getMessage()

    run(main())


def test_a_storm_of_429s_loses_nobody():
    async def main():
        house = House()
        window: list[float] = []

        def trouble(generation_id: str) -> HttpResponse | None:
            """The vendor takes 10 requests a second, and says no more than 429."""
            now = house.vendor.now
            window[:] = [at for at in window if now - at < 1.0]
            if len(window) >= 10:
                return answer(429, {"message": "Too many requests"})
            window.append(now)
            return None

        house.vendor.trouble = trouble
        waits = [house.enter(f"g{i}", 60, timeout=3000, interval=15) for i in range(1000)]
        ends = await asyncio.gather(*waits)
        assert [end.id for end in ends] == [f"g{i}" for i in range(1000)]
        assert_left(house)

    run(main())


def test_a_429_about_the_balance_is_its_waits_own(caplog: pytest.LogCaptureFixture):
    async def main():
        house = House()
        house.vendor.trouble = lambda name: answer(429, BALANCE) if name == "poor" else None
        poor = house.enter("poor", 60, interval=5)
        others = [house.enter(f"g{i}", 60, interval=5) for i in range(20)]
        with pytest.raises(InsufficientBalanceError):
            await poor
        assert house.limiter.per_minute is None
        await asyncio.gather(*others)
        assert max(at for at, _ in house.vendor.asked) < 70

    with caplog.at_level(logging.WARNING, "airflow_provider_kling.api.transport.shared_rate_limiter"):
        run(main())
    assert not [r for r in caplog.records if r.name.endswith("shared_rate_limiter")]


def test_the_configured_rate_is_kept_and_told_once(caplog: pytest.LogCaptureFixture):
    async def main():
        house = House(per_minute=600)
        waits = [house.enter(f"g{i}", 120, interval=20, timeout=3000) for i in range(500)]
        await asyncio.gather(*waits)
        times = [at for at, _ in house.vendor.asked]
        for i, at in enumerate(times):
            assert sum(at <= other < at + 60 for other in times[i : i + 1000]) <= 600
        # and it is used
        assert len(times) / times[-1] * 60 > 500

    with caplog.at_level(logging.WARNING, "airflow_provider_kling.api.transport.shared_rate_limiter"):
        run(main())
    assert len([r for r in caplog.records if "is limiting requests" in r.getMessage()]) == 1


@pytest.mark.parametrize("crowd", [3, 300])
def test_who_is_held_back_is_served_first_come_first_served(crowd: int):
    async def main():
        house = House(per_minute=600)
        waits = []
        for i in range(crowd):
            waits.append(house.enter(f"g{i}", 0))
            await asyncio.sleep(0.001)
        for i in range(0, crowd, 7):
            waits[i].cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        asked = [int(generation_id[1:]) for _, generation_id in house.vendor.asked]
        assert asked == sorted(asked)
        assert_left(house)

    run(main())


def test_who_gets_no_turn_is_given_up_long_after_the_deadline():
    async def main():
        house = House(per_minute=1)
        calls = [house.flow(f"g{i}", 1e6, timeout=100, interval=5) for i in range(50)]
        waits = [asyncio.create_task(house.poller.wait(flow, at_most=300)) for flow in calls]
        begun = house.vendor.now
        ends = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(end) for end in ends} == {OverdueError, GenerationTimeoutError}
        assert house.vendor.now - begun <= 300 + OVERDUE_CHECK + 1
        assert_left(house)

    run(main())


@pytest.mark.parametrize("jump", [-86_400.0, -60.0, 45.0, 86_400.0])
def test_a_clock_that_is_set_strands_nobody(jump: float):
    async def main():
        house = House()
        waits = [house.enter(f"g{i}", 100, timeout=1800) for i in range(50)]
        await asyncio.sleep(30)
        house.jump = jump
        await asyncio.sleep(2000 + max(0.0, -jump))
        for wait in waits:
            assert wait.done()
            late = wait.exception()
            # A day ahead, the deadline has passed on the only clock there is.
            assert late is None or (jump > 1800 and isinstance(late, GenerationTimeoutError))
        asked = len(house.vendor.asked)
        assert asked < 50 * 60

    run(main())


def test_ten_thousand_wait_and_all_are_woken():
    async def main():
        house = House(latency=0.02)
        rng = random.Random(3)
        usual = [rng.lognormvariate(5.27, 0.5) for _ in range(10_000)]
        waits = []
        for i, seconds in enumerate(usual):
            waits.append(house.enter(f"g{i}", house.vendor.now + seconds))
            if i % 50 == 0:
                await asyncio.sleep(0.5)
        ends = await asyncio.gather(*waits)
        assert [end.id for end in ends] == [f"g{i}" for i in range(10_000)]
        assert house.vendor.most_under_way <= MOST_WORKERS
        assert 11 < len(house.vendor.asked) / 10_000 < 18
        assert_left(house)

    run(main())


def test_what_a_flow_logs_is_logged_in_the_context_of_who_waits():
    name = contextvars.ContextVar("name", default="the room")
    said = []

    def flow() -> Flow[None]:
        said.append(name.get())
        yield Sleep(5)
        said.append(name.get())
        yield Send(Endpoints(SETTINGS, lambda: 0.0).poll("a"))
        said.append(name.get())

    async def trigger(own: str) -> None:
        name.set(own)
        await poller.wait(flow())

    async def main():
        nonlocal poller
        house = House(done_at={"a": 0.0})
        poller = house.poller
        await asyncio.gather(trigger("first"), trigger("second"))

    poller: Any = None
    run(main())
    assert said == ["first", "second"] * 3


def hanging(seconds: float) -> type[Vendor]:
    """A vendor that leaves polls of generations that begin with ``bad`` without an answer for so long."""

    class Hanging(Vendor):
        async def send(
            self, request: HttpRequest, at_most: float | None = None
        ) -> HttpResponse | ConnectionLost:
            generation_id = dict(request.params)["generation_id"]
            if not generation_id.startswith("bad"):
                return await super().send(request, at_most)
            self.asked.append((self.now, generation_id))
            self.under_way += 1
            self.most_under_way = max(self.under_way, self.most_under_way)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.under_way -= 1
            return ConnectionLost(FailureReason.READ_TIMEOUT, "api.example.com")

    return Hanging


@pytest.mark.parametrize("poisoned", [16, 96, 400])
def test_polls_that_hang_delay_no_other_by_more_than_a_read_timeout(poisoned: int):
    async def main():
        house = House()
        house.vendor.__class__ = hanging(70.0)
        waits = [house.enter(f"bad{number}", math.inf, interval=10) for number in range(poisoned)]
        await asyncio.sleep(0.1)
        healthy = [house.enter(f"good{number}", 600, interval=10) for number in range(50)]
        await asyncio.gather(*healthy)
        looks: dict[str, list[float]] = {}
        for at, generation_id in house.vendor.asked:
            looks.setdefault(generation_id, [0.0]).append(at)
        gaps = [
            later - earlier
            for generation_id, times in looks.items()
            if generation_id.startswith("good")
            for earlier, later in itertools.pairwise(times)
        ]
        rounds = math.ceil(poisoned / MOST_UNDER_WAY)  # one, for as many as can be under way at once
        assert max(gaps) < 10 * 1.1 + rounds * (70 + 2 * STUCK_AFTER)
        # Once it is known who hangs, nobody waits for them.
        assert statistics.median(gaps) < 11 + TICK
        assert house.vendor.most_under_way <= MOST_UNDER_WAY
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert_left(house)

    run(main())


def test_what_is_stuck_is_logged_now_and_then(caplog: pytest.LogCaptureFixture):
    async def main():
        house = House()
        house.vendor.__class__ = hanging(70.0)
        waits = [house.enter(f"bad{number}", math.inf, interval=10) for number in range(20)]
        await asyncio.sleep(900)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    run(main())
    told = [record for record in caplog.records if "no complete answer" in record.getMessage()]
    assert 1 <= len(told) <= 4


def test_a_wait_that_leaves_takes_its_request_with_it():
    async def main():
        house = House()
        house.vendor.__class__ = hanging(70.0)
        leaving = house.enter("bad", math.inf, interval=10)
        staying = house.enter("good", 30, interval=10)
        await asyncio.sleep(0.2)
        assert house.vendor.under_way == 1
        leaving.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert house.vendor.under_way == 0
        await staying
        assert_left(house)

    run(main())

"""Triggers whose connection cannot be read, or changes: in virtual time, with a vendor behind the sessions."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from airflow.exceptions import AirflowNotFoundException
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.async_client import AsyncKlingClient
from airflow_provider_kling.api.exceptions import ConfigurationError
from airflow_provider_kling.api.polling import poll_tracker
from airflow_provider_kling.api.polling.shared_poller import MOST_WORKERS, OVERDUE_CHECK
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.messages import (
    Call,
    ConnectionLost,
    FailureReason,
    HttpRequest,
    HttpResponse,
)
from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for
from airflow_provider_kling.triggers import connection_cache, shared_pollers
from airflow_provider_kling.triggers import kling as triggers
from airflow_provider_kling.triggers.connection_cache import FAILED_FOR, MISSING_FOR
from airflow_provider_kling.triggers.kling import EARLIEST_EVENT, OVERDUE, KlingGenerationTrigger, read_event
from airflow_provider_kling.triggers.shared_pollers import (
    FRESH_AFTER_A_REFUSAL,
    FRESH_IN_TROUBLE,
    SharedPollers,
)
from tests.unit.api.polling.test_shared_poller import answer
from tests.virtual_time import run, this_loop

OLD = Settings("old-key", "http://127.0.0.1:9")
NEW = replace(OLD, api_key="new-key")
MODEL = "kling-video/v1.6/standard/text-to-video"
Replying = Callable[[Settings], HttpResponse | ConnectionLost | None]


class World:
    """Connections that can be edited, and the vendor whose sessions they open.

    :param replying: what the vendor says to a session, instead of how the generation stands.
    """

    def __init__(self, patch: pytest.MonkeyPatch, replying: Replying = lambda _: None) -> None:
        self.connections = {"kling_default": OLD, "other": replace(OLD, api_key="other-key")}
        self.replying = replying
        self.reading: Callable[[str], Awaitable[None]] = lambda _: asyncio.sleep(0.01)
        self.read: list[float] = []
        self.latency: Callable[[], float] = lambda: 0.05
        self.slow_close: Callable[[], float] = lambda: 0.0
        self.done_at: dict[str, float] = {}
        self.asked: list[tuple[float, str, str]] = []
        self.under_way = 0
        self.opened: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        patch.setattr(connection_cache, "read_settings", self.read_settings)
        # Counted by the wall clock, which stands still here: three refusals are enough.
        patch.setattr(poll_tracker, "FATAL_SECONDS", 0.0)
        for name in ("open", "close", "_send_over", "_opened_anew"):
            ours = getattr(self, name)
            patch.setattr(AsyncKlingClient, name, lambda client, *args, ours=ours: ours(client, *args))

    async def read_settings(self, conn_id: str) -> Settings:
        self.read.append(this_loop().time())
        await self.reading(conn_id)
        return self.connections[conn_id]

    async def open(self, client: AsyncKlingClient) -> object:
        self.opened[client.settings.api_key] += 1
        client._session = object()  # type: ignore[assignment]  # never sent over
        return client._session

    async def close(self, client: AsyncKlingClient) -> None:
        await asyncio.sleep(self.slow_close())
        self.closed[client.settings.api_key] += 1

    async def _opened_anew(self, *_: object) -> None:
        """Looks at a file, in a thread; there is none, and no virtual time either."""

    async def _send_over(
        self, client: AsyncKlingClient, _: object, request: HttpRequest, at_most: float | None
    ) -> HttpResponse | ConnectionLost:
        settings = client.settings
        assert request.url.startswith(settings.base_url)
        self.under_way += 1
        try:
            await asyncio.sleep(self.latency())
        finally:
            self.under_way -= 1
        if request.call is not Call.POLL:
            return answer(404, {})
        # Whose session it is sent over, and whose key it holds, are the same.
        assert request.headers["Authorization"] == f"Bearer {settings.api_key}"
        generation_id = dict(request.params)["generation_id"]
        self.asked.append((this_loop().time(), generation_id, settings.api_key))
        if (reply := self.replying(settings)) is not None:
            return reply
        completed = this_loop().time() >= self.done_at.get(generation_id, 0.0)
        video = {"url": f"https://cdn.example.com/{generation_id}.mp4"}
        status = "completed" if completed else "generating"
        return answer(200, {"id": generation_id, "status": status, "video": video if completed else None})

    def start(
        self,
        generation_id: str = "g",
        *,
        seconds: float | None = 7200.0,
        done_after: float = 0.0,
        **arguments: Any,
    ) -> asyncio.Task[dict[str, Any]]:
        self.done_at[generation_id] = this_loop().time() + done_after
        deadline = None if seconds is None else time.time() + seconds
        return asyncio.create_task(
            outcome(
                **{"generation_id": generation_id, "deadline": deadline, "schedule": {"interval": 5}}
                | arguments
            )
        )

    async def assert_left(self) -> None:
        """Everything was closed, nothing is remembered, nobody is left."""
        await asyncio.sleep(1)
        assert self.opened == self.closed
        own = SharedPollers.of_this_loop()
        assert (len(own._pollers), len(own._cache), len(own._asking)) == (0, 0, 0)
        assert len(asyncio.all_tasks()) == 1


async def outcome(**kwargs: Any) -> dict[str, Any]:
    """The payload of a trigger's event."""
    trigger = KlingGenerationTrigger(**kwargs)
    if not hasattr(trigger, "task_instance"):
        trigger.task_instance = None
    events = [event async for event in trigger.run()]
    [payload] = [event.payload for event in events]
    assert read_event(payload)[0] == payload["generation_id"]
    return dict(payload)


def refusal(*keys: str, status: int = 401) -> Replying:
    """A vendor that refuses these keys."""
    return lambda settings: (
        answer(status, {"message": "no", "requestId": "r", "statusCode": status})
        if settings.api_key in keys
        else None
    )


def failing(error: BaseException, times: float = math.inf) -> Callable[[str], Awaitable[None]]:
    """Readings that fail so many times."""
    left = times

    async def reading(_: str) -> None:
        nonlocal left
        await asyncio.sleep(0.2)
        left -= 1
        if left >= 0:
            raise error

    return reading


async def no_answer(_: str) -> None:
    await asyncio.Event().wait()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    own = [record for record in caplog.records if record.name == connection_cache.__name__]
    return [record.getMessage() for record in own if record.levelno >= logging.WARNING]


# A connection that cannot be read


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("API_SERVER_ERROR 503"),
        AirflowNotFoundException("The conn_id isn't defined"),
        TimeoutError(),
        asyncio.CancelledError("Reader loop exited"),
    ],
    ids=repr,
)
def test_a_reading_that_fails_is_repeated_once_for_all(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
):
    async def main() -> None:
        world = World(monkeypatch)
        world.reading = failing(error, 3)
        events = await asyncio.gather(*(world.start(f"g{i}") for i in range(100)))
        assert {event.get("status") for event in events} == {"completed"}
        assert len(world.read) == 4
        await world.assert_left()

    run(main())
    [warning] = warnings_of(caplog)
    assert "Could not read connection 'kling_default'" in warning


@pytest.mark.parametrize(
    "reading", [no_answer, failing(RuntimeError("down?token=secret"))], ids=["none", "error"]
)
def test_the_deadline_holds_while_the_connection_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reading: Any
):
    async def main() -> None:
        world = World(monkeypatch)
        world.reading = reading
        begun = this_loop().time()
        event = await world.start(seconds=600)
        assert 600 < this_loop().time() - begun <= 600 + OVERDUE + 1
        assert event["error"]["kind"] == "GenerationTimeoutError"
        assert "'kling_default' could not be read" in event["error"]["message"]
        assert "secret" not in event["error"]["message"]
        assert len(world.read) > 10
        await world.assert_left()

    run(main())
    assert len(warnings_of(caplog)) == 1


def test_a_wait_without_a_deadline_outlasts_a_day_without_its_connection(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        world = World(monkeypatch)
        world.reading = failing(RuntimeError("down"))
        wait = world.start(seconds=None)
        await asyncio.sleep(86_400)
        assert 86_400 / 60 < len(world.read) < 86_400 / 20
        world.reading = failing(RuntimeError("never"), 0)
        assert (await wait)["status"] == "completed"
        await world.assert_left()

    run(main())


def test_a_connection_that_is_missing_for_minutes_ends_the_wait_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
):
    """On Airflow 3.3 an API server that does not answer looks the same."""

    async def main() -> None:
        world = World(monkeypatch)
        world.reading = failing(AirflowNotFoundException("The conn_id isn't defined"))
        begun = this_loop().time()
        events = await asyncio.gather(*(world.start(f"g{i}") for i in range(10)))
        assert MISSING_FOR <= this_loop().time() - begun <= MISSING_FOR + 62
        for event in events:
            assert event["error"]["recovery"] == "RETRY_TASK"
            assert "no connection 'kling_default'" in event["error"]["message"]
            assert "keeps running at the vendor" in event["error"]["message"]
            assert "No money was spent" not in event["error"]["message"]
        await world.assert_left()

    run(main())


def test_a_connection_that_cannot_be_used_ends_the_wait_but_not_before_the_task_is_deferred(
    monkeypatch: pytest.MonkeyPatch,
):
    async def main() -> None:
        world = World(monkeypatch)
        world.reading = failing(ConfigurationError("no key"))
        begun = this_loop().time()
        events = await asyncio.gather(*(world.start(f"g{i}") for i in range(10)))
        assert {event["error"]["recovery"] for event in events} == {"GIVE_UP"}
        assert EARLIEST_EVENT <= this_loop().time() - begun <= EARLIEST_EVENT + FAILED_FOR
        assert len(world.read) == 1
        await world.assert_left()

    run(main())


@pytest.mark.parametrize("after", [0.0, 0.005, 0.5, 3.0])
@pytest.mark.parametrize("reading", [no_answer, failing(RuntimeError("down"))], ids=["none", "error"])
def test_who_is_cancelled_while_it_is_read_takes_it_from_nobody(
    monkeypatch: pytest.MonkeyPatch, reading: Any, after: float
):
    async def main() -> None:
        world = World(monkeypatch)
        world.reading = reading
        waits = [world.start(f"g{i}") for i in range(4)]
        await asyncio.sleep(after)
        for wait in waits[:3]:
            wait.cancel()
        await asyncio.sleep(1)
        assert [wait.cancelled() for wait in waits] == [True, True, True, False]
        world.reading = failing(RuntimeError("never"), 0)
        assert (await waits[3])["status"] == "completed"
        await world.assert_left()

    run(main())


def test_when_all_are_cancelled_nothing_is_read_any_more(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        world = World(monkeypatch)
        world.reading = failing(RuntimeError("down"))
        waits = [world.start(f"g{i}") for i in range(4)]
        await asyncio.sleep(5)
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        await world.assert_left()

    run(main())


# A connection that changes


@pytest.mark.parametrize("status", [401, 403, 404, 301])
def test_after_a_refusal_the_connection_is_read_again_and_who_waits_moves_over(
    monkeypatch: pytest.MonkeyPatch, status: int
):
    async def main() -> None:
        world = World(monkeypatch)
        waits = [world.start(f"g{i}", done_after=100, schedule={"interval": 20}) for i in range(100)]
        await asyncio.sleep(30)
        world.connections["kling_default"] = NEW
        world.replying = refusal(OLD.api_key, status=status)
        edited = this_loop().time()
        events = await asyncio.gather(*waits)
        assert {event.get("status") for event in events} == {"completed"}
        assert len(world.read) == 2
        late = [key for at, _, key in world.asked if key == OLD.api_key and at > edited]
        assert len(late) <= MOST_WORKERS
        assert world.opened == {OLD.api_key: 1, NEW.api_key: 1}
        await world.assert_left()

    run(main())


@pytest.mark.parametrize(
    "why", [FailureReason.CERTIFICATE, FailureReason.TLS, FailureReason.REFUSED, FailureReason.READ_TIMEOUT]
)
def test_while_requests_are_lost_the_connection_is_read_again_now_and_then(
    monkeypatch: pytest.MonkeyPatch, why: FailureReason
):
    async def main() -> None:
        world = World(monkeypatch)
        world.replying = lambda settings: ConnectionLost(why, "host") if settings == OLD else None
        waits = [world.start(f"g{i}") for i in range(20)]
        await asyncio.sleep(10)
        world.connections["kling_default"] = NEW
        begun = this_loop().time()
        events = await asyncio.gather(*waits)
        assert {event.get("status") for event in events} == {"completed"}
        fresh = FRESH_IN_TROUBLE if why.passing else FRESH_AFTER_A_REFUSAL
        assert this_loop().time() - begun <= fresh + 20
        assert len(world.read) <= 4
        await world.assert_left()

    run(main())


def test_while_a_host_is_gone_its_connection_is_not_read_for_each_poll(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        world = World(monkeypatch)
        world.replying = lambda _: ConnectionLost(FailureReason.REFUSED, "host")
        waits = [world.start(f"g{i}") for i in range(100)]
        await asyncio.sleep(1800)
        assert 8 <= len(world.read) <= 11
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
        await world.assert_left()

    run(main())


def test_a_change_that_anybody_sees_is_seen_by_all(monkeypatch: pytest.MonkeyPatch):
    """And back again: nobody is sent from room to room."""

    async def main() -> None:
        world = World(monkeypatch)
        waits = [world.start(f"g{i}", done_after=500) for i in range(20)]
        for n, settings in enumerate((NEW, OLD, NEW, OLD)):
            await asyncio.sleep(70)
            world.connections["kling_default"] = replace(settings)
            waits.append(world.start(f"newcomer {n}", done_after=300))
            edited = this_loop().time()
            await asyncio.sleep(10)
            assert {key for at, _, key in world.asked if at > edited + 6} == {settings.api_key}
        events = await asyncio.gather(*waits)
        assert {event.get("status") for event in events} == {"completed"}
        assert len(world.asked) < 24 * 120
        await world.assert_left()

    run(main())


@pytest.mark.parametrize("reading", [no_answer, failing(RuntimeError("down"))], ids=["none", "error"])
def test_a_reading_after_a_refusal_holds_up_nobody_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reading: Any
):
    async def main() -> None:
        world = World(monkeypatch)
        waits = [world.start(f"g{i}", done_after=60) for i in range(200)]
        await asyncio.sleep(FRESH_AFTER_A_REFUSAL + 5)
        world.reading = reading
        world.replying = lambda _: (
            None if len(world.asked) % 4 else answer(401, {"message": "no", "requestId": "r"})
        )
        begun = this_loop().time()
        await asyncio.sleep(100)
        polls = Counter((at - begun) // 5 for at, _, _ in world.asked if begun <= at < begun + 45)
        assert min(polls.values()) > 150
        assert len(world.read) < 20
        # Whether the key is wrong cannot be told yet.
        assert {wait.result().get("status") for wait in waits if wait.done()} == {"completed"}
        refused = [wait for wait in waits if not wait.done()]
        assert 0 < len(refused) < 50
        world.reading = failing(RuntimeError("never"), 0)
        events = await asyncio.gather(*refused)
        assert {event["error"]["kind"] for event in events} == {"AuthenticationError"}
        await world.assert_left()

    run(main())
    assert len(warnings_of(caplog)) == 1


def test_a_key_that_is_refused_while_its_connection_cannot_be_read_is_refused_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
):
    async def main() -> None:
        world = World(monkeypatch)
        wait = world.start(seconds=600)
        begun = this_loop().time()
        await asyncio.sleep(1)
        world.reading, world.replying = no_answer, refusal(OLD.api_key)
        assert (await wait)["error"]["kind"] == "AuthenticationError"
        assert 590 < this_loop().time() - begun < 700
        await world.assert_left()

    run(main())


def test_a_key_that_stays_wrong_is_told_after_three_looks_and_few_readings(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        world = World(monkeypatch, refusal(OLD.api_key))
        events = await asyncio.gather(*(world.start(f"g{i}") for i in range(100)))
        assert {event["error"]["kind"] for event in events} == {"AuthenticationError"}
        assert len(world.asked) == 300
        assert len(world.read) <= 5
        await world.assert_left()

    run(main())


def test_two_connections_never_share_a_session(monkeypatch: pytest.MonkeyPatch):
    """Not even where all that differs is the proxy; the vendor of these tests compares the keys."""

    async def main() -> None:
        world = World(monkeypatch)
        world.connections["third"] = replace(OLD, proxy="http://127.0.0.1:3128")
        names = ("kling_default", "other", "third")
        waits = [world.start(f"{name} {i}", kling_conn_id=name) for name in names for i in range(20)]
        await asyncio.gather(*waits)
        assert world.opened == {OLD.api_key: 2, "other-key": 1}
        for _, generation_id, key in world.asked:
            assert key == world.connections[generation_id.split()[0]].api_key
        await world.assert_left()

    run(main())


def test_the_configured_rate_that_was_read_last_counts(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        world = World(monkeypatch)
        world.connections["kling_default"] = replace(NEW, api_key="limited", requests_per_minute=600)
        world.connections["other"] = replace(NEW, api_key="limited", requests_per_minute=60)
        first = world.start("a", done_after=60)
        await asyncio.sleep(1)
        limiter = limiter_for(world.connections["kling_default"])
        second = world.start("b", done_after=60, kling_conn_id="other")
        await asyncio.sleep(1)
        assert limiter.per_minute == 60
        await asyncio.gather(first, second)

    run(main())


# What is learned, and from which rows


def test_what_one_host_teaches_stays_with_it(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        world = World(monkeypatch)
        emulator = world.connections["other"] = replace(NEW, base_url="http://127.0.0.1:7")
        arguments = {"model": MODEL, "schedule": None, "submitted_at": time.time() - 20}
        await world.start("a", kling_conn_id="other", **arguments)
        taught = SharedPollers.of_this_loop().durations
        usual = triggers.TriggerArguments.read({}).schedule
        assert taught[emulator.base_url].sharpen(MODEL, usual).usual_seconds < usual.usual_seconds
        assert taught[OLD.base_url].sharpen(MODEL, usual) == usual
        assert SharedPollers.of_this_loop()._asked == {(emulator.base_url, MODEL)}
        await world.start("b", **arguments)
        assert len(SharedPollers.of_this_loop()._asked) == 2

    run(main())


def test_since_serves_the_schedule_and_teaches_nothing(monkeypatch: pytest.MonkeyPatch):
    def elapsed_at_first(**arguments: Any) -> float:
        asked: list[float] = []
        original = shared_pollers.LearningSchedule.next_wait

        def next_wait(timetable: Any, elapsed: float) -> float:
            asked.append(elapsed)
            return original(timetable, elapsed)

        async def main() -> None:
            world = World(monkeypatch)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(shared_pollers.LearningSchedule, "next_wait", next_wait)
                await world.start(done_after=20, schedule=None, model=MODEL, **arguments)
            seen = SharedPollers.of_this_loop().durations[OLD.base_url]._seen
            assert bool(seen) == ("submitted_at" in arguments)

        run(main())
        return asked[0]

    now = time.time()
    assert elapsed_at_first() < 5
    assert 400 < elapsed_at_first(since=now - 400) < 405
    assert 300 < elapsed_at_first(since=now - 400, submitted_at=now - 300) < 305
    arguments = KlingGenerationTrigger("g", since=5.0).serialize()[1]
    assert arguments["since"] == 5.0


@pytest.mark.parametrize(
    "odd",
    [
        {"schedule": "adaptive"},
        {"schedule": [1]},
        {"schedule": 30},
        {"schedule": {"interval": 0.5}},
        {"schedule": {"interval": "often"}},
        {"schedule": {"usual_seconds": None}},
        {"schedule": {"usual_seconds": 90000}},
        {"schedule": {"spread": 0.9}},
        {"deadline": "tomorrow"},
        {"deadline": math.nan},
        {"submitted_at": "2026-11-25T12:00:00Z"},
        {"since": []},
        {"model": {"a": 1}, "kling_conn_id": ["x"]},
    ],
    ids=str,
)
def test_an_odd_row_waits_all_the_same_and_is_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, odd: dict[str, Any]
):
    said: list[str] = []

    class Trigger(KlingGenerationTrigger):
        """Its log is read here."""

        class log:  # as Airflow names it
            warning = staticmethod(lambda text, *args: said.append(text % args))
            info = staticmethod(lambda *_: None)

    monkeypatch.setattr(triggers, "KlingGenerationTrigger", Trigger)

    async def main() -> None:
        World(monkeypatch)
        trigger = Trigger(**{"generation_id": "g", "deadline": time.time() + 600} | odd)
        [event] = [event.payload async for event in trigger.run()]
        assert event["status"] == "completed"

    run(main())
    [warning] = said
    assert all(name in warning for name in odd)


@pytest.mark.parametrize("deadline", ["600", 600, 600.0])
def test_numbers_may_be_written_as_text(deadline: Any):
    now = str(time.time())
    arguments = triggers.TriggerArguments.read(
        {"generation_id": 7, "deadline": deadline, "submitted_at": now, "since": None}
    )
    assert (arguments.generation_id, arguments.deadline, arguments.submitted_at) == ("7", 600.0, float(now))
    assert arguments.odd == ()


@pytest.mark.parametrize(
    "arguments", [{}, {"generation_id": None}, {"generation_id": " "}, {"generation_id": ["a"]}]
)
def test_a_row_without_a_generation_says_so(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]):
    async def main() -> None:
        World(monkeypatch)
        begun = this_loop().time()
        event = await outcome(**arguments)
        assert this_loop().time() - begun == pytest.approx(EARLIEST_EVENT)
        assert "names no generation id" in event["error"]["message"]
        assert event["error"]["recovery"] == "GIVE_UP"

    run(main())


def test_polls_that_hang_past_the_deadline_are_told_truly(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        world = World(monkeypatch)
        world.latency = lambda: math.inf
        begun = this_loop().time()
        event = await world.start(seconds=60)
        assert this_loop().time() - begun <= 60 + OVERDUE + OVERDUE_CHECK + 1
        assert "rate limited or unanswered" in event["error"]["message"]
        assert "clock moved back" in event["error"]["message"]
        await world.assert_left()

    with pytest.MonkeyPatch.context() as patch:
        really_sleep = asyncio.sleep
        patch.setattr(
            asyncio, "sleep", lambda s: asyncio.Event().wait() if s == math.inf else really_sleep(s)
        )
        run(main())


# Any order of all that


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.tuples(st.sampled_from(["kling_default", "other"]), st.floats(0, 40))),
        st.tuples(st.just("enter"), st.tuples(st.just("kling_default"), st.floats(0, 40))),
        st.tuples(st.sampled_from(["cancel", "cancel twice"]), st.integers(0, 30)),
        st.tuples(st.just("time"), st.sampled_from([0.001, 0.02, 0.05, 1.0, 7.0, 30.0])),
        st.tuples(st.just("yield"), st.integers(1, 4)),
        st.tuples(st.just("edit"), st.integers(0, 3)),
        st.tuples(st.just("reading"), st.sampled_from([0.0, 0.01, 2.0, "fails", "hangs"])),
        st.tuples(st.just("latency"), st.sampled_from([0.0, 0.01, 1.0])),
        st.tuples(st.just("close"), st.sampled_from([0.0, 0.3])),
    ),
    max_size=50,
)


async def play(patch: pytest.MonkeyPatch, steps: list[tuple[str, Any]]) -> None:
    world = World(patch)
    world.replying = lambda settings: (
        None if settings in world.connections.values() else answer(401, {"message": "no"})
    )
    waits: list[asyncio.Task[dict[str, Any]]] = []
    for step, value in steps:
        match step:
            case "enter":
                conn_id, seconds = value
                name = f"{conn_id} {len(waits)}"
                waits.append(world.start(name, kling_conn_id=conn_id, done_after=seconds, model=MODEL))
            case "cancel" | "cancel twice" if waits:
                waits[value % len(waits)].cancel()
                if step == "cancel twice":
                    await asyncio.sleep(0)
                    waits[value % len(waits)].cancel()
            case "time":
                await asyncio.sleep(value)
            case "yield":
                for _ in range(value):
                    await asyncio.sleep(0)
            case "edit":
                world.connections["kling_default"] = replace(OLD, api_key=f"key-{value}")
            case "reading":
                ways = {"fails": failing(RuntimeError("down"), 2), "hangs": no_answer}
                world.reading = ways.get(value) or (lambda _, seconds=value: asyncio.sleep(seconds))
            case "latency":
                world.latency = lambda seconds=value: seconds
            case "close":
                world.slow_close = lambda seconds=value: seconds
    world.reading = lambda _: asyncio.sleep(0.01)
    if waits:
        _, lost = await asyncio.wait(waits, timeout=3600)
        assert not lost
    for wait in waits:
        assert wait.cancelled() or wait.result().get("status") == "completed"
    await world.assert_left()


@given(STEPS)
def test_no_order_of_coming_going_editing_and_failing_readings_loses_anybody(steps: list[tuple[str, Any]]):
    with pytest.MonkeyPatch.context() as patch:
        run(play(patch, steps))

"""KlingBatchTrigger waits for many generations at once, and fires when enough of them have ended."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_kling.api.exceptions import KlingError, Money, Recovery
from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.triggers.arguments import TriggerArguments
from airflow_provider_kling.triggers.kling import EARLIEST_EVENT, EVENT_SCHEMA, OVERDUE

if TYPE_CHECKING:
    from airflow_provider_kling.api.calls import VendorCalls
    from airflow_provider_kling.api.durable.submit import PendingSearch
    from airflow_provider_kling.api.generation import Generation
    from airflow_provider_kling.api.polling.learned_durations import LearningSchedule
    from airflow_provider_kling.api.polling.shared_poller import PendingWait
    from airflow_provider_kling.api.settings import Settings
    from airflow_provider_kling.api.transport.messages import Flow
    from airflow_provider_kling.triggers.shared_pollers import SharedPollers

PROGRESS_EVERY: Final = 60.0
"""Seconds between two lines of progress in the task's log."""


SHARE_OF_RATE: Final = 0.95
"""Of the connection's rate that the polls of one trigger take at most: all others find it unoccupied."""


class KlingBatchTrigger(BaseTrigger):
    """Waits for many generations of one connection; its event names those that ended, well or not.

    Each of them is polled by the connection's shared poller, as those of
    :class:`.KlingGenerationTrigger` are. It also searches for submits whose answers were lost, as
    :class:`.KlingSubmitSearchTrigger` does; a submit that was found, or certainly is not there, counts as
    an end.

    :param generations: by model (an empty text where it is not known): lists of generation id, epoch
        seconds of its submit, and epoch seconds of its last poll, if there was one.
    :param kling_conn_id: the Airflow connection of the account.
    :param deadline: epoch seconds at which it fires whatever has ended.
    :param schedule: when to poll, as :meth:`.Schedule.as_dict` wrote it; None for the usual.
    :param enough: how many must have ended for it to fire.
    :param linger: seconds after the first end at which it fires with fewer.
    :param progress: what the task has done by now, for the log; see :func:`progress_line`.
    :param searches: each as :meth:`.PendingSearch.as_dict` wrote it, with its ``variant``.
    :param later: arguments of newer versions, which this one leaves alone.
    """

    def __init__(
        self,
        generations: Mapping[str, Sequence[Sequence[Any]]] | None = None,
        kling_conn_id: str = DEFAULT_CONNECTION_ID,
        deadline: float | None = None,
        schedule: Mapping[str, Any] | None = None,
        enough: int = 1,
        linger: float = 0.0,
        progress: Mapping[str, Any] | None = None,
        searches: Sequence[Mapping[str, Any]] = (),
        **later: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.generations = generations
        self.kling_conn_id = kling_conn_id
        self.deadline = deadline
        self.schedule = schedule
        self.enough = enough
        self.linger = linger
        self.progress = progress
        self.searches = searches
        self.later = later

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments; no key and no signed URL among them."""
        names = (
            "generations",
            "kling_conn_id",
            "deadline",
            "schedule",
            "enough",
            "linger",
            "progress",
            "searches",
        )
        arguments = {name: getattr(self, name) for name in names}
        return "airflow_provider_kling.triggers.batch.KlingBatchTrigger", {**arguments, **self.later}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until enough generations have ended, then yield the one event."""
        from airflow_provider_kling.triggers.shared_pollers import SharedPollers

        loop = asyncio.get_running_loop()
        begun = loop.time()
        event: dict[str, Any] = {"schema": EVENT_SCHEMA, "ended": [], "deadline": self.deadline}
        waits = _Waits(self, SharedPollers.of_this_loop())
        try:
            await waits.until_enough()
        except KlingError as error:
            event |= {"error": str(error), "recovery": error.recovery.name}
        finally:
            await waits.leave()
        event |= {
            "ended": waits.ended,
            "answers": waits.answers,
            "unanswered": waits.unanswered,
            "polled": waits.polled(),
        }
        if (early := EARLIEST_EVENT - (loop.time() - begun)) > 0:
            await asyncio.sleep(early)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow's is untyped

    async def on_kill(self) -> None:
        """Say what keeps running; Airflow 3.3 and newer."""
        self.log.warning(
            "The task was stopped. %d generations keep running: the vendor has no cancel API, and they are "
            "billed on completion. The next attempt of this task re-attaches to them.",
            len(self.waits()),
        )

    def waits(self) -> list[TriggerArguments]:
        """What to wait for, as far as it can be read."""
        found = []
        generations = self.generations if isinstance(self.generations, Mapping) else {}
        for model, each in generations.items():
            for facts in each if isinstance(each, list | tuple) else ():
                given = facts if isinstance(facts, list | tuple) else [facts]
                generation_id, submitted_at, polled_at = (*given, None, None, None)[:3]
                arguments = TriggerArguments.read(
                    {
                        "generation_id": generation_id,
                        "kling_conn_id": self.kling_conn_id,
                        "deadline": self.deadline,
                        "schedule": self.schedule,
                        "submitted_at": submitted_at,
                        "since": polled_at,
                        "model": model or None,
                    }
                )
                if arguments.generation_id:
                    found.append(arguments)
                else:
                    self.log.warning("The trigger has a generation that cannot be read: %.200r", facts)
        return found


class _Polled:
    """When a generation was polled last, which the next trigger continues from."""

    def __init__(self, arguments: TriggerArguments) -> None:
        self.submitted_at = time.time() if arguments.submitted_at is None else arguments.submitted_at
        self._before = self.submitted_at if arguments.since is None else arguments.since
        self.timetable: LearningSchedule | None = None
        self._settings: Settings | None = None

    @property
    def at(self) -> float:
        """Epoch seconds; of the submit, where there was none."""
        asked_at = None if self.timetable is None else self.timetable.asked_at
        return self._before if asked_at is None else self.submitted_at + asked_at

    def keep_below_rate(self, together: int) -> None:
        """Poll so rarely that so many together keep below the rate of their connection.

        :param together: generations that the trigger waits for.
        """
        from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for

        if self.timetable is None or self._settings is None:
            return
        per_minute = limiter_for(self._settings).per_minute
        rate = None if per_minute is None else SHARE_OF_RATE * per_minute / 60.0
        self.timetable.shortest_wait = 0.0 if rate is None else together / rate

    def follow(self, timetable: LearningSchedule, settings: Settings, together: int) -> float:
        """Seconds until the next poll by a wait's timetable, which tells of the last poll from now on."""
        self._before, self.timetable, self._settings = self.at, timetable, settings
        self.keep_below_rate(together)
        due = self._before + timetable.next_wait(self._before - self.submitted_at)
        timetable.asked_at = None
        return max(0.0, due - time.time())


@dataclass(slots=True)
class _Wait:
    """A generation's place in the shared poller."""

    arguments: TriggerArguments
    polled: _Polled
    pending: PendingWait


class _Waits:
    """All that one trigger waits for."""

    def __init__(self, trigger: KlingBatchTrigger, pollers: SharedPollers) -> None:
        self.ended: list[str] = []
        self.answers: list[dict[str, Any]] = []
        self.unanswered: dict[str, dict[str, str]] = {}
        self._trigger = trigger
        self._pollers = pollers
        self._generations: dict[asyncio.Future[Any], _Wait] = {}
        self._searches: dict[asyncio.Future[Any], str] = {}
        self._deadline: float = TriggerArguments.read({"deadline": trigger.deadline}).deadline

    async def until_enough(self) -> None:
        """Wait until enough has ended, or long enough after the first end, or until the deadline.

        :raises KlingError: the triggerer cannot wait.
        """
        loop = asyncio.get_running_loop()
        waits = self._trigger.waits()
        for each in waits:
            await self._enter(each, _Polled(each), len(waits))
        self._search()
        deadline = loop.time() + max(0.0, self._deadline - time.time())
        told, first_end = loop.time(), math.inf
        enough, linger = _number(self._trigger.enough, 1.0), _number(self._trigger.linger, 0.0)
        while self._generations or self._searches:
            until = min(told + PROGRESS_EVERY, first_end + linger, deadline)
            done, _ = await asyncio.wait(
                [*self._generations, *self._searches],
                timeout=max(0.0, until - loop.time()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            for future in done:
                await self._take(future)
            self._keep_below_rate()
            now, count = loop.time(), self.count
            if count:
                first_end = min(first_end, now)
            if count >= max(1.0, enough) or now >= min(deadline, first_end + linger):
                return
            if now >= told + PROGRESS_EVERY:
                told = now
                self._tell()

    @property
    def count(self) -> int:
        """How many have ended."""
        return len(self.ended) + len(self.answers) + len(self.unanswered)

    def _keep_below_rate(self) -> None:
        """Have all together poll at less than the rate of their connection, however many they are."""
        count = len(self._generations)
        for each in self._generations.values():
            each.polled.keep_below_rate(count)

    def polled(self) -> dict[str, float]:
        """Epoch seconds of the last poll of each generation that is still running."""
        return {each.arguments.generation_id: round(each.polled.at, 1) for each in self._generations.values()}

    async def leave(self) -> None:
        """End all waits."""
        for future in self._searches:
            future.cancel()
        for each in self._generations.values():
            await self._pollers.leave(each.pending)

    async def _take(self, future: asyncio.Future[Any]) -> None:
        """Take in what ended."""
        if future in self._searches:
            variant = self._searches.pop(future)
            try:
                self.answers.extend(future.result())
            except KlingError as error:
                self.unanswered[variant] = {"message": str(error), "recovery": error.recovery.name}
            return
        wait = self._generations.pop(future)
        try:
            outdated = await self._is_outdated(wait.pending, future)
        finally:
            await self._pollers.leave(wait.pending)
        if outdated:
            await self._enter(wait.arguments, wait.polled, len(self._generations) + 1)
        else:
            self.ended.append(wait.arguments.generation_id)

    async def _is_outdated(self, pending: PendingWait, future: asyncio.Future[Any]) -> bool:
        """Whether a wait ended because its connection is another by now."""
        from airflow_provider_kling.triggers.shared_pollers import ConnectionChangedError

        error = future.exception()
        if isinstance(error, ConnectionChangedError):
            return True
        left = max(0.0, self._deadline - time.time())
        return isinstance(error, KlingError) and await self._pollers.is_outdated(pending, error, at_most=left)

    async def _enter(self, arguments: TriggerArguments, polled: _Polled, together: int) -> None:
        from airflow_provider_kling.api.polling.shared_poller import OverdueError

        try:
            pending = await self._pollers.enter(
                arguments.conn_id,
                partial(_begin, arguments, polled, together),
                model=arguments.model,
                schedule=arguments.schedule,
                at_most=max(0.0, arguments.deadline - time.time()) + OVERDUE,
            )
        except OverdueError as error:
            raise KlingError(str(error), money=Money.GOES_ON, recovery=Recovery.RETRY_TASK) from error
        self._generations[pending.future] = _Wait(arguments, polled, pending)

    def _search(self) -> None:
        """Search for the submits whose answers were lost, all at once and each for itself."""
        from airflow_provider_kling.triggers.submit_search import find_submits

        for each in self._trigger.searches or ():
            finding = find_submits(self._trigger.kling_conn_id, [each])
            variant = str(each.get("variant")) if isinstance(each, Mapping) else ""
            self._searches[asyncio.ensure_future(finding)] = variant

    def _tell(self) -> None:
        said = dict(self._trigger.progress or {})
        said["active"] = len(self._generations) + len(self._searches)
        self._trigger.log.info(
            "%s %d have ended since and wait for a worker.",
            progress_line(said),
            self.count,
        )


def _number(value: Any, default: float) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if known else default


def progress_line(progress: Mapping[str, Any]) -> str:
    """A sentence for the task's log.

    :param progress: ``done``, ``active``, ``failed``, ``total``, ``cost_usd``, and ``estimated_end`` in
        epoch seconds or None; what is missing counts as 0.
    """
    end = progress.get("estimated_end")
    expected = (
        f" Estimated end: {datetime.fromtimestamp(end, UTC).isoformat(' ', 'minutes')}."
        if isinstance(end, int | float)
        else ""
    )
    counts = {name: progress.get(name) or 0 for name in ("done", "total", "active", "failed", "cost_usd")}
    spent = "; about {cost_usd:g} USD spent" if "cost_usd" in progress else ""
    line = "{done} of {total} done, {active} active, {failed} failed" + spent + "."
    return line.format(**counts) + expected


@dataclass(frozen=True, slots=True)
class BatchEvent:
    """The event's content, read.

    :param ended: ids of the generations that ended, well or not.
    :param answers: of the searches for submits, by variant.
    :param unanswered: why a submit could not be searched for, by variant.
    :param polled: epoch seconds of the last poll of each generation that is still running.
    :param deadline: epoch seconds; None where there is none.
    """

    ended: Sequence[str]
    answers: Mapping[Any, PendingSearch] = field(default_factory=dict)
    unanswered: Mapping[str, KlingError] = field(default_factory=dict)
    polled: Mapping[str, float] = field(default_factory=dict)
    deadline: float | None = None


def is_batch_event(event: Any) -> bool:
    """Whether an event is this trigger's."""
    return isinstance(event, Mapping) and isinstance(event.get("ended"), list)


def read_batch_event(event: Any) -> BatchEvent:
    """Read an event, loudly: a malformed one raises with what it holds.

    :raises KlingError: it is not an event of this trigger, or the triggerer could not wait.
    """
    from airflow_provider_kling.triggers.submit_search import read_answers

    if not is_batch_event(event) or event.get("schema") != EVENT_SCHEMA:
        raise KlingError(
            f"The trigger's event cannot be read: {str(event)[:200]}.",
            money=Money.GOES_ON,
            recovery=Recovery.RETRY_TASK,
            advice="Retry or clear the task: it continues with what is recorded.",
        )
    if event.get("error"):
        raise _told({"message": event["error"], "recovery": event.get("recovery")})
    polled, unanswered = (
        each if isinstance(each, Mapping) else {} for each in map(event.get, ("polled", "unanswered"))
    )
    deadline = event.get("deadline")
    return BatchEvent(
        [str(each) for each in event["ended"]],
        read_answers(event.get("answers") or []),
        {str(each): _told(failure) for each, failure in unanswered.items()},
        {str(each): at for each, at in polled.items() if isinstance(at, int | float)},
        deadline if isinstance(deadline, int | float) else None,
    )


def _told(failure: Any) -> KlingError:
    said = failure if isinstance(failure, Mapping) else {}
    recovery = Recovery.__members__.get(str(said.get("recovery")))
    return KlingError(str(said.get("message")), recovery=recovery, is_whole=True)


def _begin(
    arguments: TriggerArguments,
    polled: _Polled,
    together: int,
    calls: VendorCalls,
    timetable: LearningSchedule,
) -> Flow[Generation]:
    first_look_after = polled.follow(timetable, calls.endpoints.settings, together)
    return calls.wait_until_complete(
        arguments.generation_id,
        schedule=timetable,
        deadline=arguments.deadline,
        submitted_at=polled.submitted_at,
        first_look_after=first_look_after,
        learn=None if arguments.submitted_at is None else timetable.learn,
    )

"""KlingBatchTrigger waits for many generations at once, and fires when enough of them have ended."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_kling.api.exceptions import KlingError, Money, Recovery
from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.triggers.arguments import TriggerArguments
from airflow_provider_kling.triggers.kling import EARLIEST_EVENT, EVENT_SCHEMA

if TYPE_CHECKING:
    from airflow_provider_kling.api.calls import VendorCalls
    from airflow_provider_kling.api.generation import Generation
    from airflow_provider_kling.api.polling.learned_durations import LearningSchedule
    from airflow_provider_kling.api.transport.messages import Flow
    from airflow_provider_kling.triggers.shared_pollers import PollerEntry, SharedPollers

PROGRESS_EVERY: Final = 60.0
"""Seconds between two lines of progress in the task's log."""
OVERDUE: Final = 120.0
"""Seconds after the deadline at which a wait that got no turn is given up."""


class KlingBatchTrigger(BaseTrigger):
    """Waits for many generations of one connection; its event names those that ended, well or not.

    Each of them is polled by the connection's shared poller, as those of
    :class:`.KlingGenerationTrigger` are.

    :param generations: by model (an empty text where it is not known): pairs of generation id and epoch
        seconds of its submit.
    :param kling_conn_id: the Airflow connection of the account.
    :param deadline: epoch seconds at which it fires whatever has ended.
    :param schedule: when to poll, as :meth:`.Schedule.as_dict` wrote it; None for the usual.
    :param enough: how many must have ended for it to fire.
    :param linger: seconds after the first end at which it fires with fewer.
    :param progress: what the task has done by now, for the log: ``done``, ``failed``, ``total``.
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
        progress: Mapping[str, int] | None = None,
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
        self.later = later

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments; no key and no signed URL among them."""
        names = ("generations", "kling_conn_id", "deadline", "schedule", "enough", "linger", "progress")
        arguments = {name: getattr(self, name) for name in names}
        return "airflow_provider_kling.triggers.batch.KlingBatchTrigger", {**arguments, **self.later}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until enough generations have ended, then yield the one event."""
        from airflow_provider_kling.triggers.shared_pollers import SharedPollers

        loop = asyncio.get_running_loop()
        begun = loop.time()
        waits = [self._arguments(model, *each) for model, each in self._pairs()]
        pollers = SharedPollers.of_this_loop()
        try:
            ended = await self._ended(pollers, waits)
            event: dict[str, Any] = {"schema": EVENT_SCHEMA, "ended": ended}
        except KlingError as error:
            event = {
                "schema": EVENT_SCHEMA,
                "ended": [],
                "error": str(error),
                "recovery": error.recovery.name,
            }
        if (early := EARLIEST_EVENT - (loop.time() - begun)) > 0:
            await asyncio.sleep(early)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]  # Airflow's is untyped

    async def on_kill(self) -> None:
        """Say what keeps running; Airflow 3.3 and newer."""
        count = sum(len(each) for each in (self.generations or {}).values())
        self.log.warning(
            "The task was stopped. %d generations keep running: the vendor has no cancel API, and they are "
            "billed on completion. The next attempt of this task re-attaches to them.",
            count,
        )

    async def _ended(self, pollers: SharedPollers, waits: Iterable[TriggerArguments]) -> list[str]:
        """Ids of the generations that ended."""
        entries: dict[asyncio.Future[Any], tuple[TriggerArguments, PollerEntry]] = {}
        try:
            for each in waits:
                entry = await self._enter(pollers, each)
                entries[entry.pending.future] = (each, entry)
            return await self._until_enough(pollers, entries)
        finally:
            for _, entry in entries.values():
                await pollers.leave(entry)

    async def _until_enough(
        self,
        pollers: SharedPollers,
        entries: dict[asyncio.Future[Any], tuple[TriggerArguments, PollerEntry]],
    ) -> list[str]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + max(0.0, self._deadline - time.time())
        told, first_end = loop.time(), math.inf
        ended: list[str] = []
        while entries and len(ended) < max(1, self.enough):
            until = min(told + PROGRESS_EVERY, first_end + self.linger, deadline)
            done, _ = await asyncio.wait(
                entries, timeout=max(0.0, until - loop.time()), return_when=asyncio.FIRST_COMPLETED
            )
            for future in done:
                arguments, entry = entries.pop(future)
                try:
                    outdated = await self._is_outdated(pollers, entry, future)
                finally:
                    await pollers.leave(entry)
                if outdated:
                    entry = await self._enter(pollers, arguments)
                    entries[entry.pending.future] = (arguments, entry)
                    continue
                ended.append(arguments.generation_id)
                first_end = min(first_end, loop.time())
            now = loop.time()
            if now >= told + PROGRESS_EVERY:
                told = now
                self._tell(len(ended), len(entries))
            if now >= deadline or (ended and now >= first_end + self.linger):
                break
        return ended

    async def _is_outdated(
        self, pollers: SharedPollers, entry: PollerEntry, future: asyncio.Future[Any]
    ) -> bool:
        """Whether a wait ended because its connection is another by now."""
        from airflow_provider_kling.triggers.shared_pollers import ConnectionChangedError

        error = future.exception()
        if isinstance(error, ConnectionChangedError):
            return True
        left = max(0.0, self._deadline - time.time())
        return isinstance(error, KlingError) and await pollers.is_outdated(entry, error, at_most=left)

    async def _enter(self, pollers: SharedPollers, arguments: TriggerArguments) -> PollerEntry:
        from airflow_provider_kling.api.polling.shared_poller import OverdueError

        try:
            return await pollers.enter(
                arguments.conn_id,
                partial(_begin, arguments),
                model=arguments.model,
                schedule=arguments.schedule,
                at_most=max(0.0, arguments.deadline - time.time()) + OVERDUE,
            )
        except OverdueError as error:
            raise KlingError(str(error), money=Money.GOES_ON, recovery=Recovery.RETRY_TASK) from error

    @property
    def _deadline(self) -> float:
        return TriggerArguments.read({"deadline": self.deadline}).deadline

    def _pairs(self) -> list[tuple[str, Sequence[Any]]]:
        return [(model, pair) for model, pairs in (self.generations or {}).items() for pair in pairs]

    def _arguments(
        self, model: str, generation_id: str, submitted_at: float | None = None
    ) -> TriggerArguments:
        return TriggerArguments.read(
            {
                "generation_id": generation_id,
                "kling_conn_id": self.kling_conn_id,
                "deadline": self.deadline,
                "schedule": self.schedule,
                "submitted_at": submitted_at,
                "model": model or None,
            }
        )

    def _tell(self, ended: int, waiting: int) -> None:
        done = dict(self.progress or {})
        self.log.info(
            "Waiting for %d generations; %d ended since the last report. Of %d, %d are done and %d failed.",
            waiting,
            ended,
            done.get("total", waiting + ended),
            done.get("done", 0),
            done.get("failed", 0),
        )


def read_batch_event(event: Any) -> list[str]:
    """Read an event, loudly: a malformed one raises with what it holds.

    :return: ids of the generations that ended.
    :raises KlingError: it is not an event of this trigger, or the triggerer could not wait.
    """
    if not isinstance(event, Mapping) or not isinstance(event.get("ended"), list):
        raise KlingError(
            f"The trigger's event cannot be read: {str(event)[:200]}.",
            money=Money.GOES_ON,
            recovery=Recovery.RETRY_TASK,
            advice="Retry or clear the task: it continues with what is recorded.",
        )
    if event.get("error"):
        recovery = Recovery.__members__.get(str(event.get("recovery")))
        raise KlingError(str(event["error"]), recovery=recovery, is_whole=True)
    return [str(each) for each in event["ended"]]


def _begin(arguments: TriggerArguments, calls: VendorCalls, timetable: LearningSchedule) -> Flow[Generation]:
    return calls.wait_until_complete(
        arguments.generation_id,
        schedule=timetable,
        deadline=arguments.deadline,
        submitted_at=arguments.counted_from or time.time(),
        learn=None if arguments.submitted_at is None else timetable.learn,
    )

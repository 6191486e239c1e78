"""KlingGenerationTrigger waits for a generation in the triggerer; its event is written and read here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, Final

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_kling.api import exceptions
from airflow_provider_kling.api.calls import VendorCalls, timed_out
from airflow_provider_kling.api.exceptions import (
    GenerationFailedError,
    GenerationTimeoutError,
    KlingError,
    Money,
    Recovery,
)
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.api.polling.learned_durations import LearningSchedule
from airflow_provider_kling.api.polling.shared_poller import OverdueError
from airflow_provider_kling.api.transport.messages import Flow
from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.hooks import metrics
from airflow_provider_kling.triggers.arguments import TriggerArguments

EVENT_SCHEMA: Final = 1
EARLIEST_EVENT: Final = 5.0
"""Seconds before the first poll, and before any event. One within about two seconds of the deferral
can make LocalExecutor fail the task: the worker has not reported its own end yet (measured on 3.3.2)."""
FIRST_LOOKS_SPREAD: Final = 0.5
"""Up to this share later, so that the triggers of a restarted triggerer do not poll all at once."""
OVERDUE: Final = 180.0
"""Seconds after the deadline that the final status check may take, if requests are rate limited or the
connection be unreadable; the wait then ends without it."""
ENDED: Final = "This wait ended: the task was stopped or cleared, or another triggerer took it over."


class KlingGenerationTrigger(BaseTrigger):
    """Waits until a generation is completed, failed, or late.

    Takes whatever it is given: :class:`.TriggerArguments` says what is made of that when it runs.

    :param generation_id: what to wait for.
    :param kling_conn_id: the connection that submitted it.
    :param deadline: epoch seconds, at which the wait ends; the same after a triggerer restart.
        None waits for as long as Airflow lets the task be deferred.
    :param schedule: when to poll, as :meth:`.Schedule.as_dict` wrote it; None for the usual.
    :param submitted_at: epoch seconds of the submit, which the schedule counts from.
    :param model: the vendor's model id, where it is known, to learn how long it takes.
    :param since: epoch seconds which the schedule counts from where ``submitted_at`` is not known;
        nothing is learned from them.
    :param later: arguments of newer versions, which this one leaves alone.
    """

    def __init__(
        self,
        generation_id: str = "",
        kling_conn_id: str = DEFAULT_CONNECTION_ID,
        deadline: float | None = None,
        schedule: Mapping[str, Any] | None = None,
        submitted_at: float | None = None,
        model: str | None = None,
        since: float | None = None,
        **later: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.generation_id = generation_id
        self.kling_conn_id = kling_conn_id
        self.deadline = deadline
        self.schedule = dict(schedule) if isinstance(schedule, Mapping) else schedule
        self.submitted_at = submitted_at
        self.model = model
        self.since = since
        self.later = later

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments; no key and no signed URL among them."""
        return (
            "airflow_provider_kling.triggers.kling.KlingGenerationTrigger",
            {
                "generation_id": self.generation_id,
                "kling_conn_id": self.kling_conn_id,
                "deadline": self.deadline,
                "schedule": self.schedule,
                "submitted_at": self.submitted_at,
                "model": self.model,
                "since": self.since,
                **self.later,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until the wait is over, then yield the one event."""
        from airflow_provider_kling.triggers.shared_pollers import ConnectionChangedError, SharedPollers

        loop = asyncio.get_running_loop()
        begun = loop.time()
        pollers = SharedPollers.of_this_loop()
        arguments = TriggerArguments.read(self.serialize()[1])
        if arguments.odd:
            self.log.warning(
                "The trigger of generation %s has arguments that cannot be read; defaults stand in for: %s",
                arguments.generation_id,
                ", ".join(arguments.odd),
            )
        scheduled_from = time.time() if arguments.counted_from is None else arguments.counted_from
        event = None if arguments.generation_id else failed_event("", nothing_to_wait_for())
        while event is None:
            try:
                pending = await pollers.enter(
                    arguments.conn_id,
                    partial(self._begin, arguments, scheduled_from),
                    model=arguments.model,
                    schedule=arguments.schedule,
                    at_most=max(0.0, arguments.deadline - time.time()) + OVERDUE,
                )
                # Awaited right here: Airflow runs this in a greenlet, which keeps a copy of its C
                # stack for as long as it waits, and each call on the way is part of it.
                try:
                    event = completed_event(await pending.future)
                except KlingError as error:
                    if not await pollers.is_outdated(
                        pending, error, at_most=arguments.deadline - time.time()
                    ):
                        raise
                    raise ConnectionChangedError from error
                finally:
                    await pollers.leave(pending)
            except ConnectionChangedError:
                self.log.info("The connection was changed; still waiting, with the new one.")
            except OverdueError as error:
                event = failed_event(arguments.generation_id, timed_out(arguments.generation_id, str(error)))
            except KlingError as error:
                if error.money in (
                    Money.NOT_SPENT,
                    Money.NOTHING_SENT,
                ):  # by this call; the generation was submitted before
                    event = failed_event(arguments.generation_id, error.with_money(Money.GOES_ON))
                else:
                    event = failed_event(arguments.generation_id, error)
        if (early := EARLIEST_EVENT - (loop.time() - begun)) > 0:
            await asyncio.sleep(early)
        yield _event(event)

    async def on_kill(self) -> None:
        """Log that the generation keeps running; Airflow 3.3 and newer.

        Airflow calls it when a person stops the task, and also when a stalled triggerer comes back.
        """
        self.log.warning(keeps_running(self.generation_id, ENDED))

    def _begin(
        self,
        arguments: TriggerArguments,
        scheduled_from: float,
        calls: VendorCalls,
        timetable: LearningSchedule,
    ) -> Flow[Generation]:
        return calls.wait_until_complete(
            arguments.generation_id,
            schedule=timetable,
            deadline=arguments.deadline,
            submitted_at=scheduled_from,
            watch=self._watch,
            first_look_after=EARLIEST_EVENT * (1.0 + FIRST_LOOKS_SPREAD * calls.rng()),
            learn=None if arguments.submitted_at is None else timetable.learn,
            polled=_count_polls,
        )

    def _watch(self, generation: Generation) -> None:
        self.log.info("Generation %s: %s", generation.id, generation.raw_status)


def _count_polls(polls: int) -> None:
    metrics.count(metrics.POLLS, polls)


def _event(payload: dict[str, Any]) -> TriggerEvent:
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's is untyped


def nothing_to_wait_for() -> KlingError:
    """The error for a trigger that names no generation."""
    return KlingError(
        "The trigger names no generation id, so there is nothing to wait for.",
        advice="If a generation was submitted, it keeps running and is billed on completion: wait for "
        "it with KlingGenerationSensor(generation_id=...); the task that submitted it has logged the id.",
    )


def completed_event(generation: Generation) -> dict[str, Any]:
    """The event of a completed generation. It names no URL, which expires: a fresh one is requested later."""
    return {
        "schema": EVENT_SCHEMA,
        "generation_id": generation.id,
        "status": str(generation.status),
    }


def failed_event(generation_id: str, error: KlingError) -> dict[str, Any]:
    """The event of a wait that ended without a video."""
    return {
        "schema": EVENT_SCHEMA,
        "generation_id": generation_id,
        "error": {
            "kind": type(error).__name__,
            "message": str(error),
            "recovery": error.recovery.name,
        },
    }


def read_event(event: Any, waited_for: str = "") -> tuple[str, KlingError | None]:
    """Read an event, loudly: a malformed one raises with what it holds.

    :param waited_for: the generation id, for an event that does not tell it.
    :return: the generation id, and why the wait ended without a video; None where it is there.
    :raises KlingError: it is not an event of this trigger; the generation keeps running.
    """
    if not isinstance(event, Mapping) or not isinstance(event.get("generation_id"), str):
        raise KlingError(
            f"The trigger's event cannot be read: {str(event)[:200]}. "
            f"The task waited for generation {waited_for or 'unknown'}.",
            money=exceptions.Money.GOES_ON,
            recovery=Recovery.RETRY_TASK,
            advice="Clear the task: it waits for the same generation again.",
        )
    generation_id = event["generation_id"]
    failure = event.get("error")
    if event.get("schema") != EVENT_SCHEMA or not (failure is None or isinstance(failure, Mapping)):
        raise KlingError(
            f"The trigger's event about generation {generation_id} has schema {event.get('schema')!r}, "
            "and this "
            f"worker reads {EVENT_SCHEMA}: the triggerer runs another version of the provider.",
            money=exceptions.Money.GOES_ON,
            recovery=Recovery.RETRY_TASK,
            advice="Install the same version on workers and triggerers.",
            generation_id=generation_id,
        )
    if failure is None:
        return generation_id, None
    message, recovery = str(failure.get("message")), Recovery.__members__.get(str(failure.get("recovery")))
    facts: dict[str, Any] = {"recovery": recovery, "generation_id": generation_id, "is_whole": True}
    error: KlingError
    match failure.get("kind"):
        case GenerationFailedError.__name__:
            error = GenerationFailedError(message, name="", message=message, **facts)
        case GenerationTimeoutError.__name__:
            error = GenerationTimeoutError(message, **facts)
        case _:
            error = KlingError(message, **facts)
    return generation_id, error


def keeps_running(generation_id: str, why: str = "The task was stopped.") -> str:
    """The warning for a wait that ends while its generation runs: the vendor has no cancel API.

    :param why: what ended it.
    """
    return (
        f"{why} Generation {generation_id} keeps running: the vendor has no cancel API. It is billed on "
        "completion. The next attempt of this task re-attaches to it; you can also wait for it with "
        f"KlingGenerationSensor(generation_id={generation_id!r})."
    )

"""How a batch waits for its generations: in the triggerer, or on the worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow_provider_kling.api.calls import is_ready
from airflow_provider_kling.api.catalog.models import schedule_for
from airflow_provider_kling.api.exceptions import GenerationFailedError, KlingError
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.transport.messages import Flow, Sleep
from airflow_provider_kling.task.batch.options import BatchOptions
from airflow_provider_kling.task.batch.state import InFlight
from airflow_provider_kling.task.wait import BACKSTOP
from airflow_provider_kling.triggers.batch import PROGRESS_EVERY, SHARE_OF_RATE, KlingBatchTrigger

if TYPE_CHECKING:
    from airflow_provider_kling.hooks.kling import KlingHook

log = logger(__name__)

LINGER: Final = 60.0
"""Seconds after the first end at which the worker is called though few generations have ended."""


class BatchWait:
    """Waits until generations have ended.

    :param options: of the batch.
    :param hook: asks the vendor.
    :param defer: the operator's own ``defer``.
    """

    def __init__(self, options: BatchOptions, hook: KlingHook, defer: Callable[..., Any]) -> None:
        self._options = options
        self._hook = hook
        self._defer = defer
        self._due: dict[str, float] = {}

    def in_triggerer(
        self,
        in_flight: Mapping[str, InFlight],
        searches: Sequence[Mapping[str, Any]],
        progress: Mapping[str, Any],
    ) -> NoReturn:
        """Free the worker until enough has ended to be worth its start.

        :param searches: for submits whose answers were lost, see :class:`.KlingBatchTrigger`.
        :param progress: see :func:`.progress_line`.
        :raises TaskDeferred: to continue in ``execute_complete``.
        """
        options = self._options
        generations: dict[str, list[list[Any]]] = {}
        for generation_id, each in in_flight.items():
            times = [round(at, 1) for at in (each.submitted_at, each.polled_at) if at is not None]
            generations.setdefault(each.model, []).append([generation_id, *times])
        active = len(in_flight) + len(searches)
        log.info("Waiting for %d generations in the triggerer.", active)
        self._defer(
            trigger=KlingBatchTrigger(
                generations=generations,
                kling_conn_id=self._hook.kling_conn_id,
                deadline=self._deadline(in_flight),
                schedule=schedule_for(options.poke_interval, None).as_dict(),
                enough=max(1, min(active, options.max_active // 4)),
                linger=LINGER,
                progress=dict(progress),
                searches=list(searches),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=options.timeout) + BACKSTOP,
        )
        raise AssertionError("defer() does not return")

    def here(self, in_flight: Mapping[str, InFlight]) -> list[str]:
        """Block until a generation has ended, a minute at most: poll each when its completion is likely.

        :return: ids of those that ended.
        """
        begun = time.time()
        deadline = min(self._deadline(in_flight), begun + PROGRESS_EVERY)
        self._due = {
            generation_id: self._due.get(generation_id) or self._next_poll(each, each.submitted_at)
            for generation_id, each in in_flight.items()
        }
        while True:
            now = time.time()
            soon = min(self._due.values())
            self._hook.get_conn().run(_pause(max(0.0, min(soon, deadline) - now)))
            now = time.time()
            ended = []
            for generation_id in [each for each, due in self._due.items() if due <= now + 1.0]:
                if self._has_ended(generation_id):
                    ended.append(generation_id)
                    del self._due[generation_id]
                else:
                    self._due[generation_id] = self._next_poll(in_flight[generation_id], time.time())
            if ended or time.time() >= deadline:
                return ended

    def _deadline(self, in_flight: Mapping[str, InFlight]) -> float:
        """Epoch seconds at which the first of them is late; a second from now at least."""
        first = min((each.submitted_at for each in in_flight.values()), default=time.time())
        return max(time.time() + 1.0, first + self._options.timeout)

    def _next_poll(self, each: InFlight, after: float) -> float:
        schedule = schedule_for(self._options.poke_interval, each.model or None)
        per_minute = self._hook.settings.requests_per_minute
        shortest = 0.0 if per_minute is None else len(self._due) / (SHARE_OF_RATE * per_minute / 60.0)
        return after + max(shortest, schedule.next_wait(after - each.submitted_at))

    def _has_ended(self, generation_id: str) -> bool:
        try:
            return is_ready(self._hook.get_generation(generation_id))
        except GenerationFailedError:
            return True
        except KlingError as error:
            log.warning("Polling generation %s failed; still waiting: %s", generation_id, error.what)
            return False


def _pause(seconds: float) -> Flow[None]:
    yield Sleep(seconds)

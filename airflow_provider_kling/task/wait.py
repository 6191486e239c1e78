"""Waiting for a generation from a task: here, or in the triggerer; the same for operator and sensor."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.version_compat import AirflowFailException

if TYPE_CHECKING:
    from airflow_provider_kling.api.generation import Generation
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.version_compat import BaseOperator

DEFAULT_TIMEOUT: Final = 2 * 3600.0
"""Seconds. Published generations took up to 431 s; 68 minutes have been met in the wild."""
ID_KEY: Final = "generation_id"
"""XCom of the generation id; of several variants, a list with None where a submit failed."""
REQUEST_KEY: Final = "request"
"""XCom of what was asked for: model, parameters with media by source and checksum, client request
id, and the epoch seconds of the submit."""
COLOR: Final = "#e8e4ff"
_BACKSTOP: Final = timedelta(minutes=10)
"""How much later than the trigger's own deadline Airflow ends a deferral whose trigger is lost."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One task's wait.

    :param task: defers, and logs.
    :param hook: asks the vendor.
    :param poke_interval: seconds between polls; None polls where completion is likely.
    :param timeout: seconds to wait at most.
    :param finish: told the completed generation: what the task makes of it.
    """

    task: BaseOperator
    hook: KlingHook
    poke_interval: float | None
    timeout: float
    finish: Callable[[Generation], None]

    def here(
        self, generation_id: str, *, model: str | None = None, submitted_at: float | None = None
    ) -> Generation:
        """Block until the video is there.

        :raises KlingError: as :meth:`.KlingHook.wait`.
        """
        generation = self.hook.wait(
            generation_id,
            timeout=self.timeout,
            poke_interval=self.poke_interval,
            model=model,
            submitted_at=submitted_at,
        )
        return self.finished(generation, model)

    def deferred(
        self,
        generation_id: str,
        *,
        model: str | None = None,
        submitted_at: float | None = None,
    ) -> Generation:
        """Free the worker until the video is there; return at once when it is there already.

        :raises TaskDeferred: to go on in ``execute_complete``.
        :raises GenerationFailedError: it ended in an error.
        """
        from airflow_provider_kling.api.calls import is_ready
        from airflow_provider_kling.api.catalog.models import schedule_for
        from airflow_provider_kling.triggers.kling import KlingGenerationTrigger

        if (generation := self._look(generation_id, submitted_at)) and is_ready(generation):
            return self.finished(generation, model)
        self.task.log.info("Waiting for generation %s in the triggerer.", generation_id)
        self.task.defer(
            trigger=KlingGenerationTrigger(
                generation_id=generation_id,
                kling_conn_id=self.hook.kling_conn_id,
                deadline=time.time() + self.timeout,
                schedule=schedule_for(self.poke_interval, model).as_dict(),
                submitted_at=submitted_at,
                since=time.time(),
                model=model,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout) + _BACKSTOP,
        )
        raise AssertionError("defer() does not return")

    def _look(self, generation_id: str, submitted_at: float | None) -> Generation | None:
        """How it stands; None where trouble hides it: the wait itself will see.

        A generation of this very minute is paid for, and may not be known everywhere at the vendor yet:
        no refusal ends its wait here.
        """
        from airflow_provider_kling.api.exceptions import KlingError, Recovery
        from airflow_provider_kling.api.retry import FATAL_SECONDS

        just_now = submitted_at is not None and time.time() - submitted_at < FATAL_SECONDS
        try:
            generation = self.hook.get_generation(generation_id)
        except KlingError as error:
            if error.recovery is Recovery.GIVE_UP and not just_now:
                raise
            self.task.log.warning("The first look failed; the wait goes on: %s", error)
            return None
        self.hook.log_status(generation)
        return generation

    def resumed(self, event: Any, *, model: str | None = None, waited_for: str = "") -> Generation:
        """Read the trigger's event; the video's URL is asked for afresh, as it expires.

        :param waited_for: the generation id, for an event that does not tell it.
        :raises KlingError: why the wait ended without a video.
        """
        from airflow_provider_kling.api.calls import is_ready, not_ready
        from airflow_provider_kling.api.exceptions import KlingError
        from airflow_provider_kling.triggers.kling import read_event

        try:
            settled = read_event(event)
        except KlingError as error:
            if error.generation_id is None:
                error.what += f" The task waited for generation {waited_for or 'unknown'}."
            raise
        if settled.error is not None:
            raise settled.error
        generation = self.hook.get_generation(settled.generation_id)
        if not is_ready(generation):
            raise not_ready(generation)
        return self.finished(generation, model)

    def finished(self, generation: Generation, model: str | None) -> Generation:
        """Hand a completed generation on."""
        generation = replace(generation, model=model)
        self.task.log.info("Generation %s is completed; its video can be fetched.", generation.id)
        self.finish(generation)
        return generation


def push_generation(push: Callable[[str, Any], None], generation: Generation) -> None:
    """What a finished wait leaves in XCom: ``video_url``, signed and expiring, and ``generation``.

    :param push: pushes an XCom: key, value.
    """
    push("video_url", generation.video_url)
    push("generation", generation.as_dict())


def checked_interval(poke_interval: float | timedelta | None) -> float | None:
    """A poll interval in seconds; None for the adaptive schedule.

    :raises AirflowFailException: it is not allowed.
    """
    from airflow_provider_kling.api.polling.schedule import Schedule

    if poke_interval is None:
        return None
    if isinstance(poke_interval, timedelta):
        poke_interval = poke_interval.total_seconds()
    try:
        return Schedule.fixed(poke_interval).interval
    except ValueError as error:
        raise AirflowFailException(f"poke_interval cannot be used: {error}") from None


def checked_seconds(name: str, value: float | timedelta, least: float = 1.0) -> float:
    """A time span in seconds.

    :raises AirflowFailException: it is not a number from ``least`` to a week.
    """
    from airflow_provider_kling.api.retry import checked_span

    try:
        return checked_span(name, value.total_seconds() if isinstance(value, timedelta) else value, least)
    except ValueError as error:
        raise AirflowFailException(f"{error}, or a timedelta.") from None

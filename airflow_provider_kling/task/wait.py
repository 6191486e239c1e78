"""Waiting for a generation from a task: it blocks, or defers; the same for operator and sensor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow_provider_kling.api.redaction import logger, shown

if TYPE_CHECKING:
    from airflow_provider_kling.api.durable.submit import PendingSearch
    from airflow_provider_kling.api.generation import Generation
    from airflow_provider_kling.hooks.kling import KlingHook

log = logger(__name__)

BACKSTOP: Final = timedelta(minutes=10)
"""How much later than the trigger's own deadline Airflow ends a deferral whose trigger is lost."""

LINGER: Final = 15.0
"""Seconds after the first of several generations at which the worker saves what is completed."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How a task waits for a generation.

    :param hook: asks the vendor.
    :param defer: the operator's own ``defer``.
    :param poke_interval: seconds between polls; None polls where completion is likely.
    :param timeout: seconds to wait at most.
    """

    hook: KlingHook
    defer: Callable[..., Any]
    poke_interval: float | None
    timeout: float

    def block(
        self, generation_id: str, *, model: str | None = None, submitted_at: float | None = None
    ) -> Generation:
        """Block until the video can be fetched.

        :param submitted_at: epoch seconds of the submit, where they are known.
        :raises KlingError: as :meth:`.KlingHook.wait`.
        """
        generation = self.hook.wait(
            generation_id,
            timeout=self.timeout,
            poke_interval=self.poke_interval,
            model=model,
            submitted_at=submitted_at,
        )
        return completed(generation, model)

    def until_complete(
        self, generation_id: str, *, model: str | None = None, submitted_at: float | None = None
    ) -> Generation:
        """Free the worker until the video can be fetched; return at once when it can be fetched already.

        :param submitted_at: see :meth:`block`.
        :raises TaskDeferred: to continue in ``execute_complete``.
        :raises GenerationFailedError: it ended in an error.
        """
        from airflow_provider_kling.api.catalog.models import schedule_for
        from airflow_provider_kling.triggers.kling import KlingGenerationTrigger

        if generation := self.completed_already(generation_id, model=model, submitted_at=submitted_at):
            return generation
        log.info("Waiting for generation %s in the triggerer.", generation_id)
        self.defer(
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
            timeout=timedelta(seconds=self.timeout) + BACKSTOP,
        )
        raise AssertionError("defer() does not return")

    def completed_already(
        self, generation_id: str, *, model: str | None = None, submitted_at: float | None = None
    ) -> Generation | None:
        """The generation, if its video can be fetched by now.

        :raises GenerationFailedError: it ended in an error.
        """
        from airflow_provider_kling.api.calls import is_ready

        if (generation := self._check(generation_id, submitted_at)) and is_ready(generation):
            return completed(generation, model)
        return None

    def until_any_complete(
        self,
        models: Mapping[str, str],
        submitted_at: Mapping[str, float | None],
        polled_at: Mapping[str, float],
        deadline: float | None,
        total: int,
    ) -> NoReturn:
        """Free the worker until several generations have ended, or :data:`LINGER` seconds after the first.

        :param models: by generation id.
        :param submitted_at: epoch seconds, by generation id.
        :param polled_at: epoch seconds of the last poll, by generation id.
        :param deadline: epoch seconds, as the first wait of this attempt set it; None for the first.
        :param total: generations of the task.
        :raises TaskDeferred: to continue in ``execute_complete``.
        """
        from airflow_provider_kling.api.catalog.models import schedule_for
        from airflow_provider_kling.triggers.batch import KlingBatchTrigger

        deadline = time.time() + self.timeout if deadline is None else deadline
        generations: dict[str, list[list[Any]]] = {}
        for generation_id, model in models.items():
            facts = [generation_id, submitted_at.get(generation_id), polled_at.get(generation_id)]
            generations.setdefault(model, []).append(facts)
        log.info("Waiting for generations %s in the triggerer.", ", ".join(models))
        self.defer(
            trigger=KlingBatchTrigger(
                generations=generations,
                kling_conn_id=self.hook.kling_conn_id,
                deadline=deadline,
                schedule=schedule_for(self.poke_interval, None).as_dict(),
                enough=len(models),
                linger=LINGER,
                progress={"total": total, "done": total - len(models)},
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, deadline - time.time())) + BACKSTOP,
        )
        raise AssertionError("defer() does not return")

    def ended(self, generation_id: str, *, model: str | None, late: bool) -> Generation | None:
        """Ask for a generation that the triggerer saw end; None where it has not.

        :param late: whether the time to wait is over.
        :raises KlingError: there is no video.
        """
        from airflow_provider_kling.api.calls import is_ready, timed_out

        generation = self.hook.get_generation(generation_id)
        if is_ready(generation):
            return completed(generation, model)
        if late:
            raise timed_out(generation_id, f"last status: {shown(generation.raw_status)}")
        return None

    def until_found(self, pending: Mapping[int | None, PendingSearch]) -> NoReturn:
        """Free the worker until it is known whether submits without an answer were accepted.

        :param pending: by variant; None where the task makes one generation.
        :raises TaskDeferred: to continue in ``execute_complete``.
        """
        from airflow_provider_kling.api.durable.search import UNREADABLE_FOR
        from airflow_provider_kling.triggers.submit_search import KlingSubmitSearchTrigger

        left = max(each.search.until for each in pending.values()) - time.time()
        log.info(
            "Searching the vendor's request log in the triggerer, for up to %.0f s, for %s.",
            max(0.0, left),
            ", ".join(each.search.names[0] for each in pending.values()),
        )
        searches = [{"variant": variant, **each.as_dict()} for variant, each in pending.items()]
        self.defer(
            trigger=KlingSubmitSearchTrigger(searches=searches, kling_conn_id=self.hook.kling_conn_id),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, left) + UNREADABLE_FOR) + BACKSTOP,
        )
        raise AssertionError("defer() does not return")

    def _check(self, generation_id: str, submitted_at: float | None) -> Generation | None:
        """Its status; None where trouble hides it: the wait itself will see.

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
            log.warning("Status check before deferring failed; deferring anyway: %s", error)
            return None
        self.hook.log_status(generation)
        return generation

    def resume(self, event: Any, *, model: str | None = None, waited_for: str = "") -> Generation:
        """Read the trigger's event; a fresh URL of the video is requested, as it expires.

        :param waited_for: the generation id, for an event that does not tell it.
        :raises KlingError: why the wait ended without a video.
        """
        from airflow_provider_kling.api.calls import is_ready, not_ready
        from airflow_provider_kling.triggers.kling import read_event

        generation_id, error = read_event(event, waited_for)
        if error is not None:
            raise error
        generation = self.hook.get_generation(generation_id)
        if not is_ready(generation):
            raise not_ready(generation)
        return completed(generation, model)


def completed(generation: Generation, model: str | None) -> Generation:
    """A generation whose video can be fetched, with its model."""
    log.info("Generation %s is completed; its video can be fetched.", generation.id)
    return replace(generation, model=model)

"""KlingGenerationSensor waits until the video of a generation is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.links.kling import LINKS
from airflow_provider_kling.task.arguments import (
    DEFAULT_TIMEOUT,
    ArgumentField,
    Check,
    CheckedWhenParsed,
    as_text,
    checked_interval,
    checked_seconds,
)
from airflow_provider_kling.task.failures import failing_as_airflow_expects, record_failure
from airflow_provider_kling.task.wait import Wait, completed
from airflow_provider_kling.version_compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_kling.api.generation import Generation
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)


class KlingGenerationSensor(CheckedWhenParsed, BaseSensorOperator):
    """Wait until the video of a generation can be fetched.

    Returns the generation as a dict: ``id``, ``status``, and where known ``video_url``,
    ``duration`` (seconds), ``credits_used``, ``model``. Pushes XCom ``video_url``: it is signed and
    expires, so fetch the video soon, or by KlingDownloadOperator, which asks for a fresh one. Pushes
    also ``cost``, as far as the vendor's answer and the account's ledger tell it.

    Example: with ``timeout=3600`` and ``deferrable=True`` the task checks once, frees its worker,
    is polled in the triggerer some 13 times if the generation takes four minutes, and resumes
    about 6 seconds after the vendor is done. A generation that takes longer than an hour fails the
    task without a retry (``soft_fail=True``: skips it), and can be waited for again by clearing it.

    :param generation_id: what to wait for, usually from XCom.
    :param kling_conn_id: the connection that submitted it.
    :param deferrable: wait in the triggerer instead of on the worker.
    :param poke_interval: seconds between polls, 1 to 3600; None polls where completion is likely.
    :param timeout: seconds to wait at most.
    :param model: the model, whose usual duration improves the polling times; not needed where a
        KlingGenerateOperator upstream submitted the generation.
    :raises AirflowFailException: the generation ended in an error, or a retry cannot fix it.
    :raises AirflowSensorTimeout: ``timeout`` is reached; the generation may still complete.
    """

    template_fields: Sequence[str] = ("generation_id", "kling_conn_id", "model")
    operator_extra_links = LINKS
    generation_id: Any = ArgumentField(as_text)
    kling_conn_id: Any = ArgumentField(as_text)
    argument_checks: ClassVar[Mapping[str, Check]] = {
        "poke_interval": checked_interval,
        "timeout": lambda value: checked_seconds("timeout", value, least=0.0),
    }

    def __init__(
        self,
        *,
        generation_id: str | XComArg,
        kling_conn_id: str = DEFAULT_CONNECTION_ID,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta | None = None,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        model: str | None = None,
        **kwargs: Any,
    ) -> None:
        interval = self.argument_checks["poke_interval"](poke_interval)
        timeout = self.argument_checks["timeout"](timeout)
        # Airflow's own interval must be a number; it is not used where the schedule is adaptive.
        super().__init__(poke_interval=interval or 60.0, timeout=timeout, **kwargs)
        self._interval = interval
        self.generation_id = generation_id
        self.kling_conn_id = kling_conn_id
        self.deferrable = deferrable
        self.model = model
        self._request: Mapping[str, Any] = {}
        self._model = model

    @cached_property
    def hook(self) -> KlingHook:
        """The hook of the task's connection."""
        from airflow_provider_kling.hooks.kling import KlingHook

        return KlingHook(self.kling_conn_id)

    def execute(self, context: Context) -> Any:
        """Check the status, and wait: on the worker, rescheduled, or in the triggerer.

        :return: the generation as a dict.
        """
        self._recall_request(context)
        if not self.deferrable:
            return self._poked(context)
        try:
            with self._failing(context):
                submitted_at = self._request.get("submitted_at")
                generation = self._wait.until_complete(
                    self.generation_id, model=self._model, submitted_at=submitted_at
                )
                return self._finished(context, generation)
        except (AirflowFailException, AirflowSensorTimeout) as error:
            if self._skips:
                raise AirflowSkipException(
                    "Skipping: the sensor failed and soft_fail (or never_fail) is set."
                ) from error
            raise

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Continue when the triggerer has seen the end of the wait.

        :return: the generation as a dict.
        """
        self._recall_request(context)
        with self._failing(context):
            generation = self._wait.resume(event, model=self._model, waited_for=self.generation_id)
            return self._finished(context, generation)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Check the status once; temporary trouble does not end the wait."""
        from airflow_provider_kling.api.calls import is_ready
        from airflow_provider_kling.api.exceptions import KlingError, Recovery

        with self._failing(context):
            try:
                generation = self.hook.get_generation(self.generation_id)
            except KlingError as error:
                if error.recovery is Recovery.GIVE_UP:
                    raise
                log.warning("Polling generation %s failed; still waiting: %s", self.generation_id, error)
                return False
            self.hook.log_status(generation)
            if not is_ready(generation):
                return False
            done = self._finished(context, completed(generation, self._model))
            return PokeReturnValue(is_done=True, xcom_value=done)

    @property
    def _skips(self) -> bool:
        """Whether Airflow makes a skip of a failure, and then keeps its reason to itself."""
        return bool(self.soft_fail or self.never_fail)

    def _recall_request(self, context: Context) -> None:
        """What the task upstream asked for tells when, and of which model; empty if there is none."""
        from airflow_provider_kling.task.xcom import upstream_request

        self._request = upstream_request(context, self.generation_id) or {}
        self._model = self.model or self._request.get("model")

    def _poked(self, context: Context) -> Any:
        from airflow_provider_kling.api.calls import timed_out

        late = timed_out(self.generation_id, f"its timeout is {self.timeout:g} s")
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            raise AirflowSensorTimeout(str(late)) from error
        except AirflowSkipException as skipped:
            if skipped.__cause__ is None:  # otherwise it was a failure, and is logged
                log.warning("%s", late)
            raise

    def _get_next_poke_interval(
        self, started_at: Any, run_duration: Callable[[], float], poke_count: int
    ) -> float:
        """Airflow's hook for it: seconds until the next poke, the last of which is at the deadline."""
        from airflow_provider_kling.api.catalog.models import schedule_for

        if self._interval is not None:
            interval = super()._get_next_poke_interval(started_at, run_duration, poke_count)
        else:
            submitted_at = self._request.get("submitted_at")
            elapsed = run_duration() if submitted_at is None else time.time() - submitted_at
            interval = schedule_for(None, self._model).next_wait(elapsed)
        return max(0.0, min(interval, self.timeout - run_duration()))

    @property
    def _wait(self) -> Wait:
        return Wait(self.hook, self.defer, self._interval, self.timeout)

    def _finished(self, context: Context, generation: Generation) -> dict[str, Any]:
        """Push what the vendor said of a completed generation, and what it cost."""
        from airflow_provider_kling.task.results import count_completion, push_cost, push_generation

        push = context["ti"].xcom_push
        push_generation(push, generation)
        cost = push_cost(self.hook, generation, push, self._request)
        count_completion(context, generation, cost, self._request)
        return generation.as_dict()

    @contextmanager
    def _failing(self, context: Context) -> Iterator[None]:
        from airflow_provider_kling.api.exceptions import GenerationTimeoutError

        try:
            with failing_as_airflow_expects(context, submits=False):
                try:
                    yield
                except GenerationTimeoutError as error:
                    record_failure(context, error)
                    # Airflow's word for a sensor that is late: no retry, and soft_fail skips it
                    raise AirflowSensorTimeout(str(error)) from error
        except (AirflowFailException, AirflowSensorTimeout) as error:
            if self._skips:
                log.warning("%s", error)
            raise

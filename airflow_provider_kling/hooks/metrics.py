"""Metrics and spans, through Airflow's own Stats and tracer.

The names and tags of ``resumable_job.*`` are those of Airflow's own durable operators (3.3 and newer), so
that one dashboard shows all of them. Whatever goes wrong here never fails a task: its generation may be paid.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.durable.decision import Action, Decision, Unknown
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.version_compat import start_span, stats

if TYPE_CHECKING:
    from airflow_provider_kling.api.durable.record import Record
    from airflow_provider_kling.api.exceptions import KlingError
    from airflow_provider_kling.version_compat import Context

log = logging.getLogger(__name__)

SUBMITS: Final = "kling.submits"
COMPLETIONS: Final = "kling.completions"
FAILURES: Final = "kling.failures"
WAIT: Final = "kling.wait"
POLLS: Final = "kling.polls"
CREDITS: Final = "kling.credits"
ORPHANS: Final = "kling.orphans"

RESUME_DECISION: Final = "resumable_job.resume_decision"
FRESH_SUBMIT: Final = "resumable_job.fresh_submit"
RECONNECT_ATTEMPT: Final = "resumable_job.reconnect_attempt"
RECONNECT_SUCCESS: Final = "resumable_job.reconnect_success"
ALREADY_SUCCEEDED: Final = "resumable_job.already_succeeded"
TERMINAL_RESUBMIT: Final = "resumable_job.terminal_resubmit"


def count(name: str, number: float = 1, **tags: Any) -> None:
    """Add to a counter; nothing is sent for a number below one."""
    if number >= 1:
        _send("incr", name, int(number), tags)


def gauge(name: str, value: float, **tags: Any) -> None:
    """Set a gauge."""
    _send("gauge", name, value, tags)


def timing(name: str, seconds: float, **tags: Any) -> None:
    """Send a duration."""
    _send("timing", name, timedelta(seconds=max(0.0, seconds)), tags)


def _send(how: str, name: str, value: Any, tags: Mapping[str, Any]) -> None:
    given = {tag: str(each) for tag, each in tags.items() if each not in (None, "")}
    try:
        getattr(stats(), how)(name, value, tags=given)
    except Exception as error:  # what a metrics backend raises is no reason to fail a paid task
        log.info("The metric %s could not be sent: %r", name, error)


def task_tags(context: Context) -> dict[str, Any]:
    """The tags that Airflow gives its own metrics of a task: ``dag_id``, ``task_id``, a team's name."""
    ti: Any = context["ti"]
    tags = getattr(ti, "stats_tags", None)
    return dict(tags) if tags else {"dag_id": ti.dag_id, "task_id": ti.task_id}


def count_completion(tags: Mapping[str, Any], model: str | None, seconds: float | None) -> None:
    """Count a completed generation, and how long it took from its submit, where that is known."""
    count(COMPLETIONS, **tags, model=model)
    if seconds is not None:
        timing(WAIT, seconds, **tags, model=model)


def count_failure(tags: Mapping[str, Any], error: KlingError) -> None:
    """Count a failure by its kind, such as ``GenerationFailed`` or ``RateLimit``."""
    count(FAILURES, **tags, reason=type(error).__name__.removesuffix("Error"))


class ResumeDecision:
    """Counts what is decided on a task's submit, and holds the span of the decision.

    Use it as a context manager; call it with each decision. The span ends with the decision that ends the
    deliberation, so that the submit itself is not in it.

    :param operator: name of the operator's class, as Airflow's durable operators tag it.
    :param tags: of the task; of them ``team_name`` goes along.
    :param key: of the record in the task state store.
    """

    def __init__(self, operator: str, tags: Mapping[str, Any], key: str) -> None:
        self._tags: dict[str, Any] = {"operator": operator, "team_name": tags.get("team_name")}
        self._attributes = {"operator": operator, "resumable.external_id_key": key}
        self._stack = ExitStack()
        self._span: Any = None

    def __enter__(self) -> ResumeDecision:
        try:
            self._span = self._stack.enter_context(start_span(RESUME_DECISION))
        except Exception as error:  # a tracer's trouble is no reason to fail a task
            log.info("The span %s could not be started: %r", RESUME_DECISION, error)
        for name, value in self._attributes.items():
            self._set(name, value)
        return self

    def __call__(self, decision: Decision, record: Record | None, stands: Generation | Unknown) -> None:
        """Take in a decision.

        :param record: what it was made by.
        :param stands: how the recorded generation stands, where that was asked.
        """
        known = record.generation_id if record else None
        if known:
            self._set("resumable.external_id", known)
        if isinstance(stands, Generation):
            self._set("resumable.prior_status", str(stands.status))
        if decision.action is Action.ASK:
            count(RECONNECT_ATTEMPT, **self._tags)
        elif decision.action is Action.REATTACH:
            self._end("reconnect", RECONNECT_SUCCESS)
        elif decision.action is Action.USE:
            self._end("already_succeeded", ALREADY_SUCCEEDED)
        elif decision.action is Action.SUBMIT and known:
            self._end("terminal_resubmit", TERMINAL_RESUBMIT)
        elif decision.action is Action.SUBMIT:
            self._end("fresh_submit", FRESH_SUBMIT)
        elif decision.action is Action.STOP:
            self._end("stop", None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _end(self, decision: str, counter: str | None) -> None:
        if counter is not None:
            count(counter, **self._tags)
        self._set("resumable.decision", decision)
        self._close()

    def _set(self, name: str, value: str) -> None:
        if self._span is not None:
            self._span.set_attribute(name, value)

    def _close(self) -> None:
        self._span = None
        try:
            self._stack.close()
        except Exception as error:
            log.info("The span %s could not be ended: %r", RESUME_DECISION, error)

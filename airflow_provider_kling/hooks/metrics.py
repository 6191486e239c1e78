"""Metrics and spans, through Airflow's own Stats and tracer.

The names and tags of ``resumable_job.*`` are those of Airflow's own durable operators (3.3 and newer), so
that one dashboard shows all of them. Whatever goes wrong here never fails a task: its generation may be paid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.durable.decision import Decision, NotFound
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.version_compat import start_span, stats

if TYPE_CHECKING:
    from airflow_provider_kling.api.durable.record import Record
    from airflow_provider_kling.api.durable.submit import OnDecision
    from airflow_provider_kling.api.exceptions import KlingError
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)

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
_OUTCOMES: Final[Mapping[str, tuple[str, str | None]]] = {
    "reattach": ("reconnect", RECONNECT_SUCCESS),
    "use": ("already_succeeded", ALREADY_SUCCEEDED),
    "submit": ("fresh_submit", FRESH_SUBMIT),
    "stop": ("stop", None),
}
"""Decisions that end the deliberation: the span's word, and the counter."""


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


@contextmanager
def resume_decision(operator: str, tags: Mapping[str, Any], key: str) -> Iterator[OnDecision]:
    """Count what is decided on a task's submit, and hold the span of the decision.

    The span ends with the decision that ends the deliberation, so that the submit itself is not in it.

    :param operator: name of the operator's class, as Airflow's durable operators tag it.
    :param tags: of the task; of them ``team_name`` goes along.
    :param key: of the record in the task state store.
    :return: what is to be told each decision.
    """
    counted: dict[str, Any] = {"operator": operator, "team_name": tags.get("team_name")}
    spans = ExitStack()
    open_spans: list[Any] = []

    def describe(name: str, value: str) -> None:
        for span in open_spans:
            span.set_attribute(name, value)

    def close() -> None:
        open_spans.clear()
        try:
            spans.close()
        except Exception as error:
            log.info("The span %s could not be ended: %r", RESUME_DECISION, error)

    def on_decision(decision: Decision, record: Record | None, stands: Generation | NotFound | None) -> None:
        known = record.generation_id if record else None
        if known:
            describe("resumable.external_id", known)
        if isinstance(stands, Generation):
            describe("resumable.prior_status", str(stands.status))
        if decision.action == "ask":
            count(RECONNECT_ATTEMPT, **counted)
        outcome = _OUTCOMES.get(decision.action)
        if decision.action == "submit" and known:
            outcome = "terminal_resubmit", TERMINAL_RESUBMIT
        if outcome is not None:
            said, counter = outcome
            if counter is not None:
                count(counter, **counted)
            describe("resumable.decision", said)
            close()

    try:
        open_spans.append(spans.enter_context(start_span(RESUME_DECISION)))
    except Exception as error:  # a tracer's trouble is no reason to fail a task
        log.info("The span %s could not be started: %r", RESUME_DECISION, error)
    describe("operator", operator)
    describe("resumable.external_id_key", key)
    try:
        yield on_decision
    finally:
        close()

"""Metrics and spans, as a backend and a tracer receive them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow
import pytest

from airflow_provider_kling.api.durable.decision import Action, Decision
from airflow_provider_kling.api.durable.record import Record
from airflow_provider_kling.api.exceptions import GenerationTimeoutError
from airflow_provider_kling.api.generation import Generation, GenerationStatus
from airflow_provider_kling.hooks import metrics


class Backend:
    """What Airflow's Stats forwards to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any, dict[str, str]]] = []

    def __getattr__(self, how: str) -> Any:
        def send(name: str, value: Any, *, tags: dict[str, str]) -> None:
            self.sent.append((how, name, value, tags))

        return send


class Tracer:
    """A tracer: the spans that were begun, their attributes, and which of them are open."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, dict[str, Any]]] = []
        self.open = 0

    @contextmanager
    def start(self, name: str) -> Iterator[Any]:
        attributes: dict[str, Any] = {}
        self.spans.append((name, attributes))
        self.open += 1
        yield SimpleNamespace(set_attribute=attributes.__setitem__)
        self.open -= 1


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    backend = Backend()
    monkeypatch.setattr(metrics, "stats", lambda: backend)
    return backend


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Tracer:
    tracer = Tracer()
    monkeypatch.setattr(metrics, "start_span", tracer.start)
    return tracer


RECORD = Record("w", "airflow:d:t:0:a", "m", {"prompt": "f"}, generation_id="g1")
STANDS = Generation("g1", GenerationStatus.COMPLETED, "completed")


@pytest.mark.parametrize(
    ("action", "record", "decision", "counter"),
    [
        ("submit", None, "fresh_submit", "resumable_job.fresh_submit"),
        ("submit", RECORD, "terminal_resubmit", "resumable_job.terminal_resubmit"),
        ("reattach", RECORD, "reconnect", "resumable_job.reconnect_success"),
        ("use", RECORD, "already_succeeded", "resumable_job.already_succeeded"),
        ("stop", RECORD, "stop", None),
    ],
)
def test_a_decision_is_counted_as_airflows_own_operators_count_theirs(
    backend: Backend,
    tracer: Tracer,
    action: Action,
    record: Record | None,
    decision: str,
    counter: str | None,
):
    with metrics.resume_decision(
        "KlingGenerateOperator", {"team_name": "films", "dag_id": "d"}, "key"
    ) as told:
        told(Decision("ask", "why"), RECORD, None)
        assert tracer.open == 1
        told(Decision(action, "why"), record, STANDS)
        assert tracer.open == 0  # the submit is not part of it
    tags = {"operator": "KlingGenerateOperator", "team_name": "films"}
    names = ["resumable_job.reconnect_attempt", *([counter] if counter else [])]
    assert backend.sent == [("incr", name, 1, tags) for name in names]
    ((name, attributes),) = tracer.spans
    assert name == "resumable_job.resume_decision"
    assert attributes == {
        "operator": "KlingGenerateOperator",
        "resumable.external_id_key": "key",
        "resumable.external_id": "g1",
        "resumable.prior_status": "completed",
        "resumable.decision": decision,
    }


def test_a_span_ends_where_nothing_is_decided(backend: Backend, tracer: Tracer):
    with pytest.raises(ValueError, match="trouble"), metrics.resume_decision("Op", {}, "key"):
        raise ValueError("trouble")
    assert tracer.open == 0
    assert backend.sent == []


def test_what_is_sent(backend: Backend):
    metrics.count_completion({"dag_id": "d"}, None, 12.5)
    metrics.count_failure({"dag_id": "d"}, GenerationTimeoutError("late"))
    metrics.count(metrics.CREDITS, 0.0)
    metrics.gauge(metrics.ORPHANS, 3, dag_id="d")
    assert backend.sent == [
        ("incr", "kling.completions", 1, {"dag_id": "d"}),
        ("timing", "kling.wait", timedelta(seconds=12.5), {"dag_id": "d"}),
        ("incr", "kling.failures", 1, {"dag_id": "d", "reason": "GenerationTimeout"}),
        ("gauge", "kling.orphans", 3, {"dag_id": "d"}),
    ]


def test_a_backend_in_trouble_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def trouble(*_: Any) -> Any:
        raise OSError("no route")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(metrics, "stats", trouble)
    monkeypatch.setattr(metrics, "start_span", trouble)
    with metrics.resume_decision("Op", {}, "key") as told:
        told(Decision("submit", "why"), None, None)
    assert "kling" not in caplog.text.replace("airflow_provider_kling", "")
    assert "resumable_job.fresh_submit could not be sent" in caplog.text


def test_airflows_own_stats_and_tracer_take_it():
    """Whatever this version has; without a backend it goes nowhere."""
    metrics.count(metrics.SUBMITS, dag_id="d", model="m")
    metrics.timing(metrics.WAIT, 3.0, dag_id="d")
    metrics.gauge(metrics.ORPHANS, 1.0)
    with metrics.resume_decision("Op", {}, "key") as told:
        told(Decision("submit", "why"), None, None)


def test_the_tags_of_a_task():
    ti = SimpleNamespace(stats_tags={"dag_id": "d", "task_id": "t", "team_name": "x"})
    assert metrics.task_tags({"ti": ti})["team_name"] == "x"  # type: ignore[arg-type,typeddict-item]
    bare = SimpleNamespace(dag_id="d", task_id="t")
    assert metrics.task_tags({"ti": bare}) == {"dag_id": "d", "task_id": "t"}  # type: ignore[arg-type,typeddict-item]


NAMES = {
    value
    for name, value in vars(metrics).items()
    if name.isupper() and isinstance(value, str) and value.startswith(("kling.", "resumable_job."))
}


def test_the_page_lists_each_metric_and_no_other():
    page = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    named = set(re.findall(r"`((?:kling|resumable_job)\.[a-z_]+)`", page))
    assert named == NAMES


def test_the_names_of_durable_operators_are_airflow_s():
    template = Path(airflow.__file__).parent / "_shared/observability/metrics/metrics_template.yaml"
    if not template.exists():
        pytest.skip("new in Airflow 3.3")
    theirs = set(re.findall(r'name: "(resumable_job\.[a-z_]+)"', template.read_text()))
    assert {name for name in NAMES if name.startswith("resumable_job.")} == {*theirs, metrics.RESUME_DECISION}

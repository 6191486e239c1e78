"""What was submitted, by the vendor's logs, and how it is written down."""

from __future__ import annotations

import csv
import io
import tracemalloc
from typing import Any

import pytest

from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.durable.identity import client_request_id, fingerprint
from airflow_provider_kling.api.durable.reconciliation import (
    COLUMNS,
    MOST_LINES,
    ReconciledRow,
    Reconciliation,
    current_state,
    submitted_rows,
)
from airflow_provider_kling.api.transport.messages import HttpRequest, Reply
from tests.unit.api.driving import DONE, START, Clock, Driven, answer, calls, drive, refusal, standing

REQUEST = fingerprint({"model": "m"}, "account")


def name(dag: str = "dag", task: str = "task", **more: Any) -> str:
    return client_request_id(TaskAttempt(dag, "run", task, **more), REQUEST, 0)


def row(
    number: int, client: str | None = None, at: str = "2026-09-21T14:00:00Z", **more: Any
) -> dict[str, Any]:
    return {
        "client_request_id": client or name(),
        "inference_id": f"g{number}",
        "status": "succeeded",
        "model": "m/1",
        "created": at,
        "cost": {"usd": 0.29, "credits": 580_000},
        **more,
    }


def page(*rows: dict[str, Any], more: bool = False) -> Reply:
    return answer({"data": list(rows), "pagination": {"has_more": more}})


def read(*replies: Any, since: float = START - 86_400, dags: tuple[str, ...] = ()) -> Driven:
    clock = Clock()
    driven = drive(submitted_rows(calls(clock), since, START, dags), replies, clock)
    assert driven.error is None, driven.error
    return driven


def test_only_what_this_provider_submitted_is_listed_and_each_generation_once():
    rows = [
        row(1),
        row(1),
        row(2, "somebody-else"),
        {**row(3), "client_request_id": None},
        row(4, name("other")),
    ]
    assert [each.generation_id for each in read(page(*rows)).result] == ["g1", "g4"]
    assert [each.generation_id for each in read(page(*rows), dags=("other",)).result] == ["g4"]


def test_what_a_row_tells():
    client = name("films", "make", map_index=3, loop_index=1)
    (one,) = read(page(row(1, client))).result
    assert (one.dag, one.task, one.position) == ("films", "make", "3.pass1")
    assert (one.state, one.usd, one.credits) == ("completed", 0.29, 580_000)
    assert one.created == "2026-09-21T14:00:00+00:00"
    (failed,) = read(page(row(1, status="failed"))).result
    assert failed.state == "failed"
    (uncharged,) = read(page(row(1, cost={"usd": 0, "credits": 0}))).result
    assert uncharged.state == "unknown"


def test_rows_outside_the_span_are_left_out():
    late = row(1, at="2026-09-21T14:20:00Z")
    early = row(2, at="2026-09-19T14:00:00Z")
    assert read(page(late, early)).result == []


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        (DONE, "completed"),
        (standing("generating"), "working"),
        (standing("error", error={"name": "x", "message": "y"}), "failed"),
        (refusal(404), "unknown"),
    ],
)
def test_how_a_generation_stands_that_was_not_charged_yet(reply: Reply, state: str):
    clock = Clock()
    assert drive(current_state(calls(clock), "g1"), lambda _: reply, clock).result == state


def orphan(number: int = 1, **more: Any) -> ReconciledRow:
    facts: dict[str, Any] = {
        "created": "2026-09-21T14:00:00+00:00",
        "dag": "dag",
        "task": "task",
        "position": "",
        "model": "m",
        "generation_id": f"g{number}",
        "client_request_id": name(),
        "state": "completed",
        "usd": 0.25,
        "credits": 1.0,
        "saved": "no",
        "path": "/out/x.mp4",
    }
    return ReconciledRow(**{**facts, **more})


def test_an_orphan_is_paid_and_not_saved():
    found = Reconciliation(
        [orphan(1), orphan(2, saved="yes"), orphan(3, state="failed"), orphan(4, saved="unknown")]
    )
    assert [each.generation_id for each in found.orphans] == ["g1"]
    assert found.summary() == {
        "generations": 4,
        "completed": 3,
        "working": 0,
        "failed": 1,
        "unknown": 0,
        "saved": 1,
        "orphans": 1,
        "orphans_usd": 0.25,
        "problems": 0,
    }
    assert "g1" in found.text()
    assert "g2" not in found.text()
    assert Reconciliation([]).text() == "Nothing that was paid is missing."


def test_a_long_table_is_cut_and_the_csv_is_not():
    found = Reconciliation([orphan(number) for number in range(MOST_LINES + 5)])
    assert found.text().endswith("... and 5 more")
    assert len(list(csv.reader(io.StringIO(found.csv())))) == MOST_LINES + 6


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-cmd", "@SUM(A1)", "\tx", "\rx", "\n=1+1", " =1+1", "\u2028=1+1"]
)
def test_no_cell_of_the_csv_is_a_formula(text: str):
    found = Reconciliation([orphan(dag=text, model=text, problem=text, path=text)])
    heading, cells = csv.reader(io.StringIO(found.csv(), newline=""))
    assert heading == list(COLUMNS)
    for column in ("dag", "model", "problem", "path"):
        assert cells[COLUMNS.index(column)] == f"'{text}".replace("\r", " ").replace("\n", " ")
    assert cells[COLUMNS.index("usd")] == "0.25"


def test_ten_thousand_rows_take_little_memory_and_keep_the_vendors_limit():
    size, count = 100, 10_000

    def vendor(request: HttpRequest) -> Reply:
        offset = int(dict(request.params)["offset"])
        rows = (row(number, name(task=f"task{number}")) for number in range(offset, offset + size))
        return page(*rows, more=offset + size < count)

    clock = Clock()
    tracemalloc.start()
    try:
        driven = drive(submitted_rows(calls(clock), START - 86_400, START), vendor, clock)
        text = Reconciliation(driven.result).csv()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(driven.result) == count
    assert text.count("\n") == count + 1
    assert peak < 50 * 2**20
    assert len(driven.sent) == count / size
    minute = [time for time in driven.times if time < START + 60]
    assert len(minute) / 2 <= 201  # each page and its pause

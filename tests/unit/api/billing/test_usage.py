"""Rows of an account's generations, and tables of them."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from airflow_provider_kling.api.billing.usage import accepted_rows, aligned_text, csv_text
from airflow_provider_kling.api.calls import LONGEST_LOG_WINDOW
from airflow_provider_kling.api.transport.messages import Reply
from tests.unit.api.driving import START, Clock, Driven, answer, calls, drive


def page(*rows: tuple[str | None, float]) -> Reply:
    data = [{"inference_id": each, "status": "succeeded", "cost": {"usd": usd}} for each, usd in rows]
    return answer({"data": data, "pagination": {"has_more": False}})


def read(*replies: Any, since: float = START - 60, **more: Any) -> Driven:
    clock = Clock()
    return drive(accepted_rows(calls(clock), since, START, lambda row: True, **more), replies, clock)


def test_each_generation_is_listed_once_with_its_charge():
    rows = read(page(("g1", 0.0), ("g1", 0.29), (None, 0.0), ("g2", 0.1))).result
    assert {row.inference_id: row.usd for row in rows} == {"g1": 0.29, "g2": 0.1}


def test_a_long_span_takes_several_queries_and_ends_when_all_are_found():
    empty = page()
    driven = read(empty, page(("g1", 1.0)), since=START - 1.5 * LONGEST_LOG_WINDOW)
    assert len(driven.sent) == 2
    driven = read(page(("g1", 1.0)), since=START - 1.5 * LONGEST_LOG_WINDOW, most=1)
    assert len(driven.sent) == 1


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx"])
def test_a_text_is_never_a_formula(text: str):
    _, (cell, number) = csv.reader(io.StringIO(csv_text(("a", "b"), [(text, -1.5)])))
    assert (cell, number) == (f"'{text}", "-1.5")


def test_a_line_break_in_a_cell_makes_no_line():
    assert csv_text(("a",), [("x\r\ny",)]).splitlines() == ["a", "x  y"]


def test_columns_are_aligned():
    assert aligned_text(("name", "usd"), [("a", "0.5"), ("long name", "12")], (False, True)) == (
        "name       usd\na          0.5\nlong name   12"
    )

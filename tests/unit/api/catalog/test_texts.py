"""Texts that cannot be meant, and texts that cannot be stored."""

from __future__ import annotations

import datetime
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.catalog.texts import left_over, unstorable
from airflow_provider_kling.api.catalog.validation import inspect

TEXT = "klingai/v2.5-turbo/pro/text-to-video"
NEW = "klingai/video-v9-text-to-video"
LEFT_OVER = [
    *(
        "None",
        " None\n",
        "null",
        "nan",
        "['a boat', 'a ship']",
        '["a"]',
        "('a', 'b')",
        "{'prompt': 'a'}",
        "[]",
    ),
    "LazyXComSequence([2 items])",
    "LazySelectSequence([...])",
    "A boat <__main__.Writer object at 0x7f53958104f0>",
    "<generator object write at 0x7f53958104f0>",
    "<function write at 0x7f53958104f0>",
    "XComArg(<Task(PythonOperator): writer>)",
    *("None.", "None, None", "'None'", "NULL", "#N/A", "None,None", "nan nan"),
    *("A boat, {{ params.mood }}.", "{% if x %}A boat{% endif %}", "{{ ds }}"),
    *("[null]", '{"a": null, "b": true}', "[nan]", "[<Row(1)>]", "[<Row 1>, <Row 2>]", "[object Object]"),
    "<class 'writer.Writer'>",
    "<built-in function len>",
    "A boat <function <lambda> at 0x7f2ec9551580>",
    "[datetime.datetime(2026, 1, 1, 0, 0)]",
    "<MacrosAccessor (dynamic access to macros)>",
    "<Row id=5 name='boat'>",
    "A boat, dag_id='d' run_id='r' logical_date=datetime.datetime(2026, 11, 27, 22, 7) conf={}.",
    "id=UUID('01a21f31-7f90-7501-9259-934771cf62bc') name='boat'",
    "{'a': datetime.date(2026, 1, 1)}",
]


class Row:
    """A value without a text of its own."""


VALUES = [
    *({1, 2}, frozenset({1}), {1: 2}.values(), {1: 2}.keys(), {1: 2}.items(), range(3), b"a boat"),
    *(bytearray(b"x"), OrderedDict(a=1), deque(["a"]), Counter("a"), defaultdict(list, a=[1])),
    *([Path("/a")], [Decimal(1)], [float("nan")], (x for x in "ab"), map(str, "ab"), enumerate("a")),
    *(lambda: 0, len, Row, Row(), [Row()], ValueError("x"), datetime.timedelta, datetime.date(2026, 1, 1)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_how_python_writes_any_value_is_never_a_prompt(value: object) -> None:
    assert left_over(repr(value))


@pytest.mark.parametrize("text", LEFT_OVER)
@pytest.mark.parametrize("model", [TEXT, NEW])
def test_what_a_template_leaves_is_refused(model: str, text: str) -> None:
    assert left_over(text)
    for parameters in ({"prompt": text}, {"prompt": "A boat.", "negative_prompt": text}):
        assert inspect(model, parameters).problems
    assert inspect(text, {"prompt": "A boat."}).problems


@pytest.mark.parametrize(
    "text",
    [
        *("none", "Nonesuch", "None of them moves", "[slow] A boat", "(5)", "A [b]", "<b> at 0x", "[calm]"),
        *("(best quality, 4k)", "{mug}", "(a:1.2), (b)", "range(rover)", "Date(night)", "No one. None."),
        *("<<<image_1>>> turns", "<lora:boat:1>", "Rope <Knot> knot", "meet me at datetime"),
        *("A boat { turns }", "100 %", "a <b> c", "{a} {b}", "set(the table)"),
    ],
)
def test_what_somebody_may_have_written(text: str) -> None:
    assert not left_over(text)
    assert not inspect(TEXT, {"prompt": text}).problems


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u200b", " \ufeff\u00a0"])
def test_nothing_is_neither_a_prompt_nor_a_picture(blank: str) -> None:
    """What a template leaves whose name is not known: the video would be paid without it."""
    for model, parameters in (
        (TEXT, {"prompt": blank}),
        (NEW, {"prompt": blank}),
        (NEW, {"prompt": "A boat.", "start_image": blank}),
        (NEW, {"prompt": "A boat.", "image_urls": ["https://example.com/a.png", blank]}),
        (NEW, {"shots": [{"prompt": blank}]}),
        (blank, {"prompt": "A boat."}),
    ):
        (problem, *more) = inspect(model, parameters).problems
        assert "empty" in problem or "spaces" in problem
        assert len(more) <= 1
    assert not inspect(TEXT, {"prompt": "A boat.", "negative_prompt": blank}).problems
    assert not inspect(NEW, {"prompt": "A boat.", "negative_prompt": blank, "style": blank}).problems


@given(st.lists(st.text(), min_size=1))
def test_how_python_writes_a_list_is_never_a_prompt(values: list[str]) -> None:
    assert left_over(str(values))
    assert left_over(str(tuple(values)))


@given(
    st.text(st.characters(codec="utf-8")),
    st.sampled_from(["\0", "\ud83d", "\udcff"]),
    st.text(st.characters(codec="utf-8")),
)
def test_a_text_that_no_database_stores_is_refused(before: str, character: str, after: str) -> None:
    text = before + character + after
    assert unstorable(text)
    assert inspect(TEXT, {"prompt": text}).problems
    assert inspect(NEW, {"a": {"b": [text]}}).problems
    assert inspect(NEW, {"prompt": "x", text: 1}).problems
    assert all(each.isprintable() for each in inspect(NEW, {"prompt": text}).problems)


def test_a_number_that_a_template_made_of_a_text_is_that_text() -> None:
    verdict = inspect(TEXT, {"prompt": 2024})
    assert (verdict.problems, verdict.parameters["prompt"]) == ([], "2024")
    assert inspect(TEXT, {"prompt": True}).problems
    assert inspect(TEXT, {"prompt": 3.1}).problems

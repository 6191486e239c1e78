"""Each kind of parameter: what it reads as what, what it refuses and in which words."""

from __future__ import annotations

import copy
import math
import pathlib
import pickle
from typing import Any

import pytest

from airflow_provider_kling.api.catalog.parameter_types import (
    PENDING,
    Boolean,
    Choice,
    Integer,
    ListOf,
    Media,
    MediaPlace,
    Number,
    ObjectOf,
    Parameter,
    Text,
)
from airflow_provider_kling.api.catalog.problems import Problems, did_you_mean
from airflow_provider_kling.api.redaction import shown

POINT = ObjectOf({"x": Integer(), "label": Text()}, required=frozenset({"x"}))


def read(kind: Parameter, value: Any, *, as_sent: bool = False) -> tuple[Any, list[str]]:
    findings = Problems("m", as_sent)
    return kind.read(value, "p", findings), findings.problems


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Text(), "", ""),
        (Text(max_length=3), "äöü", "äöü"),
        (Integer(choices=(5, 10)), 5, 5),
        (Integer(choices=(5, 10)), "5", 5),
        (Integer(choices=(5, 10)), " 10 ", 10),
        (Integer(choices=(5, 10)), 5.0, 5),
        (Integer(choices=(5, 10)), "5.0", 5),
        (Integer(minimum=-10, maximum=10), "-10", -10),
        (Integer(), 2**53, 2**53),
        (Number(minimum=0, maximum=1), "0.5", 0.5),
        (Number(minimum=0, maximum=1), 1, 1),
        (Boolean(), True, True),
        (Boolean(), "False", False),
        (Boolean(), " true ", True),
        (Choice(("16:9", "1:1")), "1:1", "1:1"),
        (Choice(("kling", "fal"), any_case=True), "KLING", "kling"),
        (Media("image"), "pictures/cat.png", "pictures/cat.png"),
        (Media("image"), pathlib.PurePosixPath("/pictures/cat.png"), "/pictures/cat.png"),
        (ListOf(Integer()), ("1", 2.0), [1, 2]),
        (ListOf(Integer(), or_one=True), "1", 1),
        (ListOf(Integer(), or_one=True), ["1"], [1]),
        (POINT, {"x": "3", "label": None}, {"x": 3}),
    ],
)
def test_what_is_right_is_read(kind: Parameter, value: Any, expected: Any) -> None:
    result, problems = read(kind, value)
    assert problems == []
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (Text(), 5.5, "'p' of m must be text, not 5.5."),
        (Text(), None, "'p' of m must be text, not null."),
        (Text(), ["a"], "'p' of m must be text, not a list of 1."),
        (Text(max_length=2), "abc", "'p' of m must be text of at most 2 characters, not 'abc'."),
        (Integer(choices=(5, 10)), 7, "'p' of m must be 5 or 10, not 7."),
        (Integer(choices=(5, 10)), "7", "'p' of m must be 5 or 10, not '7'."),
        (Integer(choices=(0, 1)), True, "'p' of m must be 0 or 1, not true."),
        (Integer(choices=(5, 10)), "five", "'p' of m must be 5 or 10, not 'five'."),
        (Integer(), 1.5, "'p' of m must be a whole number, not 1.5."),
        (
            Integer(minimum=3, maximum=15),
            16,
            "'p' of m must be a whole number from 3 to 15, not 16.",
        ),
        (Integer(minimum=3), 2, "'p' of m must be a whole number of at least 3, not 2."),
        (Integer(maximum=3), 4, "'p' of m must be a whole number of at most 3, not 4."),
        (
            Integer(),
            10**400,
            "'p' of m must be a whole number, not a number with very many digits.",
        ),
        (Number(), math.nan, "'p' of m must be a number, not nan."),
        (Number(), "inf", "'p' of m must be a number, not 'inf'."),
        (Number(), -math.inf, "'p' of m must be a number, not -inf."),
        (Number(minimum=0, maximum=1), 1.1, "'p' of m must be a number from 0 to 1, not 1.1."),
        (Number(), True, "'p' of m must be a number, not true."),
        (Boolean(), 1, "'p' of m must be true or false, not 1."),
        (Boolean(), "yes", "'p' of m must be true or false, not 'yes'."),
        (
            Choice(("customize", "intelligent")),
            "inteligent",
            "'p' of m must be 'customize' or 'intelligent', not 'inteligent'; did you mean 'intelligent'?",
        ),
        (Choice(("a", "b")), {}, "'p' of m must be 'a' or 'b', not an empty object."),
        (Choice(tuple("abcdefghijklm")), "", "13 names"),
        (Media("audio"), "", "'p' of m must be the URL, path or data URI of an audio, not ''."),
        (Media("mask"), b"png", "the URL, path or data URI of a mask, not a Python bytes."),
        (ListOf(Text()), "a", "'p' of m must be a list, each text, not 'a'."),
        (ListOf(Text(), min_items=1), [], "a list of at least 1, each text, not an empty list."),
        (ListOf(Text(), max_items=1), ["a"] * 2, "a list of at most 1, each text, not a list of 2"),
        (ListOf(Text(), min_items=2, max_items=4), ["a"], "a list of 2 to 4, each text"),
        (ListOf(Text()), ["a", None], "'p[1]' of m must be text, not null."),
        (POINT, [], "'p' of m must be an object with the fields x, label, not an empty list."),
        (POINT, {}, "'p' of m needs the field 'x' (a whole number)."),
        (POINT, {"x": 1, "lable": ""}, "'p' of m has no field 'lable'; did you mean 'label'?"),
        (POINT, {"x": 1, 7: ""}, "'p' of m has no field 7; it has x, label."),
    ],
)
def test_what_is_wrong_is_named_and_kept(kind: Parameter, value: Any, problem: str) -> None:
    _, problems = read(kind, value)
    assert len(problems) == 1
    assert problem in problems[0]


def test_a_list_of_the_wrong_length_is_reported_once_and_not_item_by_item() -> None:
    _, problems = read(ListOf(Integer(), max_items=2), ["x"] * 1000)
    assert len(problems) == 1


@pytest.mark.parametrize(
    "kind",
    [
        Text(),
        Integer(choices=(5,)),
        Number(),
        Boolean(),
        Choice(("a",)),
        Media("image"),
        ListOf(Text(), min_items=2),
        POINT,
    ],
)
def test_pending_is_accepted_by_every_kind(kind: Parameter) -> None:
    assert read(kind, PENDING) == (PENDING, [])
    assert read(ListOf(kind), [PENDING]) == ([PENDING], [])
    assert read(ObjectOf({"a": kind}, frozenset("a")), {"a": PENDING}) == ({"a": PENDING}, [])


def test_pending_stays_one_object() -> None:
    assert copy.deepcopy([PENDING])[0] is PENDING
    assert pickle.loads(pickle.dumps(PENDING)) is PENDING
    assert repr(PENDING) == "PENDING"


@pytest.mark.parametrize(
    "value",
    [
        "https://example.com/cat.png?signature=x",
        "http://127.0.0.1/cat.png",
        "HTTPS://EXAMPLE.COM/cat.png",
        "data:image/png;base64,iVBORw0KGgo=",
        "DATA:audio/mpeg;BASE64,AAAA",
    ],
)
def test_what_travels_is_a_url_or_a_data_uri(value: str) -> None:
    assert read(Media("image"), value, as_sent=True) == (value, [])


@pytest.mark.parametrize(
    "value",
    [
        "",
        "cat.png",
        "/srv/cat.png",
        "file:///srv/cat.png",
        "s3://bucket/cat.png",
        "https://",
        "data:image/png;base64,",
        "data:image/png,raw",
        "iVBORw0KGgo=",
        pathlib.PurePosixPath("/srv/cat.png"),
        None,
        7,
    ],
)
def test_what_does_not_travel(value: Any) -> None:
    _, problems = read(Media("image"), value, as_sent=True)
    assert len(problems) == 1
    assert "http(s) URL or base64 data URI of an image" in problems[0]


def test_null_travels_only_where_it_is_documented() -> None:
    kind = ObjectOf({"a": Text(), "b": ListOf(Text(), nullable=True)})
    assert read(kind, {"a": None, "b": None}) == ({}, [])
    assert read(kind, {"a": None, "b": None}, as_sent=True) == (
        {},
        ["'p.a' of m must be text, not null."],
    )


def test_a_required_null_is_reported_once() -> None:
    _, problems = read(POINT, {"x": None}, as_sent=True)
    assert problems == ["'p' of m needs the field 'x' (a whole number)."]


def test_media_are_found_at_any_depth() -> None:
    kind = ObjectOf(
        {
            "cover": Media("image"),
            "scenes": ListOf(ObjectOf({"clip": Media("video"), "name": Text()})),
            "faces": ListOf(Media("image"), or_one=True),
        }
    )
    asked: list[MediaPlace] = []

    def fetch(place: MediaPlace, value: str) -> str:
        asked.append(place)
        return f"<{value}>"

    value = {
        "cover": pathlib.PurePosixPath("/a.png"),
        "scenes": [{"clip": "b.mp4", "name": "b"}, PENDING, {"clip": None}, {"clip": PENDING}],
        "faces": "c.png",
        "unknown": "d.png",
    }
    assert kind.map_media(value, "", fetch) == {
        "cover": "</a.png>",
        "scenes": [{"clip": "<b.mp4>", "name": "b"}, PENDING, {"clip": None}, {"clip": PENDING}],
        "faces": "<c.png>",
        "unknown": "d.png",
    }
    assert asked == [("cover", "image"), ("scenes[0].clip", "video"), ("faces", "image")]
    assert kind.map_media({"faces": ["x", 7], "scenes": "no list"}, "", fetch) == {
        "faces": ["<x>", 7],
        "scenes": "no list",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("data:image/png;base64,iVBOR", "a data URI of 27 characters"),
        ("iVBORw0KGgo" * 20, "220 characters without a space"),
        ("https://h/a.png?sig=1", "'https://h/a.png' (its query not shown)"),
        ("https://me:secret@h/a.png", "'https://…@h/a.png'"),
        ("s3://conn@bucket/a.png", "'s3://conn@bucket/a.png'"),
        ("word " * 30, repr("word " * 12) + "… (150 characters)"),
        ("a\nb", r"'a\nb'"),
        ({"a": 1}, "an object with 1 field(s)"),
        ((), "an empty list"),
        (object(), "a Python object"),
    ],
)
def test_values_are_shown_short_and_without_secrets(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert did_you_mean("xyz", ["prompt", "duration"]) == ""
    assert did_you_mean("PROMT", ["prompt"]) == "; did you mean 'prompt'?"
    assert did_you_mean("ratio", ["aspect_ratio"]) == "; did you mean 'aspect_ratio'?"

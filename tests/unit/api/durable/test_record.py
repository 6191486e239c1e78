from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.durable.record import NOTHING, SCHEMA, Record
from airflow_provider_kling.api.exceptions import Recovery, UnusableRecordError

TEXT = st.text(min_size=1)
RECORDS = st.builds(
    Record,
    identity=TEXT,
    client_request_id=TEXT,
    model=TEXT,
    fingerprint=st.dictionaries(st.text(), st.text(), min_size=1, max_size=4),
    count=st.integers(0, 10**6),
    intended_at=st.floats(allow_nan=False, allow_infinity=False),
    generation_id=st.none() | TEXT,
    attempt=st.integers(0, 10**6),
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


def sound(**changes: Any) -> dict[str, Any]:
    stored = {
        "schema": SCHEMA,
        "identity": "w",
        "client_request_id": "airflow:d:t:0:abc",
        "model": "m",
        "fingerprint": {"prompt": "p"},
        "count": 0,
        "intended_at": 1_790_000_000.0,
        "generation_id": None,
        "attempt": 1,
    }
    return {**stored, **changes}


@given(RECORDS)
def test_what_is_stored_comes_back_through_json(record: Record):
    stored = json.loads(json.dumps(record.encode()))
    assert Record.decode(stored) == record
    assert stored["schema"] == SCHEMA


def test_nothing_stored_is_no_record():
    assert Record.decode(None) is None
    assert Record.decode(json.loads(json.dumps(dict(NOTHING)))) is None


def test_names_that_this_version_does_not_know_are_ignored():
    assert Record.decode(sound(note="from a patch release")) == Record.decode(sound())


@pytest.mark.parametrize("schema", [SCHEMA + 1, 99])
def test_a_newer_schema_stops_and_says_so(schema: int):
    with pytest.raises(UnusableRecordError, match=f"schema {schema}") as caught:
        Record.decode(sound(schema=schema))
    assert "update the provider" in str(caught.value)


DAMAGED = {
    "an empty object": {},
    "a list": [1],
    "a text": "lost",
    "a number": 7,
    "false": False,
    "no schema": {k: v for k, v in sound().items() if k != "schema"},
    "schema 0": sound(schema=0),
    "a negative schema": sound(schema=-1),
    "schema true": sound(schema=True),
    "schema as text": sound(schema="1"),
    "only a schema": {"schema": SCHEMA},
    "something beside nothing": {**NOTHING, "generation_id": "g"},
    "no identity": sound(identity=None),
    "an empty identity": sound(identity=""),
    "no client request id": sound(client_request_id=None),
    "no model": sound(model=5),
    "no fingerprint": sound(fingerprint=None),
    "a text as fingerprint": sound(fingerprint="f"),
    "an empty fingerprint": sound(fingerprint={}),
    "a fingerprint without texts": sound(fingerprint={"a": 1}),
    "no count": sound(count=None),
    "a negative count": sound(count=-1),
    "count true": sound(count=True),
    "half a count": sound(count=1.5),
    "no attempt": sound(attempt=None),
    "no time": sound(intended_at=None),
    "time true": sound(intended_at=True),
    "time as text": sound(intended_at="yesterday"),
    "no number": sound(intended_at=math.nan),
    "endless": sound(intended_at=math.inf),
    "an empty id": sound(generation_id=""),
    "a number as id": sound(generation_id=5),
}


@pytest.mark.parametrize("stored", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_stops_and_says_what_to_do(stored: Any):
    with pytest.raises(UnusableRecordError, match="nothing was submitted") as caught:
        Record.decode(stored)
    assert caught.value.recovery is Recovery.GIVE_UP
    assert "request log" in caught.value.advice


@given(JSON | st.dictionaries(st.sampled_from([*sound()]), JSON) | JSON.map(lambda value: sound(count=value)))
def test_anything_stored_is_a_record_or_nothing_or_refused(stored: Any):
    with contextlib.suppress(UnusableRecordError):
        record = Record.decode(stored)
        assert record is None or Record.decode(record.encode()) == record

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.retry import RetryPolicy, parse_retry_after

NOON = 1_445_428_800.0
"""Wed, 21 Oct 2015 12:00:00 GMT."""
CHANCE = st.floats(0.0, 1.0, exclude_max=True)
ATTEMPTS = st.integers(1, 10_000)


def most() -> float:
    return 1 - 2**-53


def least() -> float:
    return 0.0


# How long to wait


def test_the_bound_doubles_up_to_the_cap():
    policy = RetryPolicy(base=1.0, cap=30.0)
    bounds = [policy.delay(attempt, most) for attempt in range(1, 8)]
    assert bounds == pytest.approx([1, 2, 4, 8, 16, 30, 30])


@given(ATTEMPTS, CHANCE)
def test_the_jitter_is_full(attempt: int, chance: float):
    policy = RetryPolicy()
    assert policy.delay(attempt, lambda: chance) == pytest.approx(chance * policy.delay(attempt, lambda: 1.0))
    assert policy.delay(attempt, least) == 0.0


@given(ATTEMPTS, CHANCE)
def test_no_wait_of_ours_is_longer_than_the_cap(attempt: int, chance: float):
    policy = RetryPolicy(cap=7.0)
    assert 0 <= policy.delay(attempt, lambda: chance) <= 7.0


@given(ATTEMPTS, CHANCE, st.floats(0, allow_infinity=False))
def test_what_the_vendor_asks_for_is_waited_up_to_a_cap(attempt: int, chance: float, asked: float):
    policy = RetryPolicy(longest_retry_after=120.0)
    wait = policy.delay(attempt, lambda: chance, asked)
    assert min(asked, 120.0) <= wait <= min(asked, 120.0) * 1.1


def test_many_that_were_asked_to_wait_do_not_come_back_at_once():
    policy = RetryPolicy()
    assert policy.delay(1, least, 60.0) == 60.0
    assert policy.delay(1, most, 60.0) == pytest.approx(66.0)


def test_asked_for_nothing_is_not_the_same_as_not_asked():
    assert RetryPolicy().delay(1, most, 0.0) == 0.0


# Retry-After


READABLE = {
    "0": 0.0,
    "30": 30.0,
    " 30 ": 30.0,
    "1.5": 1.5,
    "-5": 0.0,
    "1000000000000": 1e12,
    "Wed, 21 Oct 2015 12:00:30 GMT": 30.0,
    "Wed, 21 Oct 2015 12:00:30 +0000": 30.0,
    "Wed, 21 Oct 2015 12:00:30 -0000": 30.0,
    "Wed, 21 Oct 2015 14:00:30 +0200": 30.0,
    "Wednesday, 21-Oct-15 12:00:30 GMT": 30.0,
    "Wed Oct 21 12:00:30 2015": 30.0,
    "Wed, 21 Oct 2015 11:00:00 GMT": 0.0,
}
UNREADABLE = [
    None,
    "",
    " ",
    "soon",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "Wed, 99 Oct 2015 12:00:00 GMT",
    "12:00",
    ",",
    "\x00",
]


@pytest.mark.parametrize(("header", "seconds"), READABLE.items())
def test_what_can_be_read(header: str, seconds: float):
    assert parse_retry_after(header, NOON) == seconds


@pytest.mark.parametrize("header", UNREADABLE)
def test_what_cannot_be_read_is_as_if_absent(header: str | None):
    assert parse_retry_after(header, NOON) is None


DATES = st.from_regex(
    r"\w{3}, \d{1,3} (Oct|Feb|\w{3}) \d{1,7} \d{1,3}:\d{1,3}:\d{1,3} (GMT|[+-]\d{1,6})?", fullmatch=True
)


@given(st.text() | DATES | st.floats().map(str) | st.integers().map(str))
def test_any_header_gives_seconds_or_none(header: str):
    seconds = parse_retry_after(header, NOON)
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)

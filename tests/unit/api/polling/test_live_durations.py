from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.polling.live_durations import (
    BELIEVED,
    ask_metrics,
    live_schedule,
    read_metrics,
)
from airflow_provider_kling.api.polling.schedule import NARROWEST_SPREAD, WIDEST_SPREAD, Schedule
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.messages import ConnectionLost, FailureReason, HttpResponse, Send

MODEL = "kling-video/v1.6/standard/text-to-video"
KNOWN = Schedule.adaptive(194.0)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["models", "alias", "metrics", "duration_ms", "p50"]), inner)
    ),
    max_leaves=12,
)


def reply(body: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(status, {}, json.dumps(body).encode())


def told(p50: Any, p90: Any = None, alias: str = MODEL) -> HttpResponse:
    return reply({"models": [{"alias": alias, "metrics": {"duration_ms": {"p50": p50, "p90": p90}}}]})


def test_no_key_goes_with_it():
    request = ask_metrics(Settings("the-secret-key", "https://gateway.example.com/vendor/"), MODEL)
    assert request.url == "https://gateway.example.com/vendor/models/metrics"
    assert request.params == (("aliases", MODEL),)
    assert "the-secret-key" not in str(request.headers)
    assert not [name for name in request.headers if name.lower() == "authorization"]


def test_median_and_spread_are_read():
    live = read_metrics(told(100_000, 180_000), MODEL, KNOWN)
    assert live is not None
    assert live.usual_seconds == 100.0
    assert live.spread == pytest.approx(math.log(1.8) / 1.2816)
    assert live.interval is None


def test_without_a_p90_the_spread_stays():
    live = read_metrics(told(100_000), MODEL, KNOWN)
    assert live is not None
    assert live.spread == KNOWN.spread


@pytest.mark.parametrize(("p90", "spread"), [(100_001, NARROWEST_SPREAD), (9e9, WIDEST_SPREAD)])
def test_a_spread_that_cannot_be_is_bounded(p90: float, spread: float):
    live = read_metrics(told(100_000, p90), MODEL, KNOWN)
    assert live is not None
    assert live.spread == spread


@pytest.mark.parametrize(
    "p50", [900, 194_000 / BELIEVED - 1, 194_000 * BELIEVED + 1, 0, -1, None, True, "90"]
)
def test_a_median_far_from_what_is_known_is_not_believed(p50: Any):
    """900 ms, for example, is how long the submit itself takes."""
    assert read_metrics(told(p50), MODEL, KNOWN) is None


@pytest.mark.parametrize(
    "answer",
    [
        reply({"models": []}),
        told(100_000, alias="another/model"),
        reply({"message": "no"}, 404),
        HttpResponse(200, {}, b"<html>"),
        HttpResponse(200, {}, b"[" * 100_000),
        HttpResponse(200, {}, b"{}", truncated=True),
        ConnectionLost(FailureReason.READ_TIMEOUT, "host"),
    ],
    ids=repr,
)
def test_what_cannot_be_used_is_none(answer: Any):
    flow = live_schedule(Settings("key"), MODEL, KNOWN)
    assert isinstance(next(flow), Send)
    with pytest.raises(StopIteration) as end:
        flow.send(answer)
    assert end.value.value is None


@given(JSON)
def test_nothing_in_an_answer_raises(body: Any):
    assert read_metrics(reply(body), MODEL, KNOWN) is None or body

"""Whatever is sent, the emulator answers it: with a refusal, and never with a failure of its own."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread

KEY = "kling-emulator-key"
SUBMIT, POLL = "/v2/generate/video/kling/generation", "/v2/video/generations"
READ = ("/v2/logs", "/v2/billing", "/v2/billing/transactions", "/v1/billing/balance", "/v1/key")
PUBLIC = ("/v1/models", "/models/metrics", "/openapi.json", "/cdn/x.mp4", "/cdn/", "/", "//", "/v2")
CONTROL = ("faults", "requests", "generations", "stats", "keys", "clock", "outage", "reset", "")

QUERY = [
    "generation_id",
    "period",
    "start",
    "end",
    "from",
    "to",
    "model",
    "status",
    "limit",
    "offset",
    "cursor",
    "direction",
    "type",
    "key_prefix",
    "id",
    "include",
    "aliases",
    "ksTime",
    "ksSecret",
]
PARAMETERS = [
    "prompt",
    "duration",
    "image_url",
    "tail_image_url",
    "multi_prompt",
    "cfg_scale",
    "model",
    "effect_scene",
    "aspect_ratio",
    "camera_control",
    "static_mask",
    "generate_audio",
    "elements",
]
RULE_OPTIONS = [
    "times",
    "lasts",
    "after",
    "probability",
    "seed",
    "retry_after",
    "message",
    "shape",
    "url",
    "status",
    "word",
    "names",
    "seconds",
    "at",
    "size",
    "accepted",
    "generation_id",
    "x",
]

_settings = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([-1, 0, 10**30, 10**400, 1e308, -1e308, float("nan"), float("inf")]),
)
texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "0", "-1", "9" * 5000, "NaN", "\ud83d", "\x00", "None", "24h", "[emulator: x]"]),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    options = EmulatorOptions(frozen_clock=True, ids="published", offline_pictures=True, picture_timeout=1)
    with EmulatorThread(options) as emulator:
        yield emulator


def send(
    emulator: EmulatorThread,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> int:
    """One request; its status, after seeing that the emulator did not fail."""
    parts = urlsplit(emulator.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in {"Authorization": f"Bearer {KEY}", **(headers or {})}.items():
            connection.putheader(name, value.encode("utf-8", "replace"))
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    assert answer.status < 500, (method, target, headers, body, content)
    return answer.status


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def with_query(path: str, query: dict[str, Any]) -> str:
    return f"{path}?{urlencode(query, errors='replace')}" if query else path


@_settings
@given(
    st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"]),
    st.sampled_from([SUBMIT, POLL, *READ, *PUBLIC]),
    st.dictionaries(
        st.sampled_from(QUERY),
        texts,
        max_size=4,
    ),
    st.dictionaries(
        st.sampled_from(["Range", "If-Range", "If-None-Match", "X-Client-Request-Id", "Accept", "Cookie"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30),
        max_size=3,
    ),
    st.one_of(st.none(), st.binary(max_size=60)),
)
def test_any_request(
    emulator: EmulatorThread, method: str, path: str, query: dict, headers: dict, body: bytes | None
):
    send(emulator, method, with_query(path, query), body, headers)


@_settings
@given(
    st.sampled_from(
        [
            "kling-video/v1.6/standard/text-to-video",
            "kling-video/v1.6/standard/image-to-video",
            "klingai/v2.5-turbo/pro/text-to-video",
            "klingai/video-v3-pro-text-to-video",
            "klingai/kling-video-v1.6-pro-effects",
        ]
    ),
    st.dictionaries(
        st.sampled_from(PARAMETERS),
        values,
        max_size=4,
    ),
)
def test_any_submit_and_what_becomes_of_it(emulator: EmulatorThread, model: str, parameters: dict):
    emulator.reset()
    send(emulator, "POST", SUBMIT, as_json({"model": model, "prompt": "x", **parameters}))
    emulator.clock.advance(100)
    for generation in emulator.generations:
        assert send(emulator, "GET", with_query(POLL, {"generation_id": generation["id"]})) == 200
    send(emulator, "GET", "/v2/logs?period=24h")
    send(emulator, "GET", "/_emulator/requests")


@_settings
@given(st.sampled_from(["POST", "GET", "DELETE"]), st.sampled_from(CONTROL), values)
def test_any_word_to_the_control_plane(emulator: EmulatorThread, method: str, path: str, value: Any):
    if path != "outage":
        send(emulator, method, f"/_emulator/{path}", as_json(value))
    emulator.reset()
    send(emulator, "GET", "/v2/billing")


@_settings
@given(
    st.fixed_dictionaries(
        {
            "call": st.sampled_from(["any", "poll", "cdn"]),
            "kind": st.sampled_from(["503", "redirect", "random"]),
        },
        optional=dict.fromkeys(
            RULE_OPTIONS,
            values,
        ),
    )
)
def test_any_fault_rule(emulator: EmulatorThread, rule: dict):
    send(emulator, "POST", "/_emulator/faults", as_json(rule))
    send(emulator, "GET", "/_emulator/faults")
    emulator.reset()


@_settings
@given(values, st.floats())
def test_any_clock(emulator: EmulatorThread, value: Any, seconds: float):
    send(emulator, "POST", "/_emulator/clock", as_json({"advance": value}))
    send(emulator, "POST", "/_emulator/clock", as_json({"advance": seconds}))
    send(emulator, "GET", "/v2/billing/transactions")


@_settings
@given(
    st.sampled_from(["cacheKey", "ksSecret", "ksTime", ""]),
    texts,
    st.one_of(
        st.just(""),
        st.builds("bytes={}-{}".format, numbers, numbers),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map("bytes={}".format),
    ),
)
def test_any_signature_and_range(
    emulator: EmulatorThread, signed: tuple[str, str], part: str, odd: str, span: str
):
    path, query = signed
    fields = dict(pair.split("=", 1) for pair in query.split("&"))
    if part:
        fields[part] = quote(odd, safe="", errors="replace")
    target = path + "?" + "&".join(f"{name}={value}" for name, value in fields.items())
    send(emulator, "HEAD", target, headers={"Range": span} if span else {})


@pytest.fixture
def signed(emulator: EmulatorThread) -> tuple[str, str]:
    """Path and query of a video's URL."""
    emulator.reset()
    body = {"model": "kling-video/v1.6/standard/text-to-video", "prompt": "half an emoji \ud83d"}
    assert send(emulator, "POST", SUBMIT, as_json(body)) == 201
    emulator.clock.advance(60)
    parts = urlsplit(video_url(emulator))
    return parts.path, parts.query


def video_url(emulator: EmulatorThread) -> str:
    parts = urlsplit(emulator.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    query = urlencode({"generation_id": emulator.generations[0]["id"]})
    connection.request("GET", f"{POLL}?{query}", headers={"Authorization": f"Bearer {KEY}"})
    told = json.loads(connection.getresponse().read())
    connection.close()
    return str(told["video"]["url"])


@pytest.mark.parametrize(
    ("span", "status"),
    [
        ("bytes=-5--2", 400),
        ("bytes=--5", 400),
        ("bytes=" + "9" * 5000 + "-", 400),
        ("bytes=\u0663-", 400),
        ("bytes=a-b", 400),
        ("bytes=0-1,4-5", 200),
        ("bytes=9-5", 200),
        ("lines=1-2", 200),
        ("bytes=0-0", 206),
    ],
)
def test_odd_ranges(emulator: EmulatorThread, signed: tuple[str, str], span: str, status: int):
    assert send(emulator, "HEAD", "?".join(signed), headers={"Range": span}) == status


@pytest.mark.parametrize("secret", ["", "%C3%A9", "%FF", "%00", "x" * 9000])
def test_odd_signatures_are_refused(emulator: EmulatorThread, signed: tuple[str, str], secret: str):
    path, query = signed
    old = dict(pair.split("=", 1) for pair in query.split("&"))["ksSecret"]
    assert send(emulator, "GET", f"{path}?{query.replace(old, secret)}") in (400, 403)

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling import __version__
from airflow_provider_kling.api.exceptions import (
    AuthenticationError,
    ConnectionLostError,
    InvalidRequestError,
    KlingError,
    MalformedReplyError,
    RateLimitError,
)
from airflow_provider_kling.api.generation import Failure, Generation, GenerationRequest, GenerationStatus
from airflow_provider_kling.api.settings import UNIVERSAL_PATH, VENDOR_PATH, Settings
from airflow_provider_kling.api.transport.endpoints import LOG_PAGE, Endpoints, LogRow
from airflow_provider_kling.api.transport.messages import Call, FailureReason, HttpResponse
from airflow_provider_kling.api.transport.response_parsing import identifier
from tests.unit.api.driving import KEY, REQUEST, START, Clock, answer, endpoints, lost, refusal

VENDOR = endpoints()
NAME = "airflow:dag:task:0:0123456789abcdef"

READERS: dict[Call, Callable[[Any], Any]] = {
    Call.SUBMIT: VENDOR.read_submit,
    Call.POLL: lambda reply: VENDOR.read_poll(reply, "g1"),
    Call.BALANCE: VENDOR.read_balance,
    Call.LOGS: VENDOR.read_logs,
    Call.LEDGER: VENDOR.read_ledger,
    Call.PRICES: lambda reply: VENDOR.read_prices(reply, "m"),
}


# Requests


def test_the_submit():
    request = VENDOR.submit(REQUEST, NAME)
    assert (request.call, request.method) == (Call.SUBMIT, "POST")
    assert request.url == "https://api.aimlapi.com" + VENDOR_PATH
    assert request.params == ()
    assert request.headers == {
        "Authorization": f"Bearer {KEY}",
        "User-Agent": f"airflow-provider-kling/{__version__}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "X-Client-Request-Id": NAME,
    }
    assert json.loads(request.body or b"") == {
        "model": "kling-video/v1.6/standard/image-to-video",
        "prompt": "she smiles",
        "image_url": "https://example.com/a.png",
    }


def test_a_submit_without_a_name():
    assert "X-Client-Request-Id" not in VENDOR.submit(REQUEST).headers


@pytest.mark.parametrize("name", ["", "a" * 129, "two words", "zwölf", "line\nbreak", "a/b", "a\n"])
def test_a_name_that_the_vendor_would_drop_is_refused(name: str):
    with pytest.raises(InvalidRequestError, match="would drop"):
        VENDOR.submit(REQUEST, name)


def test_a_prompt_in_any_language_arrives():
    prompt = "微笑, “ça va?” 🎬"
    body = VENDOR.submit(GenerationRequest("m", {"prompt": prompt})).body or b""
    assert body.isascii()
    assert json.loads(body)["prompt"] == prompt


def test_the_poll_the_balance_and_the_logs():
    poll = VENDOR.poll("g/1 &?")
    assert (poll.method, poll.url) == ("GET", "https://api.aimlapi.com" + VENDOR_PATH)
    assert poll.params == (("generation_id", "g/1 &?"),)
    assert poll.body is None
    assert VENDOR.balance().url == "https://api.aimlapi.com/v2/billing"
    logs = VENDOR.logs(models=["m/1"], start=START, end=START + 59.5, offset=200)
    assert logs.url == "https://api.aimlapi.com/v2/logs"
    assert dict(logs.params) == {
        "start": "2026-09-21T14:13:20Z",
        "end": "2026-09-21T14:14:19Z",
        "model": "m/1",
        "limit": "100",
        "offset": "200",
    }
    for request in (poll, VENDOR.balance(), logs):
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert request.headers["User-Agent"].startswith("airflow-provider-kling/")


def test_the_universal_path_and_a_gateway_in_front():
    settings = Settings(KEY, base_url="https://gateway.example.com/kling/", generation_path=UNIVERSAL_PATH)
    elsewhere = Endpoints(settings, Clock())
    assert elsewhere.submit(REQUEST).url == "https://gateway.example.com/kling/v2/video/generations"
    assert elsewhere.poll("g").url == elsewhere.submit(REQUEST).url
    assert elsewhere.balance().url == "https://gateway.example.com/kling/v2/billing"


def test_the_key_is_only_in_the_header():
    for request in (
        VENDOR.submit(REQUEST, NAME),
        VENDOR.poll("g"),
        VENDOR.logs(models=["m"], start=0, end=1),
    ):
        assert KEY not in repr(request)
        assert KEY not in request.url
        assert KEY.encode() not in (request.body or b"")


# The generation object

URL = "https://cdn.aimlapi.com/a.mp4?cacheKey=1&ksSecret=2&ksTime=68f7"
Status = GenerationStatus

STATUSES = {
    "queued": Status.QUEUED,
    "waiting": Status.QUEUED,
    "pending": Status.QUEUED,
    "generating": Status.GENERATING,
    "active": Status.GENERATING,
    "processing": Status.GENERATING,
    "in_progress": Status.GENERATING,
    "completed": Status.COMPLETED,
    "succeeded": Status.COMPLETED,
    "error": Status.ERROR,
    "failed": Status.ERROR,
    "Completed": Status.COMPLETED,
    " QUEUED ": Status.QUEUED,
    "canceled": Status.ERROR,
    "thinking": Status.UNKNOWN,
    "vidéo": Status.UNKNOWN,
}


@pytest.mark.parametrize(("raw", "status"), STATUSES.items())
@pytest.mark.parametrize("code", [200, 201])
def test_each_status(raw: str, status: GenerationStatus, code: int):
    reply = answer({"id": "g1", "status": raw}, code)
    for generation in (VENDOR.read_poll(reply, "g1"), VENDOR.read_submit(reply)):
        assert (generation.id, generation.status) == ("g1", status)
        assert generation.raw_status == raw.strip()
        assert (generation.video_url, generation.duration, generation.credits_used) == (None, None, None)


def done(**more: Any) -> dict[str, Any]:
    return {"id": "g1", "status": "completed", **more}


SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "documented": (
        done(video={"url": URL, "duration": 5.1}, error=None, meta={"usage": {"credits_used": 820000}}),
        {"video_url": URL, "duration": 5.1, "credits_used": 820000},
    ),
    "older": (
        done(video={"url": URL}, duration=10, meta={"usage": {"tokens_used": 7}}),
        {"video_url": URL, "duration": 10, "credits_used": 7},
    ),
    "credits beside tokens": (
        done(meta={"usage": {"credits_used": 1, "tokens_used": 2}}),
        {"credits_used": 1},
    ),
    "no credits are credits": (
        done(meta={"usage": {"credits_used": 0, "tokens_used": 2}}),
        {"credits_used": 0},
    ),
    "usage without a nest": (done(meta={"tokens_used": 7}), {"credits_used": 7}),
    "numbers as texts": (
        done(video={"url": URL, "duration": "5"}, meta={"usage": {"credits_used": "12"}}),
        {"video_url": URL, "duration": 5, "credits_used": 12},
    ),
    "everything null": (done(video=None, error=None, duration=None, meta=None), {}),
    "null inside": (done(video={"url": None, "duration": None}, meta={"usage": None}), {}),
    "video's null duration, older one": (
        done(video={"url": URL, "duration": None}, duration=5),
        {"video_url": URL, "duration": 5},
    ),
    "wrong types": (done(video=[URL], error=5, duration={}, meta="x"), {}),
    "wrong types inside": (done(video={"url": 5, "duration": [5]}, meta={"usage": [1]}), {}),
    "true is no number": (done(duration=True, meta={"usage": {"credits_used": True}}), {}),
    "no numbers": (
        done(duration="5s", meta={"usage": {"credits_used": math.nan, "tokens_used": math.inf}}),
        {},
    ),
    "an empty URL": (done(video={"url": ""}), {}),
    "unknown names": (done(video={"url": URL, "width": 1}, extra=[1]), {"video_url": URL}),
    "an error that is none": (done(error={"name": "X", "message": "y"}), {}),
}


@pytest.mark.parametrize(("body", "facts"), SHAPES.values(), ids=SHAPES)
def test_each_shape_of_a_generation(body: dict[str, Any], facts: dict[str, Any]):
    expected = Generation("g1", Status.COMPLETED, "completed", **facts)
    assert VENDOR.read_poll(answer(body), "g1") == expected
    assert VENDOR.read_submit(answer(body, 201)) == expected


FAILURES: dict[str, tuple[Any, Failure]] = {
    "documented": ({"name": "Moderation", "message": "no faces"}, Failure("Moderation", "no faces")),
    "a text": ("no faces", Failure("", "no faces")),
    "without a name": ({"message": "no faces"}, Failure("", "no faces")),
    "nested": ({"name": "X", "message": {"message": "no faces"}}, Failure("X", "no faces")),
    "nested error": ({"error": {"message": "no faces"}}, Failure("", "no faces")),
    "a list": (["no faces", "no hands"], Failure("", "no faces; no hands")),
    "null": (None, Failure("", "no message")),
    "empty": ({}, Failure("", "no message")),
    "null inside": ({"name": None, "message": None}, Failure("", '{"name": null, "message": null}')),
    "a number": (500, Failure("", "500")),
    "a name of another type": ({"name": {"message": "X"}, "message": "y"}, Failure("X", "y")),
    "only a name": ({"name": "X"}, Failure("X", '{"name": "X"}')),
    "a signed URL": (
        {"name": "X", "message": f"see {URL}"},
        Failure("X", "see https://cdn.aimlapi.com/a.mp4?…"),
    ),
    "the key": ({"name": KEY, "message": f"key {KEY}"}, Failure("***", "key ***")),
}


@pytest.mark.parametrize(("error", "failure"), FAILURES.values(), ids=FAILURES)
def test_each_shape_of_a_failure(error: Any, failure: Failure):
    generation = VENDOR.read_poll(answer({"id": "g1", "status": "error", "error": error}), "g1")
    assert (generation.status, generation.failure) == (Status.ERROR, failure)


def test_a_failure_without_a_word():
    assert VENDOR.read_poll(answer({"status": "failed"}), "g1").failure == Failure("", "no message")


def test_a_poll_is_about_what_was_asked():
    assert VENDOR.read_poll(answer({"status": "queued"}), "g1").id == "g1"
    assert VENDOR.read_poll(answer({"id": None, "status": "queued"}), "g1").id == "g1"


@pytest.mark.parametrize("status", [None, "", "  ", 5, ["queued"]])
def test_a_poll_without_a_status_is_unreadable(status: Any):
    with pytest.raises(MalformedReplyError, match="g1 names no status") as caught:
        VENDOR.read_poll(answer({"id": "g1", "status": status}), "g1")
    assert caught.value.generation_id == "g1"


@pytest.mark.parametrize("status", [None, "", 5])
def test_a_submit_that_names_its_id_was_accepted(status: Any):
    generation = VENDOR.read_submit(answer({"id": "g1", "status": status}))
    assert (generation.id, generation.status, generation.raw_status) == ("g1", Status.UNKNOWN, "")


# Unreadable answers

UNREADABLE: dict[str, HttpResponse] = {
    "empty": answer(None),
    "a page": answer(b"<html><h1>Welcome</h1>"),
    "cut off": answer(b'{"id": "g'),
    "a list": answer([1]),
    "a text": answer("queued"),
    "null": answer(b"null"),
    "no id": answer({"status": "queued"}),
    "a null id": answer({"id": None, "status": "queued"}),
    "an empty id": answer({"id": "", "status": "queued"}),
    "a boolean as id": answer({"id": True, "status": "queued"}),
    "an id of two lines": answer({"id": "a\nb", "status": "queued"}),
    "an endless id": answer({"id": "x" * 501, "status": "queued"}),
    "too long": HttpResponse(200, {}, b'{"id": "g1", "status": "queued"}', truncated=True),
    "too deep": answer(b"[" * 200_000),
    "no text": answer(b"\xff\xfe"),
}


@pytest.mark.parametrize("reply", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_submit(reply: HttpResponse):
    with pytest.raises(MalformedReplyError) as caught:
        VENDOR.read_submit(reply)
    assert len(caught.value.what) < 700


@pytest.mark.parametrize("reply", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("code", [200, 201, 204])
def test_the_header_of_an_unreadable_submit_is_the_id(reply: HttpResponse, code: int):
    headed = HttpResponse(code, {"x-inference-id": " g9 "}, reply.body, reply.truncated)
    assert VENDOR.read_submit(headed) == Generation("g9", Status.UNKNOWN, "")


def test_a_readable_body_wins_over_the_header():
    assert VENDOR.read_submit(answer({"id": "g1", "status": "queued"}, x_inference_id="g9")).id == "g1"


@pytest.mark.parametrize("header", ["", "  "])
def test_an_empty_header_is_no_id(header: str):
    with pytest.raises(MalformedReplyError):
        VENDOR.read_submit(answer(None, x_inference_id=header))


def test_the_header_of_a_poll_is_not_a_status():
    with pytest.raises(MalformedReplyError):
        VENDOR.read_poll(answer(None, x_inference_id="g1"), "g1")


def test_the_header_of_a_refusal_is_not_an_id():
    with pytest.raises(AuthenticationError):
        VENDOR.read_submit(refusal(401, "no", x_inference_id="g9"))


# The client request id comes back


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        (answer({"id": "g"}, x_client_request_id=NAME), True),
        (answer({"id": "g"}, x_client_request_id=f" {NAME} "), True),
        (answer({"id": "g"}), False),
        (answer({"id": "g"}, x_client_request_id=""), False),
        (answer({"id": "g"}, x_client_request_id=NAME + "0"), False),
        (lost(), False),
    ],
)
def test_whether_the_vendor_kept_the_name(reply: Any, kept: bool):
    assert VENDOR.keeps(reply, NAME) is kept


# Balance and logs


@pytest.mark.parametrize(("balance", "usd"), [(12.5, 12.5), (0, 0.0), (-3, -3.0), ("7.25", 7.25)])
def test_the_balance(balance: Any, usd: float):
    assert VENDOR.read_balance(answer({"current_balance": balance, "currency": "USD"})) == usd


@pytest.mark.parametrize("balance", [None, "much", True, [], math.nan])
def test_no_balance(balance: Any):
    with pytest.raises(MalformedReplyError, match="current_balance"):
        VENDOR.read_balance(answer({"current_balance": balance}))


def row(**more: Any) -> dict[str, Any]:
    return {"status": "succeeded", "client_request_id": NAME, "inference_id": "g1", **more}


def test_a_page_of_the_logs():
    rows = [row(), row(client_request_id=None), row(status="failed", inference_id=None), row(inference_id="")]
    rows_read, has_more = VENDOR.read_logs(
        answer({"data": rows, "pagination": {"limit": 100, "has_more": True}})
    )
    assert has_more
    assert rows_read == [
        LogRow(NAME, "g1"),
        LogRow(None, "g1"),
        LogRow(NAME, None, failed=True),
        LogRow(NAME, None),
    ]


@pytest.mark.parametrize("name", ["data", "logs", "items"])
def test_the_rows_under_any_name(name: str):
    body = {"warnings": [], name: [row()], "pagination": {"has_more": False}}
    assert VENDOR.read_logs(answer(body))[0] == [LogRow(NAME, "g1")]


@pytest.mark.parametrize("pagination", [None, {}, {"has_more": None}, {"has_more": "yes"}, 5])
def test_without_a_word_on_more_a_full_page_is_not_the_last(pagination: Any):
    """Not to ask on would mean "not found", and that can mean to pay again."""
    full = {"data": [row()] * LOG_PAGE, "pagination": pagination}
    assert VENDOR.read_logs(answer(full))[1]
    assert not VENDOR.read_logs(answer({**full, "data": [row()]}))[1]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": None},
        {"data": {}},
        {"data": [5]},
        {"data": [None, row()]},
        {"data": ["x"]},
        {"message": "ok"},
    ],
)
def test_logs_that_cannot_be_read_are_not_empty_logs(body: Any):
    with pytest.raises(MalformedReplyError, match="rows"):
        VENDOR.read_logs(answer(body))


# Anything at all

LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
FIELDS = st.sampled_from(
    [
        "id",
        "status",
        "video",
        "url",
        "duration",
        "error",
        "message",
        "name",
        "meta",
        "usage",
        "credits_used",
        "tokens_used",
        "current_balance",
        "data",
        "pagination",
        "has_more",
        "client_request_id",
        "inference_id",
    ]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    LEAF,
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(FIELDS | st.text(max_size=5), children, max_size=6)
    ),
    max_leaves=15,
)
OBJECTS = st.dictionaries(FIELDS, JSON, max_size=8)
BODIES = (OBJECTS | JSON).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "location", "x-inference-id", "x-client-request-id", "content-type"]),
    st.text(max_size=20),
)
REPLIES = st.builds(
    HttpResponse, st.integers(100, 599) | st.sampled_from([200, 201]), HEADERS, BODIES, st.booleans()
) | st.sampled_from(FailureReason).map(lost)


@given(REPLIES, st.sampled_from(list(READERS)))
def test_any_reply_is_understood_or_one_of_our_errors(reply: Any, call: Call):
    with contextlib.suppress(KlingError):
        READERS[call](reply)


@given(OBJECTS)
def test_a_success_never_names_a_generation_without_an_id(body: dict[str, Any]):
    try:
        generation = VENDOR.read_submit(answer(body))
    except MalformedReplyError:
        assert identifier(body.get("id")) is None
    else:
        assert generation.id == str(body["id"])
        assert (generation.failure is not None) is (generation.status is Status.ERROR)
        assert generation.duration is None or math.isfinite(generation.duration)
        json.dumps(generation.as_dict(), allow_nan=False)


@pytest.mark.parametrize("call", READERS)
def test_a_call_without_a_reply_is_a_fault_of_ours(call: Call):
    with pytest.raises(TypeError):
        READERS[call](None)


def test_how_long_to_wait_is_read_from_the_header():
    for header, seconds in (("30", 30.0), ("Mon, 21 Sep 2026 14:13:50 GMT", 30.0), ("soon", None)):
        with pytest.raises(RateLimitError) as caught:
            VENDOR.read_poll(refusal(429, "slow down", retry_after=header), "g1")
        assert caught.value.retry_after == seconds


def test_no_answer_to_a_submit_says_whether_it_was_sent():
    with pytest.raises(ConnectionLostError) as caught:
        VENDOR.read_submit(lost(FailureReason.READ_TIMEOUT))
    assert caught.value.maybe_sent

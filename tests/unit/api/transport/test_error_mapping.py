from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.exceptions import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ConnectionLostError,
    GatewayError,
    InsufficientBalanceError,
    KlingError,
    MalformedReplyError,
    Money,
    NotFoundError,
    RateLimitError,
    Recovery,
    ServiceUnavailableError,
)
from airflow_provider_kling.api.redaction import clean, excerpt
from airflow_provider_kling.api.transport.error_mapping import (
    certainly_refused,
    error_from_no_response,
    error_from_response,
    error_text,
)
from airflow_provider_kling.api.transport.messages import Call, FailureReason, HttpResponse
from tests.unit.api.driving import HOST, KEY, answer, lost, refusal

Retry, GiveUp = Recovery.RETRY_CALL, Recovery.GIVE_UP
NotSpent, MayBe = Money.NOT_SPENT, Money.MAY_BE_SPENT
PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1>nginx</body></html>"


def fault(response: HttpResponse, call: Call = Call.SUBMIT, **more: Any) -> ApiError:
    return error_from_response(response, call, key=KEY, **more)


# From the status to the error. The last column is what it means for money when it answers a submit.

STATUSES = [
    # status, message, error, recovery, money
    (400, "Body validation error", BadRequestError, GiveUp, NotSpent),
    (401, "Invalid API key", AuthenticationError, GiveUp, NotSpent),
    (402, "Pay first", InsufficientBalanceError, GiveUp, NotSpent),
    (403, "This key may not use this model", AuthenticationError, GiveUp, NotSpent),
    (403, "You've run out of credits", InsufficientBalanceError, GiveUp, NotSpent),
    (403, "The key's spending limit is reached", InsufficientBalanceError, GiveUp, NotSpent),
    (404, "Not found", NotFoundError, GiveUp, NotSpent),
    (405, "Method not allowed", BadRequestError, GiveUp, NotSpent),
    (408, "Request timeout", ServiceUnavailableError, Retry, MayBe),
    (409, "Conflict", BadRequestError, GiveUp, NotSpent),
    (413, "Too large", BadRequestError, GiveUp, NotSpent),
    (418, "A teapot", BadRequestError, GiveUp, NotSpent),
    (422, "Unprocessable", BadRequestError, GiveUp, NotSpent),
    (429, "Too many requests", RateLimitError, Retry, NotSpent),
    (429, "Concurrency limit", RateLimitError, Retry, NotSpent),
    (429, "Your balance is too low", InsufficientBalanceError, GiveUp, NotSpent),
    (429, "Insufficient funds, top up", InsufficientBalanceError, GiveUp, NotSpent),
    (
        429,
        "Free-tier limit: You've reached your free limit for the hour. Get a subscription at /billing/ !",
        RateLimitError,
        Retry,
        NotSpent,
    ),
    (429, "Free-tier limit of the hour: top up your balance to go on", RateLimitError, Retry, NotSpent),
    (429, "Quota exceeded for requests per minute", RateLimitError, Retry, NotSpent),
    (429, "A fundamental limit of the load balancer", RateLimitError, Retry, NotSpent),
    (429, "You exceeded your current quota, check your plan", InsufficientBalanceError, GiveUp, NotSpent),
    (403, "You have run out of credits", InsufficientBalanceError, GiveUp, NotSpent),
    (403, "Not accredited", AuthenticationError, GiveUp, NotSpent),
    (403, "The threshold of this key is reached", AuthenticationError, GiveUp, NotSpent),
    (
        403,
        "Insufficient balance. The price is 0.5 USD per minute",
        InsufficientBalanceError,
        GiveUp,
        NotSpent,
    ),
    (429, "Not enough credits: 5 credits per second of video", InsufficientBalanceError, GiveUp, NotSpent),
    (429, "No free credits are left for the hour", RateLimitError, Retry, NotSpent),
    (429, "Billing hard limit has been reached", InsufficientBalanceError, GiveUp, NotSpent),
    (429, "Account in arrears", InsufficientBalanceError, GiveUp, NotSpent),
    (429, "Concurrency limit of your plan: top up to raise it", RateLimitError, Retry, NotSpent),
    (400, "Insufficient balance", InsufficientBalanceError, GiveUp, NotSpent),
    (400, "camera_control.balance must be a number", BadRequestError, GiveUp, NotSpent),
    (511, "Log in to this network", ServiceUnavailableError, Retry, NotSpent),
    (500, "Internal error", ServiceUnavailableError, Retry, MayBe),
    (501, "Not implemented", ServiceUnavailableError, Retry, MayBe),
    (502, "Bad gateway", ServiceUnavailableError, Retry, MayBe),
    (503, "Unavailable", ServiceUnavailableError, Retry, NotSpent),
    (504, "Gateway timeout", ServiceUnavailableError, Retry, MayBe),
    (520, "Unknown", ServiceUnavailableError, Retry, MayBe),
    (600, "Nobody knows", ServiceUnavailableError, Retry, MayBe),
    (199, "Nobody knows", BadRequestError, GiveUp, NotSpent),
]


@pytest.mark.parametrize(("status", "message", "kind", "recovery", "money"), STATUSES)
def test_each_status(status: int, message: str, kind: type[ApiError], recovery: Recovery, money: Money):
    error = fault(refusal(status, message))
    assert type(error) is kind
    assert (error.status, error.message, error.request_id) == (status, message, "req-1")
    assert error.recovery is recovery
    assert error.money is money
    assert certainly_refused(error) is (money is NotSpent)
    for said in (str(status), message, "req-1", str(money), "submit"):
        assert said in str(error)
    assert error.advice


@pytest.mark.parametrize(("status", "message", "kind", "recovery", "money"), STATUSES)
def test_a_free_call_says_nothing_about_money(
    status: int, message: str, kind: type[ApiError], recovery: Recovery, money: Money
):
    error = fault(refusal(status, message), Call.POLL, generation_id="g1")
    assert (type(error), error.recovery) == (kind, recovery)
    assert error.money is None
    assert error.generation_id == "g1"
    assert "about generation g1" in error.what


def test_503_counts_as_a_refusal_only_from_the_vendor_itself():
    assert fault(refusal(503, "overloaded")).money is NotSpent
    assert fault(answer({"error": {"message": "overloaded", "requestId": "r"}}, 503)).money is NotSpent
    assert fault(answer({"message": "Service Unavailable"}, 503)).money is MayBe
    assert fault(answer(PAGE, 503)).money is MayBe
    assert fault(answer(None, 503)).money is MayBe


@pytest.mark.parametrize("status", [500, 502, 504, 520, 524, 530])
def test_trouble_that_may_be_a_gateway_s_is_not_said_to_be_the_vendor_s(status: int):
    for response in (answer(PAGE, status), answer({"message": "Bad gateway"}, status), answer(b"", status)):
        assert "The vendor, or a gateway before it, answered" in fault(response).what
    assert "The vendor answered" in fault(refusal(status, "Trouble")).what
    marked = HttpResponse(status, {"x-inference-id": "g1"}, b"{}")
    assert "The vendor answered" in fault(marked).what


@pytest.mark.parametrize("status", [511, 521, 523, 525, 526])
def test_where_the_vendor_was_never_reached_a_gateway_says_so(status: int):
    error = fault(answer(PAGE, status))
    assert error.what.startswith(
        "A gateway, which did not reach the vendor, answered the submit request with"
    )
    assert error.money is NotSpent


def test_a_refused_key_may_have_spent_its_limit():
    advice = fault(refusal(403, "The threshold of this key is reached")).advice
    assert "spending limit" in advice
    assert "balance" in advice


GATEWAYS = [
    answer(PAGE, 403),
    answer(b"error code: 1010", 403),
    answer({"message": "Forbidden"}, 403),
    answer(b"", 401),
    answer({"detail": "Not Found"}, 404),
    answer(b"Proxy Authentication Required", 407),
    answer(b"<html>Your credit card and your balance: log in</html>", 403),
    answer(b"no", 405),
    answer(b"no", 451),
]
"""Refusals that are not the vendor's."""


@pytest.mark.parametrize("call", Call)
@pytest.mark.parametrize(
    "response", GATEWAYS, ids=lambda response: f"{response.status} {response.body[:20]!r}"
)
def test_what_a_gateway_refuses_passes_like_an_outage(response: HttpResponse, call: Call):
    error = fault(response, call, generation_id="g1" if call is Call.POLL else None)
    assert isinstance(error, GatewayError)
    assert error.recovery is (Recovery.RETRY_TASK if call is Call.SUBMIT else Recovery.RETRY_CALL)
    assert error.money is (NotSpent if call is Call.SUBMIT else None)
    assert "API key" not in str(error)
    assert "not the vendor" in str(error)


def test_what_carries_the_vendors_header_is_the_vendors():
    error = fault(answer(b"", 401, x_inference_id="g1"))
    assert type(error) is AuthenticationError


@pytest.mark.parametrize("status", [400, 413, 414, 422])
def test_a_gateway_that_finds_the_submit_itself_wrong_is_not_asked_again(status: int):
    assert type(fault(answer(PAGE, status))) is BadRequestError
    assert type(fault(answer(PAGE, status), Call.POLL)) is GatewayError


@pytest.mark.parametrize("status", [520, 521, 522, 523, 524, 525, 526, 502, 504, 530])
def test_which_gateways_say_that_they_never_reached_the_vendor(status: int):
    error = fault(answer(PAGE, status))
    assert error.recovery is Recovery.RETRY_CALL
    assert error.money is (NotSpent if status in (521, 523, 525, 526) else MayBe)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 429, 500, 503])
@pytest.mark.parametrize("call", Call)
def test_advice_fits_the_call(status: int, call: Call):
    message = "Out of credits" if status == 402 else "no"
    advice = fault(refusal(status, message), call).advice
    assert advice
    if call is not Call.SUBMIT:
        assert "Correct the request" not in advice
        assert "parallel tasks" not in advice
        assert "clear the task" not in advice
    if call is not Call.POLL:
        assert "submitted it" not in advice
    without_id = fault(answer(PAGE, 500), call)
    assert "request id" not in str(without_id)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_names_only_the_host(status: int):
    error = fault(answer(None, status, location="https://evil.example.com/x?to=secret"))
    assert isinstance(error, GatewayError)
    assert error.recovery is Recovery.RETRY_TASK
    assert "evil.example.com" in str(error)
    assert "secret" not in str(error)
    assert error.money is NotSpent
    assert fault(answer(None, status), Call.POLL).money is None


def test_a_redirect_to_nowhere():
    assert "an unnamed address" in str(fault(answer(None, 302)))
    assert "an unnamed address" in str(fault(answer(None, 302, location="https://[")))


def test_what_the_vendor_asked_to_wait_is_kept():
    for status in (429, 503):
        error = fault(refusal(status), retry_after=17.0)
        assert isinstance(error, RateLimitError | ServiceUnavailableError)
        assert error.retry_after == 17.0


# From the body to the message

BODIES: dict[str, tuple[Any, str]] = {
    "documented": ({"message": "bad model", "statusCode": 400, "requestId": "r"}, "bad model"),
    "nested message": ({"message": {"message": "bad model"}}, "bad model"),
    "list of texts": ({"message": ["no prompt", "no image"]}, "no prompt; no image"),
    "list of objects": ({"message": [{"message": "a"}, {"message": "b"}]}, "a; b"),
    "nested error": ({"error": {"name": "BadModel", "message": "bad model"}}, "bad model"),
    "error as text": ({"error": "bad model"}, "bad model"),
    "null message": ({"message": None, "error": {"message": "bad model"}}, "bad model"),
    "empty message": ({"message": "", "detail": "bad model"}, "bad model"),
    "details": ({"details": [{"path": "prompt", "message": "required"}]}, "required"),
    "details beside a message": (
        {"message": "Validation failed", "errors": [{"path": ["duration"], "message": "must be 5 or 10"}]},
        "Validation failed: must be 5 or 10 (duration)",
    ),
    "no known name": ({"code": 7}, '{"code": 7}'),
    "only nulls": ({"message": None}, '{"message": null}'),
    "empty object": ({}, "{}"),
    "a list": (["bad model"], '["bad model"]'),
    "a text": ("bad model", '"bad model"'),
    "null": (b"null", "null"),
    "a number message": ({"message": 5}, "5"),
    "plain text": (b"upstream gone", "upstream gone"),
    "a page": (PAGE, "502 Bad Gateway 502 Bad Gateway nginx"),
    "a page with scripts": (
        b"<script>var a = '<b>';</script><style>b{}</style><p>Sorry&amp;bye",
        "Sorry&bye",
    ),
    "only markup": (b"<html></html>", "markup without text"),
    "nothing": (None, "an empty answer"),
    "blanks": (b" \n ", "an empty answer"),
    "bytes that are no text": (b"\xff\xfe\x00bad", "\ufffd\ufffd bad"),
    "many lines": ({"message": "one\r\n  two\tthree"}, "one two three"),
    "what no terminal should get": ({"message": "\x1b[31mred\x00\u202ered"}, "[31mred red"),
    "half a character": (b'{"message": "a\\ud800b"}', "a b"),
    "cut off": (b'{"message": "bad mo', '{"message": "bad mo'),
}


@pytest.mark.parametrize(("body", "message"), BODIES.values(), ids=BODIES)
def test_each_shape_of_body(body: Any, message: str):
    assert fault(answer(body, 400)).message == message


def test_a_message_has_a_bounded_length():
    error = fault(refusal(400, "too long " * 10_000))
    assert len(error.message) == 500
    assert error.message.endswith("…")


@pytest.mark.parametrize("depth", [100, 800, 100_000])
@pytest.mark.parametrize("shape", ['{"message": %s}', '{"x": %s}', "%s"])
def test_a_body_nested_however_deep(depth: int, shape: str):
    body = shape % ("[" * depth + "]" * depth)
    assert isinstance(fault(answer(body.encode(), 400)), BadRequestError)


def test_the_request_id_is_found_where_the_error_is_nested():
    assert fault(answer({"error": {"message": "x", "requestId": "r9"}}, 500)).request_id == "r9"
    assert fault(answer({"message": "x"}, 500)).request_id is None
    assert fault(answer(PAGE, 500)).request_id is None


@pytest.mark.parametrize(
    "text",
    [
        "http://" * 50_000,
        "https://a/" + "b" * 300_000,
        "?" * 300_000,
        "a" * 300_000,
        "<" * 300_000,
        "<script " * 40_000,
    ],
    ids=["schemes", "path", "question marks", "letters", "brackets", "scripts"],
)
def test_no_text_takes_long_to_clean(text: str):
    began = time.process_time()
    clean(text, KEY)
    excerpt(text.encode(), KEY)
    assert time.process_time() - began < 3


# Secrets

SIGNED = "https://cdn.aimlapi.com/v/a.mp4?cacheKey=HUSH1&ksSecret=HUSH2&ksTime=68f7"
BASE64 = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ" * 8
SECRETS = {
    "the key": KEY,
    "a signed URL": SIGNED,
    "a signed URL without scheme": SIGNED.removeprefix("https://"),
    "a signed URL in capitals": SIGNED.replace("https", "HTTPS"),
    "a URL with escaped slashes": SIGNED.replace("/", "\\/"),
    "a query without a value": "https://cdn.aimlapi.com/a.mp4?HUSH",
    "a query that begins with nothing": "https://cdn.aimlapi.com/a.mp4?&sig=HUSH",
    "a query that begins with a path": "https://cdn.aimlapi.com/a.mp4?/x&sig=HUSH",
    "a password": "https://user:HUSH@cdn.aimlapi.com/a.mp4",
    "a password with a sign in it": "https://user:HU@HUSH@cdn.aimlapi.com/a.mp4",
    "a password, escaped": "https:\\/\\/user:HUSH@cdn.aimlapi.com\\/a.mp4",
    "a token as the user": "HTTPS://HUSH@cdn.aimlapi.com/a.mp4",
    "a database's password": "postgresql://user:HUSH@db.test/a",
    "a picture": BASE64,
    "a picture, escaped": BASE64.replace("A", "\\/"),
    "a picture, quoted": BASE64.replace("A", "%2F"),
    "a small picture": "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==",
}
HIDDEN = (KEY, "HUSH", "iVBORw0KGgo")


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("frame", ["%s", "see %s, please", "<p>%s</p>", "'%s'"])
def test_secrets_do_not_show(secret: str, frame: str):
    text = frame % secret
    for shown in (clean(text, KEY), excerpt(text.encode(), KEY)):
        assert not any(hidden in shown for hidden in HIDDEN)


def test_what_is_no_secret_stays():
    for text in (
        "Is it a cat? Or a dog?",
        "did you mean 'pro'?",
        "Really?! (duration = 5)",
        "s3://conn@bucket/a.mp4",
        "https://docs.aimlapi.com:443/@errors",
        "https://docs.aimlapi.com/errors (see 3.1)",
        "kling-video/v1.6/standard/image-to-video: duration must be 5 or 10, not 7",
        "id 3f2b8c1e-90aa-4d1f-8f0e-2a61c8a1b111:kling-video/v1.6/standard/image-to-video",
    ):
        assert clean(text) == text


def test_half_a_key_does_not_survive_a_cut():
    """A text that is cut where the key stands would show the half that is left."""
    for before in range(440, 505):
        text = "x " * (before // 2) + KEY
        assert KEY[:12] not in fault(answer(text.encode(), 400)).message
        assert KEY[:12] not in fault(refusal(400, text)).message


TEXTS = st.lists(st.text(max_size=8) | st.sampled_from([*SECRETS.values()]), max_size=3).map(" ".join)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(["message", "error", "detail", "requestId", "name"]) | TEXTS, children, max_size=3
        )
    ),
    max_leaves=8,
)
RAW = JSON.map(lambda value: json.dumps(value).encode()) | TEXTS.map(str.encode) | st.binary(max_size=40)


@given(st.integers(100, 999), RAW, st.sampled_from(Call))
def test_any_answer_gives_an_error_without_secrets(status: int, body: bytes, call: Call):
    error = fault(HttpResponse(status, {}, body), call)
    shown = f"{error} {error.message} {error.request_id}"
    assert not any(hidden in shown for hidden in HIDDEN)
    assert shown.isprintable() or "\n" not in shown
    assert error.status == status
    if call is Call.SUBMIT:
        assert error.money is (NotSpent if certainly_refused(error) else MayBe)
    else:
        assert error.money is None


@given(JSON)
def test_any_json_has_a_text(value: Any):
    assert isinstance(error_text(value), str)


# No answer


@pytest.mark.parametrize("why", FailureReason)
def test_each_silence_of_a_submit(why: FailureReason):
    error = error_from_no_response(lost(why), Call.SUBMIT)
    assert isinstance(error, ConnectionLostError)
    assert error.maybe_sent is why.maybe_sent
    assert error.money is (NotSpent if not why.maybe_sent else MayBe)
    assert error.recovery is (Retry if why.passing else GiveUp)
    assert certainly_refused(error) is not why.maybe_sent
    assert why.sentence in str(error)
    assert HOST in str(error)


@pytest.mark.parametrize("why", FailureReason)
def test_each_silence_of_a_poll(why: FailureReason):
    error = error_from_no_response(lost(why), Call.POLL, "g1")
    assert error.money is None
    assert error.generation_id == "g1"
    assert "g1" in str(error)


def test_an_unreadable_answer_is_no_refusal():
    assert not certainly_refused(MalformedReplyError("what?"))
    assert not certainly_refused(KlingError("what?"))

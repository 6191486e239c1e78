from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.calls import (
    LAST_LOOK,
    READ_RETRIES,
    SUBMIT_RETRIES,
    VendorCalls,
)
from airflow_provider_kling.api.exceptions import (
    AuthenticationError,
    BadRequestError,
    ConnectionLostError,
    GatewayError,
    GenerationFailedError,
    GenerationTimeoutError,
    InsufficientBalanceError,
    KlingError,
    MalformedReplyError,
    Money,
    NotFoundError,
    RateLimitError,
    Recovery,
    ServiceUnavailableError,
    SubmitUncertainError,
)
from airflow_provider_kling.api.generation import Failure, Generation, GenerationStatus
from airflow_provider_kling.api.polling.poll_tracker import is_ready, not_ready
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.retry import (
    FATAL_POLLS,
    FATAL_SECONDS,
    FINAL_LOOKS,
    REFUSED_PAUSE,
    TROUBLE_TOLD,
)
from airflow_provider_kling.api.transport.error_mapping import certainly_refused
from airflow_provider_kling.api.transport.messages import (
    Call,
    FailureReason,
    HttpRequest,
    HttpResponse,
    Reply,
    SaveRecord,
    Send,
    Sleep,
)
from tests.unit.api.driving import (
    DONE,
    KEY,
    REQUEST,
    START,
    Clock,
    Driven,
    answer,
    calls,
    drive,
    endpoints,
    lost,
    refusal,
    standing,
)

NAME = "airflow:dag:task:0:abc"
ACCEPTED = answer({"id": "g1", "status": "queued"}, 201, x_client_request_id=NAME)
GATEWAY = answer(b"<h1>502 Bad Gateway</h1>", 502)


def submitted(*replies: Reply, clock: Clock | None = None, rng: Callable[[], float] = lambda: 0.5) -> Driven:
    clock = clock or Clock()
    return drive(calls(clock, rng).submit(REQUEST, NAME), replies, clock)


def polled(*replies: Reply, clock: Clock | None = None) -> Driven:
    clock = clock or Clock()
    return drive(calls(clock).get_generation("g1"), replies, clock)


# Free calls are repeated


@pytest.mark.parametrize(
    "trouble",
    [
        refusal(500),
        refusal(502),
        GATEWAY,
        refusal(503),
        refusal(504),
        refusal(408),
        refusal(429),
        answer(b"{"),
        answer(None),
    ]
    + [lost(why) for why in FailureReason if why.passing],
    ids=str,
)
def test_passing_trouble_is_waited_out(trouble: Reply):
    driven = polled(trouble, trouble, standing("queued"))
    assert driven.result.status is GenerationStatus.QUEUED
    assert driven.story == ["poll", "sleep", "poll", "sleep", "poll"]


def test_after_five_attempts_it_is_enough():
    driven = polled(*[refusal(500)] * READ_RETRIES.attempts)
    assert isinstance(driven.error, ServiceUnavailableError)
    assert len(driven.sent) == READ_RETRIES.attempts
    assert driven.pauses == [0.5, 1.0, 2.0, 4.0]


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=4, max_size=4))
def test_waits_between_attempts_have_full_jitter(chances: list[float]):
    clock, numbers = Clock(), iter(chances)
    driven = drive(calls(clock, lambda: next(numbers)).get_balance(), [refusal(502)] * 5, clock)
    assert driven.pauses == [chance * bound for chance, bound in zip(chances, (1, 2, 4, 8), strict=True)]


def test_what_the_vendor_asks_to_wait_is_waited():
    assert polled(refusal(429, "slow", retry_after="40"), DONE).pauses == [40 * 1.05]
    assert polled(refusal(503, "slow", retry_after="40"), DONE).pauses == [40 * 1.05]
    assert polled(refusal(429, "slow", retry_after="99999"), DONE).pauses == [120 * 1.05]
    assert polled(refusal(429, "slow", retry_after="0"), DONE).pauses == [0]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refusal(401), AuthenticationError),
        (refusal(404), NotFoundError),
        (lost(FailureReason.CERTIFICATE), ConnectionLostError),
    ],
)
def test_a_refused_poll_is_believed_the_third_time(reply: Reply, kind: type[KlingError]):
    driven = polled(*[reply] * FATAL_POLLS)
    assert type(driven.error) is kind
    assert driven.calls == [Call.POLL] * FATAL_POLLS
    assert all(pause >= REFUSED_PAUSE for pause in driven.pauses)
    assert polled(reply, reply, DONE).result.video_url


def test_a_refusal_at_the_last_attempt_is_not_believed_either():
    """It would say of a generation that is paid for that the vendor does not know it."""
    trouble = [refusal(500)] * (READ_RETRIES.attempts - 1)
    assert polled(*trouble, refusal(404), DONE).result.video_url
    assert isinstance(polled(*trouble, refusal(404), refusal(500)).error, ServiceUnavailableError)
    assert isinstance(polled(*trouble, *[refusal(404)] * 3).error, NotFoundError)


def test_a_refused_balance_is_believed_at_once():
    clock = Clock()
    driven = drive(calls(clock).get_balance(), [refusal(401)], clock)
    assert isinstance(driven.error, AuthenticationError)
    assert driven.pauses == []


def test_the_balance():
    clock = Clock()
    assert drive(calls(clock).get_balance(), [answer({"current_balance": 3.5})], clock).result == 3.5


# A submit is not


def test_an_accepted_submit():
    driven = submitted(ACCEPTED)
    assert driven.result == Generation("g1", GenerationStatus.QUEUED, "queued")
    assert driven.story == ["submit"]
    assert driven.sent[0].headers["X-Client-Request-Id"] == NAME


NOT_ACCEPTED = [
    refusal(429),
    refusal(429, "slow", retry_after="30"),
    refusal(503),
    lost(FailureReason.DNS),
    lost(FailureReason.REFUSED),
    lost(FailureReason.UNREACHABLE),
    lost(FailureReason.CONNECT_TIMEOUT),
    lost(FailureReason.PROXY),
]
PERHAPS_ACCEPTED = [
    refusal(500),
    refusal(502),
    refusal(504),
    refusal(408),
    GATEWAY,
    answer(b"<h1>503</h1>", 503),
    answer(None),
    answer(b"{"),
    answer({"status": "queued"}),
    HttpResponse(200, {}, b"{}", truncated=True),
    lost(FailureReason.READ_TIMEOUT),
    lost(FailureReason.SLOW),
    lost(FailureReason.BROKEN),
]
REFUSED_FOR_GOOD = [
    (refusal(400), BadRequestError),
    (refusal(401), AuthenticationError),
    (refusal(402), InsufficientBalanceError),
    (refusal(403), AuthenticationError),
    (refusal(404), NotFoundError),
    (refusal(409), BadRequestError),
    (refusal(422), BadRequestError),
    (refusal(429, "balance too low"), InsufficientBalanceError),
    (answer(None, 307, location="https://elsewhere"), GatewayError),
    (lost(FailureReason.CERTIFICATE), ConnectionLostError),
    (lost(FailureReason.TLS), ConnectionLostError),
    (lost(FailureReason.UNSENDABLE), ConnectionLostError),
]


@pytest.mark.parametrize("refused", NOT_ACCEPTED, ids=str)
def test_what_was_certainly_not_accepted_is_sent_again(refused: Reply):
    driven = submitted(refused, refused, refused, ACCEPTED)
    assert driven.result.id == "g1"
    assert driven.story == ["submit", "sleep"] * 3 + ["submit"]
    assert len({(each.url, each.body, tuple(each.headers.items())) for each in driven.sent}) == 1


@pytest.mark.parametrize("refused", NOT_ACCEPTED, ids=str)
def test_it_is_not_sent_again_for_ever(refused: Reply):
    driven = submitted(*[refused] * SUBMIT_RETRIES.attempts)
    assert driven.calls == [Call.SUBMIT] * SUBMIT_RETRIES.attempts == [Call.SUBMIT] * 4
    assert driven.error is not None
    assert driven.error.money is Money.NOT_SPENT
    assert driven.error.recovery is Recovery.RETRY_CALL


@pytest.mark.parametrize("reply", PERHAPS_ACCEPTED, ids=str)
def test_what_may_have_been_accepted_is_never_sent_again(reply: Reply):
    driven = submitted(reply)
    assert isinstance(driven.error, SubmitUncertainError)
    assert driven.story == ["submit"]
    assert driven.error.client_request_id == NAME
    assert driven.error.money is Money.MAY_BE_SPENT
    assert driven.error.recovery is Recovery.RETRY_TASK
    assert isinstance(driven.error.__cause__, KlingError)
    assert driven.error.__cause__.what in str(driven.error)


@pytest.mark.parametrize(("reply", "kind"), REFUSED_FOR_GOOD, ids=str)
def test_what_a_repeat_cannot_fix_is_not_sent_again(reply: Reply, kind: type[KlingError]):
    driven = submitted(reply)
    assert type(driven.error) is kind
    assert driven.error.money is Money.NOT_SPENT
    assert driven.error.recovery is not Recovery.RETRY_CALL


REPLIES = st.one_of(
    st.sampled_from([*NOT_ACCEPTED, *PERHAPS_ACCEPTED, *(reply for reply, _ in REFUSED_FOR_GOOD), ACCEPTED]),
    st.builds(answer, st.dictionaries(st.text(max_size=3), st.text(max_size=3)), st.integers(200, 599)),
)


@given(st.lists(REPLIES, min_size=4, max_size=4), st.floats(0, 1, exclude_max=True))
def test_no_sequence_of_replies_makes_a_second_submit_of_one_that_may_be_accepted(
    replies: list[Reply], chance: float
):
    driven = submitted(*replies, rng=lambda: chance)
    seen = replies[: len(driven.sent)]
    for earlier in seen[:-1]:
        with pytest.raises(KlingError) as caught:
            endpoints().read_submit(earlier)
        assert certainly_refused(caught.value)
    if driven.error is None:
        assert isinstance(driven.result, Generation)
    else:
        assert (driven.error.money is Money.MAY_BE_SPENT) is isinstance(driven.error, SubmitUncertainError)
    assert sum(driven.pauses) <= 3 * 120 * 1.1


def test_an_unreadable_answer_whose_header_has_the_id_is_an_accepted_submit():
    driven = submitted(answer(b"<h1>OK</h1>", x_inference_id="g9", x_client_request_id=NAME))
    assert driven.result == Generation("g9", GenerationStatus.UNKNOWN, "")


def test_what_to_remember_is_remembered_before_each_time_that_it_is_sent():
    clock = Clock()
    flow = calls(clock).submit(REQUEST, NAME, lambda: SaveRecord({"at": clock.now}))
    driven = drive(flow, [refusal(429, "slow", retry_after="100"), lost(FailureReason.DNS), ACCEPTED], clock)
    assert driven.story == ["saverecord", "submit", "sleep"] * 2 + ["saverecord", "submit"]
    moments = [record["at"] - START for record in driven.remembered]
    assert moments == [0, 105, 106]


@pytest.mark.parametrize("echo", [{}, {"x_client_request_id": ""}, {"x_client_request_id": "another"}])
def test_a_name_that_the_vendor_dropped_is_told(caplog: pytest.LogCaptureFixture, echo: dict[str, str]):
    driven = submitted(answer({"id": "g1", "status": "queued"}, **echo))
    assert driven.result.id == "g1"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for said in (NAME, "g1", "did not keep", "nothing is lost"):
        assert said in record.getMessage()


def test_a_name_that_the_vendor_kept_is_not_worth_a_word(caplog: pytest.LogCaptureFixture):
    submitted(ACCEPTED)
    clock = Clock()
    drive(calls(clock).submit(REQUEST), [answer({"id": "g1"})], clock)
    assert caplog.records == []


# Waiting


QUEUED, GENERATING = standing("queued"), standing("generating")
FAILED = standing("error", error={"name": "Moderation", "message": "no faces"})
NO_URL = standing("completed")


def settled(
    *replies: Any, seconds: float = 1000.0, interval: float = 10.0, clock: Clock | None = None, **more: Any
) -> Driven:
    clock = clock or Clock()
    flow = calls(clock).wait_until_complete(
        "g1", schedule=Schedule.fixed(interval), deadline=clock.now + seconds, **more
    )
    return drive(flow, replies, clock)


def test_it_looks_until_the_video_is_there():
    driven = settled(QUEUED, GENERATING, GENERATING, DONE)
    assert driven.result.video_url
    assert driven.story == ["poll", "sleep"] * 3 + ["poll"]
    assert driven.pauses == [10.0] * 3
    assert {dict(each.params)["generation_id"] for each in driven.sent} == {"g1"}


def test_what_is_done_is_not_waited_for():
    assert settled(DONE).pauses == []


def test_the_first_look_can_come_later():
    assert settled(DONE, first_look_after=5.0).story == ["sleep", "poll"]


def test_the_schedule_counts_from_the_submit():
    clock = Clock()
    flow = calls(clock).wait_until_complete(
        "g1", schedule=Schedule.adaptive(200.0), deadline=START + 9999, submitted_at=START - 150
    )
    driven = drive(flow, [QUEUED, DONE], clock)
    assert driven.pauses == [Schedule.adaptive(200.0).next_wait(150.0)]


def test_a_failed_generation_ends_it_in_the_vendors_words():
    error = settled(QUEUED, FAILED).error
    assert isinstance(error, GenerationFailedError)
    assert (error.name, error.message, error.generation_id) == ("Moderation", "no faces", "g1")
    assert error.money is Money.NOT_CHARGED
    assert error.recovery is Recovery.GIVE_UP
    assert "Moderation: no faces" in str(error)
    assert "no message" in str(settled(standing("error")).error)


def test_at_the_deadline_it_looks_once_more():
    driven = settled(QUEUED, QUEUED, QUEUED, DONE, seconds=25.0)
    assert driven.result.video_url
    assert driven.pauses == [10.0, 10.0, 5.0]


def test_after_the_deadline_it_ends_and_says_what_keeps_running():
    driven = settled(QUEUED, QUEUED, QUEUED, GENERATING, seconds=25.0)
    error = driven.error
    assert isinstance(error, GenerationTimeoutError)
    assert error.generation_id == "g1"
    assert error.money is Money.GOES_ON
    assert error.recovery is Recovery.RETRY_TASK
    assert "'generating'" in error.what
    assert "KlingGenerationSensor(generation_id='g1'" in str(error)


def test_a_deadline_that_passed_long_ago_still_gives_one_look():
    assert settled(DONE, seconds=-1e6).result.video_url
    assert settled(QUEUED, seconds=-1e6).story == ["poll"]


def test_a_deadline_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="generation g1 is not a number"):
        settled(QUEUED, seconds=math.nan)


@pytest.mark.parametrize("timeout", [math.nan, -1, math.inf, 7 * 86400 + 1, True, "60", None])
def test_a_timeout_that_makes_no_sense_is_refused(timeout: Any):
    with pytest.raises(ValueError, match=r"timeout=.* is not allowed: give 0 to 604800 seconds"):
        calls(Clock()).deadline(timeout)


def test_a_timeout_counts_from_now():
    assert calls(Clock()).deadline(0) == START
    assert calls(Clock()).deadline(7 * 86400) == START + 7 * 86400


def test_without_a_deadline_it_waits_on():
    assert settled(*[QUEUED] * 500, DONE, seconds=math.inf).result.video_url


PASSING = [
    lost(FailureReason.BROKEN),
    lost(FailureReason.DNS),
    refusal(500),
    GATEWAY,
    refusal(429),
    answer(b"{"),
    answer({"id": "g1"}),
]
HOPELESS = [refusal(400), refusal(401), refusal(403), refusal(404), lost(FailureReason.CERTIFICATE)]


@pytest.mark.parametrize("trouble", PASSING + HOPELESS, ids=str)
def test_one_bad_poll_never_ends_the_wait(trouble: Reply):
    assert settled(QUEUED, trouble, GENERATING, trouble, trouble, DONE).result.video_url


@pytest.mark.parametrize("trouble", PASSING + HOPELESS, ids=str)
def test_whatever_a_look_meets_it_says_what_that_costs(trouble: Reply):
    """A download that asks for a URL meets it too, and its video may be paid for."""
    error = polled(*[trouble] * READ_RETRIES.attempts).error
    assert error is not None
    assert error.money is Money.ONCE
    assert "billed once" in str(error)


@pytest.mark.parametrize("trouble", PASSING, ids=str)
def test_passing_trouble_lasts_until_the_deadline(trouble: Reply, caplog: pytest.LogCaptureFixture):
    driven = settled(*[trouble] * 101)
    assert isinstance(driven.error, GenerationTimeoutError)
    assert "the last poll failed" in driven.error.what
    assert len(caplog.records) == 1000 // TROUBLE_TOLD + 1


def test_trouble_that_comes_and_goes_is_told_now_and_then(caplog: pytest.LogCaptureFixture):
    """The waits of a triggerer may be thousands."""
    assert settled(*[QUEUED, lost()] * 50, DONE, seconds=math.inf).result.video_url
    assert len(caplog.records) == 1000 // TROUBLE_TOLD + 1


@pytest.mark.parametrize("trouble", HOPELESS, ids=str)
@pytest.mark.parametrize(("interval", "polls"), [(1.0, 61), (10.0, 7), (30.0, 3), (300.0, 3)])
def test_refusals_in_a_row_end_it(trouble: Reply, interval: float, polls: int):
    driven = settled(QUEUED, *[trouble] * polls, interval=interval)
    assert driven.error is not None
    assert driven.error.recovery is Recovery.GIVE_UP
    assert driven.error.generation_id == "g1"
    assert len(driven.sent) == 1 + polls


def test_however_often_it_is_asked_a_gateway_may_refuse_for_a_while():
    refusals = int(FATAL_SECONDS) - 1
    assert settled(*[refusal(404)] * refusals, QUEUED, DONE, interval=1.0).result.video_url


def test_a_clock_that_is_set_does_not_make_refusals_last_longer():
    clock = Clock()
    refused = refusal(404)
    driven = settled(
        refused, refused, jumping(clock, -5000, refused), *[refused] * 6, clock=clock, seconds=math.inf
    )
    assert isinstance(driven.error, NotFoundError)


def test_refusals_that_are_not_in_a_row_do_not():
    pair = [refusal(404), refusal(401)]
    assert settled(*pair, QUEUED, *pair, lost(), *pair, DONE).result.video_url


def test_completed_without_a_url_is_asked_for_again(caplog: pytest.LogCaptureFixture):
    assert settled(NO_URL, NO_URL, DONE).result.video_url
    driven = settled(*[NO_URL] * FINAL_LOOKS)
    assert isinstance(driven.error, MalformedReplyError)
    assert driven.error.money is Money.ALREADY_PAID
    assert driven.error.recovery is Recovery.RETRY_TASK
    assert driven.error.generation_id == "g1"


def test_429_is_waited_for_as_asked_and_not_longer():
    assert settled(refusal(429, "slow", retry_after="60"), DONE).pauses == [60 * 1.05]
    assert settled(refusal(429, "slow", retry_after="1"), DONE).pauses == [10.0]
    assert settled(refusal(429, "slow", retry_after="86400"), DONE).pauses == [120 * 1.05]
    assert settled(refusal(503, "slow", retry_after="60"), DONE).pauses == [60 * 1.05]
    assert settled(refusal(429, "slow", retry_after="60"), DONE, seconds=30.0).pauses == [30.0]


def test_an_unknown_status_is_still_working_and_told_once(caplog: pytest.LogCaptureFixture):
    odd = standing("dreaming")
    driven = settled(odd, odd, QUEUED, odd, lost(), odd, standing("musing"), DONE)
    assert driven.result.video_url
    warned = [each.getMessage() for each in caplog.records if "status" in each.getMessage()]
    assert len(warned) == 2
    assert "dreaming" in warned[0]
    assert "musing" in warned[1]


def test_each_change_is_told_once():
    seen: list[str] = []
    watch = lambda generation: seen.append(generation.raw_status)  # noqa: E731
    settled(QUEUED, QUEUED, lost(), QUEUED, GENERATING, GENERATING, DONE, watch=watch)
    assert seen == ["queued", "generating", "completed"]
    seen.clear()
    settled(QUEUED, FAILED, watch=watch)
    assert seen == ["queued", "error"]


def test_it_learns_how_long_it_took_if_the_submit_is_known():
    learned: list[tuple[float, float]] = []
    learn = lambda *facts: learned.append(facts)  # noqa: E731
    settled(QUEUED, GENERATING, DONE, submitted_at=START - 7, learn=learn)
    assert learned == [(27.0, 17.0)]
    settled(QUEUED, DONE, learn=learn)
    settled(QUEUED, FAILED, submitted_at=START, learn=learn)
    assert len(learned) == 1


def jumping(clock: Clock, by: float, reply: Reply) -> Callable[[HttpRequest], Reply]:
    """A reply during which somebody sets the machine's clock."""

    def jump(_: HttpRequest) -> Reply:
        clock.now += by
        return reply

    return jump


def test_a_clock_that_is_set_back_neither_hurries_nor_ends_it():
    clock = Clock()
    driven = settled(QUEUED, jumping(clock, -5000, QUEUED), QUEUED, DONE, clock=clock)
    assert driven.result.video_url
    assert driven.pauses == [10.0] * 3
    clock = Clock()
    flow = calls(clock).wait_until_complete("g1", schedule=Schedule.adaptive(), deadline=START + 500)
    driven = drive(flow, [QUEUED, jumping(clock, -5000, QUEUED), QUEUED, DONE], clock)
    assert all(2.0 <= pause <= 300.0 for pause in driven.pauses)


def test_a_clock_that_is_set_forward_still_gives_a_last_look():
    clock = Clock()
    assert settled(QUEUED, jumping(clock, 5000, DONE), clock=clock).result.video_url
    clock = Clock()
    assert isinstance(settled(jumping(clock, 5000, QUEUED), clock=clock).error, GenerationTimeoutError)


STEPS = st.lists(
    st.sampled_from([QUEUED, GENERATING, standing("odd"), *PASSING, *HOPELESS, NO_URL]), max_size=30
)


@given(STEPS, st.floats(0, 500), st.floats(0, 1, exclude_max=True))
def test_a_wait_ends_in_time_and_never_abandons_a_video(steps: list[Reply], seconds: float, chance: float):
    clock = Clock()
    deadline = START + seconds
    replies = itertools.chain(steps, itertools.repeat(DONE))
    flow = calls(clock, lambda: chance).wait_until_complete(
        "g1", schedule=Schedule.adaptive(60.0), deadline=deadline
    )
    driven = drive(flow, lambda _: next(replies), clock)
    assert clock.now <= max(deadline, START) + 1e-6
    if driven.error is None:
        assert driven.result.video_url
    elif isinstance(driven.error, GenerationTimeoutError):
        assert clock.now >= deadline
    else:
        seen = steps[: len(driven.sent)]
        refusals = len(list(itertools.takewhile(lambda each: each in HOPELESS, reversed(seen))))
        polled = [at for at, e in zip(driven.times, driven.effects, strict=True) if isinstance(e, Send)]
        assert seen.count(NO_URL) >= FINAL_LOOKS or (
            refusals >= FATAL_POLLS and clock.now - polled[-refusals] >= FATAL_SECONDS
        )
    assert all(isinstance(effect, Send | Sleep) for effect in driven.effects)
    assert Call.SUBMIT not in driven.calls


# What a look says


def test_when_a_video_can_be_fetched():
    assert is_ready(Generation("g", GenerationStatus.COMPLETED, "completed", video_url="https://x"))
    assert not is_ready(Generation("g", GenerationStatus.COMPLETED, "completed"))
    for status in (GenerationStatus.QUEUED, GenerationStatus.GENERATING, GenerationStatus.UNKNOWN):
        assert not is_ready(Generation("g", status, status, video_url="https://x"))
    with pytest.raises(GenerationFailedError, match="M: no"):
        is_ready(Generation("g", GenerationStatus.ERROR, "error", failure=Failure("M", "no")))


def test_why_a_video_cannot_be_fetched_yet():
    waiting = not_ready(Generation("g", GenerationStatus.QUEUED, "queued"))
    assert "queued" in str(waiting)
    assert "KlingGenerationSensor" in waiting.advice
    paid = not_ready(Generation("g", GenerationStatus.COMPLETED, "completed"))
    assert paid.money is Money.ALREADY_PAID
    assert {waiting.recovery, paid.recovery} == {Recovery.RETRY_TASK}


def test_nothing_of_a_secret_is_logged(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    echo = {"message": f"{KEY} https://cdn.example.com/v.mp4?ksSecret=hush"}
    for status in (429, 500):
        submitted(*[answer(echo, status)] * 4)
        polled(*[answer(echo, status)] * 5)
        settled(*[answer(echo, status)] * 3, DONE)
    assert caplog.records
    assert KEY not in caplog.text
    assert "hush" not in caplog.text


def test_rate_limits_keep_their_kind():
    assert isinstance(submitted(*[refusal(429)] * 4).error, RateLimitError)


@pytest.mark.parametrize("jump", [-3600.0, -30.0, 0.0])
def test_a_clock_that_is_set_back_does_not_stretch_a_wait(jump: float):
    passed = set_back = 0.0
    patient = VendorCalls(
        endpoints(), now=lambda: START + passed + set_back, monotonic=lambda: passed, rng=lambda: 0.5
    )
    flow = patient.wait_until_complete("g1", schedule=Schedule.fixed(10), deadline=patient.deadline(60))
    reply: Reply = None
    for _ in range(100):
        try:
            effect = flow.send(reply)
        except GenerationTimeoutError:
            break
        if isinstance(effect, Sleep):
            passed += effect.seconds
            reply = None
        else:
            assert isinstance(effect, Send)
            assert effect.at_most is not None
            assert LAST_LOOK <= effect.at_most <= 60
            set_back = jump if passed > 20 else 0.0
            reply = standing("generating")
    assert passed == pytest.approx(60)

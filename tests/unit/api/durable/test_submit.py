from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest

from airflow_provider_kling.api.durable.attempt import AttemptKind, TaskAttempt
from airflow_provider_kling.api.durable.decision import SubmitPolicy
from airflow_provider_kling.api.durable.identity import client_request_id, fingerprint
from airflow_provider_kling.api.durable.record import NOTHING, Record
from airflow_provider_kling.api.durable.search import SEARCH_PAUSES
from airflow_provider_kling.api.durable.submit import (
    MOST_SUBMITS,
    DurableSubmit,
    PendingSearch,
    SubmitResult,
)
from airflow_provider_kling.api.exceptions import (
    AuthenticationError,
    BadRequestError,
    InvalidRequestError,
    Money,
    RateLimitError,
    Recovery,
    ServiceUnavailableError,
    StoppedError,
    SubmitUncertainError,
    UnusableRecordError,
)
from airflow_provider_kling.api.generation import GenerationStatus
from airflow_provider_kling.api.redaction import key_mark
from airflow_provider_kling.api.retry import CLOCK_SKEW
from airflow_provider_kling.api.transport.messages import (
    Call,
    FailureReason,
    HttpRequest,
    HttpResponse,
    Reply,
)
from tests.unit.api.driving import (
    DONE,
    KEY,
    MODEL,
    REQUEST,
    START,
    Clock,
    Driven,
    answer,
    calls,
    drive,
    lost,
    refusal,
    standing,
)

WORK = TaskAttempt("dag", "run", "task")
SAME = fingerprint(REQUEST.body(), "account")
WANTED = replace(REQUEST, fingerprint=SAME)
OTHER = fingerprint({**REQUEST.body(), "prompt": "she frowns"}, "account")
GRACE = 300.0
NUMBERS: dict[AttemptKind, tuple[int, int]] = {"first": (1, 1), "clear": (2, 2), "retry": (2, 1)}
"""The number of the try, and of the first one since the last clear."""

ACCEPTED = answer({"id": "g9", "status": "queued"}, 201)
FAILED = standing("error", error={"name": "GenerationError", "message": "The model failed."})
REJECTED = standing("error", error={"name": "ModerationError", "message": "No faces."})
GONE = [refusal(404)] * 3
LOST = lost(FailureReason.READ_TIMEOUT)
EMPTY = answer({"data": [], "pagination": {"has_more": False}})


def name(count: int = 0, work: TaskAttempt = WORK) -> str:
    return client_request_id(work, SAME, count)


def listed(*rows: tuple[str, str], status: str = "succeeded") -> HttpResponse:
    """A page of the logs with these client request ids and inference ids."""
    data = [{"client_request_id": mine, "inference_id": theirs, "status": status} for mine, theirs in rows]
    return answer({"data": data, "pagination": {"has_more": False}})


def record(
    generation_id: str | None = "g1", count: int = 0, at: float = START - 50, **more: Any
) -> dict[str, Any]:
    """What an earlier try of the same work remembered."""
    asked = more.pop("request", SAME)
    work = more.pop("work", WORK)
    key = more.pop("key", KEY)
    return Record(
        identity=work.identity,
        client_request_id=client_request_id(work, asked, count),
        model=MODEL,
        fingerprint=asked,
        count=count,
        intended_at=at,
        generation_id=generation_id,
        attempt=1,
        key_mark=key_mark(key, work.identity),
    ).encode()


Replies = Sequence[Reply | Callable[[HttpRequest], Reply]] | Callable[[HttpRequest], Reply]


def obtain(
    replies: Replies, stored: Any = None, *, clock: Clock | None = None, call_takes: float = 0.0, **more: Any
) -> Driven:
    clock = clock or Clock()
    policy = {"uncertain_grace": GRACE} | {
        key: more.pop(key) for key in tuple(more) if key.startswith("on_") or key == "uncertain_grace"
    }
    number, first_number = NUMBERS[more.pop("kind", "first")]
    names = TaskAttempt.__dataclass_fields__.keys() & more.keys()
    attempt = {"number": number, "first_number": first_number} | {name: more.pop(name) for name in names}
    once = DurableSubmit(
        calls(clock), WANTED, replace(WORK, **attempt), policy=SubmitPolicy(**policy), **more
    )
    driven = drive(once.submit_or_reattach(stored), replies, clock, call_takes)
    assert driven.unused == 0
    return driven


def result(driven: Driven) -> SubmitResult:
    assert driven.error is None, driven.error
    assert isinstance(driven.result, SubmitResult)
    return driven.result


def names_sent(driven: Driven) -> list[str]:
    return [each.headers["X-Client-Request-Id"] for each in driven.sent if each.call is Call.SUBMIT]


# The order of things


def test_the_intent_is_remembered_before_the_submit_and_the_id_right_after():
    driven = obtain([ACCEPTED])
    assert driven.story == ["saverecord", "submit", "saverecord"]
    intent, known = driven.remembered
    assert Record.decode(intent) == Record(
        WORK.identity,
        name(),
        MODEL,
        SAME,
        0,
        START,
        generation_id=None,
        attempt=1,
        key_mark=key_mark(KEY, WORK.identity),
    )
    assert known == {**intent, "generation_id": "g9"}
    obtained = result(driven)
    assert (obtained.generation_id, obtained.reattached) == ("g9", False)
    assert obtained.record == Record.decode(known)
    assert obtained.generation is not None
    assert names_sent(driven) == [name()]


def test_each_time_that_it_is_sent_the_intent_is_new():
    """So that the grace after a crash counts from what may have been accepted."""
    driven = obtain([refusal(429, "slow", retry_after="120"), refusal(503), ACCEPTED])
    assert driven.story == ["saverecord", "submit", "sleep"] * 2 + ["saverecord", "submit", "saverecord"]
    assert [each["intended_at"] - START for each in driven.remembered] == [0, 126, 127, 0]
    assert len(set(names_sent(driven))) == 1


def test_an_id_from_the_header_is_as_good():
    driven = obtain([answer(b"<h1>OK</h1>", x_inference_id="g9")])
    assert result(driven).generation_id == "g9"
    assert driven.remembered[-1]["generation_id"] == "g9"


# An earlier try's generation


@pytest.mark.parametrize("status", ["queued", "generating", "dreaming"])
@pytest.mark.parametrize("attempt", get_args(AttemptKind))
def test_one_that_continues_is_reattached(status: str, attempt: AttemptKind):
    driven = obtain([standing(status)], record(), kind=attempt)
    # that a clear came to this is remembered: a retry of it is no other clear
    assert driven.story == ["poll"] + ["saverecord"] * (attempt == "clear")
    assert (result(driven).generation_id, result(driven).reattached) == ("g1", True)


@pytest.mark.parametrize("attempt", get_args(AttemptKind))
def test_one_that_is_completed_is_used(attempt: AttemptKind, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    obtained = result(obtain([DONE], record(), kind=attempt))
    assert obtained.reattached
    assert obtained.generation is not None
    assert obtained.generation.video_url
    assert "at no further cost" in caplog.text
    assert ("regenerate" in caplog.text) is (attempt == "clear")


def test_one_that_is_completed_is_made_again_where_a_clear_means_that():
    driven = obtain([DONE, ACCEPTED], record(count=2), kind="clear", on_clear="regenerate")
    assert driven.story == ["poll", "saverecord", "submit", "saverecord"]
    assert names_sent(driven) == [name(3)]
    assert result(driven).record.count == 3
    driven = obtain([DONE], record(), kind="retry", on_clear="regenerate")
    assert result(driven).reattached


def test_one_that_failed_is_resubmitted_under_another_name():
    driven = obtain([FAILED, ACCEPTED], record(), kind="retry")
    assert driven.story == ["poll", "saverecord", "submit", "saverecord"]
    assert names_sent(driven) == [name(1)]
    assert name(1) != name(0)


def test_one_that_was_rejected_is_not():
    driven = obtain([REJECTED], record(), kind="retry")
    assert isinstance(driven.error, StoppedError)
    assert driven.error.generation_id == "g1"
    assert driven.error.recovery is Recovery.GIVE_UP
    assert "No faces." in str(driven.error)
    assert names_sent(obtain([REJECTED, ACCEPTED], record(), kind="clear")) == [name(1)]


def test_one_that_the_vendor_does_not_know_stops():
    driven = obtain(GONE, record(), kind="retry")
    assert isinstance(driven.error, StoppedError)
    assert driven.calls == [Call.POLL] * 3
    assert driven.remembered == []
    assert driven.error.generation_id == "g1"
    assert driven.error.client_request_id == name()


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        ([refusal(500)] * 5, ServiceUnavailableError),
        ([refusal(429)] * 5, RateLimitError),
        ([refusal(401)] * 3, AuthenticationError),
    ],
)
def test_poll_trouble_never_leads_to_a_submit(trouble: list[Reply], kind: type[Exception]):
    driven = obtain(trouble, record(), kind="retry")
    assert type(driven.error) is kind
    assert Call.SUBMIT not in driven.calls
    assert driven.remembered == []


def test_one_of_another_request():
    driven = obtain([ACCEPTED], record(request=OTHER), kind="clear")
    assert driven.story == ["saverecord", "submit", "saverecord"]
    assert result(driven).record.count == 1
    driven = obtain([], record(request=OTHER), kind="clear", on_changed_request="fail")
    assert isinstance(driven.error, StoppedError)
    assert "prompt" in str(driven.error)
    assert driven.effects == []


# A submit whose outcome is not known


def test_it_is_searched_for_and_reattached():
    driven = obtain([listed(("other", "g0"), (name(), "g1")), standing("queued")], record(None), kind="retry")
    assert driven.story == ["logs", "saverecord", "poll"]
    assert driven.remembered == [record("g1")]
    assert result(driven).reattached


def test_it_is_looked_for_where_and_when_it_was_sent():
    clock = Clock()
    driven = obtain([listed((name(), "g1")), DONE], record(None, at=START - 3600), clock=clock)
    asked = dict(driven.sent[0].params)
    assert asked["model"] == MODEL
    assert asked["start"] == "2026-09-21T12:58:20Z"  # an hour and CLOCK_SKEW ago
    assert CLOCK_SKEW == 900


def test_it_is_looked_for_until_the_grace_is_over():
    driven = obtain(lambda r: ACCEPTED if r.call is Call.SUBMIT else EMPTY, record(None, at=START - 50))
    looks = [
        time - START for time, effect in zip(driven.times, driven.story, strict=True) if effect == "logs"
    ]
    assert looks == [0, 5, 15, 30, 60, 120, 180, 240, GRACE - 50, GRACE - 50]
    assert driven.story[-3:] == ["saverecord", "submit", "saverecord"]
    assert names_sent(driven) == [name(1)]
    assert SEARCH_PAUSES[-1] == 60


def test_it_can_turn_up_in_the_last_moment():
    replies = [EMPTY] * 8 + [listed((name(), "g1")), DONE]
    assert result(obtain(replies, record(None, at=START - 50))).reattached


def test_after_the_grace_one_look_is_enough_with_and_without_the_models_name():
    driven = obtain([EMPTY, EMPTY, ACCEPTED], record(None, at=START - GRACE))
    assert driven.story == ["logs", "logs", "saverecord", "submit", "saverecord"]
    assert ["model" in dict(each.params) for each in driven.sent[:2]] == [True, False]
    driven = obtain([listed((name(), "g1")), DONE], record(None, at=START - 86_400))
    assert result(driven).reattached


def test_the_last_search_begins_when_the_grace_is_over():
    """One that began before may have read the first page too early, however late it ends."""
    clock = Clock()
    listed_from = START + 246

    def vendor(request: HttpRequest) -> Reply:
        if request.call is Call.POLL:
            return DONE
        if dict(request.params)["offset"] == "0" and clock.now >= listed_from:
            return listed((name(), "g1"))
        more = dict(request.params)["offset"] != "2"
        return answer({"data": [{"client_request_id": "other"}], "pagination": {"has_more": more}})

    driven = obtain(vendor, record(None, at=START - 50), clock=clock, call_takes=60.0)
    assert driven.times[driven.story.index("saverecord") - 1] > START - 50 + GRACE
    assert result(driven).reattached


def test_without_grace_one_look_is_enough():
    driven = obtain([EMPTY, EMPTY, ACCEPTED], record(None, at=START), uncertain_grace=0.0)
    assert driven.story == ["logs", "logs", "saverecord", "submit", "saverecord"]


def test_a_row_under_another_name_of_the_model_is_found():
    driven = obtain([EMPTY, listed((name(), "g1")), DONE], record(None, at=START - GRACE))
    assert result(driven).generation_id == "g1"


OTHER_KEY = "sk-before-the-rotation"


@pytest.mark.parametrize("policy", ["resubmit", "fail"])
def test_not_found_with_another_key_is_no_answer(policy: Any):
    """The logs list the requests of the key that asks."""
    old = record(None, at=START - GRACE, key=OTHER_KEY)
    driven = obtain([EMPTY, EMPTY], old, kind="retry", on_uncertain_submit=policy)
    assert isinstance(driven.error, StoppedError)
    for said in (
        "key of the connection was changed",
        "key_prefix",
        name(),
        "may have been accepted and billed",
    ):
        assert said in str(driven.error)
    assert driven.remembered == []


def test_found_with_another_key_is_found():
    old = record(None, at=START - GRACE, key=OTHER_KEY)
    assert result(obtain([listed((name(), "g1")), DONE], old)).generation_id == "g1"


def test_a_record_has_nothing_of_the_key():
    written = str(obtain([ACCEPTED]).remembered)
    assert not [part for part in range(len(KEY) - 4) if KEY[part : part + 5] in written]
    assert key_mark(KEY, "here") != key_mark(KEY, "there")
    assert len(key_mark(KEY, "here")) == 10


@pytest.mark.parametrize("at", [START + 5000, START + 1e12, 1e300])
def test_an_intent_from_a_clock_that_was_wrong_is_not_waited_for_for_ever(at: float):
    driven = obtain(lambda r: ACCEPTED if r.call is Call.SUBMIT else EMPTY, record(None, at=at))
    assert sum(driven.pauses) == GRACE
    (first, *_) = driven.sent
    assert dict(first.params)["start"] < dict(first.params)["end"]
    assert result(driven).record.count == 1


def test_an_intent_from_before_time_is_looked_for_as_far_as_the_logs_reach():
    driven = obtain(lambda r: ACCEPTED if r.call is Call.SUBMIT else EMPTY, record(None, at=-1e300))
    starts = [dict(each.params)["start"] for each in driven.sent[:4]]
    assert starts[0] == "2026-06-23T14:28:20Z"
    assert starts[-1] == "2025-09-26T14:28:20Z"


def test_not_found_and_the_user_would_rather_look():
    driven = obtain([EMPTY, EMPTY], record(None, at=START - 400), on_uncertain_submit="fail")
    assert isinstance(driven.error, StoppedError)
    assert driven.error.client_request_id == name()
    assert Call.SUBMIT not in driven.calls


def test_found_and_failed():
    driven = obtain([listed((name(), "g1")), FAILED, ACCEPTED], record(None), kind="retry")
    assert driven.story == ["logs", "saverecord", "poll", "saverecord", "submit", "saverecord"]
    assert names_sent(driven) == [name(1)]


def test_found_and_of_another_request():
    old = record(None, request=OTHER)
    found = listed((old["client_request_id"], "g1"))
    driven = obtain([found], old, kind="clear", on_changed_request="fail")
    assert isinstance(driven.error, StoppedError)
    assert driven.error.generation_id == "g1"


# The vendor lists refused requests too


def test_a_refused_request_in_the_logs_is_not_the_generation():
    refused = listed((name(), "r1"), status="failed")
    both = answer(
        {
            "data": [
                {"client_request_id": name(), "inference_id": "r1", "status": "failed"},
                {"client_request_id": name(), "inference_id": "g1", "status": "succeeded"},
            ]
        }
    )
    driven = obtain([refused, *GONE, EMPTY, both, DONE], record(None, at=START - 10), kind="retry")
    assert result(driven).generation_id == "g1"
    assert driven.remembered == [record("g1", at=START - 10)]


def test_a_generation_that_failed_is_listed_as_failed_and_is_one():
    failed = listed((name(), "g1"), status="failed")
    driven = obtain([failed, REJECTED, REJECTED], record(None), kind="retry")
    assert isinstance(driven.error, StoppedError)
    assert "No faces." in str(driven.error)


def test_a_listed_success_that_the_vendor_does_not_know_stops():
    driven = obtain([listed((name(), "g1")), *GONE], record(None), kind="retry")
    assert isinstance(driven.error, StoppedError)
    assert Call.SUBMIT not in driven.calls


@pytest.mark.parametrize(
    ("trouble", "recovery"),
    [
        (refusal(500), Recovery.RETRY_TASK),
        (answer({"data": [5]}), Recovery.RETRY_TASK),
        (refusal(403, "missing scope"), Recovery.GIVE_UP),
    ],
)
def test_logs_that_cannot_be_searched_never_lead_to_a_submit(trouble: Reply, recovery: Recovery):
    driven = obtain(lambda _: trouble, record(None), kind="retry")
    error = driven.error
    assert isinstance(error, SubmitUncertainError)
    assert error.money is Money.MAY_BE_SPENT
    assert error.recovery is recovery
    assert error.client_request_id == name()
    assert set(driven.calls) == {Call.LOGS}
    assert driven.remembered == []


# A submit that becomes uncertain in this very try


def test_uncertain_and_found():
    driven = obtain([LOST, listed((name(), "g1")), DONE])
    assert driven.story == ["saverecord", "submit", "logs", "saverecord", "poll"]
    assert result(driven).generation_id == "g1"
    assert result(driven).reattached


@pytest.mark.parametrize(
    "reply", [LOST, lost(FailureReason.BROKEN), answer(None), answer({"ok": 1}), refusal(502)], ids=str
)
def test_uncertain_and_not_found_is_submitted_under_another_name(reply: Reply):
    pending = iter([reply, ACCEPTED])
    driven = obtain(lambda r: next(pending) if r.call is Call.SUBMIT else EMPTY)
    assert sum(driven.pauses) == GRACE
    assert names_sent(driven) == [name(0), name(1)]
    assert driven.story[-3:] == ["saverecord", "submit", "saverecord"]


def test_uncertain_and_not_found_and_the_user_would_rather_look():
    driven = obtain(lambda r: LOST if r.call is Call.SUBMIT else EMPTY, on_uncertain_submit="fail")
    assert isinstance(driven.error, StoppedError)
    assert names_sent(driven) == [name()]
    assert driven.remembered == [{**record(None), "intended_at": START}]


def test_the_grace_counts_from_when_it_became_uncertain():
    """Before, the vendor may have asked to wait for minutes, and the answer took its time."""
    slow = refusal(429, "slow", retry_after="120")
    pending: list[Reply] = [slow, slow, slow, LOST, ACCEPTED]
    driven = obtain(lambda r: pending.pop(0) if r.call is Call.SUBMIT else EMPTY, call_takes=60.0)
    looks = [time for time, effect in zip(driven.times, driven.story, strict=True) if effect == "logs"]
    uncertain_at = driven.times[[i for i, e in enumerate(driven.story) if e == "submit"][3]] + 60.0
    assert looks[0] == uncertain_at
    assert looks[-1] >= uncertain_at + GRACE


def test_no_try_submits_more_than_three_times_and_each_is_looked_for():
    driven = obtain(lambda r: LOST if r.call is Call.SUBMIT else EMPTY)
    assert isinstance(driven.error, SubmitUncertainError)
    assert driven.error.recovery is Recovery.RETRY_TASK
    assert names_sent(driven) == [name(0), name(1), name(2)]
    assert len(names_sent(driven)) == MOST_SUBMITS
    assert sum(driven.pauses) == MOST_SUBMITS * GRACE
    assert driven.remembered[-1]["client_request_id"] == name(2)


def test_the_third_can_still_be_found():
    def vendor(request: HttpRequest) -> Reply:
        if request.call is Call.SUBMIT:
            submits.append(request)
            return LOST
        if request.call is Call.LOGS:
            return listed((name(2), "g3")) if len(submits) == 3 else EMPTY
        return DONE

    submits: list[HttpRequest] = []
    assert result(obtain(vendor)).generation_id == "g3"


def test_one_clear_makes_one_new_generation():
    """What was found after the clear's own submit is what the person asked for."""
    driven = obtain(
        [DONE, LOST, listed((name(1), "g2")), DONE], record(), kind="clear", on_clear="regenerate"
    )
    assert names_sent(driven) == [name(1)]
    assert (result(driven).generation_id, result(driven).reattached) == ("g2", True)


def test_a_clear_does_not_send_what_was_rejected_just_now():
    driven = obtain([REJECTED, LOST, listed((name(1), "g2")), REJECTED], record(), kind="clear")
    assert isinstance(driven.error, StoppedError)
    assert names_sent(driven) == [name(1)]


def test_uncertain_and_found_failed_is_resubmitted():
    driven = obtain([LOST, listed((name(), "g1")), FAILED, ACCEPTED])
    assert names_sent(driven) == [name(0), name(1)]
    assert result(driven).generation_id == "g9"


# A submit that was certainly refused


@pytest.mark.parametrize(
    "reply", [refusal(400), refusal(401), refusal(403), refusal(422), lost(FailureReason.TLS)], ids=str
)
def test_a_first_submit_that_was_refused_leaves_nothing_to_look_for(reply: Reply):
    driven = obtain([reply])
    assert driven.error is not None
    assert driven.error.money is Money.NOT_SPENT
    assert driven.story == ["saverecord", "submit", "saverecord"]
    assert driven.remembered[-1] == NOTHING
    later = obtain([ACCEPTED], driven.remembered[-1], kind="retry")
    assert later.story == ["saverecord", "submit", "saverecord"]
    assert names_sent(later) == [name(0)]


def test_after_a_rate_limit_a_retry_submits_without_waiting():
    driven = obtain([refusal(429)] * 4)
    assert isinstance(driven.error, RateLimitError)
    later = obtain([ACCEPTED], driven.remembered[-1], kind="retry", on_uncertain_submit="fail")
    assert later.pauses == []
    assert result(later).record.count == 0


def test_a_retry_that_asks_for_something_else_does_not_pay_again(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    for status, story in ((standing("generating"), ["poll"]), (DONE, ["poll"])):
        driven = obtain([status], record(request=OTHER), kind="retry")
        assert driven.story == story
        assert result(driven).reattached
    assert "differs (changed: prompt)" in caplog.text
    assert "when you clear the task" in caplog.text

    driven = obtain([REJECTED, ACCEPTED], record(request=OTHER), kind="retry")
    assert names_sent(driven) == [name(1)]  # the other request may well be accepted


def test_a_clear_that_came_to_nothing_is_gone_on_with_by_the_retry():
    cleared = obtain([refusal(429)] * 4, record(request=OTHER), kind="clear")
    assert isinstance(cleared.error, RateLimitError)
    before = cleared.remembered[-1]

    driven = obtain([ACCEPTED], before, number=3, first_number=2)

    assert names_sent(driven) == [name(1)]
    later = obtain(
        [standing("queued")], driven.remembered[-1], number=4, first_number=2, on_clear="regenerate"
    )
    assert later.story == ["poll"]


def test_a_clear_that_reattached_is_over():
    driven = obtain([standing("generating")], record(), kind="clear", on_clear="regenerate")
    driven = obtain([DONE], driven.remembered[-1], number=3, first_number=2, on_clear="regenerate")
    assert driven.story == ["poll"]


def test_a_request_that_cannot_be_sent_reattaches_to_what_was_and_submits_nothing():
    unready = InvalidRequestError("image_url: /in/mug.jpg does not exist on this worker.")
    assert result(obtain([DONE], record(), kind="retry", unready=unready)).reattached
    for replies, stored in (([], NOTHING), ([FAILED], record())):
        assert obtain(replies, stored, kind="retry", unready=unready).error is unready


def test_what_was_known_before_a_refused_submit_is_still_known():
    """The prompt was edited into something the vendor refuses; then the edit is taken back."""
    before = record("g1", request=OTHER)
    driven = obtain([refusal(400)], before, kind="clear")
    assert isinstance(driven.error, BadRequestError)
    assert driven.remembered[-1] == before


def test_a_refusal_after_an_uncertain_submit_does_not_say_that_nothing_was_spent():
    pending = iter([LOST, refusal(400)])
    driven = obtain(lambda r: next(pending) if r.call is Call.SUBMIT else EMPTY)
    assert isinstance(driven.error, BadRequestError)
    assert driven.error.money is Money.MAY_BE_SPENT
    assert driven.remembered[-1]["client_request_id"] == name(0)


def test_an_uncertain_submit_is_not_forgotten_when_the_next_is_refused():
    before = record(None, at=START - 400)
    driven = obtain([EMPTY, EMPTY, refusal(400)], before, kind="retry")
    assert driven.remembered[-1] == before
    later = obtain([listed((name(), "g1")), DONE], driven.remembered[-1], kind="retry")
    assert result(later).generation_id == "g1"


# Records that are not what they should be


@pytest.mark.parametrize(
    "stored", [{"schema": 2}, {"schema": 1}, "lost", 5, [], {}, {**record(), "count": -1}]
)
def test_an_unreadable_record_stops_before_anything_is_sent(stored: Any):
    driven = obtain([], stored)
    assert isinstance(driven.error, UnusableRecordError)
    assert driven.error.recovery is Recovery.GIVE_UP
    assert driven.effects == []


STRANGER = TaskAttempt("dag", "another run", "task")


@pytest.mark.parametrize("attempt", get_args(AttemptKind))
@pytest.mark.parametrize("theirs", ["g7", None])
def test_a_record_of_another_task_is_not_used(
    attempt: AttemptKind, theirs: str | None, caplog: pytest.LogCaptureFixture
):
    stored = record(theirs, work=STRANGER)
    driven = obtain([EMPTY, EMPTY, ACCEPTED], stored, kind=attempt, previous_since=START - 7200)
    assert driven.story == ["logs", "logs", "saverecord", "submit", "saverecord"]
    assert dict(driven.sent[0].params)["start"] == "2026-09-21T11:58:20Z"
    assert result(driven).generation_id == "g9"
    assert result(driven).record.identity == WORK.identity
    assert "another task" in caplog.text
    assert stored["client_request_id"] in caplog.text


def test_a_record_of_another_task_hides_none_of_ours():
    stored = record("g7", work=STRANGER)
    driven = obtain([listed((name(), "g1")), standing("queued")], stored)
    assert result(driven).generation_id == "g1"
    assert driven.remembered == [{**record("g1"), "intended_at": START}]


def test_a_record_of_another_task_and_the_user_would_rather_look():
    driven = obtain(
        [EMPTY, EMPTY],
        record("g7", work=STRANGER),
        on_uncertain_submit="fail",
        previous_since=START - 7200,
    )
    assert isinstance(driven.error, StoppedError)


# Where nothing is remembered (Airflow before 3.3)


def forgetful(replies: Replies, **more: Any) -> Driven:
    more = {
        "kind": "retry",
        "number": 2,
        "previous_since": START - 900,
        "previous_until": START - 10,
        **more,
    }
    return obtain(replies, None, **more)


def test_a_first_try_submits():
    assert forgetful([ACCEPTED], kind="first", number=1).story == [
        "saverecord",
        "submit",
        "saverecord",
    ]


@pytest.mark.parametrize("attempt", ["retry", "clear"])
def test_a_later_attempt_looks_in_the_logs_first(attempt: AttemptKind):
    driven = forgetful([listed((name(), "g1")), standing("queued")], kind=attempt)
    assert driven.story == ["logs", "saverecord", "poll"]
    assert result(driven).generation_id == "g1"
    assert dict(driven.sent[0].params)["start"] == "2026-09-21T13:43:20Z"


def test_it_looks_until_the_grace_after_the_previous_attempt_is_over():
    driven = forgetful(lambda r: ACCEPTED if r.call is Call.SUBMIT else EMPTY, previous_until=START - 100)
    assert sum(driven.pauses) == GRACE - 100
    assert names_sent(driven) == [name(1)]


def test_it_looks_for_all_that_earlier_tries_can_have_sent():
    """Each try may have submitted several times."""
    for count in range(2 * MOST_SUBMITS):
        driven = forgetful([listed((name(count), "g1")), standing("queued")])
        assert result(driven).record.count == count


def test_a_failed_one_is_not_taken_for_the_last():
    """An earlier try may have submitted anew, and the logs may not list that yet."""
    first = listed((name(), "g1"))
    both = listed((name(1), "g2"), (name(), "g1"))
    driven = forgetful([first, FAILED, first, both, standing("generating")])
    assert result(driven).generation_id == "g2"
    assert names_sent(driven) == []


def test_a_failed_one_that_is_the_last_is_resubmitted():
    only = listed((name(), "g1"))
    driven = forgetful(
        lambda r: {Call.LOGS: only, Call.POLL: FAILED, Call.SUBMIT: ACCEPTED}[r.call],
        previous_until=START - 100,
    )
    assert sum(driven.pauses) == GRACE - 100
    assert names_sent(driven) == [name(1)]


def test_a_completed_one_is_not_taken_for_the_last_where_a_clear_makes_new_ones():
    first = listed((name(), "g1"))
    both = listed((name(1), "g2"), (name(), "g1"))
    driven = forgetful([first, DONE, first, both, standing("generating")], on_clear="regenerate")
    assert result(driven).generation_id == "g2"
    driven = forgetful([first, DONE], on_clear="reuse")
    assert result(driven).generation_id == "g1"


def test_what_this_try_submitted_itself_it_knows():
    driven = forgetful([LOST, listed((name(), "g1")), FAILED, ACCEPTED], kind="first", number=1)
    assert names_sent(driven) == [name(0), name(1)]


# A new video on each try


def test_regardless_of_what_was():
    clock = Clock()
    once = DurableSubmit(calls(clock), WANTED, WORK)
    driven = drive(once.submit_regardless(), [ACCEPTED], clock)
    assert driven.story == ["submit"]
    assert result(driven).generation_id == "g9"
    clock.now += 1
    again = drive(once.submit_regardless(), [ACCEPTED], clock)
    assert names_sent(driven) != names_sent(again)
    assert result(again).generation is not None
    assert result(again).generation.status is GenerationStatus.QUEUED  # type: ignore[union-attr]  # asserted above


def test_regardless_and_uncertain_is_left_to_the_person():
    clock = Clock()
    driven = drive(
        DurableSubmit(calls(clock), WANTED, WORK).submit_regardless(),
        [LOST],
        clock,
    )
    assert isinstance(driven.error, SubmitUncertainError)
    assert driven.story == ["submit"]


def test_the_log_tells_the_names(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    obtain([ACCEPTED])
    assert name() in caplog.text
    assert "g9" in caplog.text
    assert "billed" in caplog.text


# A task instance that may have taken the place of another one


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("policy", ["resubmit", "fail"])
def test_a_first_try_in_the_place_of_another_task_instance_searches_once(policy: Any, elsewhere: bool):
    def first(replies: Replies, stored: Any = None) -> Driven:
        attempt = replace(WORK, replaced=True, previous_since=START - 9e5, previous_until=START - 86_400)
        once = DurableSubmit(calls(Clock()), WANTED, attempt, SubmitPolicy(on_uncertain_submit=policy))
        return drive(once.submit_or_reattach(stored, elsewhere=elsewhere), replies, Clock())

    assert first([listed((name(7), "g1")), standing("queued")]).story == ["logs", "saverecord", "poll"]
    # once with the name of the model, and once without
    assert first([EMPTY, EMPTY, ACCEPTED]).story == ["logs", "logs", "saverecord", "submit", "saverecord"]
    assert first([ACCEPTED], dict(NOTHING)).calls == [Call.SUBMIT]


# The triggerer searches, with the key that its connection has


def answered_elsewhere(stored: Any, triggerer_key: str, replies: Replies, key: str = KEY) -> Driven:
    """What a worker does after the triggerer found nothing."""
    clock = Clock()
    attempt = replace(WORK, number=2, previous_since=START - 900, previous_until=START - GRACE)
    policy = SubmitPolicy(uncertain_grace=GRACE)
    once = DurableSubmit(calls(clock, key=key), WANTED, attempt, policy)
    began = drive(once.submit_or_reattach(stored, elsewhere=True), [refusal(500)] * 9, clock)
    assert isinstance(began.result, PendingSearch), began.error
    told = replace(began.result, key_mark=key_mark(triggerer_key, began.result.salt))
    return drive(once.submit_or_reattach(elsewhere=True, answer=told), replies, clock)


@pytest.mark.parametrize("stored", [None, record(None, at=START - GRACE)])
def test_nothing_found_with_another_key_is_searched_for_again_by_the_worker(
    stored: Any, caplog: pytest.LogCaptureFixture
):
    driven = answered_elsewhere(stored, OTHER_KEY, [listed((name(), "g1")), standing("queued")])
    assert driven.story == ["logs", "saverecord", "poll"]
    assert result(driven).generation_id == "g1"
    assert "another API key than this worker's" in caplog.text


@pytest.mark.parametrize("stored", [None, record(None, at=START - GRACE)])
def test_nothing_found_with_the_same_key_is_an_answer(stored: Any):
    assert answered_elsewhere(stored, KEY, [ACCEPTED]).story == ["saverecord", "submit", "saverecord"]


def test_the_key_that_submitted_is_the_one_that_counts():
    """The triggerer searched with it; the worker's connection was changed meanwhile."""
    sent_with_old = record(None, at=START - GRACE, key=OTHER_KEY)
    driven = answered_elsewhere(sent_with_old, OTHER_KEY, [ACCEPTED])
    assert driven.calls == [Call.SUBMIT]

    driven = answered_elsewhere(sent_with_old, KEY, [])
    assert isinstance(driven.error, StoppedError)
    assert "API key" in driven.error.what

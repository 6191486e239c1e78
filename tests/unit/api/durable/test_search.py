"""Looking submits up in the vendor's request logs."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_kling.api.calls import (
    LOG_PACE,
    LOG_RETRIES,
    LONGEST_LOG_SPAN,
    LONGEST_LOG_WINDOW,
    MOST_LOG_PAGES,
)
from airflow_provider_kling.api.durable.search import (
    BRIEF_PAGES,
    MOST_MODELS,
    QUEUE_PAUSE,
    SEARCH_PAUSES,
    UNREADABLE_FOR,
    SearchQueue,
    SubmitSearch,
    look,
    search_logs,
)
from airflow_provider_kling.api.exceptions import (
    AuthenticationError,
    KlingError,
    MalformedReplyError,
    Money,
    Recovery,
    SubmitUncertainError,
)
from airflow_provider_kling.api.retry import CLOCK_SKEW
from airflow_provider_kling.api.transport.endpoints import LOG_PAGE, LogRow
from airflow_provider_kling.api.transport.messages import Call, HttpRequest, HttpResponse, Reply
from tests.unit.api.driving import MODEL, START, Clock, Driven, answer, calls, drive, refusal, standing

NAME = "airflow:dag:task:0:abc"
FAILED = standing("error", error={"name": "GenerationError", "message": "The model failed."})
GONE = [refusal(404)] * 3


def rows(*names: str | None, more: bool = False, **fields: Any) -> HttpResponse:
    """A page whose rows have these client request ids; each inference id is ``g:`` and the name."""
    data = [{"client_request_id": name, "inference_id": f"g:{name}", **fields} for name in names]
    return page(*data, more=more)


def page(*data: dict[str, Any], more: bool = False) -> HttpResponse:
    return answer({"data": data, "pagination": {"has_more": more}})


def row(name: str, inference_id: str, status: str = "succeeded") -> dict[str, Any]:
    return {"client_request_id": name, "inference_id": inference_id, "status": status}


def wanted(
    *names: str, model: str = MODEL, since: float = START - 60, until: float = START + 300
) -> SubmitSearch:
    return SubmitSearch(names or (NAME,), model, since, until)


def looked(
    *replies: Any, searches: list[SubmitSearch] | None = None, passed_over: set[str] | None = None
) -> Driven:
    clock = Clock()
    over = set() if passed_over is None else passed_over
    return drive(look(calls(clock), searches or [wanted()], over), replies, clock)


def found(*replies: Any, **more: Any) -> LogRow | None:
    driven = looked(*replies, searches=[wanted(*more.pop("names", ()), **more)])
    assert driven.error is None, driven.error
    (row,) = driven.result.values()
    return row  # type: ignore[no-any-return]


# One row a submit


def test_it_is_found_by_its_name():
    assert found(rows(None, "other", NAME, "another")) == LogRow(NAME, f"g:{NAME}")
    assert looked(rows("other", None)).result == {}
    assert looked(rows()).result == {}


def test_of_several_the_newest_is_taken():
    newest = found(rows("b", "a"), names=("a", "b", "c"))
    assert newest is not None
    assert newest.client_request_id == "b"


def test_rows_without_a_generation_and_rows_to_pass_over():
    assert looked(rows(NAME, inference_id=None)).result == {}
    assert looked(rows(NAME), passed_over={f"g:{NAME}"}).result == {}
    assert looked(rows(None), searches=[wanted("None", "")]).result == {}


def test_a_refused_request_that_was_then_accepted_is_the_accepted_one():
    for data in (
        [row(NAME, "g1"), row(NAME, "r1", "failed")],
        [row(NAME, "r1", "failed"), row(NAME, "g1")],
        [row(NAME, "r1", "failed"), row("other", "g0"), row(NAME, "g1"), row(NAME, "r0", "failed")],
    ):
        one = found(page(*data))
        assert one is not None
        assert (one.inference_id, one.failed) == ("g1", False)
    two = looked(page(row(NAME, "r1", "failed"), more=True), page(row(NAME, "g1")))
    assert next(iter(two.result.values())).inference_id == "g1"


def test_a_later_submit_that_failed_is_not_replaced_by_an_earlier_one():
    driven = looked(page(row("b", "g2", "failed"), row("a", "g1")), FAILED, searches=[wanted("a", "b")])
    assert next(iter(driven.result.values())).inference_id == "g2"


def test_a_row_that_is_listed_twice_is_one(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING)
    assert found(page(row(NAME, "g1"), row(NAME, "g1"))) is not None
    assert caplog.text == ""


def test_a_submit_that_made_two_generations_is_told(caplog: pytest.LogCaptureFixture):
    """As where a gateway sent it again by itself."""
    caplog.set_level(logging.WARNING)
    one = found(page(row(NAME, "g2"), row(NAME, "g1")))
    assert one is not None
    assert one.inference_id == "g2"
    for said in (NAME, "g1", "g2", "billed"):
        assert said in caplog.text


def test_failed_rows_are_generations_or_refused_requests():
    driven = looked(rows(NAME, status="failed"), FAILED)
    assert next(iter(driven.result.values())).failed
    over: set[str] = set()
    driven = looked(rows(NAME, status="failed"), *GONE, rows(NAME, status="failed"), passed_over=over)
    assert driven.result == {}
    assert over == {f"g:{NAME}"}


# What is asked, and when "not found" is believed


def test_it_asks_for_the_model_and_the_time():
    (request,) = looked(rows()).sent
    asked = dict(request.params)
    assert asked["model"] == MODEL
    assert asked["start"] == "2026-09-21T13:57:20Z"
    assert asked["end"] == "2026-09-21T14:28:20Z"  # CLOCK_SKEW past our own clock
    assert CLOCK_SKEW == 900
    assert asked["offset"] == "0"


def test_not_found_is_believed_after_the_grace_and_without_the_filter():
    late = wanted(until=START)
    driven = looked(rows(), rows(), searches=[late])
    assert driven.result == {late: None}
    assert ["model" in dict(each.params) for each in driven.sent] == [True, False]
    driven = looked(rows(), rows(NAME), searches=[late])
    assert driven.result[late].inference_id == f"g:{NAME}"


def test_the_search_continues_until_the_grace_is_over():
    clock = Clock()
    driven = drive(search_logs(calls(clock), wanted(until=START + 50)), lambda _: rows(), clock)
    assert driven.result is None
    assert driven.error is None
    looks = [
        time - START for time, effect in zip(driven.times, driven.story, strict=True) if effect == "logs"
    ]
    assert looks == [0, 5, 15, 30, 50, 50]
    assert SEARCH_PAUSES[-1] == 60


# Many at once


def test_one_search_serves_many():
    searches = [wanted(f"n{number}", since=START - number) for number in range(200)]
    driven = looked(rows(*(f"n{number}" for number in range(0, 200, 2))), searches=searches)
    assert len(driven.sent) == 1
    assert dict(driven.sent[0].params)["start"] == "2026-09-21T13:55:01Z"
    assert {each.names[0] for each in driven.result} == {f"n{number}" for number in range(0, 200, 2)}


def test_models_are_named_together_and_too_many_are_not():
    for count, named in ((MOST_MODELS, MOST_MODELS), (MOST_MODELS + 1, 0)):
        searches = [wanted(f"n{number}", model=f"m{number:02}") for number in range(count)]
        driven = looked(rows(), searches=searches)
        (request,) = driven.sent
        assert len([1 for name, _ in request.params if name == "model"]) == named


def test_only_those_whose_grace_is_over_are_looked_for_without_the_filter():
    late, early = wanted("a", until=START), wanted("b")
    driven = looked(rows(), rows("b"), searches=[late, early])
    assert driven.result == {late: None}
    assert len(driven.sent) == 2


class Queue:
    """A queue, what it told, and a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.found: dict[str, tuple[str | None, float]] = {}
        self.failed: dict[str, SubmitUncertainError] = {}
        self.queue = SearchQueue(
            self._found, lambda search, error: self.failed.update({search.names[0]: error})
        )

    def _found(self, search: SubmitSearch, row: LogRow | None) -> None:
        self.found[search.names[0]] = (row and row.inference_id, self.clock.now - START)

    def run(self, replies: Any) -> Driven:
        return drive(self.queue.run(calls(self.clock)), replies, self.clock)


def test_200_who_wait_make_one_search_after_the_other():
    """Each finds out in its own time, and none costs the account a request of its own."""
    waiting = Queue()
    for number in range(200):
        waiting.queue.add(wanted(f"n{number}", since=START, until=START + 300 + number))
    driven = waiting.run(lambda _: rows("n7") if waiting.clock.now >= START + 30 else rows())
    assert waiting.found.pop("n7") == ("g:n7", 30)
    assert {told for told, _ in waiting.found.values()} == {None}
    for name, (_, at) in waiting.found.items():
        assert 0 <= at - 300 - int(name[1:]) <= 2 * QUEUE_PAUSE
    assert len(driven.sent) < 120  # 200 would need 2000 by themselves
    assert not waiting.queue


def test_one_that_reaches_far_back_keeps_no_other_waiting():
    """Its logs have more pages than are read; those of today are few."""
    waiting = Queue()
    waiting.queue.add(wanted("old", since=START - 30 * 86_400, until=START))
    waiting.queue.add(wanted("today", until=START + 100))

    def vendor(request: HttpRequest) -> Reply:
        asked = datetime.fromisoformat(dict(request.params)["start"]).timestamp()
        return rows(*["other"] * LOG_PAGE, more=True) if asked < START - 86_400 else rows()

    waiting.run(vendor)

    assert waiting.found == {"today": (None, waiting.found["today"][1])}
    assert set(waiting.failed) == {"old"}
    assert "do not end within" in str(waiting.failed["old"])
    assert not waiting.queue


def test_who_comes_later_is_served_within_seconds():
    waiting = Queue()
    waiting.queue.add(wanted("a", until=START + 900))

    def vendor(request: HttpRequest) -> Reply:
        if waiting.clock.now >= START + 200 and "b" not in waiting.found and "b" not in added:
            added.append("b")
            waiting.queue.add(wanted("b"))
        return rows("b") if added else rows()

    added: list[str] = []
    waiting.run(vendor)
    assert waiting.found["b"][1] <= 300 + QUEUE_PAUSE


def test_logs_that_cannot_be_read_are_waited_for():
    waiting = Queue()
    waiting.queue.add(wanted(until=START + 60))
    waiting.run(lambda _: rows() if waiting.clock.now > START + 1200 else refusal(502))
    assert waiting.found[NAME][0] is None
    assert waiting.failed == {}
    waiting = Queue()
    waiting.queue.add(wanted(until=START + 60))
    waiting.run(lambda _: refusal(502))
    assert waiting.failed[NAME].recovery is Recovery.RETRY_TASK
    assert waiting.clock.now - START > UNREADABLE_FOR


def test_a_key_that_may_not_read_the_logs_ends_the_queue():
    waiting = Queue()
    waiting.queue.add(wanted())
    driven = waiting.run([refusal(401)])
    assert isinstance(driven.error, SubmitUncertainError)
    assert driven.error.recovery is Recovery.GIVE_UP
    assert waiting.queue


def test_nobody_waits_for_who_left():
    waiting = Queue()
    waiting.queue.add(wanted("a"))
    waiting.queue.discard(wanted("a"))
    assert waiting.run([]).effects == []


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"names": []},
        {"names": 5},
        {"names": ["a"], "model": "m", "since": "x", "until": 1},
        {"names": ["a"], "model": "m", "since": 0, "until": float("nan")},
    ],
)
def test_a_search_that_cannot_be_read_is_refused(plain: Any):
    with pytest.raises(ValueError, match="search"):
        SubmitSearch.from_dict(plain)


def test_a_search_travels_as_json():
    search = wanted("a", "b")
    assert SubmitSearch.from_dict(json.loads(json.dumps(search.as_dict()))) == search


def test_a_brief_search_gives_up_at_once():
    clock = Clock()
    driven = drive(look(calls(clock), [wanted()], set(), briefly=True), [refusal(429)], clock)
    assert isinstance(driven.error, SubmitUncertainError)
    assert driven.pauses == []
    many = [rows("a", more=True)] * BRIEF_PAGES
    driven = drive(look(calls(clock), [wanted()], set(), briefly=True), many, clock)
    assert isinstance(driven.error, SubmitUncertainError)


# Pages


def test_a_span_that_is_longer_than_the_vendor_allows_is_read_in_windows():
    driven = looked(*[rows()] * 4, searches=[wanted(since=0.0)])
    starts = [dict(request.params)["start"] for request in driven.sent]
    ends = [dict(request.params)["end"] for request in driven.sent]
    assert starts[0] == "2026-06-23T14:28:20Z"
    assert ends[1:] == starts[:-1]
    assert len(starts) == LONGEST_LOG_SPAN / LONGEST_LOG_WINDOW
    assert LONGEST_LOG_WINDOW < 92 * 86_400


def test_all_pages_are_read_at_the_vendors_pace():
    driven = looked(rows(*"abc", more=True), rows("d", more=True), rows(more=True), rows(NAME))
    assert len(driven.result) == 1
    assert [dict(each.params)["offset"] for each in driven.sent] == ["0", "3", "4", str(4 + LOG_PAGE)]
    assert driven.pauses == [LOG_PACE] * 3
    assert 60 / LOG_PACE <= 200  # the vendor's limit


def test_a_page_that_cannot_be_read_is_asked_for_again_and_never_passed_over():
    driven = looked(rows("a", more=True), answer({"data": [5]}), rows(NAME))
    assert len(driven.result) == 1
    assert [dict(each.params)["offset"] for each in driven.sent] == ["0", "1", "1"]
    assert looked(*[answer({"data": [5]})] * LOG_RETRIES.attempts).error is not None


def test_the_vendors_limit_is_outlasted():
    driven = looked(*[refusal(429)] * (LOG_RETRIES.attempts - 1), rows(NAME))
    assert len(driven.result) == 1
    assert sum(driven.pauses) > 60


def test_a_key_that_may_not_read_the_logs_is_told_at_once():
    driven = looked(refusal(403, "missing scope"))
    assert isinstance(driven.error, SubmitUncertainError)
    assert isinstance(driven.error.__cause__, AuthenticationError)
    assert driven.error.recovery is Recovery.GIVE_UP
    assert driven.error.money is Money.MAY_BE_SPENT
    assert len(driven.sent) == 1


def test_logs_without_end_are_not_read_for_ever():
    driven = looked(*[rows("a", more=True)] * MOST_LOG_PAGES)
    assert isinstance(driven.error, SubmitUncertainError)
    assert isinstance(driven.error.__cause__, MalformedReplyError)
    assert driven.error.recovery is Recovery.RETRY_TASK


def test_a_poll_that_fails_while_searching_is_no_answer_either():
    def vendor(request: HttpRequest) -> Reply:
        return rows(NAME, status="failed") if request.call is Call.LOGS else refusal(500)

    clock = Clock()
    driven = drive(look(calls(clock), [wanted()], set()), vendor, clock)
    assert isinstance(driven.error, KlingError)
    assert driven.error.client_request_id == NAME

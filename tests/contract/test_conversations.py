"""One set of conversations with the emulated vendor, held by both clients.

``CONVERSATIONS`` is the table of what goes wrong and passes; the functions after it are about what
does not fit a line. Faults that last are in the fault matrix.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from typing import Any, NamedTuple

import pytest
import requests

from airflow_provider_kling.api.async_client import AsyncKlingClient
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.durable.search import SubmitSearch, look
from airflow_provider_kling.api.exceptions import (
    AuthenticationError,
    GenerationFailedError,
    GenerationTimeoutError,
    InsufficientBalanceError,
    KlingError,
    Money,
    NotFoundError,
    RateLimitError,
    Recovery,
    ServiceUnavailableError,
    SubmitUncertainError,
)
from airflow_provider_kling.api.generation import Generation, GenerationRequest, GenerationStatus
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.retry import CLOCK_SKEW
from airflow_provider_kling.api.settings import UNIVERSAL_PATH, VENDOR_PATH, Settings
from airflow_provider_kling.api.transport.endpoints import LogRow
from airflow_provider_kling.api.transport.messages import Call, Flow
from airflow_provider_kling.emulator import AnswerStyle, EmulatorOptions, EmulatorThread, IdStyle
from airflow_provider_kling.emulator.faults.rules import FaultRule
from tests.contract.conftest import KEY, Connect
from tests.contract.drivers import JITTER, Driver

MODEL = "kling-video/v1.6/standard/text-to-video"
ANOTHER = "kling-video/v1.6/pro/text-to-video"
LATE = 1 + 0.1 * JITTER
"""What a pause that the vendor asked for is multiplied with."""


def request(prompt: str = "a cat", model: str = MODEL) -> GenerationRequest:
    return GenerationRequest(model, {"prompt": prompt, "duration": 5})


def wait(driver: Driver, generation_id: str, timeout: float = 600, **options: Any) -> Generation:
    deadline = driver.calls.now() + timeout
    options.setdefault("schedule", Schedule.fixed(10))
    return driver.run(driver.calls.wait_until_complete(generation_id, deadline=deadline, **options))


class Conversation(NamedTuple):
    """A call, what goes wrong with it, and what comes of that.

    :param faults: in the emulator's text form.
    :param ends: the error's class; None for a good end.
    :param slept: seconds of each pause.
    :param accepted: generations that there are in the end.
    """

    call: Call
    faults: tuple[str, ...]
    ends: type[KlingError] | None
    asked: int
    slept: tuple[float, ...] = ()
    accepted: int = 0


CONVERSATIONS = {
    # Retry-After, kept and bounded.
    "429, seconds": Conversation(
        Call.SUBMIT, ("submit:429:retry_after=7:times=2",), None, 3, (7 * LATE, 7 * LATE), 1
    ),
    "429, too long": Conversation(Call.SUBMIT, ("submit:429:retry_after=9999",), None, 2, (120 * LATE,), 1),
    "429, without": Conversation(Call.SUBMIT, ("submit:429:times=2",), None, 3, (0.5, 1.0), 1),
    "429, of the balance": Conversation(
        Call.BALANCE, ("billing:429:message=balance:times=always",), InsufficientBalanceError, 1
    ),
    "429, at its end": Conversation(
        Call.SUBMIT, ("submit:429:times=always",), RateLimitError, 4, (0.5, 1.0, 2.0)
    ),
    "503, seconds": Conversation(Call.BALANCE, ("billing:503:retry_after=3",), None, 2, (3 * LATE,)),
    # A submit is repeated only where it was certainly not accepted.
    "503 of the vendor": Conversation(Call.SUBMIT, ("submit:503",), None, 2, (0.5,), 1),
    "503, at its end": Conversation(
        Call.SUBMIT, ("submit:503:times=always",), ServiceUnavailableError, 4, (0.5, 1.0, 2.0)
    ),
    "500": Conversation(Call.SUBMIT, ("submit:500",), SubmitUncertainError, 1),
    "504, accepted": Conversation(
        Call.SUBMIT, ("submit:504:accepted=true",), SubmitUncertainError, 1, accepted=1
    ),
    "reset, accepted": Conversation(
        Call.SUBMIT, ("submit:reset-after",), SubmitUncertainError, 1, accepted=1
    ),
    "no id but in the header": Conversation(Call.SUBMIT, ("submit:unreadable-body",), None, 1, accepted=1),
    # What is free is repeated while that can help.
    "a bad minute": Conversation(
        Call.BALANCE,
        ("billing:500", "billing:html", "billing:truncated-json", "billing:empty-body"),
        None,
        5,
        (0.5, 1.0, 2.0, 4.0),
    ),
    "a wrong key": Conversation(Call.BALANCE, ("billing:401:times=always",), AuthenticationError, 1),
    "no such place": Conversation(Call.BALANCE, ("billing:404:times=always",), NotFoundError, 1),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations(connect: Connect, vendor: EmulatorThread, name: str):
    expected = CONVERSATIONS[name]
    driver = connect(vendor)
    flow: Flow[Any] = driver.calls.get_balance()
    if expected.call is Call.SUBMIT:
        flow = driver.calls.submit(request(), "mine")
    for text in expected.faults:
        vendor.faults.enforce(FaultRule.parse(text))
    caught: KlingError | None = None
    try:
        driver.run(flow)
    except KlingError as error:
        caught = error
    assert type(caught) is (expected.ends or type(None)), caught
    assert driver.asked == {expected.call: expected.asked}
    assert driver.slept == pytest.approx(expected.slept)
    assert len(vendor.generations) == expected.accepted
    if isinstance(caught, SubmitUncertainError):
        assert (caught.client_request_id, caught.money) == ("mine", Money.MAY_BE_SPENT)


def test_retry_after_can_be_a_date(connect: Connect):
    # A vendor of its own, whose clock still agrees with the machine's, which the date is of.
    with EmulatorThread(EmulatorOptions(frozen_clock=True)) as vendor:
        driver = connect(vendor)
        vendor.faults.add("submit", 429, retry_after="date:30")
        driver.run(driver.calls.submit(request()))
        assert driver.slept == pytest.approx([30 * LATE], abs=2.5), "a date has whole seconds"


# From a submit to a video.


@pytest.mark.parametrize("path", [VENDOR_PATH, UNIVERSAL_PATH])
@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("answers", list(AnswerStyle))
@pytest.mark.parametrize("ids", list(IdStyle))
def test_from_a_submit_to_a_video(
    connect: Connect, path: str, status: int, answers: AnswerStyle, ids: IdStyle
):
    options = EmulatorOptions(frozen_clock=True, submit_status=status, answers=answers, ids=ids)
    with EmulatorThread(options) as vendor:
        driver = connect(vendor, generation_path=path)
        for _ in range(2):  # old answers have absent keys and null ones in turn
            accepted = driver.run(driver.calls.submit(request(), "mine"))
            assert accepted.id == vendor.generations[-1]["id"]
            assert accepted.status is GenerationStatus.QUEUED
            seen: list[GenerationStatus] = []
            done = wait(
                driver,
                accepted.id,
                schedule=Schedule.fixed(3),
                watch=lambda generation: seen.append(generation.status),  # noqa: B023
            )
            assert seen == list(GenerationStatus)[:3]
            assert (done.id, done.status) == (accepted.id, GenerationStatus.COMPLETED)
            assert done.video_url is not None
            assert done.video_url.startswith(f"{vendor.cdn_url}/")
            told = answers is not AnswerStyle.PUBLISHED  # the published examples hold neither
            assert done.duration == (5 if told else None)
            assert done.credits_used == (vendor.generations[-1]["credits"] if told else None)
        assert {entry.path for entry in vendor.journal} == {path}
        assert vendor.stats["charges"] == 2


def test_the_vendors_id_is_sent_as_it_came(connect: Connect, vendor: EmulatorThread):
    """Ids are opaque: whatever is in one must reach the vendor unchanged."""
    driver = connect(vendor)
    for generation_id in ("a+b", "a b", "a%20b", "a&generation_id=c", "é#?/:=", '"quoted"', "..", "a%2Fb"):
        with pytest.raises(NotFoundError) as caught:
            driver.run(driver.calls.get_generation(generation_id))
        assert caught.value.generation_id == generation_id
        assert vendor.journal[-1].query == (("generation_id", generation_id),)


@pytest.mark.parametrize("timeout", [math.nan, -1.0, math.inf, 1e9])
def test_a_wait_without_an_end_is_refused(vendor: EmulatorThread, timeout: float):
    settings = Settings(vendor.api_key, vendor.url)
    with KlingClient(settings) as client, pytest.raises(ValueError, match="give 0 to 604800 seconds"):
        client.wait("g1", timeout=timeout)

    async def wait() -> None:
        async with AsyncKlingClient(settings) as client:
            await client.wait("g1", timeout=timeout)

    with pytest.raises(ValueError, match="give 0 to 604800 seconds"):
        asyncio.run(wait())
    assert vendor.journal == []


def test_balance(connect: Connect, vendor: EmulatorThread):
    driver = connect(vendor)
    assert driver.run(driver.calls.get_balance()) == 1000.0
    generation = driver.run(driver.calls.submit(request()))
    wait(driver, generation.id)
    assert driver.run(driver.calls.get_balance()) == 1000.0 - vendor.generations[0]["usd"]


def test_an_account_that_cannot_pay(connect: Connect):
    with EmulatorThread(EmulatorOptions(frozen_clock=True, balance=0.01)) as vendor:
        driver = connect(vendor)
        with pytest.raises(InsufficientBalanceError, match="No money was spent"):
            driver.run(driver.calls.submit(request()))
        assert driver.asked[Call.SUBMIT] == 1


def test_a_wrong_key(connect: Connect, vendor: EmulatorThread):
    driver = connect(vendor, api_key="sk-wrong-4711")
    with pytest.raises(AuthenticationError) as caught:
        driver.run(driver.calls.get_balance())
    assert "sk-wrong-4711" not in str(caught.value)
    assert "password field" in str(caught.value)


# Bad ends, and the patience of a wait.

ENDS = {
    "moderation": (
        Recovery.GIVE_UP,
        "ModerationError",
        r"ended in an error at the vendor: ModerationError: .*moderation",
    ),
    "fail": (Recovery.RETRY_TASK, "GenerationError", r"ended in an error at the vendor: GenerationError: "),
}


@pytest.mark.parametrize("directive", ENDS)
def test_a_generation_that_fails(connect: Connect, vendor: EmulatorThread, directive: str):
    driver = connect(vendor)
    recovery, name, says = ENDS[directive]
    generation = driver.run(driver.calls.submit(request(f"x [emulator: {directive}]")))
    with pytest.raises(GenerationFailedError, match=says) as caught:
        wait(driver, generation.id)
    assert caught.value.name == name
    assert (caught.value.recovery, caught.value.money) == (recovery, Money.NOT_CHARGED)
    assert vendor.stats["charges"] == 0


def test_an_old_answers_failure_is_a_string(connect: Connect):
    with EmulatorThread(EmulatorOptions(frozen_clock=True, answers=AnswerStyle.OLD)) as vendor:
        driver = connect(vendor)
        generation = driver.run(driver.calls.submit(request("x [emulator: moderation]")))
        with pytest.raises(GenerationFailedError, match="rejected by the moderation"):
            wait(driver, generation.id)


def test_a_stall_ends_with_the_deadline(connect: Connect, vendor: EmulatorThread):
    driver = connect(vendor)
    generation = driver.run(driver.calls.submit(request("x [emulator: stall]")))
    began = driver.calls.now()
    with pytest.raises(GenerationTimeoutError) as caught:
        wait(driver, generation.id, timeout=95)
    assert driver.calls.now() - began == pytest.approx(95)
    assert driver.asked[Call.POLL] == 11, "at the start, each ten seconds, and at the deadline"
    assert generation.id in str(caught.value)
    assert "'generating'" in str(caught.value)
    assert caught.value.money is Money.GOES_ON


@pytest.mark.parametrize(
    "kind",
    ["500", "502", "429", "html", "reset-before", "truncated-json", "empty-body", "wrong-types", "404"],
)
def test_bad_polls_do_not_end_a_wait(connect: Connect, vendor: EmulatorThread, kind: str):
    driver = connect(vendor)
    generation = driver.run(driver.calls.submit(request()))
    vendor.faults.add("poll", kind, times=2)
    assert wait(driver, generation.id).video_url


def test_a_wait_keeps_the_vendors_retry_after(connect: Connect, vendor: EmulatorThread):
    driver = connect(vendor)
    generation = driver.run(driver.calls.submit(request()))
    vendor.faults.add("poll", 429, retry_after="50")
    wait(driver, generation.id)
    assert driver.slept == pytest.approx([50 * LATE])


def test_a_status_nobody_knows_is_waited_out_and_logged_once(
    connect: Connect, vendor: EmulatorThread, caplog: pytest.LogCaptureFixture
):
    driver = connect(vendor)
    generation = driver.run(driver.calls.submit(request()))
    vendor.faults.add("poll", "unknown-status", times=4)
    with caplog.at_level(logging.WARNING, "airflow_provider_kling"):
        assert wait(driver, generation.id).status is GenerationStatus.COMPLETED
    assert len(re.findall(r"'meditating'", caplog.text)) == 1
    assert driver.asked[Call.POLL] == 2, "the URL of a video beside it is evidence enough"


def test_another_accounts_generation_is_unknown(connect: Connect):
    options = EmulatorOptions(frozen_clock=True, keys=("first", "second"))
    with EmulatorThread(options) as vendor:
        mine, other = connect(vendor), connect(vendor, api_key="second")
        generation = mine.run(mine.calls.submit(request()))
        with pytest.raises(NotFoundError, match="the connection is the one that submitted it"):
            wait(other, generation.id)
        assert other.asked[Call.POLL] == 7, "a minute of looks that find nothing is no hiccup"


# Looking a submit up in the vendor's logs.


def find(driver: Driver, *names: str, since: float) -> LogRow | None:
    search = SubmitSearch(names, MODEL, since + CLOCK_SKEW, math.inf)
    return driver.run(look(driver.calls, [search], set())).get(search)


@pytest.fixture
def busy(vendor: EmulatorThread) -> EmulatorThread:
    """An account of which the logs have several pages."""
    for number in range(230):
        requests.post(
            vendor.url + VENDOR_PATH,
            json=request(model=ANOTHER if number % 10 == 9 else MODEL).body(),
            headers={"Authorization": f"Bearer {KEY}", "X-Client-Request-Id": f"job-{number}"},
            timeout=10,
        )
    vendor.clock.advance(60)
    return vendor


def test_a_submit_is_found_pages_back(connect: Connect, busy: EmulatorThread):
    driver = connect(busy)
    row = find(driver, "job-3", "never-sent", since=driver.calls.now() - 3600)
    assert row is not None
    assert (row.client_request_id, row.inference_id) == ("job-3", busy.generations[3]["id"])
    assert driver.asked[Call.LOGS] == 3
    asked = [dict(entry.query) for entry in busy.journal if entry.call == "logs"]
    assert [query["offset"] for query in asked] == ["0", "100", "200"]
    assert {query["model"] for query in asked} == {MODEL}


def test_what_is_not_in_the_logs_is_not_found(connect: Connect, busy: EmulatorThread):
    driver = connect(busy)
    now = driver.calls.now()
    assert find(driver, "job-9", since=now - 3600) is None, "of another model"
    assert find(driver, "job-3", since=now - 30) is None, "too long ago"
    assert find(driver, "job", since=now - 3600) is None, "no part of a name is one"


def test_the_logs_lag(connect: Connect, vendor: EmulatorThread):
    driver = connect(vendor)
    began = driver.calls.now()
    generation = driver.run(driver.calls.submit(request(), "mine"))
    assert find(driver, "mine", since=began) is None
    driver.time.advance(5)
    row = find(driver, "mine", since=began)
    assert row is not None
    assert row.inference_id == generation.id


def test_a_client_request_id_that_got_lost_is_said(
    connect: Connect, vendor: EmulatorThread, caplog: pytest.LogCaptureFixture
):
    driver = connect(vendor)
    vendor.faults.add("submit", "drop-client-request-id")
    with caplog.at_level(logging.WARNING, "airflow_provider_kling"):
        generation = driver.run(driver.calls.submit(request(), "mine"))
    assert f"did not keep the client request id mine of generation {generation.id}" in caplog.text
    driver.time.advance(60)
    assert find(driver, "mine", since=driver.calls.now() - 600) is None

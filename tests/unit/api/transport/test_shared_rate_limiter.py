from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace

import pytest

from airflow_provider_kling.api.async_client import AsyncKlingClient
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.messages import (
    Call,
    ConnectionLost,
    FailureReason,
    Flow,
    HttpRequest,
    HttpResponse,
    Reply,
    Send,
)
from airflow_provider_kling.api.transport.rate_limiter import Limiter
from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for, report

SETTINGS = Settings("yet-another-key", "http://127.0.0.1:9")


def request(call: Call = Call.POLL) -> HttpRequest:
    return HttpRequest(call, "GET", "https://api.example.com/v2/x?secret=1")


def refusal(message: str = "Too many requests", status: int = 429, **headers: str) -> HttpResponse:
    return HttpResponse(status, headers, json.dumps({"message": message}).encode())


def test_an_account_has_one_limiter_in_a_process():
    first = limiter_for(Settings("key-1", "https://a.example.com"))
    assert limiter_for(Settings("key-1", "https://a.example.com/", read_timeout=5)) is first
    assert limiter_for(Settings("key-2", "https://a.example.com")) is not first
    assert limiter_for(Settings("key-1", "https://b.example.com")) is not first


def test_of_several_rates_for_an_account_the_last_one_counts():
    fast = Settings("key-3", "https://a.example.com", requests_per_minute=600)
    slow = replace(fast, requests_per_minute=30)
    limiter = limiter_for(fast)
    assert limiter.per_minute == pytest.approx(600, rel=0.02)
    assert limiter_for(slow) is limiter
    assert limiter.per_minute == pytest.approx(30)
    assert limiter_for(replace(fast, requests_per_minute=None)) is limiter
    assert limiter.per_minute is None


def test_what_one_connection_of_an_account_is_told_holds_for_the_others():
    one = limiter_for(Settings("key-4", requests_per_minute=600))
    other = limiter_for(Settings("key-4", requests_per_minute=300))
    one.on_reply(429, 60)
    assert other.acquire() >= 60


def test_a_restraint_outlasts_many_other_accounts():
    limiter_for(Settings("key-5")).on_reply(429, 60)
    for i in range(200):
        limiter_for(Settings(f"key-5-{i}"))
    assert limiter_for(Settings("key-5")).acquire() > 59


def test_a_429_pauses_for_what_it_says_and_is_logged_without_the_query(caplog: pytest.LogCaptureFixture):
    limiter = Limiter()
    with caplog.at_level(logging.INFO):
        report(limiter, request(), refusal(**{"retry-after": "7"}))
        report(limiter, request(), refusal(**{"retry-after": "7"}))
    assert 6.9 < limiter.acquire() <= 7.7
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("api.example.com: The vendor answered 429")
    assert "secret" not in line


@pytest.mark.parametrize(
    ("call", "reply"),
    [
        (Call.POLL, refusal("You have run out of credits")),
        (Call.POLL, refusal("Your balance is too low", retry_after="9")),
        (Call.METRICS, refusal()),
        (Call.PRICES, refusal()),
        (Call.METRICS, refusal(status=503, **{"retry-after": "9"})),
        (Call.POLL, ConnectionLost(FailureReason.READ_TIMEOUT, "host")),
        (Call.POLL, refusal("no", 401, **{"retry-after": "9"})),
        (Call.POLL, HttpResponse(200, {"retry-after": "9"}, b"{}")),
    ],
    ids=str,
)
def test_what_is_not_about_the_rate_restrains_nobody(call: Call, reply: HttpResponse | ConnectionLost):
    limiter = Limiter()
    for _ in range(20):
        report(limiter, request(call), reply)
    assert limiter.acquire() == 0.0
    assert limiter.per_minute is None


def test_the_blocking_client_waits_for_its_turn():
    slept: list[float] = []
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    limiter = Limiter(60, clock=lambda: now)
    # Nobody listens there: what is asked is refused at once, and what counts is when.
    settings = Settings("key", "http://127.0.0.1:9", connect_timeout=1)
    with KlingClient(settings, sleep=sleep, limiter=limiter) as client:
        for _ in range(3):
            client._send_in_turn(request_to(settings), None)
    assert now - 100.0 == pytest.approx(2.0, rel=0.05)
    assert len(slept) == 2


def test_the_async_client_waits_for_its_turn_and_tells_what_came_back():
    slept: list[float] = []
    now = 100.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    replies = [HttpResponse(200), refusal(**{"retry-after": "30"}), HttpResponse(200)]

    class Client(AsyncKlingClient):
        """Its vendor takes one request, and refuses the next."""

        async def send(
            self, request: HttpRequest, at_most: float | None = None
        ) -> HttpResponse | ConnectionLost:
            return replies.pop(0)

    async def main() -> None:
        client = Client(SETTINGS, sleep=sleep, limiter=Limiter(60, clock=lambda: now))
        for _ in range(3):
            await client.run(ask())

    def ask() -> Flow[Reply]:
        return (yield Send(request()))

    asyncio.run(main())
    assert slept[0] == pytest.approx(1.0, rel=0.05)
    assert 30.0 <= slept[1] <= 33.0


def test_the_async_client_keeps_its_settings_own_rate_without_being_told():
    settings = replace(SETTINGS, requests_per_minute=120)

    async def main() -> None:
        assert AsyncKlingClient(settings)._limiter is limiter_for(settings)
        assert AsyncKlingClient(SETTINGS)._limiter is None

    asyncio.run(main())


def request_to(settings: Settings) -> HttpRequest:
    return HttpRequest(Call.POLL, "GET", settings.base_url + "/v2/x")


def test_a_client_keeps_its_settings_own_rate_without_being_told():
    settings = Settings("a-key-of-its-own", "http://127.0.0.1:9", requests_per_minute=120)
    with KlingClient(settings) as client:
        assert client._limiter is limiter_for(settings)
    with KlingClient(Settings("a-key-of-its-own", "http://127.0.0.1:9")) as client:
        assert client._limiter is None

"""Whatever a server does: both clients end in time and in bounded memory, and say the truth about money."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_kling.api.exceptions import (
    ApiError,
    ConnectionLostError,
    KlingError,
    MalformedReplyError,
    Money,
    SubmitUncertainError,
)
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.retry import RetryPolicy
from airflow_provider_kling.emulator import EmulatorThread
from tests.contract.conftest import Connect
from tests.misbehaving_server import (
    BROKEN,
    ENCODED,
    NEVER_ENDING,
    REDIRECTS,
    REFUSALS,
    SCENARIOS,
    Behaviour,
    Connection,
    hinting,
    misbehaving,
)

pytestmark = pytest.mark.usefixtures("plain_environment")

REQUEST = GenerationRequest("kling-video/v1.6/standard/text-to-video", {"prompt": "a cat", "duration": 5})
CONNECT = 0.4
READ = 0.4
SLACK = 1.0
"""Seconds that a machine under load may add."""
MEMORY = 48 * 1024
"""KiB that a scenario may add to what this process had in memory at most."""
LIMITS = {"connect_timeout": CONNECT, "read_timeout": READ}


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    began, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - began < seconds + SLACK
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEMORY


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_submit(connect: Connect, vendor: EmulatorThread, name: str):
    with misbehaving(SCENARIOS[name]) as server:
        driver = connect(vendor, base_url=f"http://{server.address}", **LIMITS)
        with bounded(CONNECT + READ), pytest.raises(KlingError) as caught:
            driver.run(driver.calls.submit(REQUEST, "mine"))
        assert name not in NEVER_ENDING or server.wait_until_left()
    error = caught.value
    assert len(str(error)) < 2000
    assert str(error).isprintable()
    if name in REFUSALS or name in REDIRECTS:
        refused = "403" in name or name in REDIRECTS
        assert (error.money is Money.NOT_SPENT) is refused
    else:
        assert isinstance(error, SubmitUncertainError)
        assert error.money is Money.MAY_BE_SPENT
        assert len(server.requests) == 1, "what may have been accepted is not sent again"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_poll(connect: Connect, vendor: EmulatorThread, name: str):
    with misbehaving(SCENARIOS[name]) as server:
        driver = connect(vendor, base_url=f"http://{server.address}", **LIMITS)
        driver.calls.read_retries = RetryPolicy(attempts=1)
        with bounded(CONNECT + READ), pytest.raises(KlingError) as caught:
            driver.run(driver.calls.get_generation("g1"))
        assert name not in NEVER_ENDING or server.wait_until_left()
    expected = {**NEVER_ENDING, **BROKEN}
    if name in expected:
        assert isinstance(caught.value, ConnectionLostError | MalformedReplyError)
    elif name in ENCODED:
        assert isinstance(caught.value, MalformedReplyError | ApiError)
        assert "encoded" in str(caught.value)
    assert caught.value.money is Money.ONCE


@pytest.mark.parametrize("name", ["head that drips", "trailers that drip", "silence"])
def test_over_tls(connect: Connect, vendor: EmulatorThread, certificate: str, name: str):
    with misbehaving(SCENARIOS[name], certificate) as server:
        driver = connect(vendor, base_url=f"https://{server.address}", ca_bundle=certificate, **LIMITS)
        with bounded(CONNECT + READ), pytest.raises(SubmitUncertainError):
            driver.run(driver.calls.submit(REQUEST, "mine"))
        assert server.wait_until_left()


@pytest.mark.parametrize("status", [200, 201])
def test_early_hints_are_not_the_answer(connect: Connect, vendor: EmulatorThread, status: int):
    with misbehaving(hinting(status, {"id": "g7", "status": "queued"})) as server:
        driver = connect(vendor, base_url=f"http://{server.address}")
        for _ in range(3):
            assert driver.run(driver.calls.submit(REQUEST)).id == "g7"


@pytest.mark.parametrize("name", ["silence", "head that drips", "body that drips", "103 now and then"])
def test_a_wait_keeps_its_time(connect: Connect, vendor: EmulatorThread, name: str):
    """However much longer the settings would give each of its polls."""
    from airflow_provider_kling.api import calls

    with misbehaving(SCENARIOS[name]) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "LAST_LOOK", 0.3)
        driver = connect(vendor, base_url=f"http://{server.address}", connect_timeout=30, read_timeout=30)
        flow = driver.calls.wait_until_complete
        with bounded(0.5), pytest.raises(KlingError, match="g1"):
            driver.run(flow("g1", schedule=Schedule.fixed(15), deadline=driver.calls.deadline(0.2)))


def test_a_wait_that_is_cancelled_takes_its_request_with_it(vendor: EmulatorThread):
    from airflow_provider_kling.api.async_client import AsyncKlingClient
    from airflow_provider_kling.api.settings import Settings

    async def main(address: str) -> None:
        async with AsyncKlingClient(Settings("key", f"http://{address}")) as client:
            wait = asyncio.create_task(client.wait("g1", timeout=60))
            while not server.requests:
                await asyncio.sleep(0.01)
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
            assert await asyncio.to_thread(server.wait_until_left)

    with misbehaving(SCENARIOS["headers that drip"]) as server:
        asyncio.run(main(server.address))


def by_generation(poisoned: Behaviour) -> Behaviour:
    """Polls of generations that begin with ``bad`` are poisoned; the others are answered in order."""

    def behave(connection: Connection) -> None:
        if b"generation_id=bad" in connection.request:
            poisoned(connection)
        connection.answer(
            b'{"id": "x", "status": "completed", "video": {"url": "https://cdn.example.com/v.mp4"}}'
        )

    return behave

"""Polls that hang, in Airflow's own TriggerRunner: healthy waits end in time, and the log says what hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_kling.api.polling import shared_poller
from airflow_provider_kling.triggers import kling as triggers
from airflow_provider_kling.triggers import shared_pollers
from tests.airflow.triggers.test_shared_poller import CONNECTION, Triggerer, arguments
from tests.misbehaving_server import NEVER_ENDING, Behaviour, Connection, misbehaving

READ_TIMEOUT = 12.0
HEALTHY = 50
TAKES = 1.0
"""Seconds after which the vendor has a healthy generation ready."""
INTERVAL = 1.0
MACHINE = 4.0
"""Seconds that a busy machine may add."""
POISONS = {
    "silence": NEVER_ENDING["silence"],
    "headers that drip": NEVER_ENDING["headers that drip"],
    "trailers that drip": NEVER_ENDING["trailers that drip"],
    "head that drips": NEVER_ENDING["head that drips"],
    "body that drips": NEVER_ENDING["body that drips"],
}


class Vendor:
    """Hangs about generations that begin with ``bad``; the others complete after :data:`TAKES` seconds.

    :param poisons: ways to hang, in turn.
    """

    def __init__(self, *poisons: Behaviour) -> None:
        self._poisons = poisons
        self._lock = threading.Lock()
        self._first: dict[bytes, float] = {}
        self.poisoned = 0

    def __call__(self, connection: Connection) -> None:
        generation_id = connection.request.partition(b"generation_id=")[2].split(b" ")[0].split(b"&")[0]
        with self._lock:
            number = self.poisoned
            if generation_id.startswith(b"bad"):
                self.poisoned += 1
            first = self._first.setdefault(generation_id, time.monotonic())
        if generation_id.startswith(b"bad"):
            self._poisons[number % len(self._poisons)](connection)
        ready = time.monotonic() - first >= TAKES
        answer: dict[str, Any] = {
            "id": generation_id.decode(),
            "status": "completed" if ready else "generating",
            "video": {"url": "https://cdn.example.com/v.mp4"} if ready else None,
        }
        connection.answer(json.dumps(answer).encode())


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(triggers, "EARLIEST_EVENT", 0.05)
    monkeypatch.setattr(shared_poller, "STUCK_AFTER", 0.5)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    yield
    for pollers in shared_pollers._POLLERS.values():
        assert pollers._pollers == {}, "every wait has left its poller"


def connect(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    extra = {"read_timeout": READ_TIMEOUT}
    connection = {"conn_type": "kling", "host": f"http://{address}", "password": "key", "extra": extra}
    monkeypatch.setenv(CONNECTION, json.dumps(connection))


async def run(poisoned: int, healthy: int) -> tuple[float, list[dict[str, Any]], Triggerer]:
    """Poisoned triggers first; then healthy ones, until all of those have their events.

    :return: seconds that took, and the events of the healthy ones.
    """
    triggerer = Triggerer()
    schedule = {"interval": INTERVAL}
    bad = [triggerer.start(arguments(f"bad{n}", seconds=600, schedule=schedule)) for n in range(poisoned)]
    await asyncio.sleep(1.0)
    begun = time.monotonic()
    good = [triggerer.start(arguments(f"good{n}", seconds=600, schedule=schedule)) for n in range(healthy)]
    await asyncio.gather(*good)
    took = time.monotonic() - begun
    events = [triggerer.events[f"good{n}"] for n in range(healthy)]
    assert not any(each.done() for each in bad)
    for each in bad:
        each.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*bad, return_exceptions=True)
    return took, events, triggerer


@pytest.mark.parametrize("poison", POISONS)
def test_sixteen_poisoned_and_fifty_healthy_waits(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: Any, poison: str
):
    """As many hang as there are places: no healthy wait is later than an idle triggerer would be."""
    with misbehaving(Vendor(POISONS[poison])) as server:
        connect(monkeypatch, server.address)
        took, events, _ = asyncio.run(run(16, HEALTHY))
        assert server.wait_until_left()
    assert {event.get("status") for event in events} == {"completed"}
    assert took < TAKES + 2 * INTERVAL + shared_poller.STUCK_AFTER * 2 + MACHINE < READ_TIMEOUT
    assert "have had no complete answer" in caplog.text + "".join(capfd.readouterr())


def test_ninety_six_that_hang_delay_a_healthy_one_by_one_read_timeout_at_most(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: Any
):
    """In all the ways at once, and for longer than one round of their time-outs."""
    vendor = Vendor(*POISONS.values())
    with misbehaving(vendor) as server:
        connect(monkeypatch, server.address)
        took, [event], _ = asyncio.run(run(96, 1))
        assert server.wait_until_left()
    assert event["status"] == "completed"
    assert took < TAKES + 2 * INTERVAL + READ_TIMEOUT
    assert vendor.poisoned >= 96
    assert "have had no complete answer" in caplog.text + "".join(capfd.readouterr())


def test_more_that_hang_than_there_are_places_delay_a_healthy_one_by_one_read_timeout_at_most(
    monkeypatch: pytest.MonkeyPatch,
):
    hanging = shared_poller.MOST_UNDER_WAY + 40
    with misbehaving(Vendor(*POISONS.values())) as server:
        connect(monkeypatch, server.address)
        took, [event], _ = asyncio.run(run(hanging, 1))
    assert event["status"] == "completed"
    assert took < TAKES + 2 * INTERVAL + READ_TIMEOUT + MACHINE

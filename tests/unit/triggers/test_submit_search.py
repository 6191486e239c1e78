"""The search for lost answers in the triggerer: one for all, over real HTTP, and what travels with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.durable.search import SubmitSearch
from airflow_provider_kling.api.durable.submit import PendingSearch
from airflow_provider_kling.api.exceptions import Recovery, SubmitUncertainError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from airflow_provider_kling.triggers import submit_search
from airflow_provider_kling.triggers.submit_search import (
    KlingSubmitSearchTrigger,
    is_search_event,
    read_search_event,
)

KEY = "a-key-of-the-account"
MODEL = "kling-video/v1.6/standard/text-to-video"


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit_search, "EARLIEST_EVENT", 0.0)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(keys=(KEY,), log_lag=0.0, log_in_flight_after=0.0)) as emulator:
        host = emulator.url.replace("://", "%3A%2F%2F")
        monkeypatch.setenv("AIRFLOW_CONN_KLING_DEFAULT", f"kling://:{KEY}@{host}")
        yield emulator


def pending(name: str) -> PendingSearch:
    now = time.time()
    return PendingSearch(SubmitSearch((name,), MODEL, now - 60, now), None, "retry", True, 1)


def trigger(*names: str) -> KlingSubmitSearchTrigger:
    searches = [{"variant": number, **pending(name).as_dict()} for number, name in enumerate(names)]
    path, arguments = KlingSubmitSearchTrigger(searches=searches).serialize()
    assert path.endswith("submit_search.KlingSubmitSearchTrigger")
    assert KEY not in str(arguments)
    return KlingSubmitSearchTrigger(**arguments)


async def events(*triggers: KlingSubmitSearchTrigger) -> list[Any]:
    async def one(each: KlingSubmitSearchTrigger) -> Any:
        return [event.payload async for event in each.run()]

    return [event for (event,) in await asyncio.gather(*map(one, triggers))]


def test_one_search_serves_all_who_wait(vendor: EmulatorThread):
    with KlingClient(Settings(KEY, base_url=vendor.url)) as client:
        known = client.submit(GenerationRequest(MODEL, {"prompt": "A boat."}), "job-7").id
    told = asyncio.run(events(*(trigger(f"job-{number}") for number in range(40))))
    assert all(map(is_search_event, told))
    rows = [read_search_event(event)[0].row for event in told]
    assert [number for number, row in enumerate(rows) if row is not None] == [7]
    assert rows[7] is not None
    assert rows[7].inference_id == known
    assert sum(entry.call == "logs" for entry in vendor.journal) < 10
    assert KEY not in str(told)


def test_the_variants_of_a_task_are_answered_together(vendor: EmulatorThread):
    (event,) = asyncio.run(events(trigger("a", "b")))
    answers = read_search_event(event)
    assert set(answers) == {0, 1}
    assert answers[1].search.names == ("b",)


def test_a_key_that_may_not_read_the_logs_is_told(vendor: EmulatorThread):
    vendor.faults.add("logs", 403, times=None)
    (event,) = asyncio.run(events(trigger("a")))
    with pytest.raises(SubmitUncertainError) as caught:
        read_search_event(event)
    assert caught.value.recovery is Recovery.GIVE_UP


@pytest.mark.parametrize("searches", [None, 5, "x", [5], [{}], [{"search": {"names": ["a"]}}]])
def test_arguments_that_cannot_be_read_fail_the_task_and_not_the_triggerer(searches: Any):
    (event,) = asyncio.run(events(KlingSubmitSearchTrigger(searches=searches, of_a_newer_version=1)))
    with pytest.raises(SubmitUncertainError, match="cannot be read"):
        read_search_event(event)


@pytest.mark.parametrize(
    "event",
    [
        {"kind": "submit search"},
        {"kind": "submit search", "schema": 1, "answers": 5},
        {"kind": "submit search", "schema": 1, "answers": [pending("a").as_dict()]},
    ],
)
def test_an_event_that_cannot_be_read_is_loud(event: Any):
    assert is_search_event(event)
    with pytest.raises(SubmitUncertainError, match="cannot be read"):
        read_search_event(event)


@pytest.mark.parametrize("event", [None, {}, {"generation_id": "g1", "schema": 1}, "x"])
def test_the_event_of_another_trigger_is_not_ours(event: Any):
    assert not is_search_event(event)

"""Triggers in the waiting room: run by Airflow's own TriggerRunner, against the emulator."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.jobs.triggerer_job_runner import TriggerRunner

from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.polling import poll_tracker, shared_poller
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from airflow_provider_kling.hooks.kling import KlingHook
from airflow_provider_kling.triggers import connection_cache as connections
from airflow_provider_kling.triggers import kling as triggers
from airflow_provider_kling.triggers import shared_pollers
from airflow_provider_kling.triggers.kling import KlingGenerationTrigger, read_event
from tests.airflow.real_airflow import VERSION
from tests.contract.addresses import self_signed

MODEL = "kling-video/v1.6/standard/text-to-video"
CONNECTION = "AIRFLOW_CONN_KLING_DEFAULT"
OLD_KEY, NEW_KEY = "the-old-key", "the-new-key"


@pytest.fixture(autouse=True)
def _prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look comes soon; no LocalExecutor is there to be outrun."""
    monkeypatch.setattr(triggers, "EARLIEST_EVENT", 0.05)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each connection is read."""
    count: Counter[str] = Counter()
    really_read = connections.read_settings

    async def read(conn_id: str) -> Settings:
        count[conn_id] += 1
        return await really_read(conn_id)

    monkeypatch.setattr(connections, "read_settings", read)
    return count


@pytest.fixture
def vendor() -> Iterator[EmulatorThread]:
    options = EmulatorOptions(queued_seconds=0.2, generating_seconds=0.8, keys=(OLD_KEY, NEW_KEY))
    with EmulatorThread(options) as emulator:
        yield emulator


def connect(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread, key: str = OLD_KEY, **extra: Any
) -> None:
    connection = {"conn_type": "kling", "host": vendor.url, "password": key, "extra": extra}
    monkeypatch.setenv(CONNECTION, json.dumps(connection))


def submit(vendor: EmulatorThread, count: int = 1, key: str = OLD_KEY) -> list[str]:
    with KlingClient(Settings(key, vendor.url)) as client:
        request = GenerationRequest(MODEL, {"prompt": "waves"})
        return [client.submit(request).id for _ in range(count)]


def arguments(generation_id: str, *, seconds: float = 20.0, **kwargs: Any) -> dict[str, Any]:
    """Arguments of a trigger as version 0.1 wrote them."""
    return {
        "generation_id": generation_id,
        "kling_conn_id": "kling_default",
        "deadline": time.time() + seconds,
        "schedule": {"interval": 1.0},
        "submitted_at": time.time(),
        **kwargs,
    }


class Triggerer:
    """A triggerer without a database: Airflow's runner, given triggers by hand."""

    def __init__(self) -> None:
        self.runner = TriggerRunner()

    def start(self, kwargs: dict[str, Any]) -> asyncio.Task[None]:
        trigger_id = len(self.runner.triggers) + 1
        trigger = KlingGenerationTrigger(**kwargs)
        trigger.timeout_after = None  # as the triggerer sets it; 3.0 reads it when a trigger is cancelled
        if VERSION < (3, 0):
            trigger.task_instance = SimpleNamespace(trigger_timeout=None)
        elif not hasattr(trigger, "task_instance"):
            trigger.task_instance = None
        self.runner.triggers[trigger_id] = {"name": f"trigger {trigger_id}", "events": 0}
        return asyncio.create_task(self.runner.run_trigger(trigger_id, trigger))

    @property
    def events(self) -> dict[str, dict[str, Any]]:
        """Generation id -> the payload of its event."""
        payloads = [(getattr(entry, "event", None) or entry[1]).payload for entry in self.runner.events]
        return {payload["generation_id"]: payload for payload in payloads}


async def run_all(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    triggerer = Triggerer()
    await asyncio.gather(*(triggerer.start(each) for each in rows))
    return triggerer.events


def test_sixty_triggers_share_one_session_and_one_look_at_the_connection(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread, cache: Counter[str]
):
    connect(monkeypatch, vendor)
    ids = submit(vendor, 60)
    before = vendor.stats["connections"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        events = asyncio.run(run_all([arguments(each) for each in ids]))
        gc.collect()
    assert {name: event["status"] for name, event in events.items()} == dict.fromkeys(ids, "completed")
    assert all(read_event(event)[1] is None for event in events.values())
    assert vendor.stats["connections"] - before <= 16
    assert cache == {"kling_default": 1}
    assert not [each for each in caught if issubclass(each.category, ResourceWarning)]
    assert not [name for name in map(str, caught) if "never awaited" in name]


def test_each_event_loop_has_pollers_of_its_own_and_leaves_none(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread
):
    """As dag.test() does: one event loop for each trigger, one after the other."""
    connect(monkeypatch, vendor)
    for generation_id in submit(vendor, 3):
        [event] = asyncio.run(run_all([arguments(generation_id)])).values()
        assert event["status"] == "completed"
    for left in list(shared_pollers._POLLERS.values()):
        assert (left._pollers, len(left._cache), left._asking) == ({}, 0, set())


def test_who_is_cancelled_touches_no_other(monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread):
    connect(monkeypatch, vendor)
    ids = submit(vendor, 10)

    async def main() -> dict[str, dict[str, Any]]:
        triggerer = Triggerer()
        tasks = [triggerer.start(arguments(each)) for each in ids]
        await asyncio.sleep(0.5)
        for task in tasks[:5]:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(end, asyncio.CancelledError) for end in ends] == [True] * 5 + [False] * 5
        return triggerer.events

    assert set(asyncio.run(main())) == set(ids[5:])


def test_a_person_who_stops_the_task_is_told_what_keeps_running(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread, capsys: pytest.CaptureFixture[str]
):
    try:
        from airflow.jobs.triggerer_job_runner import _USER_ACTION_CANCEL_MSG as PERSON
    except ImportError:
        pytest.skip("before Airflow 3.3 a trigger is not told who cancels it")
    connect(monkeypatch, vendor)
    [generation_id] = submit(vendor)

    async def main() -> None:
        task = Triggerer().start(arguments(generation_id))
        await asyncio.sleep(0.3)
        task.cancel(PERSON)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert f"Generation {generation_id} keeps running" in capsys.readouterr().out


def test_a_rotated_key_is_noticed_before_anybody_fails(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread, cache: Counter[str]
):
    connect(monkeypatch, vendor, NEW_KEY)
    ids = submit(vendor, 20, NEW_KEY)
    vendor.faults.add("poll", 401, times=8)

    async def main() -> dict[str, dict[str, Any]]:
        connect(monkeypatch, vendor, "a-key-that-was-revoked")
        triggerer = Triggerer()
        tasks = [triggerer.start(arguments(each)) for each in ids]
        # The first look is under way with the old key; then somebody edits the connection.
        while not cache:
            await asyncio.sleep(0)
        connect(monkeypatch, vendor, NEW_KEY)
        monkeypatch.setattr(shared_pollers, "FRESH_AFTER_A_REFUSAL", 0.0)
        await asyncio.gather(*tasks)
        return triggerer.events

    events = asyncio.run(main())
    assert {event.get("status") for event in events.values()} == {"completed"}
    assert len(events) == 20
    assert cache["kling_default"] < 20


def test_a_key_that_stays_wrong_fails_after_a_few_looks_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread, cache: Counter[str]
):
    monkeypatch.setattr(poll_tracker, "FATAL_SECONDS", 0.0)
    connect(monkeypatch, vendor, "wrong-key")
    events = asyncio.run(run_all([arguments(each) for each in submit(vendor, 5)]))
    for event in events.values():
        assert event["error"]["kind"] == "AuthenticationError"
        assert "Check the API key" in event["error"]["message"]
        assert "wrong-key" not in json.dumps(event)
    assert vendor.stats["calls"]["poll"] == 15
    assert cache["kling_default"] == 1  # what was read seconds ago is still true


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"deadline": None},
        {"schedule": None, "submitted_at": None},
        {"schedule": {"usual_seconds": 2.0, "spread": 0.5, "of a later version": 1}},
        {"model": MODEL, "schedule": {"usual_seconds": 3.0}},
        {"of a later version": {"a": 1}},
    ],
    ids=str,
)
def test_rows_of_older_and_newer_versions_run(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread, kwargs: dict[str, Any]
):
    connect(monkeypatch, vendor)
    [generation_id] = submit(vendor)
    written = KlingGenerationTrigger(**arguments(generation_id, **kwargs)).serialize()[1]
    [event] = asyncio.run(run_all([json.loads(json.dumps(written))])).values()
    assert event["status"] == "completed"


def test_polls_that_are_held_back_for_ever_end_after_the_deadline(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread
):
    monkeypatch.setattr(triggers, "OVERDUE", 0.5)
    monkeypatch.setattr(shared_poller, "OVERDUE_CHECK", 0.5)
    connect(monkeypatch, vendor, requests_per_minute=1)
    vendor.faults.add("poll", "unknown-status")
    ids = submit(vendor, 3)
    events = asyncio.run(run_all([arguments(each, seconds=1.0) for each in ids]))
    kinds = Counter(event["error"]["kind"] for event in events.values())
    assert kinds == {"GenerationTimeoutError": 3}
    assert any("rate limited" in event["error"]["message"] for event in events.values())
    assert vendor.stats["calls"]["poll"] == 1


def test_the_live_duration_is_asked_once_for_each_model_and_without_the_key(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread
):
    connect(monkeypatch, vendor)
    learned = []

    async def main(rows: list[dict[str, Any]]) -> None:
        await run_all(rows[:5])
        await run_all(rows[5:])
        learned.append(shared_pollers.SharedPollers.of_this_loop().durations[vendor.url])

    adaptive = Schedule.adaptive(2.0).as_dict()
    asyncio.run(main([arguments(each, schedule=adaptive, model=MODEL) for each in submit(vendor, 10)]))
    asked = [entry for entry in vendor.journal if entry.path == "/models/metrics"]
    assert [(entry.query, entry.authorization) for entry in asked] == [((("aliases", MODEL),), False)]
    sharpened = learned[0].sharpen(MODEL, Schedule.adaptive(2.0))
    assert sharpened.usual_seconds < 1.9  # the emulator takes 1 s, and says so


@pytest.mark.parametrize("kind", ["404", "500", "429", "stall-before", "empty-body", "wrong-types"])
def test_metrics_that_do_not_answer_delay_nobody(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread, kind: str
):
    monkeypatch.setattr(shared_pollers, "METRICS_TIMEOUT", 5.0)
    connect(monkeypatch, vendor)
    vendor.faults.add("metrics", kind)
    rows = [arguments(each, model=MODEL, schedule={"usual_seconds": 2.0}) for each in submit(vendor, 3)]
    begun = time.monotonic()

    async def main() -> float:
        events = await run_all(rows)
        assert {event["status"] for event in events.values()} == {"completed"}
        return time.monotonic() - begun

    assert asyncio.run(main()) < 8


def test_the_poller_over_tls_and_a_ca_file_that_is_corrected_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "other").mkdir()
    certificate = self_signed(tmp_path, "127.0.0.1")
    bundle = tmp_path / "bundle.pem"
    options = EmulatorOptions(
        queued_seconds=0.2, generating_seconds=0.8, keys=(OLD_KEY,), tls_certificate=str(certificate)
    )
    with EmulatorThread(options) as secure:
        with KlingClient(Settings(OLD_KEY, secure.url, ca_bundle=str(certificate))) as client:
            request = GenerationRequest(MODEL, {"prompt": "waves"})
            ids = [client.submit(request).id for _ in range(40)]
        before = secure.stats["connections"]
        bundle.write_bytes(self_signed(tmp_path / "other", "somebody-else.invalid").read_bytes())
        connect(monkeypatch, secure, ca_bundle=str(bundle))

        async def main() -> dict[str, dict[str, Any]]:
            triggerer = Triggerer()
            tasks = [triggerer.start(arguments(each)) for each in ids]
            await asyncio.sleep(0.8)
            assert "poll" not in secure.stats["calls"]
            bundle.write_bytes(certificate.read_bytes())
            await asyncio.gather(*tasks)
            return triggerer.events

        events = asyncio.run(main())
        assert {name: event.get("status") for name, event in events.items()} == dict.fromkeys(
            ids, "completed"
        )
        assert secure.stats["connections"] - before <= 3 * 16


def test_the_hooks_async_client_shares_the_restraint_of_its_account(
    monkeypatch: pytest.MonkeyPatch, vendor: EmulatorThread
):
    connect(monkeypatch, vendor, requests_per_minute=600)
    settings = Settings(OLD_KEY, vendor.url, requests_per_minute=600)

    async def main() -> float:
        limiter_for(settings).on_reply(429, 1.0)
        begun = time.monotonic()
        async with await KlingHook().aget_conn() as client:
            await client.get_balance()
        return time.monotonic() - begun

    assert asyncio.run(main()) >= 1.0

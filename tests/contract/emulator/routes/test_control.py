"""The emulator's own routes, and how a test holds it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.contract.addresses import self_signed

PATH = "/v2/generate/video/kling/generation"
KEY = "a-key-nobody-may-see"
HEADERS = {"Authorization": f"Bearer {KEY}"}
BODY = {"model": "kling-video/v1.6/standard/text-to-video", "prompt": "a cat"}


@pytest.fixture
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(frozen_clock=True, keys=(KEY,))) as emulator:
        yield emulator


def control(emulator: EmulatorThread, method: str, path: str, body: Any = None) -> Any:
    url = f"{emulator.url}/_emulator/{path}"
    answer = requests.request(method, url, json=body, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()


def submit(emulator: EmulatorThread, session: Any = requests, **headers: str) -> requests.Response:
    headers = {**HEADERS, **headers}
    return session.post(emulator.url + PATH, json=BODY, headers=headers, timeout=10)


def test_faults_are_added_listed_and_cleared_from_outside(emulator):
    rule = {"call": "submit", "kind": "503", "times": None}
    (added,) = control(emulator, "POST", "faults", rule)
    assert (added["id"], added["times"]) == (1, None)
    control(emulator, "POST", "faults", ["poll:429:retry_after=1", {"call": "any", "kind": 500}])
    assert submit(emulator).status_code == 503
    listed = control(emulator, "GET", "faults")
    assert [(each["kind"], each["hits"]) for each in listed] == [("503", 1), ("429", 0), ("500", 0)]
    assert control(emulator, "DELETE", "faults") == []
    assert submit(emulator).status_code == 201


@pytest.mark.parametrize("body", ["nonsense", {"call": "submit"}, {"kind": 5}, [7], {"x": 1}, None])
def test_a_wrong_rule_is_refused_with_a_reason(emulator, body: Any):
    answer = requests.post(f"{emulator.url}/_emulator/faults", json=body, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["message"]
    assert control(emulator, "GET", "faults") == []


def test_the_journal_tells_each_request(emulator):
    with requests.Session() as session:
        generation_id = submit(emulator, session, **{"X-Client-Request-Id": "mine"}).json()["id"]
        session.get(emulator.url + PATH, params={"generation_id": generation_id}, timeout=10)
    requests.get(emulator.url + "/nowhere?x=1", timeout=10)
    first, second, third = control(emulator, "GET", "requests")
    assert first == {
        "number": 1,
        "time": emulator.clock.now(),
        "method": "POST",
        "path": PATH,
        "call": "submit",
        "query": [],
        "status": 201,
        "authorization": True,
        "client_request_id": "mine",
        "generation_id": generation_id,
        "connection": 1,
        "accepted": True,
        "fault": None,
    }
    assert (second["call"], second["status"], second["accepted"]) == ("poll", 401, False)
    assert second["connection"] == 1
    assert second["query"] == [["generation_id", generation_id]]
    assert (third["call"], third["status"], third["authorization"]) == ("unknown", 404, False)
    assert third["connection"] > 1


def test_generations_and_stats(emulator):
    submit(emulator)
    submit(emulator, **{"X-Client-Request-Id": "b"})
    told = control(emulator, "GET", "generations")
    assert told == emulator.generations
    assert [each["client_request_id"] for each in told] == [None, "b"]
    assert [each["status"] for each in told] == ["queued", "queued"]
    assert told[0]["parameters"] == {"prompt": "a cat"}
    control(emulator, "POST", "clock", {"advance": 60})
    stats = control(emulator, "GET", "stats")
    assert (stats["accepted"], stats["charges"]) == (2, 2)
    assert stats["calls"] == {"submit": 2}
    assert stats["connections"] >= 2


def test_the_control_plane_never_tells_a_key(emulator):
    submit(emulator)
    for path in ("faults", "requests", "generations", "stats"):
        assert KEY not in json.dumps(control(emulator, "GET", path))


def test_a_reset_forgets_all(emulator):
    submit(emulator)
    emulator.clock.advance(60)
    control(emulator, "POST", "faults", "any:500:times=always")
    stats = control(emulator, "POST", "reset")
    assert (stats["accepted"], stats["charges"], stats["calls"]) == (0, 0, {})
    assert emulator.journal == []
    answer = requests.get(emulator.url + "/v2/billing", headers=HEADERS, timeout=10)
    assert answer.json()["current_balance"] == 1000.0


@pytest.mark.parametrize("body", [{}, {"advance": "far"}, {"advance": -1}, []])
def test_the_clock_refuses_what_is_no_time(emulator, body: Any):
    answer = requests.post(f"{emulator.url}/_emulator/clock", json=body, timeout=10)
    assert answer.status_code == 400


def test_faults_do_not_touch_the_control_plane(emulator):
    emulator.faults.add("any", 500, times=None)
    assert control(emulator, "GET", "stats")["accepted"] == 0


def test_the_journal_is_bounded_and_the_counts_are_not():
    with EmulatorThread(EmulatorOptions(journal_size=3, keys=(KEY,))) as emulator:
        for _ in range(5):
            submit(emulator)
        assert [entry.number for entry in emulator.journal] == [3, 4, 5]
        assert emulator.stats["calls"] == {"submit": 5}


def test_the_seed_repeats_the_ids():
    def ids() -> list[str]:
        with EmulatorThread(EmulatorOptions(seed=11, keys=(KEY,))) as emulator:
            return [submit(emulator).json()["id"] for _ in range(3)]

    assert ids() == ids()


def test_it_stops_clean_twice_and_leaves_no_thread():
    before = threading.active_count()
    emulator = EmulatorThread().start()
    url = emulator.url
    emulator.stop()
    emulator.stop()
    assert threading.active_count() == before
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=1)


def test_a_taken_port_is_an_error_at_start(emulator):
    port = int(emulator.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        EmulatorThread(EmulatorOptions(port=port)).start()


def test_it_speaks_https(tmp_path):
    certificate = self_signed(tmp_path, "localhost")
    options = EmulatorOptions(tls_certificate=str(certificate), keys=(KEY,))
    with EmulatorThread(options) as emulator:
        assert emulator.url.startswith("https://")
        url = emulator.url.replace("127.0.0.1", "localhost") + "/v2/billing"
        answer = requests.get(
            url,
            headers=HEADERS,
            timeout=10,
            verify=str(certificate),
        )
        assert answer.status_code == 200
        # A TCP reset; OpenSSL tells it as the end of the stream.
        emulator.faults.add("billing", "reset-before")
        with pytest.raises(requests.ConnectionError, match="aborted"):
            requests.get(
                url,
                headers=HEADERS,
                timeout=10,
                verify=str(certificate),
            )

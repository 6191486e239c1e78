"""What goes wrong at the emulator when it is told to, seen from a client's socket."""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread

PATH = "/v2/generate/video/kling/generation"
HEADERS = {"Authorization": "Bearer kling-emulator-key"}
MODEL = "kling-video/v1.6/standard/text-to-video"


def submit(emulator: EmulatorThread, prompt: str = "a cat", **options: Any) -> requests.Response:
    headers = {**HEADERS, **options.pop("headers", {})}
    body = {"model": MODEL, "prompt": prompt}
    return requests.post(
        emulator.url + PATH, json=body, headers=headers, timeout=options.pop("timeout", 10), **options
    )


def poll(emulator: EmulatorThread, generation_id: str, **options: Any) -> requests.Response:
    params = {"generation_id": generation_id}
    options.setdefault("timeout", 10)
    return requests.get(emulator.url + PATH, params=params, headers=HEADERS, **options)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503, 504])
def test_statuses_come_in_the_vendors_body_and_accept_nothing(emulator, status: int):
    emulator.faults.add("submit", status)
    answer = submit(emulator)
    assert answer.status_code == status
    assert answer.json()["statusCode"] == status
    assert answer.json()["message"]
    assert emulator.generations == []
    assert (emulator.journal[0].fault, emulator.journal[0].status) == (str(status), status)
    assert submit(emulator).status_code == 201


def test_a_gateways_error_can_hide_an_acceptance(emulator):
    emulator.faults.add("submit", 504, accepted=True)
    assert submit(emulator, headers={"X-Client-Request-Id": "mine"}).status_code == 504
    assert [each["client_request_id"] for each in emulator.generations] == ["mine"]
    assert emulator.journal[0].accepted


def test_retry_after_in_seconds_as_a_date_and_not_at_all(emulator):
    for value in ("7", "date:30", None):
        emulator.faults.add("poll", 429, retry_after=value)
    seconds, date, nothing = (poll(emulator, "any-generation").headers for _ in range(3))
    assert seconds["Retry-After"] == "7"
    ahead = email.utils.parsedate_to_datetime(date["Retry-After"]) - dt.datetime.now(dt.UTC)
    assert 27 < ahead.total_seconds() < 31
    assert "Retry-After" not in nothing


def test_a_429_can_be_about_the_balance(emulator):
    emulator.faults.add("submit", 429, message="balance")
    assert "credits" in submit(emulator).json()["message"]
    emulator.faults.add("submit", 429, message="my own words")
    assert submit(emulator).json()["message"] == "my own words"


def test_a_gateway_answers_with_html(emulator):
    emulator.faults.add("poll", "html")
    answer = poll(emulator, "any-generation")
    assert (answer.status_code, answer.headers["Content-Type"]) == (502, "text/html; charset=utf-8")
    assert answer.text.startswith("<html>")


@pytest.mark.parametrize(("kind", "accepted"), [("reset-before", 0), ("reset-after", 1)])
def test_resets_are_resets(emulator, kind: str, accepted: int):
    emulator.faults.add("submit", kind)
    body = json.dumps({"model": MODEL, "prompt": "a cat"})
    head = [
        f"POST {PATH} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in HEADERS.items()),
    ]
    address = urlsplit(emulator.url)
    # A plain socket: requests may meet the reset while it still sends, and then tells it otherwise.
    with socket.create_connection((address.hostname, address.port), timeout=10) as client:
        client.sendall("\r\n".join([*head, "", body]).encode())
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert len(emulator.generations) == accepted
    assert emulator.journal[0].status is None


@pytest.mark.parametrize(("kind", "accepted"), [("stall-before", 0), ("stall-after", 1)])
def test_stalls_give_no_answer_and_end_with_the_client(emulator, kind: str, accepted: int):
    emulator.faults.add("submit", kind)
    with pytest.raises(requests.ReadTimeout):
        submit(emulator, timeout=0.2)
    assert len(emulator.generations) == accepted
    assert emulator.journal[0].status is None
    assert submit(emulator).status_code == 201


def test_stopping_does_not_wait_for_a_stalled_answer():
    emulator = EmulatorThread(EmulatorOptions()).start()
    emulator.faults.add("billing", "stall-before")
    with requests.Session() as session:
        session.headers.update(HEADERS)
        with pytest.raises(requests.ReadTimeout):
            session.get(emulator.url + "/v2/billing", timeout=0.1)
        emulator.faults.add("billing", "stall-before")
        with pytest.raises(requests.ReadTimeout):
            session.get(emulator.url + "/v2/billing", timeout=0.1, stream=True)
        began = time.monotonic()
        emulator.stop()
    assert time.monotonic() - began < 3


def spoiled_submit(emulator: EmulatorThread, kind: str, **options: Any) -> requests.Response:
    emulator.faults.add("submit", kind, **options)
    answer = submit(emulator)
    assert answer.status_code == 201
    assert len(emulator.generations) == 1, "a spoiled answer is an accepted submit"
    return answer


@pytest.mark.parametrize("kind", ["truncated-json", "empty-body", "unreadable-body"])
def test_bodies_that_are_no_json(emulator, kind: str):
    answer = spoiled_submit(emulator, kind)
    with pytest.raises(ValueError, match=r"."):
        json.loads(answer.content)
    if kind == "unreadable-body":
        assert answer.headers["x-inference-id"] == emulator.generations[0]["id"]
    else:
        assert "x-inference-id" not in answer.headers


def test_a_body_without_its_id(emulator):
    answer = spoiled_submit(emulator, "missing-id")
    assert set(answer.json()) == {"status", "meta"}
    assert "x-inference-id" not in answer.headers


def test_a_body_of_wrong_types(emulator):
    answer = spoiled_submit(emulator, "wrong-types")
    assert answer.json() == {"id": 7, "status": 7, "meta": "something else"}


def test_a_status_nobody_knows(emulator):
    generation_id = submit(emulator).json()["id"]
    emulator.faults.add("poll", "unknown-status")
    assert poll(emulator, generation_id).json()["status"] == "meditating"
    assert poll(emulator, generation_id).json()["status"] == "queued"


def test_a_huge_body(emulator):
    generation_id = submit(emulator).json()["id"]
    emulator.faults.add("poll", "huge-body", size=3_000_000)
    answer = poll(emulator, generation_id)
    assert len(answer.content) > 3_000_000
    assert answer.json()["id"] == generation_id


def test_an_answer_in_drips(emulator):
    generation_id = submit(emulator).json()["id"]
    emulator.faults.add("poll", "slow-drip", seconds=0.5)
    began = time.monotonic()
    answer = poll(emulator, generation_id, timeout=0.4)
    assert time.monotonic() - began > 0.45, "each byte comes in time, the whole does not"
    assert answer.json()["id"] == generation_id


def test_a_redirect_goes_to_another_host_name_of_the_same_server(emulator):
    emulator.faults.add("submit", "redirect")
    answer = submit(emulator, allow_redirects=False)
    assert answer.status_code == 307
    assert answer.headers["Location"] == emulator.url.replace("127.0.0.1", "localhost") + PATH
    emulator.faults.add("submit", "redirect", url="https://example.org/x", status=302)
    answer = submit(emulator, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, "https://example.org/x")
    assert emulator.generations == []


def test_the_client_request_id_can_get_lost(emulator):
    emulator.faults.add("submit", "drop-client-request-id")
    answer = submit(emulator, headers={"X-Client-Request-Id": "mine"})
    assert answer.status_code == 201
    assert "x-client-request-id" not in answer.headers
    assert emulator.generations[0]["client_request_id"] is None


def test_faults_of_one_generation_leave_others_alone(emulator):
    ill, well = submit(emulator).json()["id"], submit(emulator).json()["id"]
    emulator.faults.add("poll", 500, times=None, generation_id=ill)
    assert poll(emulator, well).status_code == 200
    assert [poll(emulator, ill).status_code for _ in range(3)] == [500] * 3


def test_prompts_can_ask_for_faults(emulator):
    prompt = "x [emulator: submit:429:retry_after=2:times=2] [emulator: poll:503:times=1]"
    answers = [submit(emulator, prompt) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 201]
    assert answers[0].headers["Retry-After"] == "2"
    generation_id = answers[2].json()["id"]
    other = submit(emulator).json()["id"]
    assert poll(emulator, other).status_code == 200
    assert [poll(emulator, generation_id).status_code for _ in range(2)] == [503, 200]


def test_options_bring_faults_and_a_reset_brings_them_back():
    with EmulatorThread(EmulatorOptions(faults=("submit:500:times=2",))) as emulator:
        assert [submit(emulator).status_code for _ in range(3)] == [500, 500, 201]
        emulator.reset()
        assert submit(emulator).status_code == 500


def test_a_wrong_rule_stops_the_emulator_from_starting():
    with pytest.raises(ValueError, match="call:kind"):
        EmulatorThread(EmulatorOptions(faults=("nonsense",))).start()

"""The emulator's OpenAPI document, and whether its answers are what it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator

from airflow_provider_kling.emulator import AnswerStyle, EmulatorOptions, EmulatorThread

HEADERS = {"Authorization": "Bearer kling-emulator-key"}
BODY = {"model": "klingai/v2.5-turbo/pro/text-to-video", "prompt": "a cat"}


@pytest.fixture(scope="module", params=AnswerStyle)
def emulator(request: pytest.FixtureRequest) -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(frozen_clock=True, answers=request.param)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def document(emulator: EmulatorThread) -> dict[str, Any]:
    answer = requests.get(f"{emulator.url}/openapi.json", timeout=10)
    assert answer.status_code == 200
    read: dict[str, Any] = answer.json()
    return read


def check(document: dict[str, Any], method: str, answer: requests.Response) -> None:
    """Hold an answer to the schema of its path and status."""
    path = answer.request.path_url.partition("?")[0]
    told = document["paths"][path][method]["responses"][str(answer.status_code)]
    Draft202012Validator(told["content"]["application/json"]["schema"]).validate(answer.json())


def test_it_names_its_server_and_costs_the_journal_nothing(emulator, document):
    assert document["servers"] == [{"url": emulator.url}]
    assert all(entry.path != "/openapi.json" for entry in emulator.journal)


def test_every_path_answers_as_it_says(emulator, document):
    params = {"/v2/logs": {"period": "24h"}}
    for path, operations in document["paths"].items():
        if "post" in operations:
            accepted = requests.post(emulator.url + path, json=BODY, headers=HEADERS, timeout=10)
            assert accepted.status_code == 201
            check(document, "post", accepted)
            check(document, "post", requests.post(emulator.url + path, json={}, headers=HEADERS, timeout=10))
            emulator.clock.advance(60)
            params[path] = {"generation_id": accepted.json()["id"]}
        answer = requests.get(emulator.url + path, params=params.get(path), headers=HEADERS, timeout=30)
        assert answer.status_code == 200
        check(document, "get", answer)
        refused = requests.get(emulator.url + path, params={"limit": "x", "nonsense": "1"}, timeout=10)
        check(document, "get", refused)

"""Keys: whose rows the log lists, rotation, scopes and spending limits; and logs that mislead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread

PATH = "/v2/generate/video/kling/generation"
MODEL = "kling-video/v1.6/standard/text-to-video"
OLD, NEW, MANAGEMENT = "old-key-0123456789", "new-key-0123456789", "mgmt-key-0123456789"


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(frozen_clock=True, keys=(OLD, "another-account"))) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: EmulatorThread) -> EmulatorThread:
    shared.reset()
    return shared


def ask(emulator: EmulatorThread, path: str, key: str, **params: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.get(emulator.url + path, params=params, headers=headers, timeout=10)


def submit(
    emulator: EmulatorThread, key: str = OLD, sent_id: str = "mine", **request: Any
) -> requests.Response:
    headers = {"Authorization": f"Bearer {key}", "X-Client-Request-Id": sent_id}
    body = {"model": MODEL, "prompt": "a cat", **request}
    return requests.post(emulator.url + PATH, json=body, headers=headers, timeout=10)


def rows(emulator: EmulatorThread, key: str = OLD, **params: Any) -> list[dict[str, Any]]:
    emulator.clock.advance(60)
    answer = ask(emulator, "/v2/logs", key, **{"period": "24h", **params})
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def control(emulator: EmulatorThread, body: Any) -> requests.Response:
    return requests.post(f"{emulator.url}/_emulator/keys", data=json.dumps(body), timeout=10)


def test_a_rotated_key_is_refused_and_the_new_one_lists_none_of_its_rows(emulator):
    generation_id = submit(emulator).json()["id"]
    emulator.rotate_key(NEW)
    assert submit(emulator).status_code == 401
    assert ask(emulator, "/v2/billing", OLD).status_code == 401
    assert rows(emulator, NEW) == []
    # The generation is the account's: it can be polled, and is paid from the same balance.
    told = ask(emulator, PATH, NEW, generation_id=generation_id)
    assert told.json()["status"] == "completed"
    assert ask(emulator, "/v2/billing", NEW).json()["current_balance"] < 1000


def test_a_management_key_lists_the_rows_of_the_old_key_by_its_prefix(emulator):
    generation_id = submit(emulator).json()["id"]
    emulator.rotate_key(NEW)
    emulator.set_key(MANAGEMENT, account_of=NEW, management=True)
    listed = rows(emulator, MANAGEMENT, key_prefix=OLD[:8])
    assert [(row["inference_id"], row["client_request_id"]) for row in listed] == [(generation_id, "mine")]
    assert rows(emulator, MANAGEMENT) == []
    assert ask(emulator, "/v2/logs", MANAGEMENT, period="24h", key_prefix="nobody").status_code == 404
    assert ask(emulator, "/v2/logs", NEW, period="24h", key_prefix=OLD[:8]).status_code == 403
    other = ask(emulator, "/v2/logs", "another-account", period="24h", key_prefix=OLD[:8])
    assert other.status_code == 403


def test_keys_are_set_from_outside_and_never_told(emulator):
    answer = control(emulator, {"key": NEW, "rotate": OLD, "management": True})
    assert answer.status_code == 200
    assert answer.json()["prefix"] == NEW[:8]
    listed = requests.get(f"{emulator.url}/_emulator/keys", timeout=10)
    assert [(key["prefix"], key["revoked"]) for key in listed.json()] == [
        (OLD[:8], True),
        ("another-", False),
        (NEW[:8], False),
    ]
    assert OLD not in listed.text
    emulator.reset()
    assert submit(emulator).status_code == 201


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        7,
        {"key": 7},
        {"key": "unknown"},
        {"key": "with blank", "account_of": OLD},
        {"key": NEW, "rotate": "nobody"},
        {"key": OLD, "rotate": OLD},
        {"key": OLD, "limit_usd": "much"},
        {"key": OLD, "limit_usd": float("inf")},
        {"key": OLD, "scopes": 7},
        {"key": OLD, "colour": "red"},
        {"key": OLD, "revoked": "perhaps"},
    ],
)
def test_what_is_no_key_is_400(emulator, body: Any):
    answer = control(emulator, body)
    assert answer.status_code == 400, answer.text
    assert OLD not in answer.text


def test_a_key_without_the_scope_is_403_and_accepts_nothing(emulator):
    emulator.set_key(OLD, scopes=["model:text"])
    refused = submit(emulator)
    assert refused.status_code == 403
    assert "scope" in refused.json()["message"]
    assert ask(emulator, "/v1/key", OLD).json()["data"]["scopes"] == ["model:text"]
    assert emulator.stats["accepted"] == 0


def test_a_keys_spending_limit_is_403_while_the_account_has_money(emulator):
    emulator.set_key(OLD, limit_usd=0.5)
    assert submit(emulator).status_code == 201
    refused = submit(emulator)
    assert refused.status_code == 403
    assert "limit" in refused.json()["message"]
    limit = ask(emulator, "/v1/key", OLD).json()["data"]["limit"]
    assert limit == {"retention": "no_reset", "threshold": 0.5}
    assert emulator.stats["accepted"] == 1


def test_a_failed_generation_uses_up_none_of_the_limit(emulator):
    emulator.set_key(OLD, limit_usd=0.5)
    submit(emulator, prompt="[emulator: fail]")
    emulator.clock.advance(60)
    assert submit(emulator).status_code == 201


def test_a_row_can_carry_another_name_of_the_model():
    with EmulatorThread(EmulatorOptions(frozen_clock=True, keys=(OLD,), log_models="aliased")) as emulator:
        submit(emulator)
        assert rows(emulator, model=MODEL) == []
        (row,) = rows(emulator)
        assert row["model"] == "klingai/v1.6-standard-text-to-video"
        assert len(rows(emulator, model=row["model"])) == 1


def test_a_row_can_be_listed_twice_after_a_failed_one_or_never(emulator):
    twice = submit(emulator, sent_id="twice", prompt="[emulator: log=twice]").json()["id"]
    again = submit(emulator, sent_id="again", prompt="[emulator: log=failed-first]").json()["id"]
    submit(emulator, sent_id="never", prompt="[emulator: log=never]")
    listed = rows(emulator)
    assert [row["inference_id"] for row in listed if row["client_request_id"] == "twice"] == [twice, twice]
    newest, failed = (row for row in listed if row["client_request_id"] == "again")
    assert (newest["inference_id"], newest["status"]) == (again, "succeeded")
    assert (failed["inference_id"] != again, failed["status"]) == (True, "failed")
    assert failed["cost"] == {"usd": 0, "credits": 0}
    assert [row for row in listed if row["client_request_id"] == "never"] == []
    assert emulator.stats["accepted"] == 3


def test_what_was_accepted_and_charged_is_counted_by_client_request_id(emulator):
    submit(emulator, sent_id="once")
    submit(emulator, sent_id="twice")
    submit(emulator, sent_id="twice", prompt="[emulator: fail]")
    emulator.clock.advance(60)
    counts: dict[str, list[bool]] = {}
    for each in emulator.generations:
        counts.setdefault(each["client_request_id"], []).append(each["charged"])
    assert counts == {"once": [True], "twice": [True, False]}


def test_the_two_hundred_log_requests_a_minute_are_the_accounts(emulator):
    emulator.set_key(NEW, account_of=OLD)
    for number in range(200):
        ask(emulator, "/v2/logs", (OLD, NEW)[number % 2], period="1h")
    assert ask(emulator, "/v2/logs", NEW, period="1h").status_code == 429
    assert ask(emulator, "/v2/logs", "another-account", period="1h").status_code == 200

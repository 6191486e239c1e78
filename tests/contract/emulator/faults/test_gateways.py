"""What stands between a client and the vendor, limits in the vendor's words, outages, and faults by chance."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pytest
import requests

from airflow_provider_kling.emulator import EmulatorThread

PATH = "/v2/generate/video/kling/generation"
HEADERS = {"Authorization": "Bearer kling-emulator-key"}
MODEL = "kling-video/v1.6/standard/text-to-video"


def submit(emulator: EmulatorThread, **headers: str) -> requests.Response:
    body = {"model": MODEL, "prompt": "a cat"}
    return requests.post(emulator.url + PATH, json=body, headers={**HEADERS, **headers}, timeout=10)


def billing(emulator: EmulatorThread) -> requests.Response:
    return requests.get(emulator.url + "/v2/billing", headers=HEADERS, timeout=10)


@pytest.mark.parametrize("status", range(520, 527))
def test_cloudflare_answers_in_the_vendors_place(emulator, status: int):
    emulator.faults.add("submit", status, times=2)
    plain = submit(emulator)
    assert (plain.status_code, plain.text) == (status, f"error code: {status}")
    page = submit(emulator, Accept="text/html")
    assert page.headers["Content-Type"].startswith("text/html")
    assert (page.headers["Server"], str(status) in page.text) == ("cloudflare", True)
    for answer in (plain, page):
        assert "CF-RAY" in answer.headers
        assert "x-inference-id" not in answer.headers
    assert emulator.stats["accepted"] == 0


@pytest.mark.parametrize("status", [520, 522, 524])
def test_cloudflare_can_hide_an_acceptance(emulator, status: int):
    emulator.faults.add("submit", status, accepted=True)
    assert submit(emulator).status_code == status
    assert emulator.stats["accepted"] == 1


@pytest.mark.parametrize("status", [521, 523, 525, 526])
def test_nothing_is_accepted_where_cloudflare_never_got_through(emulator, status: int):
    with pytest.raises(ValueError, match="never reached"):
        emulator.faults.add("submit", status, accepted=True)


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateways_page_has_its_status(emulator, status: int):
    emulator.faults.add("submit", "html", status=status, retry_after=3)
    answer = submit(emulator)
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "3")
    assert f"<title>{status} " in answer.text


@pytest.mark.parametrize(
    ("status", "challenge"),
    [(401, "WWW-Authenticate"), (403, None), (404, None), (407, "Proxy-Authenticate"), (200, None)],
)
def test_a_firewall_answers_with_a_page_of_its_own(emulator, status: int, challenge: str | None):
    emulator.faults.add("submit", "firewall", status=status, message="Blocked <by> ACME")
    answer = submit(emulator)
    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "Blocked &lt;by&gt; ACME" in answer.text
    assert "x-inference-id" not in answer.headers
    assert {"WWW-Authenticate", "Proxy-Authenticate"} & set(answer.headers) == ({challenge} - {None})
    assert emulator.stats["accepted"] == 0


@pytest.mark.parametrize(
    ("message", "status", "says"),
    [
        ("free-tier", 429, "Free-tier limit: You've reached your free limit for the hour."),
        ("concurrency", 429, "concurrent"),
        ("balance", 403, "run out of credits"),
        ("scope", 403, "scope"),
        ("key-limit", 403, "spending limit"),
    ],
)
def test_limits_are_told_in_the_vendors_words(emulator, message: str, status: int, says: str):
    emulator.faults.add("submit", status, message=message)
    answer = submit(emulator)
    assert answer.status_code == status
    assert says in answer.json()["message"]


def test_an_outage_lasts_as_long_as_it_says(emulator):
    requests.post(f"{emulator.url}/_emulator/faults", json="any:503:lasts=90", timeout=10)
    seen = []
    for seconds in (0, 50, 39, 1.5):
        emulator.clock.advance(seconds)
        seen.append(billing(emulator).status_code)
    assert seen == [503, 503, 503, 200]


@pytest.mark.parametrize("kind", ["reset-before", "stall-before"])
def test_every_connection_can_be_closed_or_left_hanging_for_a_while(emulator, kind: str):
    emulator.faults.add("any", kind, lasts=60)
    for _ in range(2):
        with pytest.raises((requests.ConnectionError, requests.ReadTimeout)):
            requests.get(emulator.url + "/v2/billing", headers=HEADERS, timeout=0.5)
    emulator.clock.advance(60)
    assert billing(emulator).status_code == 200


def test_an_answer_can_be_late(emulator):
    emulator.faults.add("any", "delay", seconds=0.3)
    began = time.monotonic()
    assert billing(emulator).status_code == 200
    assert time.monotonic() - began >= 0.3


def struck(emulator: EmulatorThread, rule: str) -> list[str | None]:
    emulator.reset()
    requests.post(f"{emulator.url}/_emulator/faults", json=[rule], timeout=10)
    for _ in range(60):
        try:
            requests.get(emulator.url + "/v2/billing", headers=HEADERS, timeout=10)
        except requests.RequestException:
            continue
    return [entry.fault for entry in emulator.journal if entry.call == "billing"]


def test_faults_can_strike_by_chance_and_repeat_with_the_seed(emulator):
    rule = "any:random:times=always:probability=0.3:seed=4"
    first = struck(emulator, rule)
    assert first == struck(emulator, rule)
    assert first != struck(emulator, rule.replace("seed=4", "seed=5"))
    counts = Counter(first)
    assert 30 < counts[None] < 55
    assert len(counts) > 4


@pytest.mark.parametrize("call", ["submit", "poll", "logs", "cdn"])
def test_a_rate_can_be_set_for_one_kind_of_call(emulator, call: str):
    emulator.faults.add(call, "random", times=None, probability=1.0, seed=1)
    assert billing(emulator).status_code == 200
    assert emulator.faults.rules()[0].hits == 0


def rule(**options: Any) -> dict[str, Any]:
    return {"call": "poll", "kind": "503", **options}


@pytest.mark.parametrize(
    "body",
    [
        rule(times=float("inf")),
        rule(probability=float("nan")),
        rule(seconds=float("nan")),
        rule(seconds=-1),
        rule(lasts=1e300),
        rule(after="9" * 5000),
        rule(retry_after="9" * 50),
        rule(retry_after="\u0663"),
        rule(kind="redirect", url="/x\r\nSet-Cookie: a=b"),
        rule(kind="redirect", status=200),
        rule(kind="html", status=9999),
        rule(status=502),
        rule(kind="huge-body", size=-5),
        rule(shape="round"),
        rule(cls=1),
        rule(names=7),
    ],
)
def test_odd_rules_are_400(emulator, body: Any):
    answer = requests.post(f"{emulator.url}/_emulator/faults", data=json.dumps(body), timeout=10)
    assert answer.status_code == 400, answer.text
    assert emulator.faults.rules() == []

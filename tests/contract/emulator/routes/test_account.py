"""Balance, key, ledger and request log of the emulator, as the vendor documents them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread

PATH = "/v2/generate/video/kling/generation"
MODEL = "kling-video/v1.6/standard/text-to-video"
OTHER_MODEL = "klingai/v2.5-turbo/pro/text-to-video"


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    options = EmulatorOptions(
        frozen_clock=True, keys=("first-key", "second-key"), log_lag=1, log_in_flight_after=30
    )
    with EmulatorThread(options) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: EmulatorThread) -> EmulatorThread:
    shared.reset()
    return shared


def submit(emulator: EmulatorThread, client_request_id: str = "", **request: Any) -> str:
    headers = {"Authorization": f"Bearer {request.pop('key', 'first-key')}"}
    if client_request_id:
        headers["X-Client-Request-Id"] = client_request_id
    body = {"model": MODEL, "prompt": "a cat", **request}
    answer = requests.post(emulator.url + PATH, json=body, headers=headers, timeout=10)
    return answer.json().get("id", answer.headers["x-inference-id"])


def get(emulator: EmulatorThread, path: str, params: Any = None, key: str = "first-key") -> requests.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return requests.get(emulator.url + path, params=params, headers=headers, timeout=10)


def logs(emulator: EmulatorThread, params: Any = None, **more: Any) -> dict[str, Any]:
    answer = get(emulator, "/v2/logs", params or {"period": "24h", **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def iso(emulator: EmulatorThread, seconds: float, **form: Any) -> str:
    moment = dt.datetime.fromtimestamp(emulator.clock.now() + seconds, dt.UTC)
    return moment.isoformat()


def test_the_balance_in_both_forms(emulator):
    assert get(emulator, "/v2/billing").json() == {"current_balance": 1000.0, "currency": "USD"}
    old = get(emulator, "/v1/billing/balance").json()
    assert (old["balance"], old["lowBalance"]) == (2_000_000_000, False)


def test_the_key_tells_its_prefix_and_not_itself(emulator):
    answer = get(emulator, "/v1/key")
    assert answer.json()["data"]["prefix"] == "first-ke"
    assert answer.json()["data"]["limit"] is None
    assert "first-key" not in answer.text


def test_a_row_holds_what_is_documented(emulator):
    generation_id = submit(emulator, "order-1")
    emulator.clock.advance(8)
    (row,) = logs(emulator)["data"]
    request_id = row.pop("request_id")
    assert request_id
    assert dt.datetime.fromisoformat(row.pop("created")).tzinfo is not None
    assert row == {
        "status": "succeeded",
        "origin": "api",
        "model": MODEL,
        "cost": {"usd": 0.29, "credits": 580_000},
        "tokens": {"input": 0, "output": 0, "total": 0},
        "inference_id": generation_id,
        "client_request_id": "order-1",
    }


def test_rows_come_newest_first_and_failed_ones_cost_nothing(emulator):
    first = submit(emulator)
    failed = submit(emulator, prompt="x [emulator: fail]")
    refused = submit(emulator, "bad", duration=99)
    emulator.clock.advance(8)
    rows = logs(emulator)["data"]
    assert [row["inference_id"] for row in rows] == [refused, failed, first]
    assert [row["status"] for row in rows] == ["failed", "failed", "succeeded"]
    assert [row["cost"]["usd"] for row in rows] == [0, 0, 0.29]
    assert [row["client_request_id"] for row in rows] == ["bad", None, None]


def test_rows_lag_and_work_in_flight_is_listed_only_after_a_while(emulator):
    submit(emulator, prompt="x [emulator: slow=1000]")
    submit(emulator)
    listed = []
    for seconds in (0, 6.9, 0.2, 23, 1):
        emulator.clock.advance(seconds)
        listed.append(logs(emulator)["pagination"]["total"])
    assert listed == [0, 0, 1, 1, 2]
    in_flight = logs(emulator)["data"][1]
    assert (in_flight["status"], in_flight["cost"]) == ("succeeded", {"usd": 0, "credits": 0})


def test_work_in_flight_can_be_kept_out_of_the_log_for_ever():
    options = EmulatorOptions(frozen_clock=True, keys=("first-key",), log_in_flight_after=None)
    with EmulatorThread(options) as emulator:
        submit(emulator, prompt="x [emulator: stall]")
        emulator.clock.advance(10_000)
        assert logs(emulator)["data"] == []


def test_filters_by_model_and_status_repeat_and_do_not_split_on_commas(emulator):
    one = submit(emulator)
    two = submit(emulator, model=OTHER_MODEL)
    bad = submit(emulator, duration=99)
    emulator.clock.advance(8)

    def found(*params: tuple[str, str]) -> list[str]:
        rows = logs(emulator, [("period", "24h"), *params])["data"]
        return [row["inference_id"] for row in rows]

    assert found(("model", OTHER_MODEL)) == [two]
    assert found(("model", "v2.5-turbo/pro/text-to-video")) == [], "the whole name or nothing"
    assert found(("model", OTHER_MODEL), ("model", MODEL)) == [bad, two, one]
    assert found(("model", f"{OTHER_MODEL},{MODEL}")) == []
    assert found(("model", OTHER_MODEL.upper())) == []
    assert found(("status", "succeeded")) == [two, one]
    assert found(("status", "succeeded"), ("status", "failed")) == [bad, two, one]
    assert found(("client_request_id", "x")) == [bad, two, one], "there is no such filter"


def test_pages(emulator):
    ids = [submit(emulator) for _ in range(7)]
    emulator.clock.advance(8)
    pages = [logs(emulator, limit=3, offset=offset) for offset in (0, 3, 6)]
    assert [row["inference_id"] for page in pages for row in page["data"]] == ids[::-1]
    assert pages[0]["pagination"] == {"limit": 3, "offset": 0, "total": 7, "has_more": True}
    assert pages[2]["pagination"] == {"limit": 3, "offset": 6, "total": 7, "has_more": False}


def test_windows_by_start_and_end(emulator):
    early = submit(emulator)
    emulator.clock.advance(3600)
    late = submit(emulator)
    emulator.clock.advance(60)

    def found(start: float, end: float, **form: Any) -> list[str]:
        window = {"start": iso(emulator, start), "end": iso(emulator, end)}
        return [row["inference_id"] for row in logs(emulator, window)["data"]]

    assert found(-7200, 0) == [late, early]
    assert found(-7200, -1800) == [early]
    naive = {"start": iso(emulator, -7200)[:19], "end": iso(emulator, -1800)[:19]}
    assert [row["inference_id"] for row in logs(emulator, naive)["data"]] == [early]
    assert [row["inference_id"] for row in logs(emulator, {"period": "1h"})["data"]] == [late]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"start": "2026-01-01"},
        {"end": "2026-01-01"},
        {"period": "24h", "start": "2026-01-01", "end": "2026-01-02"},
        {"period": "24"},
        {"period": "0h"},
        {"period": "1w"},
        {"period": "93d"},
        {"start": "yesterday", "end": "2026-01-02"},
        {"start": "2026-01-02", "end": "2026-01-01"},
        {"start": "2026-01-01", "end": "2026-04-04"},
        {"period": "24h", "limit": "0"},
        {"period": "24h", "limit": "101"},
        {"period": "24h", "limit": "ten"},
        {"period": "24h", "offset": "-1"},
        {"period": "24h", "status": "running"},
        {"period": "24h", "status": "succeeded,failed"},
        {"period": "24h", "model": [str(number) for number in range(51)]},
    ],
)
def test_a_query_that_is_not_documented_is_400(emulator, params: dict[str, Any]):
    answer = get(emulator, "/v2/logs", params)
    assert answer.status_code == 400
    assert answer.json()["message"][0] == "Query validation error"


def test_a_window_of_92_days_is_allowed(emulator):
    assert logs(emulator, {"period": "92d"})["data"] == []


def test_the_201st_request_in_a_minute_is_429(emulator):
    session = requests.Session()
    session.headers["Authorization"] = "Bearer first-key"
    url = emulator.url + "/v2/logs?period=24h"
    assert {session.get(url, timeout=10).status_code for _ in range(200)} == {200}
    assert session.get(url, timeout=10).status_code == 429
    assert get(emulator, "/v2/logs?period=24h", key="second-key").status_code == 200
    emulator.clock.advance(60.1)
    assert session.get(url, timeout=10).status_code == 200
    session.close()


def test_an_account_sees_its_own_rows_and_charges_only(emulator):
    submit(emulator)
    mine = submit(emulator, key="second-key")
    emulator.clock.advance(8)
    rows = get(emulator, "/v2/logs?period=24h", key="second-key").json()["data"]
    assert [row["inference_id"] for row in rows] == [mine]
    entries = get(emulator, "/v2/billing/transactions?direction=CHARGE", key="second-key").json()
    assert [entry["reference_id"] for entry in entries["data"]] == [mine]
    other = get(emulator, "/v2/logs?period=24h&key_prefix=second-k")
    assert other.status_code == 403


def test_the_ledger_books_the_charge_after_completed(emulator):
    generation_id = submit(emulator)
    assert len(get(emulator, "/v2/billing/transactions").json()["data"]) == 1
    emulator.clock.advance(8)
    charge, initial = get(emulator, "/v2/billing/transactions").json()["data"]
    assert charge.pop("created_at") > initial["created_at"]
    assert charge == {
        "direction": "CHARGE",
        "type": "MODEL_USAGE",
        "amount": {"usd": 0.29, "credits": 580_000},
        "model": MODEL,
        "reference_id": generation_id,
    }
    assert (initial["direction"], initial["reference_id"]) == ("TOPUP", None)


def test_the_ledger_is_paged_by_a_cursor_and_filtered(emulator):
    ids = []
    for _ in range(5):
        ids.append(submit(emulator))
        emulator.clock.advance(10)
    found: list[str] = []
    params: dict[str, Any] = {"direction": "CHARGE", "limit": 2}
    while True:
        page = get(emulator, "/v2/billing/transactions", params).json()
        found += [entry["reference_id"] for entry in page["data"]]
        if not page["pagination"]["has_more"]:
            assert page["pagination"]["next_cursor"] is None
            break
        params["cursor"] = page["pagination"]["next_cursor"]
    assert found == ids[::-1]
    recent = {"from": iso(emulator, -15), "to": iso(emulator, 1)}
    assert len(get(emulator, "/v2/billing/transactions", recent).json()["data"]) == 2


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 101},
        {"direction": "OUT"},
        {"type": "charge"},
        {"cursor": "???"},
        {"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
    ],
)
def test_a_wrong_ledger_query_is_400(emulator, params: dict[str, Any]):
    assert get(emulator, "/v2/billing/transactions", params).status_code == 400

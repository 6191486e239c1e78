"""The table and the CSV of a cost report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.cost_report import CostRow, CostTable, KlingCostReport
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from airflow_provider_kling.hooks.kling import KlingHook

MODEL = "kling-video/v1.6/standard/text-to-video"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorThread]:
    options = EmulatorOptions(queued_seconds=0, generating_seconds=0, log_lag=0, log_in_flight_after=0)
    with EmulatorThread(options) as running:
        host = running.url.removeprefix("http://")
        monkeypatch.setenv("AIRFLOW_CONN_KLING_REPORT", f"kling://:{running.api_key}@{host}/http")
        yield running


def test_the_table_has_a_line_for_each_row_and_one_for_the_sum() -> None:
    rows = (CostRow("d", "a", "m", 2, 1, 580_000.0, 0.29), CostRow("d", "b", "model", 1, 0, 2.0, 10.0))
    lines = CostTable("Cost:", rows, missing=("gen-9",)).text().splitlines()
    assert lines == [
        "Cost:",
        "dag    task  model  generations  failed  credits    usd",
        "d      a     m                2       1   580000   0.29",
        "d      b     model            1       0        2  10.00",
        "total                         3       1   580002  10.29",
        "Not in the vendor's logs yet, and not summed: gen-9",
    ]


def test_the_passes_of_a_loop_are_told_apart() -> None:
    rows = (CostRow("d", "a", "m", 1, 0, 2.0, 0.29, 0), CostRow("d", "a", "m", 1, 0, 2.0, 0.29, 1))
    lines = CostTable("Cost:", rows).text().splitlines()
    assert lines[1:] == [
        "dag    task  model  generations  failed  credits   usd  loop_pass",
        "d      a     m                1       0        2  0.29          0",
        "d      a     m                1       0        2  0.29          1",
        "total                         2       0        4  0.58",
    ]


def test_csv_quotes_what_needs_it() -> None:
    table = CostTable("", (CostRow("d,1", "a", "m", 1, 0, 1.0, 0.5),))
    assert table.csv() == (
        'dag,task,model,generations,failed,credits,usd,loop_pass\n"d,1",a,m,1,0,1.0,0.5,\n'
    )


def test_a_day_is_summed_by_dag_task_and_model(emulator: EmulatorThread) -> None:
    names = [
        "airflow:d:a:pass0:0:x",
        "airflow:d:a:7.pass1:0:x",
        "airflow:d:a:8.pass1:0:x",
        "airflow:d:a:0:x",
        "airflow:d:a:3:1:y",
        "airflow:d:b:0:z",
        "somebody-else",
        None,
    ]
    with KlingClient(Settings(emulator.api_key, base_url=emulator.url)) as client:
        for name in names:
            done = client.submit(GenerationRequest(MODEL, {"prompt": "a cat"}), name)
            client.get_generation(done.id)

    report = KlingCostReport("kling_report")
    table = report.of_day()

    assert {(row.dag, row.task, row.loop_pass): (row.generations, row.usd) for row in table.rows} == {
        ("d", "a", None): (2, 0.58),
        ("d", "a", 0): (1, 0.29),
        ("d", "a", 1): (2, 0.58),
        ("d", "b", None): (1, 0.29),
        ("?", "?", None): (2, 0.58),
    }
    assert (table.usd, table.credits) == (2.32, 8 * 580_000)
    now = datetime.now(UTC)
    assert report.between(now - timedelta(days=9), now - timedelta(days=8)).rows == ()


# On the vendor's clock, which the tests push forward


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorThread]:
    options = EmulatorOptions(
        queued_seconds=0, generating_seconds=0, log_lag=60, log_in_flight_after=0, frozen_clock=True
    )
    with EmulatorThread(options) as running:
        settings, now = Settings(running.api_key, base_url=running.url), running.clock.now
        calls = VendorCalls(Endpoints(settings, now), now=now)
        with KlingClient(settings, calls=calls, sleep=running.clock.advance) as client:
            monkeypatch.setattr(KlingHook, "get_conn", lambda _: client)
            yield running


def submitted(name: str | None = None) -> str:
    client = KlingHook().get_conn()
    generation = client.submit(GenerationRequest(MODEL, {"prompt": "a cat"}), name)
    client.get_generation(generation.id)
    return generation.id


def moment(vendor: EmulatorThread) -> datetime:
    """Now at the vendor, whose logs round to the millisecond below."""
    return datetime.fromtimestamp(int(vendor.clock.now()), UTC)


def context(xcoms: Mapping[str, Any], **run: Any) -> Any:
    """What a task sees of a run, and of its tasks' XComs."""

    def pull(task_ids: list[str], key: str) -> Any:
        assert key == "generation_id"
        return xcoms.get(task_ids[0])

    ti = SimpleNamespace(dag_id="d", xcom_pull=pull)
    return {
        "ti": ti,
        "dag_run": SimpleNamespace(run_id="r", **run),
        "dag": SimpleNamespace(task_ids=[*xcoms]),
    }


def asked(vendor: EmulatorThread) -> list[timedelta]:
    """The windows of the log queries."""
    queries = [dict(entry.query) for entry in vendor.journal if entry.path == "/v2/logs"]
    return [datetime.fromisoformat(q["end"]) - datetime.fromisoformat(q["start"]) for q in queries]


def test_a_run_is_summed_by_task_whatever_its_tasks_left(vendor: EmulatorThread) -> None:
    began = moment(vendor)
    one, variants, mapped = submitted(), [submitted(), submitted()], [submitted(), [submitted()], None]
    submitted("somebody-else")
    vendor.clock.advance(100)
    xcoms = {"one": one, "variants": [variants], "mapped": mapped, "no_generation": None, "odd": 7}

    table = KlingCostReport().of_run(context(xcoms, start_date=began, clear_number=0))

    assert {row.task: row.generations for row in table.rows} == {"one": 1, "variants": 2, "mapped": 2}
    assert {row.dag for row in table.rows} == {"d"}
    assert table.usd == 1.45
    assert table.missing == ()


def test_what_the_logs_do_not_list_yet_is_named(vendor: EmulatorThread) -> None:
    began = moment(vendor)
    early = submitted()
    vendor.clock.advance(100)
    late = submitted()

    table = KlingCostReport().of_run(context({"t": [early, late]}, start_date=began, clear_number=0))

    assert table.missing == (late,)
    assert table.usd == 0.29
    assert late in table.text()


def test_more_generations_than_a_page_of_the_logs_has(vendor: EmulatorThread) -> None:
    began = moment(vendor)
    ids = [submitted("airflow:d:t:0:x") for _ in range(130)]
    vendor.clock.advance(100)

    table = KlingCostReport().of_run(context({"t": ids}, start_date=began, clear_number=0))
    assert (table.rows[0].generations, table.usd, table.missing) == (130, 37.7, ())
    assert KlingCostReport().between(began, moment(vendor)).rows[0].generations == 130


def test_a_run_without_generations_asks_nobody(vendor: EmulatorThread) -> None:
    table = KlingCostReport().of_run(context({"t": None}, start_date=moment(vendor), clear_number=0))
    assert (table.rows, asked(vendor)) == ((), [])


@pytest.mark.parametrize("told", ["run_after", "logical_date"])
def test_a_run_that_was_cleared_later_is_searched_from_its_first_beginning(
    vendor: EmulatorThread, told: str
) -> None:
    """A clear sets the other moments anew; an asset-triggered run has no logical date, 2.11 no run_after."""
    began = moment(vendor)
    generation_id = submitted()
    vendor.clock.advance(5 * 86400)
    moments = {"queued_at": moment(vendor), "start_date": moment(vendor), "logical_date": None, told: began}

    table = KlingCostReport().of_run(context({"t": generation_id}, **moments, clear_number=1))

    assert (table.usd, table.missing) == (0.29, ())


@pytest.mark.parametrize(("clear_number", "days"), [(0, 1), (1, 90), (None, 90)])
def test_a_backfill_is_not_searched_from_its_logical_date(
    vendor: EmulatorThread, clear_number: int | None, days: int
) -> None:
    began = moment(vendor)
    old = began - timedelta(days=400)
    moments = {"start_date": began, "logical_date": old, "run_after": old, "clear_number": clear_number}

    table = KlingCostReport().of_run(context({"t": submitted()}, **moments))

    assert len(table.missing) == 1
    (window,) = asked(vendor)
    assert window <= timedelta(days=days, hours=1)


def test_a_long_time_is_read_in_the_windows_that_the_vendor_takes(vendor: EmulatorThread) -> None:
    began = moment(vendor)
    for _ in range(4):
        submitted("airflow:d:t:0:x")
        vendor.clock.advance(60 * 86400)

    table = KlingCostReport().between(began, moment(vendor) + timedelta(days=30))

    assert [(row.task, row.generations, row.usd) for row in table.rows] == [("t", 4, 1.16)]
    assert len(asked(vendor)) == 3
    assert max(asked(vendor)) <= timedelta(days=92)


def test_a_time_without_a_zone_is_utc(vendor: EmulatorThread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        began = moment(vendor).replace(tzinfo=None)
        submitted("airflow:d:t:0:x")
        vendor.clock.advance(100)
        table = KlingCostReport().between(began, began + timedelta(minutes=1))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert table.usd == 0.29
    assert "+00:00" in table.title


def test_a_time_that_ends_before_it_begins_is_refused(vendor: EmulatorThread) -> None:
    with pytest.raises(ValueError, match="before it begins"):
        KlingCostReport().between(moment(vendor), moment(vendor) - timedelta(days=1))

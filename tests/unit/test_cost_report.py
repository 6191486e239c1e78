"""The table and the CSV of a cost report."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.cost_report import CostRow, CostTable, KlingCostReport
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread

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


def test_csv_quotes_what_needs_it() -> None:
    table = CostTable("", (CostRow("d,1", "a", "m", 1, 0, 1.0, 0.5),))
    assert table.csv() == 'dag,task,model,generations,failed,credits,usd\n"d,1",a,m,1,0,1.0,0.5\n'


def test_a_day_is_summed_by_dag_task_and_model(emulator: EmulatorThread) -> None:
    names = ["airflow:d:a:0:x", "airflow:d:a:3:1:y", "airflow:d:b:0:z", "somebody-else", None]
    with KlingClient(Settings(emulator.api_key, base_url=emulator.url)) as client:
        for name in names:
            done = client.submit(GenerationRequest(MODEL, {"prompt": "a cat"}), name)
            client.get_generation(done.id)

    report = KlingCostReport("kling_report")
    table = report.of_day()

    assert {(row.dag, row.task): (row.generations, row.usd) for row in table.rows} == {
        ("d", "a"): (2, 0.58),
        ("d", "b"): (1, 0.29),
        ("?", "?"): (2, 0.58),
    }
    assert (table.usd, table.credits) == (1.45, 5 * 580_000)
    now = datetime.now(UTC)
    assert report.between(now - timedelta(days=9), now - timedelta(days=8)).rows == ()

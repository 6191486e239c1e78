"""The example DAGs about buckets, budgets and choices, run against the emulator."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import ROOT, VERSION, RealAirflow, Run

DAGS = ROOT / "dags"


@pytest.fixture(autouse=True)
def _empty_output(started_airflow: RealAirflow) -> None:
    shutil.rmtree(started_airflow.output, ignore_errors=True)


def saved(airflow: RealAirflow, suffix: str) -> list[Path]:
    return sorted(path for path in airflow.output.rglob("*") if path.suffix == suffix)


def test_bucket_to_bucket_over_a_directory(patient_airflow: RealAirflow, slow_vendor: EmulatorThread) -> None:
    run = patient_airflow.test(DAGS / "kling_bucket_to_bucket.py")

    assert run.state == "success", run.log[-3000:]
    ids = [run[f"generate[{index}]"].xcom["return_value"] for index in range(3)]
    assert [path.stem for path in saved(patient_airflow, ".mp4")] == sorted(ids)
    sources = [
        json.loads(path.read_text())["request"]["image_url"]["source"]
        for path in saved(patient_airflow, ".json")
    ]
    assert sorted(Path(each).name for each in sources) == ["lamp.jpg", "mona_lisa.jpg", "mug.jpg"]


def test_a_night_within_its_budget(patient_airflow: RealAirflow, slow_vendor: EmulatorThread) -> None:
    run = patient_airflow.test(DAGS / "kling_nightly_budget.py")

    assert run.state == "success", run.log[-3000:]
    assert run["report"].xcom["return_value"] == {"usd": 0.58, "credits": 1_160_000}
    (report,) = saved(patient_airflow, ".csv")
    (line,) = csv.DictReader(report.read_text().splitlines())
    assert (line["dag"], line["task"], line["generations"], line["usd"]) == (
        "kling_nightly_budget",
        "generate",
        "2",
        "0.58",
    )
    if VERSION >= (3, 0):  # before, dag.test() prints no lines of other loggers than Airflow's own
        assert "total" in run.log


def test_a_night_above_its_budget_costs_nothing_and_is_reported(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    dag_file = airflow.dags / "kling_nightly_budget.py"
    shutil.rmtree(airflow.dags)
    shutil.copytree(DAGS / "pictures", airflow.dags / "pictures")
    dag_file.write_text(
        (DAGS / dag_file.name)
        .read_text()
        .replace("Param(0.5,", "Param(0.1,")
        .replace("retries=2", "retries=0")
    )
    run = Run(airflow, dag_file, dag_file.stem).begin(None, {}).go_on()

    assert [run[f"generate[{index}]"].state for index in (0, 1)] == ["failed", "failed"]
    assert run["report"].xcom["return_value"] == {"usd": 0, "credits": 0}
    assert vendor.generations == []


@pytest.mark.skipif(VERSION < (3, 1), reason="human-in-the-loop operators are new in Airflow 3.1")
def test_four_variants_wait_for_an_editor(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    shutil.rmtree(airflow.dags)
    shutil.copytree(DAGS / "pictures", airflow.dags / "pictures")
    dag_file = Path(shutil.copy(DAGS / "kling_human_choice.py", airflow.dags))
    run = Run(airflow, dag_file, dag_file.stem).begin(None, {}).go_on()

    assert run["generate"].state == "success", run.log[-3000:]
    assert len(set(run["generate"].xcom["return_value"])) == len(vendor.generations) == 4
    paths = run["generate"].xcom["path"]
    assert saved(airflow, ".mp4") == sorted(map(Path, paths)), "the editor has something to look at"
    assert run["choose"].state in ("awaiting_input", "deferred")
    assert run["publish"].state is None


def test_the_consumer_takes_events_that_lack_a_fact() -> None:
    """A vendor that tells no duration; a KlingDownloadOperator, which asks for no cost; another's event."""
    events = [{"path": "a.mp4", "cost": {"usd": 0.29}}, {"path": "b.mp4", "duration": 5.0}, {}]
    tell = runpy.run_path(str(DAGS / "kling_asset_consumer.py"))["dag"].task_dict["tell"].python_callable
    triggering = {"x-kling://videos": [SimpleNamespace(extra=each) for each in events]}
    assert tell(triggering_asset_events=triggering) == events

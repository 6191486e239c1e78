"""Texts on PostgreSQL, which stores neither a NUL nor half a character: no attempt hangs, no video is lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.conftest import connected
from tests.airflow.real_airflow import PICTURES, RealAirflow

pytest.importorskip("psycopg2", reason="needs psycopg2, which requirements/airflow-3.3.txt has")

from tests.system.servers.postgres import database  # it needs psycopg2

TEXT = 'model="kling-video/v1.6/standard/text-to-video", duration=5'


@pytest.fixture(scope="module")
def own_airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAirflow]:
    with database() as url:
        home = tmp_path_factory.mktemp("postgresql") / "home"
        settings = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url.replace("postgresql://", "postgresql+psycopg2://"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": "",
        }
        with RealAirflow(home, **settings) as airflow:
            yield airflow


@pytest.fixture
def airflow(own_airflow: RealAirflow, vendor: EmulatorThread) -> RealAirflow:
    return connected(own_airflow, vendor)


def test_what_cannot_be_stored_is_refused_before_it_is_paid(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    arguments = {
        "prompt": "prompt=\"A {{ 'a\\\\0b' }}.\"",
        "negative": "prompt='A boat.', negative_prompt=\"{{ '\\\\ud83d' }}\"",
        "deep": "prompt='A boat.', parameters={'style': {'name': \"{{ 'x\\\\0' }}\"}}",
        "path": f"prompt='A boat.', path=\"{tmp_path}/{{{{ 'a\\\\0b' }}}}/\"",
        "half": f"prompt='A boat.', path=\"{tmp_path}/{{{{ '\\\\ud83d' }}}}.mp4\"",
    }
    models = {"deep": 'model="klingai/video-v9-text-to-video"'}
    tasks = "\n".join(
        f"KlingGenerateOperator(task_id={name!r}, {models.get(name, TEXT)}, {each}, retries=1, "
        "retry_delay=timedelta(seconds=0))"
        for name, each in arguments.items()
    )
    run = airflow.run(tasks)

    # Airflow itself cannot store some of these as rendered fields, and then fails the attempt before it begins
    assert {task.state for task in run.tasks.values()} <= {"failed", "up_for_retry"}, run.log[-5000:]
    assert {run[name].state for name in ("prompt", "negative", "deep")} == {"failed"}, run.log[-5000:]
    assert [entry.path for entry in vendor.journal if entry.method == "POST"] == []
    assert list(tmp_path.iterdir()) == []


def test_any_other_text_arrives_as_it_is(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    text = "\u202eA boat \u200d\U0001f3ac\ufeff, ' \\u0000 % ; --"
    run = airflow.run(f"""
    KlingGenerateOperator(
        task_id="generate", {TEXT}, prompt={text!r}, path="{tmp_path}/\U0001f3ac '; --/", sidecar=True
    )
    """)

    assert run.state == "success", run.log[-5000:]
    (beside,) = tmp_path.rglob("*.json")
    assert json.loads(beside.read_text())["request"]["prompt"] == text
    assert run["generate"].xcom["request"]["parameters"]["prompt"] == text
    (generation,) = vendor.generations
    assert generation["parameters"]["prompt"] == text


def test_a_picture_whose_name_is_no_text_is_refused_before_it_is_paid(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    """As an old share leaves names; Airflow could not store it as a rendered field either."""
    odd = os.fsencode(tmp_path) + b"/mug-\xff.jpg"
    with open(odd, "wb") as file:
        file.write((PICTURES / "mug.jpg").read_bytes())

    said = airflow.import_error(
        f"""
    KlingGenerateOperator(task_id="generate", prompt="Steam.", duration=5, image={os.fsdecode(odd)!r})
    """
    )
    assert "half of a character" in said
    assert vendor.journal == []


def test_a_message_of_the_vendor_that_cannot_be_stored_is_told_without_that(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    vendor.faults.add("submit", 400, message="bad \0 prompt \ud83d")
    run = airflow.run(f'KlingGenerateOperator(task_id="generate", {TEXT}, prompt="A boat.")')

    assert run["generate"].state == "failed", run.log[-3000:]
    assert "bad" in json.dumps(run["generate"].xcom["failure"])
    assert vendor.stats["accepted"] == 0

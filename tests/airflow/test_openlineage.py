"""What Airflow's OpenLineage provider tells of a run: its own listener, transport and events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.conftest import connected
from tests.airflow.real_airflow import ROOT, RealAirflow

pytest.importorskip(
    "airflow.providers.openlineage",
    reason="needs Airflow's OpenLineage provider, which requirements/airflow-3.3.txt has",
)

PICTURE = ROOT / "dags" / "pictures" / "mug.jpg"


@pytest.fixture
def events(tmp_path: Path) -> Path:
    return tmp_path / "events.json"


@pytest.fixture
def telling_airflow(tmp_path: Path, vendor: EmulatorThread, events: Path) -> Iterator[RealAirflow]:
    """An Airflow of its own, as it has listeners from its start on; they write their events to a file."""
    transport = {"type": "file", "log_file_path": str(events), "append": True}
    settings = {"AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)}
    with RealAirflow(tmp_path / "home", **settings) as airflow:
        yield connected(airflow, vendor)


def datasets(events: list[dict[str, Any]], task_id: str) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs of the one event that says that a task is completed."""
    (complete,) = (
        each
        for each in events
        if each["eventType"] == "COMPLETE" and each["job"]["name"].endswith(f".{task_id}")
    )
    inputs, outputs = (
        [(each["namespace"], each["name"]) for each in complete[side]] for side in ("inputs", "outputs")
    )
    return inputs, outputs


def test_a_task_that_is_completed_has_its_picture_and_its_video(
    telling_airflow: RealAirflow, vendor: EmulatorThread, events: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "mug #1 100%25 é.jpg"
    picture.write_bytes(PICTURE.read_bytes())
    run = telling_airflow.test(
        f"""
        generate = KlingGenerateOperator(
            task_id="generate", image={str(picture)!r}, prompt="Steam rises.", duration=5,
            path="{tmp_path}/videos/{{{{ ds }}}} #/clip.mp4",
        )
        deferred = KlingGenerateOperator(
            task_id="deferred", image={picture.as_uri()!r}, prompt="Steam rises.", duration=5,
            path="{tmp_path}/videos/deferred.mp4", deferrable=True, poke_interval=5,
        )
        download = KlingDownloadOperator(
            task_id="download", generation_id=generate.output, path="{tmp_path}/videos/again.mp4"
        )
        deferred >> generate
        """
    )

    assert run.state == "success", run.log[-3000:]
    told = [json.loads(line) for line in events.read_text().splitlines()]

    (video,) = (tmp_path / "videos").glob("* #/clip.mp4")
    assert datasets(told, "generate") == ([("file", str(picture))], [("file", str(video))])
    assert datasets(told, "deferred") == (
        [("file", str(picture))],
        [("file", f"{tmp_path}/videos/deferred.mp4")],
    )
    assert datasets(told, "download") == (
        [("file", str(picture))],  # of the task upstream that made the generation
        [("file", f"{tmp_path}/videos/again.mp4")],
    )
    text = json.dumps(told)
    assert "base64" not in text
    assert vendor.api_key not in text

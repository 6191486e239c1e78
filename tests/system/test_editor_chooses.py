"""Two examples in a whole Airflow: an editor answers and one video is published; an asset's events start a DAG."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.version import Version

from airflow_provider_kling.api.download.verify import probe
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.system.cluster import ROOT, AirflowCluster
from tests.system.dag_run import DagRun, eventually
from tests.system.servers.postgres import database

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        Version(version("apache-airflow")) < Version("3.1"),
        reason="human-in-the-loop operators are new in Airflow 3.1",
    ),
]

PATIENCE: Final = 180.0
"""Seconds; much more than needed, for a machine that has other things to do."""
PARKED: Final = ("awaiting_input", "deferred")
"""Where a task stands that waits for a person; the latter before Airflow 3.3."""
EDITOR_S_CHOICE: Final = "turning"
EXAMPLES: Final = ("kling_human_choice", "kling_bucket_to_bucket", "kling_asset_consumer")


@dataclass(frozen=True)
class Stage:
    """The cluster, its vendor, and the runs that a person began."""

    cluster: AirflowCluster
    vendor: EmulatorThread
    output: Path
    choice: DagRun
    buckets: DagRun


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home, output = tmp_path_factory.mktemp("airflow"), tmp_path_factory.mktemp("output")
    with ExitStack() as stack:
        options = EmulatorOptions(queued_seconds=0.5, generating_seconds=1, log_lag=0)
        vendor = stack.enter_context(EmulatorThread(options))
        connection = {"conn_type": "kling", "host": vendor.url, "password": vendor.api_key}
        environment = {
            "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
            "KLING_OUTPUT": str(output),
        }
        cluster = AirflowCluster(home, stack.enter_context(database()), environment)
        shutil.copytree(ROOT / "dags" / "pictures", cluster.dags / "pictures")
        for name in EXAMPLES:
            shutil.copy(ROOT / "dags" / f"{name}.py", cluster.dags)
        stack.enter_context(cluster)
        cluster.await_dags(*EXAMPLES)
        choice, buckets = cluster.run("kling_human_choice"), cluster.run("kling_bucket_to_bucket")
        yield Stage(cluster, vendor, output, choice, buckets)


def test_what_the_editor_chooses_is_published_and_nothing_else(stage: Stage) -> None:
    run = stage.choice
    eventually(lambda: run.states().get("choose") in PARKED, PATIENCE, "the question to the editor")
    eventually(lambda: _is_noticed(stage.cluster, run, "choose"), PATIENCE, "the scheduler's notice of it")
    request = f"dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/choose/-1/hitlDetails"
    asked = stage.cluster.call("GET", request)
    ids = run.xcom("generate")
    assert len(set(ids)) == len(asked["options"]) == 4
    paths = run.xcom("generate", "path")
    assert not any(path in json.dumps(asked) for path in paths)  # the editor reads no path
    assert [probe(Path(each), generation_id="?").duration for each in paths] == pytest.approx(
        [5] * 4, abs=0.5
    )
    assert "ksSecret" not in json.dumps(asked)
    assert run.states()["publish"] is None
    assert not (stage.output / "published").exists()

    stage.cluster.call("PATCH", request, {"chosen_options": [EDITOR_S_CHOICE]})

    assert run.await_end(PATIENCE) == "success", run.states()
    chosen = ids[asked["options"].index(EDITOR_S_CHOICE)]
    (generation,) = (each for each in stage.vendor.generations if each["id"] == chosen)
    assert generation["parameters"]["prompt"] == "The mug turns slowly on the table."
    published = stage.output / "published"
    assert sorted(path.name for path in published.iterdir()) == [f"{chosen}.json", f"{chosen}.mp4"]
    assert run.xcom("publish") == str(published / f"{chosen}.mp4")
    assert round(probe(published / f"{chosen}.mp4", generation_id=chosen).duration) == 5
    assert json.loads((published / f"{chosen}.json").read_text())["generation_id"] == chosen


def test_saved_videos_start_the_dag_that_is_scheduled_on_their_asset(stage: Stage) -> None:
    assert stage.buckets.await_end(PATIENCE) == "success", stage.buckets.states()
    saved = {stage.buckets.xcom("generate", "path", index) for index in range(3)}
    assert sorted(map(Path, saved)) == sorted((stage.output / "videos").glob("*.mp4"))

    eventually(lambda: len(_told(stage.cluster)) >= 3, PATIENCE, "the runs of kling_asset_consumer")

    told = _told(stage.cluster)
    assert len(told) == 3

    assert {each["path"] for each in told} == saved
    for each in told:
        assert each["path"].endswith(f"/{each['generation_id']}.mp4")
        assert each["model"] == "kling-video/v1.6/standard/image-to-video"
        assert each["duration"] == 5
        assert each["cost"]["usd"] > 0
    assert "ksSecret" not in json.dumps(told)


def test_nothing_was_paid_twice(stage: Stage) -> None:
    assert [each["charged"] for each in stage.vendor.generations] == [True] * 7
    assert sum(entry.accepted for entry in stage.vendor.journal) == 7


def _is_noticed(cluster: AirflowCluster, run: DagRun, task_id: str) -> bool:
    """Whether the scheduler knows that the worker has put a task aside.

    It fails a task whose answer comes before that, faster than any person is: it takes the task, queued
    again by then, for one that its worker lost.
    """
    key = f"TaskInstanceKey(dag_id='{run.dag_id}', task_id='{task_id}'"
    lines = (cluster.home / "scheduler.log").read_text().splitlines()
    return any("Received executor event" in line and key in line for line in lines)


def _told(cluster: AirflowCluster) -> list[dict[str, Any]]:
    """What all runs of the consumer returned: one or several, as the scheduler sees the events."""
    query = (
        "SELECT run_id FROM dag_run WHERE dag_id = 'kling_asset_consumer' AND run_type = 'asset_triggered'"
    )
    runs = [DagRun(cluster, "kling_asset_consumer", row["run_id"]) for row in cluster.rows(query)]
    return [facts for run in runs for facts in run.xcom("tell") or []]

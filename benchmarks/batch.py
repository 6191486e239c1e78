"""A clip as a part of a batch, as a mapped task that does it all, and as a mapped pipeline of three tasks.

Run with ``make benchmark ARGS="batch"``. A real Airflow on a PostgreSQL server of its own runs the three
forms one after the other, each segment of a task in a fresh interpreter, one at a time; the kernel says
what the processes used. The vendor is the emulator with generations of four seconds. All figures are for
one clip, so that the forms may have different numbers of clips.

``make benchmark ARGS="batch --simulated 10000"`` plays a batch in simulated time instead, with 200 requests
a minute and the durations that the vendor publishes.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from benchmarks.segments import NOTES
from tests.airflow.batches.life import quick_videos
from tests.airflow.batches.simulation import Simulation
from tests.system.cluster import COMPONENTS, AirflowCluster
from tests.system.servers.services import postgres_server

FORMS = {
    "batch": "one batch",
    "whole": "one mapped task for each",
    "three": "three mapped tasks for each",
}
TABLES = (
    "task_instance",
    "task_instance_history",
    "xcom",
    "trigger",
    "task_map",
    "rendered_task_instance_fields",
)
PROCESSES = ("scheduler", "triggerer")


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and all its children so far, those that ended included."""
    process = psutil.Process(pid)
    every = [process, *process.children(recursive=True)]
    total = 0.0
    for each in every:
        times = each.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def run_form(
    cluster: AirflowCluster, vendor: EmulatorThread, form: str, clips: int, notes: Path
) -> Mapping[str, float]:
    """Run one form; its figures for one clip."""
    notes.unlink(missing_ok=True)
    before = {name: cpu_of(cluster.pid(name)) for name in PROCESSES}
    calls, begun, own = vendor.stats["calls"], time.monotonic(), rows_of(cluster)
    ended = cluster.run(form)
    if ended.await_end(3600) != "success":
        raise SystemExit(f"A run of {form} failed: {ended.states()}")
    seconds = time.monotonic() - begun
    segments = [json.loads(line) for line in notes.read_text().splitlines()]
    worker = sum(each["cpu"] for each in segments)
    # SegmentExecutor's processes are the scheduler's children: what they used is not the scheduler's own.
    scheduler = cpu_of(cluster.pid("scheduler")) - before["scheduler"] - worker
    sent = vendor.stats["calls"]
    return {
        "clips": clips,
        "segments": len(segments),
        "worker": worker / clips,
        "triggerer": (cpu_of(cluster.pid("triggerer")) - before["triggerer"]) / clips,
        "scheduler": max(0.0, scheduler) / clips,
        "seconds": seconds / clips,
        "rows": (rows_of(cluster) - own) / clips,
        "mb": max(each["mb"] for each in segments),
        "requests": sum(count - calls.get(call, 0) for call, count in sent.items()) / clips,
    }


def rows_of(cluster: AirflowCluster) -> int:
    """Rows in the tables of Airflow that tasks fill."""
    return sum(int(cluster.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"]) for table in TABLES)


@contextmanager
def airflow(rows: int, mapped: int, folder: Path) -> Any:
    patch = pytest.MonkeyPatch()
    quick_videos(patch)  # or the emulator's drawing takes the machine
    output, home = folder / "output", folder / "airflow"
    output.mkdir()
    home.mkdir()
    with (output / "rows.jsonl").open("w") as file:
        for number in range(rows):
            file.write(json.dumps({"key": f"{number}", "prompt": f"Product {number} turns."}) + "\n")
    options = EmulatorOptions(queued_seconds=0, generating_seconds=4, balance=1e6)
    with postgres_server() as postgres, EmulatorThread(options) as vendor:
        connection = {"conn_type": "kling", "host": vendor.url, "password": vendor.api_key}
        environment = {
            "KLING_OUTPUT": str(output),
            "KLING_ROWS": str(rows),
            "KLING_MAPPED": str(mapped),
            NOTES: str(folder / "segments"),
            "AIRFLOW__CORE__EXECUTOR": "benchmarks.segments.SegmentExecutor",
            "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
        }
        cluster = AirflowCluster(home, postgres.url, environment, COMPONENTS)
        shutil.copy(Path(__file__).parent / "dags" / "batch.py", cluster.dags)
        with cluster:
            cluster.await_dags(*FORMS)
            yield cluster, vendor
    patch.undo()


def measure(rows: int, mapped: int) -> dict[str, Mapping[str, float]]:
    with tempfile.TemporaryDirectory(prefix="kling-batch-") as name:
        folder = Path(name)
        with airflow(rows, mapped, folder) as (cluster, vendor):
            clips = {"batch": rows, "whole": mapped, "three": mapped}
            return {form: run_form(cluster, vendor, form, clips[form], folder / "segments") for form in FORMS}


def simulate(count: int) -> None:
    """Play a batch in simulated time."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="kling-batch-") as name:
        folder = Path(name)
        (folder / "out").mkdir()
        with (folder / "rows.jsonl").open("w") as file:
            for number in range(count):
                file.write(json.dumps({"key": f"{number}", "prompt": f"Product {number} turns."}) + "\n")
        arguments = {
            "requests": str(folder / "rows.jsonl"),
            "path": f"{folder}/out/",
            "model": "kling-video/v1.6/standard/text-to-video",
            "duration": 5,
            "max_active": 250,
        }
        begun = time.process_time()
        simulation = Simulation(arguments, folder)
        ended = simulation.run()
        cpu = time.process_time() - begun
    minutes = ended["seconds"] / 60
    sent = simulation.vendor.requests
    print(
        f"{ended['saved']} of {count} clips in {minutes:.0f} simulated minutes, {simulation.parts} segments; "
        f"{sent / count:.2f} requests a clip, {sent / minutes:.0f} a minute of 200 allowed "
        f"({sent / minutes / 2:.0f} %); {1000 * cpu / count:.1f} ms of CPU a clip, with the simulation; "
        f"largest: {dict(simulation.largest)} bytes."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=500, help="clips of the batch")
    parser.add_argument("--mapped", type=int, default=10, help="clips of each mapped form")
    parser.add_argument("--simulated", type=int, help="play a batch of so many rows in simulated time")
    chosen = parser.parse_args()
    if chosen.simulated:
        simulate(chosen.simulated)
        return
    figures = measure(chosen.rows, chosen.mapped)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; for one clip.\n\n"
        "| | clips | segments | CPU s of workers | of the triggerer | of the scheduler | seconds | rows in "
        "the database | requests | MB at most |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for form, what in FORMS.items():
        each = figures[form]
        print(
            f"| {what} | {each['clips']:.0f} | {each['segments']:.0f} | {each['worker']:.3f} | "
            f"{each['triggerer']:.3f} | {each['scheduler']:.3f} | {each['seconds']:.2f} | {each['rows']:.2f} "
            f"| {each['requests']:.1f} | {each['mb']:.0f} |"
        )
    for form in ("whole", "three"):
        ratio = figures[form]["worker"] / figures["batch"]["worker"]
        print(f"The batch takes {ratio:.0f} times less of workers than {FORMS[form]}.")

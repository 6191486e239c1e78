"""What this provider adds to a worker: CPU and peak memory of each segment, beside a task that does nothing.

Run with ``make benchmark ARGS="worker"``. A real Airflow on a PostgreSQL server of its own runs a DAG
again and again, each segment of a task in a fresh interpreter; the kernel says what its processes used.
The vendor is the emulator, and a video has 10 MB. Takes three minutes, and the whole machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from benchmarks.segments import NOTES
from tests.system.cluster import COMPONENTS, ROOT, AirflowCluster
from tests.system.dag_run import DagRun, eventually
from tests.system.servers.services import postgres_server

VIDEO_BYTES = 10_000_000
NOTHING = "nothing"
SEGMENTS = {
    ("submit", 0): "submit with a picture",
    ("sensor", 0): "sensor: look, then defer",
    ("sensor", 1): "sensor: resume",
    ("download", 0): "download 10 MB",
    ("whole", 0): "all in one: submit with a picture, then defer",
    ("whole", 1): "all in one: resume and save 10 MB",
}
"""Task and its how manieth segment -> what that does."""


def measure(runs: int) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """CPU seconds and peak MB of each segment, in each run but the first, which compiles what it imports."""
    measured: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="kling-worker-") as folder, postgres_server() as postgres:
        home, output, notes = Path(folder, "airflow"), Path(folder, "output"), Path(folder, "segments")
        home.mkdir()
        options = EmulatorOptions(queued_seconds=0, generating_seconds=20, video_bytes=VIDEO_BYTES)
        with EmulatorThread(options) as vendor:
            environment = {
                "KLING_OUTPUT": str(output),
                NOTES: str(notes),
                "AIRFLOW__CORE__EXECUTOR": "benchmarks.segments.SegmentExecutor",
                "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(
                    {"conn_type": "kling", "host": vendor.url, "password": vendor.api_key}
                ),
            }
            cluster = AirflowCluster(home, postgres.url, environment, COMPONENTS)
            shutil.copytree(ROOT / "dags" / "pictures", cluster.dags / "pictures")
            shutil.copy(Path(__file__).parent / "dags" / "worker.py", cluster.dags)
            with cluster:
                cluster.await_dags("worker")
                for run in range(runs + 1):
                    ended = cluster.run("worker")
                    if ended.await_end(600) != "success":
                        raise SystemExit(f"A run failed: {ended.states()}")
                    figures = eventually(partial(noted, notes, ended), 60, "the notes of all segments")
                    if run:
                        for segment, figure in figures.items():
                            measured[segment].append(figure)
    return measured


def noted(notes: Path, run: DagRun) -> dict[tuple[str, int], tuple[float, float]] | None:
    """CPU seconds and peak MB of each segment of a run; None while some are missing."""
    figures: dict[tuple[str, int], tuple[float, float]] = {}
    seen: Counter[str] = Counter()
    for note in map(json.loads, notes.read_text().splitlines()):
        if note["run"] == run.run_id:
            figures[note["task"], seen[note["task"]]] = note["cpu"], note["mb"]
            seen[note["task"]] += 1
    return figures if figures.keys() >= {(NOTHING, 0), *SEGMENTS} else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    measured = measure(runs)
    medians = {
        segment: [statistics.median(column) for column in zip(*figures, strict=True)]
        for segment, figures in measured.items()
    }
    own_cpu, own_mb = medians[NOTHING, 0]
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
        f"medians of {runs} runs.\n"
        f"Airflow itself, a BashOperator that runs true: {own_cpu:.2f} s of CPU, {own_mb:.0f} MB at most.\n"
        f"\n| on top of it | CPU s | MB |\n|---|---|---|"
    )
    for segment, what in SEGMENTS.items():
        cpu, mb = medians[segment]
        print(f"| {what} | {cpu - own_cpu:.2f} | {mb - own_mb:.0f} |")

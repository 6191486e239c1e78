"""Thousands of generations with faults on every kind of call, for hours: ``make soak``.

Prints a report: what was saved and paid, polls a generation, delays, and what the triggerers and workers hold
at the end that they did not hold at the beginning. ``KLING_SOAK`` is the number of generations.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any, Final

import psutil
import pytest

from airflow_provider_kling.emulator.journal import CallKind
from tests.system.dag_run import eventually
from tests.system.deployment import Deployment, Wave, deployment
from tests.system.key_scan import found, texts_in_database, texts_in_files
from tests.system.versions import needs_airflow

pytest.importorskip("airflow.providers.celery")

COUNT: Final = int(os.environ.get("KLING_SOAK") or 0)
AT_ONCE: Final = 4
"""DAG runs under way at once."""
WAVE: Final = max(2, min(100, COUNT // AT_ONCE))
"""Generations of one DAG run, besides its batch."""
WARM_UP: Final = 8
"""Generations before the soak, so that what is loaded once is no growth."""
FAULTY: Final = 0.02
"""Share of all calls that meet a fault."""
CALLS: Final = ("submit", "poll", "cdn", "logs", "models", "metrics")
OBSERVED: Final = ("triggerer", "triggerer-2", "worker", "worker-2")

pytestmark = [
    pytest.mark.timeout(24 * 3600),
    pytest.mark.skipif(not COUNT, reason="takes hours; make soak runs it"),
    needs_airflow("3.3"),
]


def held(running: Deployment) -> dict[str, dict[str, float]]:
    """What each process with its children holds: memory in MB, files, connections, threads."""
    figures: dict[str, dict[str, float]] = {}
    for name in OBSERVED:
        total = {"MB": 0.0, "files": 0.0, "connections": 0.0, "threads": 0.0}
        leader = psutil.Process(running.cluster.pid(name))
        for process in (leader, *leader.children(recursive=True)):
            try:
                total["MB"] += process.memory_info().rss / 1e6
                total["files"] += len(process.open_files())
                total["connections"] += len(process.net_connections())
                total["threads"] += process.num_threads()
            except psutil.Error:
                continue  # it ended while it was looked at
        figures[name] = total
    return figures


def longest_delay(running: Deployment) -> tuple[float, float]:
    """Median and maximum of seconds between a generation's completion and the end of its video's file."""
    delays = []
    for each in running.vendor.generations:
        (path,) = running.output.rglob(f"{each['id']}.mp4")
        delays.append(path.stat().st_mtime - each["accepted_at"] - each["seconds"])
    return statistics.median(delays), max(delays)


def test_soak(tmp_path_factory: pytest.TempPathFactory) -> None:
    with deployment(tmp_path_factory.mktemp("soak"), celery=True) as running:
        running.begin("warm_up", WARM_UP).assert_saved_and_paid_once()
        before = held(running)
        waves: list[Wave] = []
        for call in CALLS:
            running.vendor.faults.add(call, "random", probability=FAULTY, times=None, seed=len(call))
        started = time.monotonic()
        for start in range(0, COUNT, WAVE):
            eventually(
                lambda: sum(wave.run.state == "running" for wave in waves) < AT_ONCE, 7200, "room for a wave"
            )
            waves.append(running.begin(f"soak_{start}", min(WAVE, COUNT - start)))
        for wave in waves:
            eventually(lambda wave=wave: wave.run.state != "running", 7200, f"the end of {wave.name}")
            wave.assert_saved_and_paid_once()
        report(running, before, held(running), time.monotonic() - started)
        secrets = {"the key": running.vendor.api_key}
        assert found(secrets, texts_in_files(running.cluster.home.parent)) == []
        assert found(secrets, texts_in_database(running.cluster)) == []


def report(running: Deployment, before: dict[str, Any], after: dict[str, Any], seconds: float) -> None:
    """Print the figures as Markdown."""
    journal = running.vendor.journal
    faults = sum(entry.fault is not None for entry in journal)
    polls = sum(entry.call is CallKind.POLL for entry in journal)
    median, longest = longest_delay(running)
    made = len(running.vendor.generations)
    print(
        f"\n| | |\n|---|---|\n| generations, the batches' among them | {made} |"
        f"\n| saved | {len(list(running.output.rglob('*.mp4')))} |"
        f"\n| paid | {running.vendor.stats['charges']} |"
        f"\n| minutes | {seconds / 60:.0f} |"
        f"\n| calls, of which with a fault | {len(journal)}, {faults} |"
        f"\n| polls a generation | {polls / made:.1f} |"
        f"\n| from completed to saved, median and longest | {median:.0f} s, {longest:.0f} s |"
        f"\n\n| process | {' | '.join(before['triggerer'])} |\n|---|---|---|---|---|"
    )
    for name in OBSERVED:
        changes = " | ".join(f"{before[name][each]:.0f} -> {after[name][each]:.0f}" for each in before[name])
        print(f"| {name} | {changes} |")

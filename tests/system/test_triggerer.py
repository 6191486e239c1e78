"""Deferred task instances on a real triggerer with PostgreSQL: a thousand at once, and some whose polls hang.

The thousand take some four minutes, so that test is run by hand: ``KLING_THOUSAND=1 pytest -s
tests/system/test_triggerer.py``; ``KLING_THOUSAND=3000`` waits for as many.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from packaging.version import Version

from airflow_provider_kling.api.settings import VENDOR_PATH
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.airflow.triggers.test_hanging_polls import POISONS, Vendor
from tests.misbehaving_server import misbehaving
from tests.system.cluster import AirflowCluster
from tests.system.dag_run import eventually
from tests.system.servers.postgres import database

MODEL = "kling-video/v1.6/standard/text-to-video"
USUAL = 100.0
"""Seconds, median: enough to set everything up, and then some."""
SPREAD = 0.3
COUNT = os.environ.get("KLING_THOUSAND", "")
READ_TIMEOUT = 60.0
"""Seconds; the default."""
POISONED, HEALTHY = 16, 64

pytestmark = [
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        Version(version("apache-airflow")) < Version("3.3"), reason="made for the tables of Airflow 3.3"
    ),
]


def submit(vendor: EmulatorThread, count: int) -> list[str]:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {vendor.api_key}"
        body = {"model": MODEL, "prompt": "waves"}
        return [
            session.post(vendor.url + VENDOR_PATH, json=body, timeout=30).json()["id"] for _ in range(count)
        ]


def usage(pid: int) -> tuple[float, float]:
    """CPU seconds and resident MB of a process and its children."""
    cpu = memory = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            cpu += times.user + times.system
            memory += process.memory_info().rss / 1e6
    return cpu, memory


@pytest.mark.skipif(not COUNT, reason="takes four minutes; KLING_THOUSAND=1 runs it")
def test_all_of_a_thousand_are_woken(tmp_path: Path):
    count = 1000 if COUNT == "1" else int(COUNT)
    options = EmulatorOptions(
        queued_seconds=0, generating_seconds=USUAL, spread=SPREAD, balance=1e6, journal_size=10_000_000
    )
    home = tmp_path / "home"
    home.mkdir()
    with EmulatorThread(options) as vendor, database() as url:
        cluster = AirflowCluster(home, url, {"AIRFLOW__TRIGGERER__CAPACITY": str(2 * count)})
        try:
            cluster._run_once(["-c", "from airflow.utils.db import initdb; initdb()"])
            ids = submit(vendor, count)
            stored = vendor._server.emulated.state.generations
            order = {
                "dags": str(cluster.dags),
                "connection": {"host": vendor.url, "password": vendor.api_key},
                "ids": ids,
                "submitted_at": [stored[each].accepted_at for each in ids],
                "deadline": time.time() + 1800,
                "schedule": {"usual_seconds": USUAL, "spread": SPREAD},
            }
            (tmp_path / "order.json").write_text(json.dumps(order))
            cluster._run_once([str(Path(__file__).with_name("deferred.py")), str(tmp_path / "order.json")])
            late_at_start = sum(stored[each].due < time.time() for each in ids)
            cluster.start("triggerer")
            pid = cluster._processes["triggerer"].pid
            most_memory = 0.0

            def woken() -> bool:
                nonlocal most_memory
                most_memory = max(most_memory, usage(pid)[1])
                states = {row["state"]: row["n"] for row in cluster.rows(STATES)}
                assert set(states) <= {"deferred", "scheduled"}, states
                return states == {"scheduled": count}

            eventually(woken, 1200, f"{count} task instances that are woken; see {home}/triggerer.log")
            cpu, _ = usage(pid)
            rows = cluster.rows(WOKEN)
        finally:
            cluster.stop()
        events = [found for row in rows if (found := event_of(row["next_kwargs"]))]
        assert {event["generation_id"] for event in events} == set(ids)
        assert {event.get("status") for event in events} == {"completed"}
        due = {each: stored[each].due for each in ids}
        lags = sorted(
            row["updated_at"].timestamp() - due[event_of(row["next_kwargs"])["generation_id"]] for row in rows
        )
        polls, connections = vendor.stats["calls"]["poll"], vendor.stats["connections"]
    log = (home / "triggerer.log").read_text()
    assert "Traceback" not in log
    assert "Unclosed" not in log
    assert connections <= 20 + 1  # the submits' own, and the metrics'
    print(
        f"\n{count} task instances, all woken; {late_at_start} were done before the triggerer started."
        f"\nPolls a generation: {polls / count:.1f}; TCP connections of the triggerer: {connections - 1}."
        f"\nFrom completed to scheduled: median {statistics.median(lags):.1f} s, "
        f"p95 {lags[int(0.95 * count)]:.1f} s, worst {lags[-1]:.1f} s."
        f"\nTriggerer, both processes: {cpu:.0f} s of CPU, at most {most_memory:.0f} MB resident."
    )


def test_sixteen_poisoned_and_sixty_four_healthy_waits(tmp_path: Path):
    """All poisoned ones come first. Each healthy one is woken before the first poll that hangs is given up."""
    home = tmp_path / "home"
    home.mkdir()
    ids = [f"bad{n}" for n in range(POISONED)] + [f"good{n}" for n in range(HEALTHY)]
    vendor = Vendor(*POISONS.values())
    with misbehaving(vendor) as server, database() as url:
        cluster = AirflowCluster(home, url, {})
        try:
            cluster._run_once(["-c", "from airflow.utils.db import initdb; initdb()"])
            order = {
                "dags": str(cluster.dags),
                "connection": {"host": f"http://{server.address}", "password": "key"},
                "ids": ids,
                "submitted_at": [time.time()] * len(ids),
                "deadline": time.time() + 3600,
                "schedule": {"interval": 1.0},
            }
            (tmp_path / "order.json").write_text(json.dumps(order))
            cluster._run_once([str(Path(__file__).with_name("deferred.py")), str(tmp_path / "order.json")])
            cluster.start("triggerer")
            eventually(lambda: vendor.poisoned >= POISONED, 180, f"polls that hang; see {home}/triggerer.log")
            hanging_since = time.monotonic()

            def woken() -> bool:
                states = {row["state"]: row["n"] for row in cluster.rows(STATES)}
                return states == {"scheduled": HEALTHY, "deferred": POISONED}

            eventually(woken, 120, f"{HEALTHY} healthy task instances; see {home}/triggerer.log")
            took = time.monotonic() - hanging_since
            events = [found for row in cluster.rows(WOKEN) if (found := event_of(row["next_kwargs"]))]
        finally:
            cluster.stop()
    assert {event["generation_id"] for event in events} == set(ids[POISONED:])
    assert {event.get("status") for event in events} == {"completed"}
    assert took < READ_TIMEOUT
    log = (home / "triggerer.log").read_text()
    assert "have had no complete answer" in log
    assert "Traceback" not in log


STATES = "SELECT state, count(*) AS n FROM task_instance GROUP BY state"
WOKEN = "SELECT task_id, next_kwargs, updated_at FROM task_instance"


def event_of(next_kwargs: Any) -> dict[str, Any]:
    """The event's payload, however deep Airflow's serialization has wrapped it."""
    found: list[dict[str, Any]] = []

    def search(value: Any) -> None:
        if isinstance(value, str) and value.startswith("{"):
            value = json.loads(value)
        if isinstance(value, dict):
            if "generation_id" in value:
                found.append(value)
            for each in value.values():
                search(each)

    search(next_kwargs)
    return {name: value for name, value in found[0].items() if name != "__type"} if found else {}

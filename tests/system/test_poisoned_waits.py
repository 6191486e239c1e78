"""Waits whose polls hang, on a real triggerer with PostgreSQL: they delay nobody, and the log tells of them."""

from __future__ import annotations

import json
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version

from tests.airflow.triggers.test_hanging_polls import POISONS, Vendor
from tests.misbehaving_server import misbehaving
from tests.system.cluster import AirflowCluster
from tests.system.dag_run import eventually
from tests.system.servers.postgres import database
from tests.system.test_thousand_waiting import STATES, WOKEN, event_of

READ_TIMEOUT = 60.0
"""The default."""
POISONED, HEALTHY = 16, 64

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        Version(version("apache-airflow")) < Version("3.3"), reason="made for the tables of Airflow 3.3"
    ),
]


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
                "connection": {"host": f"http://{server.address}", "password": "a key"},
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

"""A distributed Airflow in which something fails while work flows: everything is saved and paid once.

``KLING_WAVE`` is the number of generations in each wave, 12 without it: 200 in all. One deployment serves
all tests with Celery, in their order; the search for the key, in all that they left, comes last.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from airflow_provider_kling.emulator.journal import CallKind
from tests.system.cluster import TRIGGERER_GONE_AFTER
from tests.system.dag_run import eventually
from tests.system.deployment import COMPONENTS, Deployment, Wave, deployment
from tests.system.key_scan import found, texts_in_database, texts_in_files
from tests.system.servers.services import missing, restart, small_disk
from tests.system.versions import needs_airflow

pytest.importorskip("airflow.providers.celery")
pytestmark = [pytest.mark.timeout(1500), needs_airflow("3.3")]

COUNT: Final = int(os.environ.get("KLING_WAVE", "12"))
"""Generations in a wave; an even number."""
NEW_KEY: Final = "second-key-of-the-deployment-51c7"
LIBFAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
HOUR: Final = 3600


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("deployment"), celery=True) as started:
        yield started


def begin(distributed: Deployment, name: str) -> Wave:
    """A wave of which a third waits already, while the rest is on its way."""
    wave = distributed.begin(name, COUNT)
    wave.await_waiting(max(1, COUNT // 3))
    return wave


def test_without_a_fault(distributed: Deployment) -> None:
    wave = distributed.begin("calm", COUNT)
    wave.assert_saved_and_paid_once()

    # What the UI shows of a wait, whichever process waited.
    path = f"dags/{wave.run.dag_id}/dagRuns/{wave.run.run_id}/taskInstances/wait/logs/1?map_index=0"
    shown = str(distributed.cluster.call("GET", path))
    generation_id = wave.run.xcom("generate", map_index=0)
    assert f"Generation {generation_id}: completed" in shown


@pytest.mark.parametrize("killed", ["worker", "triggerer", "scheduler", "api-server"])
def test_a_process_is_killed(killed: str, distributed: Deployment) -> None:
    wave = begin(distributed, f"{killed}_killed")
    if killed == "worker":
        wave.await_running()
    distributed.cluster.restart(killed)
    wave.assert_saved_and_paid_once()


def test_a_triggerer_stands_still_for_longer_than_its_threshold(distributed: Deployment) -> None:
    wave = begin(distributed, "triggerer_stalled")
    distributed.cluster.stall("triggerer")
    try:
        time.sleep(2 * TRIGGERER_GONE_AFTER)
    finally:
        distributed.cluster.go_on("triggerer")
    wave.assert_saved_and_paid_once()


def test_postgresql_is_restarted(distributed: Deployment) -> None:
    wave = begin(distributed, "postgresql_restarted")
    restart(distributed.postgres, 3)
    # What ends without its database is started again, as systemd or Kubernetes do.
    supervisor = Supervisor(distributed)
    with supervisor:
        wave.assert_saved_and_paid_once()


def test_redis_is_restarted(distributed: Deployment) -> None:
    assert distributed.redis is not None
    wave = begin(distributed, "redis_restarted")
    restart(distributed.redis, 3)
    with Supervisor(distributed):
        wave.assert_saved_and_paid_once()


@pytest.mark.parametrize("fault", ["down", "429", "slow", "closing", "hanging"])
def test_the_vendor_is_in_trouble(fault: str, distributed: Deployment) -> None:
    wave = begin(distributed, f"vendor_{fault}")
    vendor = distributed.vendor
    match fault:
        case "down":
            vendor.stop_listening(90)
        case "429":
            vendor.faults.add("any", 429, lasts=60, times=None)
        case "slow":
            vendor.faults.add("any", "delay", seconds=8, lasts=60, times=None)
        case "closing":
            vendor.faults.add("any", "reset-before", lasts=60, times=None)
        case "hanging":
            vendor.faults.add("poll", "stall-before", lasts=60, times=None)
    try:
        wave.assert_saved_and_paid_once()
    finally:
        vendor.faults.clear()


def test_the_key_is_rotated_while_they_wait(distributed: Deployment) -> None:
    wave = begin(distributed, "key_rotated")
    distributed.vendor.rotate_key(NEW_KEY, distributed.key)
    distributed.store_connection(NEW_KEY)
    wave.assert_saved_and_paid_once()


def test_the_disk_is_full_for_a_while(distributed: Deployment) -> None:
    folder = distributed.output / "disk_full"
    with small_disk(folder, 64):
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as stream:
            try:
                while stream.write(b"\0" * 65536):
                    pass
            except OSError:
                pass
        wave = distributed.begin(folder.name, COUNT)
        eventually(
            lambda: any(task["state"] == "up_for_retry" for task in wave.run.tasks()), 600, "a full disk"
        )
        filler.unlink()
        wave.assert_saved_and_paid_once()


def test_the_clock_of_a_triggerer_and_a_worker_is_set_forward_and_back(
    distributed: Deployment, tmp_path: Path
) -> None:
    if LIBFAKETIME is None:
        missing("This test sets the clock of some processes: install libfaketime (Debian: faketime).")
    offset = tmp_path / "offset"
    offset.write_text("+0s")
    faked = {
        "LD_PRELOAD": str(LIBFAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    cluster = distributed.cluster
    names = ("triggerer", "worker")
    for name in names:
        cluster.kill(name)
        cluster.start(COMPONENTS[name], name, **faked)
    try:
        wave = begin(distributed, "clock_set")
        for seconds in (HOUR, 0, -HOUR, 0):
            offset.write_text(f"{seconds:+d}s")
            time.sleep(8)
        wave.assert_saved_and_paid_once()
    finally:
        for name in names:
            cluster.restart(name)


def test_the_key_is_in_no_file_and_no_table(distributed: Deployment) -> None:
    secrets = {"the first key": distributed.vendor.api_key, "the second key": NEW_KEY}
    cluster = distributed.cluster
    known = next(
        each["id"] for each in distributed.vendor.generations if " one " in each["parameters"]["prompt"]
    )
    files = [*texts_in_files(cluster.home.parent), *texts_in_files(distributed.postgres.folder)]
    tables = list(texts_in_database(cluster))

    assert found(secrets, iter(files)) == []
    assert found(secrets, iter(tables)) == []
    assert [where for where, text in files if "ksSecret=" in text and where.startswith("airflow/")] == []
    # What is no secret is found where it belongs: the search itself works.
    assert any(known in text for where, text in files if where.startswith("airflow/logs/"))
    assert {"xcom", "task_state_store"} <= {where for where, text in tables if known in text}


def test_with_local_executor(tmp_path_factory: pytest.TempPathFactory) -> None:
    with deployment(tmp_path_factory.mktemp("local"), celery=False) as local:
        wave = begin(local, "local")
        local.cluster.restart("triggerer")
        wave.assert_saved_and_paid_once()
        polls = [entry for entry in local.vendor.journal if entry.call is CallKind.POLL]
        assert polls


class Supervisor:
    """Starts again what ended by itself, as a service manager does."""

    def __init__(self, distributed: Deployment) -> None:
        self._cluster = distributed.cluster
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1):
            for name in self._cluster.ended():
                self._cluster.restart(name)

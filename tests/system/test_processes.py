"""Real Airflow, real processes: what is killed, stopped or cleared is paid once, and its video lands.

One cluster serves all tests of this module. Their DAG runs begin together, and each test waits for
its own. The order counts: what kills a component of the cluster comes last, and the search for
secrets, in all that the others left, after it.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.version import Version

from airflow_provider_kling.api.download.verify import probe
from airflow_provider_kling.emulator.journal import CallKind
from airflow_provider_kling.emulator.options import EmulatorOptions, IdStyle
from airflow_provider_kling.emulator.server import EmulatorThread
from tests.system.cluster import ROOT, TRIGGERER_GONE_AFTER, AirflowCluster
from tests.system.dag_run import DagRun, eventually
from tests.system.servers.postgres import database

AIRFLOW: Final = Version(version("apache-airflow")).release[:2]
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        AIRFLOW < (3, 3),
        reason="what is recorded before a submit survives a retry from Airflow 3.3 on",
    ),
]

DAGS: Final = Path(__file__).parent / "dags"
PATIENCE: Final = 300.0
"""Seconds; much more than needed, for a machine that has other things to do."""
LONG: Final = 3600.0
"""Seconds that a generation takes which is to wait until the test pushes the emulator's clock."""
FLEET: Final = 50
FLEET_INTERVAL: Final = 5.0
WATCHED: Final = 12.0
NOTICING: Final = 5.0
"""Seconds in which a triggerer that was stalled must notice that its triggers are another's."""
NOTHING_SENT: Final = "says that nothing was submitted"
NOT_FOUND: Final = "is not in the vendor's request log; submitting"
FOUND: Final = "Found submit"
USES: Final = "is completed and paid for; using it, at no further cost"
RECORDED: Final = "A previous attempt submitted generation"
WAITS_ON: Final = "waiting for it, at no further cost"
# name of the case, how often it is killed, what a later try says
KILLED_AND_OVER: Final = [
    ("before_intent_deferred", 1, NOTHING_SENT),
    ("before_intent_blocking", 1, NOTHING_SENT),
    ("before_submit_deferred", 1, NOT_FOUND),
    ("before_submit_blocking", 1, NOT_FOUND),
    ("accepted_deferred", 1, FOUND),
    ("accepted_blocking", 1, FOUND),
    ("resuming_deferred", 2, USES),
    ("landing_deferred", 1, USES),
    ("landing_blocking", 1, USES),
    ("whole_worker_deferred", 1, FOUND),
    ("whole_worker_blocking", 1, FOUND),
]
KILLED_AND_WAITING: Final = [
    ("answered_deferred", 1, FOUND),
    ("answered_blocking", 1, FOUND),
    ("recorded_deferred", 2, RECORDED),
    ("recorded_blocking", 2, RECORDED),
    ("deferring_deferred", 1, RECORDED),
    ("waiting_blocking", 2, RECORDED),
]


def _names(cases: list[tuple[str, int, str]]) -> list[str]:
    return [name for name, _, _ in cases]


@dataclass(frozen=True)
class Stage:
    """The cluster with all that plays on it."""

    cluster: AirflowCluster
    vendors: dict[str, EmulatorThread]
    runs: dict[str, DagRun]
    output: Path


def _vendor(name: str, **options: Any) -> EmulatorThread:
    # Other ids can contain "eyJ", which Airflow takes for the start of a token, and hides in its logs.
    options |= {"ids": IdStyle.UUID, "queued_seconds": 1}
    return EmulatorThread(EmulatorOptions(keys=(f"key-of-{name}-8d1f0c",), **options))


def _connection(vendor: EmulatorThread) -> dict[str, str]:
    return {"conn_type": "kling", "host": vendor.url, "password": vendor.api_key}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("airflow")
    output = tmp_path_factory.mktemp("output")
    vendors = {
        "default": _vendor("default", generating_seconds=LONG),
        # Two kinds of logs: one lists no generation before it is done, the other soon after its submit.
        "late": _vendor("late", log_lag=3, log_in_flight_after=None, generating_seconds=19),
        "early": _vendor("early", log_lag=1, log_in_flight_after=2, generating_seconds=LONG),
        "stopped": _vendor("stopped", generating_seconds=LONG),
        "fleet": _vendor("fleet", generating_seconds=LONG),
    }
    with ExitStack() as stack:
        # Who ends the tests must not leave the cluster behind.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGTERM, before)
        url = stack.enter_context(database())
        for vendor in vendors.values():
            stack.enter_context(vendor)
        environment = {
            f"AIRFLOW_CONN_KLING_{name.upper()}": json.dumps(_connection(vendor))
            for name, vendor in vendors.items()
            if name != "default"
        }
        cluster = AirflowCluster(home, url, {**environment, "KLING_OUTPUT": str(output)})
        shutil.copytree(ROOT / "dags" / "pictures", cluster.dags / "pictures")
        for file in (ROOT / "dags" / "kling_quickstart.py", *DAGS.glob("*.py")):
            shutil.copy(file, cluster.dags)
        stack.enter_context(cluster)
        # This one is stored in the database, as a person does it in the UI; the others come from outside.
        body = {"connection_id": "kling_default", **_connection(vendors["default"])}
        cluster.call("POST", "connections", body)
        # Or the fleet would take all workers from the other runs.
        pool = {"name": "fleet", "slots": 6, "include_deferred": False}
        cluster.call("POST", "pools", pool)
        dag_ids = ("kling_quickstart", "killed", "stopped", "fleet")
        cluster.await_dags(*dag_ids)
        runs = {dag_id: cluster.run(dag_id) for dag_id in dag_ids}
        yield Stage(cluster, vendors, runs, output)


def test_from_a_picture_to_a_file_by_way_of_the_triggerer(stage: Stage) -> None:
    vendor, run = stage.vendors["default"], stage.runs["kling_quickstart"]

    run.await_state("wait", "deferred", PATIENCE)
    vendor.clock.advance(LONG)

    assert run.await_end(PATIENCE) == "success"
    (generation,) = vendor.generations
    generation_id = generation["id"]
    assert generation["charged"]
    assert run.xcom("generate") == generation_id
    assert run.xcom("wait")["status"] == "completed"
    path = Path(run.xcom("download"))
    assert path == stage.output / f"{generation_id}.mp4"
    _assert_video(path, 5)
    assert f"Generation {generation_id}: completed" in run.log("wait")


@pytest.mark.parametrize(("case", "kills", "said"), KILLED_AND_OVER, ids=_names(KILLED_AND_OVER))
def test_a_killed_worker_is_paid_once(case: str, kills: int, said: str, stage: Stage) -> None:
    _assert_paid_once_and_landed(stage, stage.vendors["late"], case, kills, said)
    if case.startswith("landing"):
        _assert_video(stage.output / "all_in_one" / f"{case}.mp4", 3)


@pytest.fixture(scope="module")
def all_adopted(stage: Stage) -> None:
    """Each generation of ``kling_early`` works until a later try waits for it."""

    def reattached() -> bool:
        run = stage.runs["killed"]
        return all(WAITS_ON in run.log(f"generate_{case}") for case, _, _ in KILLED_AND_WAITING)

    eventually(reattached, PATIENCE, "the adoption of each generation of kling_early")
    stage.vendors["early"].clock.advance(LONG)


@pytest.mark.usefixtures("all_adopted")
@pytest.mark.parametrize(("case", "kills", "said"), KILLED_AND_WAITING, ids=_names(KILLED_AND_WAITING))
def test_a_killed_worker_s_generation_is_waited_for(case: str, kills: int, said: str, stage: Stage) -> None:
    _assert_paid_once_and_landed(stage, stage.vendors["early"], case, kills, said)


def _assert_paid_once_and_landed(
    stage: Stage, vendor: EmulatorThread, case: str, kills: int, said: str
) -> None:
    run = stage.runs["killed"]
    run.await_state(f"download_{case}", "success", PATIENCE)

    submits = _submits(vendor, f":generate_{case}:")
    assert [entry.accepted for entry in submits] == [True]
    (generation,) = [each for each in vendor.generations if each["id"] == submits[0].generation_id]
    assert generation["charged"]
    assert run.xcom(f"generate_{case}") == generation["id"]
    _assert_video(stage.output / f"{case}.mp4", 3)

    log = run.log(f"generate_{case}")
    assert said in log
    if case.startswith("whole_worker"):
        # its supervisor died with it and says nothing; the scheduler misses it, from 3.4 on the executor does
        assert "SIGKILL" not in log
        missed = "heartbeat timeout" if AIRFLOW < (3, 4) else "state mismatch"
        assert missed in run.events(f"generate_{case}")
    else:
        assert log.count("SIGKILL") == kills


def test_a_task_cleared_while_deferred_reattaches_to_its_generation(stage: Stage) -> None:
    vendor, run = stage.vendors["stopped"], stage.runs["stopped"]

    run.await_state("cleared", "deferred", PATIENCE)
    run.clear("cleared")
    _await_try(run, "cleared", 2)
    run.await_state("cleared", "deferred", PATIENCE)

    assert len(_submits(vendor, ":cleared:")) == 1
    generation_id = _submits(vendor, ":cleared:")[0].generation_id
    assert f"{RECORDED} {generation_id}" in run.log("cleared")


@pytest.mark.parametrize(
    ("task_id", "state"), [("failed_deferred", "deferred"), ("failed_running", "running")]
)
def test_a_task_marked_as_failed_says_that_its_generation_keeps_running(
    task_id: str, state: str, stage: Stage
) -> None:
    vendor, run = stage.vendors["stopped"], stage.runs["stopped"]
    run.await_state(task_id, state, PATIENCE)
    eventually(lambda: _polls(vendor), PATIENCE, "a poll")
    generation_id = eventually(lambda: run.xcom(task_id, "generation_id"), PATIENCE, "its generation id")
    eventually(lambda: _polls(vendor)[generation_id], PATIENCE, "a poll of it")

    run.set_state(task_id, "failed")

    said = f"Generation {generation_id} keeps running: the vendor has no cancel API"
    eventually(lambda: said in run.log(task_id), PATIENCE, f"{said!r} in the log of {task_id}")


def test_what_was_stopped_is_reattached_and_a_success_is_used_again(stage: Stage) -> None:
    vendor, run = stage.vendors["stopped"], stage.runs["stopped"]
    task_ids = ("cleared", "failed_deferred", "failed_running")
    run.clear("failed_deferred", "failed_running")
    for task_id in task_ids:
        _await_try(run, task_id, 2)
    vendor.clock.advance(LONG)
    assert run.await_end(PATIENCE) == "success"

    run.clear("cleared")
    _await_try(run, "cleared", 3)
    assert run.await_end(PATIENCE) == "success"

    assert USES in run.log("cleared")
    assert vendor.stats["calls"]["submit"] == vendor.stats["charges"] == len(task_ids)
    assert {run.xcom(task_id) for task_id in task_ids} == {each["id"] for each in vendor.generations}


def test_a_fleet_survives_its_triggerers(stage: Stage) -> None:
    vendor, run, cluster = stage.vendors["fleet"], stage.runs["fleet"], stage.cluster
    run.await_state("generate", "deferred", PATIENCE, count=FLEET)
    _await_polls(vendor)
    ids = {each["id"] for each in vendor.generations}
    waiting = " ".join(row["kwargs"] for row in cluster.rows("SELECT kwargs FROM trigger"))
    assert {generation_id for generation_id in ids if generation_id in waiting} == ids
    assert _found(stage, [("trigger", waiting)]) == []

    cluster.kill("triggerer")
    cluster.start("triggerer")
    _await_polls(vendor)
    cluster.start("triggerer", "another triggerer")
    _assert_each_has_one_poller(vendor)

    cluster.stall("triggerer")
    _await_polls(vendor)
    cluster.go_on("triggerer")
    time.sleep(NOTICING)
    _assert_each_has_one_poller(vendor)

    vendor.clock.advance(LONG)
    assert run.await_end(PATIENCE) == "success"
    assert vendor.stats["calls"]["submit"] == vendor.stats["accepted"] == vendor.stats["charges"] == FLEET
    assert {task["try_number"] for task in run.tasks("generate")} == {1}
    assert {run.xcom("generate", map_index=index) for index in range(FLEET)} == ids


def _await_polls(vendor: EmulatorThread) -> None:
    """Wait until each generation of the fleet was polled from now on."""
    # What was on its way is over a second later, also where its sender was killed.
    since = vendor.clock.now() + 1.0
    eventually(
        lambda: len(_polls(vendor, since)) == FLEET,
        PATIENCE + TRIGGERER_GONE_AFTER,
        "a poll of each generation of the fleet",
    )


def _assert_each_has_one_poller(vendor: EmulatorThread) -> None:
    """Watch the fleet: two pollers know nothing of each other, and would not keep the interval."""
    since = vendor.clock.now()
    time.sleep(WATCHED)
    polls = _polls(vendor, since)
    assert len(polls) == FLEET
    gaps = [later - former for times in polls.values() for former, later in pairwise(times)]
    assert min(gaps) >= 0.8 * FLEET_INTERVAL


def test_no_secret_is_in_any_log_or_table(stage: Stage) -> None:
    # last: reads what all tests before it left
    logs = list(_texts_in_logs(stage.cluster.home))
    tables = list(_texts_in_database(stage.cluster))

    assert _found(stage, logs + tables) == []
    assert [where for where, text in logs if "ksSecret=" in text] == []
    # What is no secret is found where it belongs: the search itself works.
    known = stage.vendors["default"].generations[0]["id"]
    assert len([where for where, text in logs if known in text]) >= 3
    xcoms, rendered = (
        ("xcom_v2", "rtif_v2") if AIRFLOW >= (3, 4) else ("xcom", "rendered_task_instance_fields")
    )
    assert {xcoms, "task_state_store"} <= {where for where, text in tables if known in text}
    assert {"serialized_dag", rendered} <= {where for where, _ in tables}


def _found(stage: Stage, texts: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Where which secret is."""
    picture = (ROOT / "dags" / "pictures" / "mona_lisa.jpg").read_bytes()
    secrets = {f"the key of {name}": vendor.api_key for name, vendor in stage.vendors.items()}
    secrets["a picture in base64"] = base64.b64encode(picture).decode()[300:340]
    return [(where, what) for where, text in texts for what, secret in secrets.items() if secret in text]


def _texts_in_logs(home: Path) -> Iterator[tuple[str, str]]:
    for path in home.rglob("*"):
        if path.is_file() and (path.suffix == ".log" or "attempt=" in path.name):
            yield str(path.relative_to(home)), path.read_text(errors="replace")


def _texts_in_database(cluster: AirflowCluster) -> Iterator[tuple[str, str]]:
    tables = cluster.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    for name in (row["table_name"] for row in tables):
        for row in cluster.rows(f'SELECT "{name}"::text AS text FROM "{name}"'):
            # bytes are shown as hexadecimal; what they say counts, too
            decoded = re.sub(
                r"\\x([0-9a-f]+)", lambda hit: bytes.fromhex(hit[1]).decode("latin-1"), row["text"]
            )
            yield name, decoded


def _assert_video(path: Path, seconds: float) -> None:
    assert probe(path, generation_id=path.stem).duration == pytest.approx(seconds, abs=0.2)


def _submits(vendor: EmulatorThread, name: str) -> list[Any]:
    entries = [each for each in vendor.journal if each.call is CallKind.SUBMIT]
    return [each for each in entries if name in (each.client_request_id or "")]


def _polls(vendor: EmulatorThread, since: float = 0.0) -> defaultdict[str, list[float]]:
    times: defaultdict[str, list[float]] = defaultdict(list)
    for entry in vendor.journal:
        if entry.call is CallKind.POLL and entry.generation_id and entry.time >= since:
            times[entry.generation_id].append(entry.time)
    return times


def _await_try(run: DagRun, task_id: str, number: int) -> None:
    def reached() -> bool:
        return all(task["try_number"] >= number for task in run.tasks(task_id))

    eventually(reached, PATIENCE, f"try {number} of {task_id}")

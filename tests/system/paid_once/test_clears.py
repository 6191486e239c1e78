"""Tasks and runs that a person clears through Airflow's REST API, as its UI does, are paid once.

Airflow 3.4 empties a task's store on such a clear, 3.3 on success where it is told to, and older versions
have none; ``dag.clear`` in a test would see nothing of it.
"""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
from packaging.version import Version

from airflow_provider_kling.emulator.journal import CallKind
from airflow_provider_kling.emulator.options import EmulatorOptions, IdStyle
from airflow_provider_kling.emulator.server import EmulatorThread
from tests.system.cluster import ROOT, AirflowCluster
from tests.system.dag_run import DagRun, eventually
from tests.system.servers.postgres import database
from tests.system.servers.services import missing

AIRFLOW: Final = Version(version("apache-airflow")).release[:2]
pytestmark = [
    pytest.mark.timeout(1500),
    pytest.mark.skipif(AIRFLOW < (3, 0), reason="its REST API is another one"),
]

DAGS: Final = Path(__file__).parents[1] / "dags"
LIBFAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
PATIENCE: Final = 400.0
"""Seconds; much more than needed, for a machine that has other things to do."""
LONG: Final = 3700.0
"""Seconds, on the vendor's clock, in which each generation ends."""
HAS_STORE: Final = AIRFLOW >= (3, 3)
EMPTIES_ON_CLEAR: Final = AIRFLOW >= (3, 4)
RECORDED: Final = "A previous attempt submitted generation"
NO_RECORD: Final = "There is no record of what previous attempts submitted"


@dataclass(frozen=True)
class Stage:
    """Airflow and a vendor."""

    cluster: AirflowCluster
    vendor: EmulatorThread
    output: Path

    @property
    def accepted(self) -> int:
        """Submits that the vendor accepted; each is paid when it completes."""
        return int(self.vendor.stats["accepted"])


@contextmanager
def staged(
    folder: Path, dag_id: str, options: Mapping[str, Any] = MappingProxyType({}), **environment: str
) -> Iterator[Stage]:
    """An Airflow with one DAG, and an emulator whose logs list a job at once.

    :param options: of the emulator, in place of the usual ones.
    :param environment: what else Airflow's processes find in theirs.
    """
    home, output = folder / "airflow", folder / "output"
    home.mkdir()
    output.mkdir()
    usual = {"ids": IdStyle.UUID, "queued_seconds": 1, "generating_seconds": 2, "log_lag": 0}
    chosen: dict[str, Any] = {**usual, "log_in_flight_after": 0, **options}
    with ExitStack() as stack:
        # Who ends the tests must not leave the cluster behind.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGTERM, before)
        url = stack.enter_context(database())
        vendor = stack.enter_context(EmulatorThread(EmulatorOptions(**chosen)))
        connection = {"conn_type": "kling", "host": vendor.url, "password": vendor.api_key}
        environment |= {f"AIRFLOW_CONN_KLING_{dag_id.upper()}": json.dumps(connection)}
        cluster = AirflowCluster(home, url, {"KLING_OUTPUT": str(output), **environment})
        shutil.copy(DAGS / f"{dag_id}.py", cluster.dags)
        stack.enter_context(cluster)
        cluster.await_dags(dag_id)
        yield Stage(cluster, vendor, output)


def generations_of(run: DagRun) -> dict[str, str]:
    """Task instance -> the generation that its attempt in use knows."""
    found = {
        f"{task['task_id']}[{task['map_index']}]": run.xcom_of(task, "generation_id") for task in run.tasks()
    }
    return {name: generation_id for name, generation_id in found.items() if generation_id is not None}


def generations_by_submit(run: DagRun, task_id: str) -> dict[str, str]:
    """Client request id -> generation, as the attempts in use know them."""
    tasks = run.tasks(task_id)
    return {run.xcom_of(task, "client_request_id"): run.xcom_of(task, "generation_id") for task in tasks}


def await_attempt(run: DagRun, numbers: Mapping[str, int], state: str | None = None) -> None:
    """Wait until each task is in an attempt with a higher number than this one."""

    def reached() -> bool:
        tasks = [task for task in run.tasks() if task["task_id"] in numbers]
        states = (state,) if state else ("success", "deferred", "running")
        return all(
            task["try_number"] > numbers[task["task_id"]] and task["state"] in states for task in tasks
        )

    eventually(reached, PATIENCE, f"attempts after {dict(numbers)}: {run.states()}")


def numbers_of(run: DagRun, *task_ids: str) -> dict[str, int]:
    return {task["task_id"]: task["try_number"] for task in run.tasks() if task["task_id"] in task_ids}


def await_polled(stage: Stage, generation_id: str) -> None:
    """Wait until a generation is polled from now on."""
    since = stage.vendor.clock.now()

    def polled() -> bool:
        return any(
            entry.call is CallKind.POLL and entry.generation_id == generation_id and entry.time > since
            for entry in stage.vendor.journal
        )

    eventually(polled, PATIENCE, f"a poll of {generation_id}")


def searches(vendor: EmulatorThread) -> int:
    """Requests to the vendor's log."""
    return sum(entry.call is CallKind.LOGS for entry in vendor.journal)


ENDED: Final = ("success", "working", "all_in_one", "mapped")
WAITING: Final = ("deferred", "blocking", "marked_failed")
EACH: Final = len(ENDED) + 1 + len(WAITING)
"""Generations of the DAG; one task is mapped over two prompts."""


@pytest.fixture(
    scope="module",
    params=[False, pytest.param(True, marks=pytest.mark.skipif(not HAS_STORE, reason="has no store"))],
    ids=["usual", "clear_on_success"],
)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    environment = {"AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS": "True"} if request.param else {}
    with staged(tmp_path_factory.mktemp("clears"), "clears", **environment) as stage:
        yield stage


def test_whatever_is_cleared_is_paid_once(stage: Stage, request: pytest.FixtureRequest) -> None:
    """First the tasks, in every state that one can be cleared in; then those upstream of them; then the run."""
    on_success = "clear_on_success" in request.node.name
    vendor, run = stage.vendor, stage.cluster.run("clears")
    for task_id in ENDED:
        run.await_state(task_id, "success", PATIENCE, count=1 + (task_id == "mapped"))
    for task_id in ("deferred", "marked_failed"):
        run.await_state(task_id, "deferred", PATIENCE)
    run.await_state("blocking", "running", PATIENCE)
    blocking = eventually(lambda: run.xcom("blocking", "generation_id"), PATIENCE, "the blocking submit")
    await_polled(stage, blocking)
    made = generations_of(run)
    assert len(set(made.values())) == len(made) == stage.accepted == EACH

    run.set_state("marked_failed", "failed")
    numbers = numbers_of(run, *ENDED, *WAITING)
    run.clear(*ENDED, *WAITING)
    await_attempt(run, numbers)
    eventually(lambda: generations_of(run) == made, PATIENCE, "the same generation in each task")
    await_polled(stage, blocking)
    assert stage.accepted == EACH
    for task_id in (*ENDED, *WAITING):
        forgotten = not HAS_STORE or EMPTIES_ON_CLEAR or (on_success and task_id in ENDED)
        attempt = run.log(task_id, 0 if task_id == "mapped" else -1, attempt=numbers[task_id] + 1)
        assert (NO_RECORD in attempt, RECORDED in attempt) == (forgotten, True), (task_id, attempt)

    vendor.clock.advance(LONG)
    assert run.await_end(PATIENCE) == "success", run.states()
    assert stage.accepted == vendor.stats["charges"] == EACH

    # The mapped task is expanded again.
    numbers = numbers_of(run, "mapped")
    run.clear("prompts", include_downstream=True)
    eventually(lambda: run.state in ("queued", "running"), PATIENCE, "the run to go on")
    assert run.await_end(PATIENCE) == "success", run.states()
    assert generations_of(run) == made
    assert stage.accepted == EACH

    run.clear_all()
    eventually(lambda: run.state in ("queued", "running"), PATIENCE, "the run to go on")
    assert run.await_end(PATIENCE) == "success", run.states()
    assert generations_of(run) == made
    assert stage.accepted == vendor.stats["charges"] == EACH
    assert {path.stem for path in (stage.output / "clears").iterdir()} == {made["all_in_one[-1]"]}


def test_a_search_survives_its_triggerer_and_is_one_for_all(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A gateway answers the submits, and the vendor accepts one of them all the same, listed when it is done."""
    slow_log = {"log_in_flight_after": None, "generating_seconds": 20}
    with staged(tmp_path_factory.mktemp("searches"), "searches", options=slow_log) as stage:
        vendor, cluster = stage.vendor, stage.cluster
        vendor.faults.add("submit", "html", times=3)
        vendor.faults.add("submit", "reset-after")
        run = cluster.run("searches")
        run.await_state("generate", "deferred", PATIENCE, count=4)
        searched = searches(vendor)
        eventually(lambda: searches(vendor) > searched, PATIENCE, "a search in the triggerer")

        cluster.kill("triggerer")
        cluster.start("triggerer")

        assert run.await_end(PATIENCE) == "success", run.states()
        assert stage.accepted == 4
        assert len({run.xcom("generate", map_index=index) for index in range(4)}) == 4
        assert {task["try_number"] for task in run.tasks("generate")} == {1}
        logs = "".join(run.log("generate", index) for index in range(4))
        assert logs.count("Found submit") == 1
        assert logs.count("is not in the vendor's request log; submitting") == 3
        # Each would search some ten times by itself, twice where the filter of the model finds nothing.
        assert searches(vendor) - searched < 30


@pytest.mark.skipif(HAS_STORE, reason="has a record of what was submitted")
def test_a_run_without_a_logical_date_is_searched_for_from_its_beginning(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """It is cleared 16 minutes later, when ``queued_at`` and ``start_date`` are set anew."""
    if LIBFAKETIME is None:
        missing("This test sets the clock of Airflow's processes: install libfaketime (Debian: faketime).")
    folder = tmp_path_factory.mktemp("later")
    offset = folder / "offset"
    offset.write_text("+0s")
    # Python sleeps until a moment of the clock that is not set, which libfaketime refuses.
    sleep = "import select, time\ntime.sleep = lambda seconds: select.select((), (), (), max(0.0, seconds))\n"
    (folder / "sitecustomize.py").write_text(sleep)
    faked = {
        "PYTHONPATH": f"{folder}:{ROOT}",
        "LD_PRELOAD": str(LIBFAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "KLING_CLEARS": "ended",
    }
    with staged(folder, "clears", **faked) as stage:
        run = stage.cluster.run("clears")
        assert run.await_end(PATIENCE) == "success", run.states()
        made = generations_of(run)
        assert len(set(made.values())) == stage.accepted == len(ENDED) + 1

        offset.write_text("+960s")
        stage.vendor.clock.advance(960)
        numbers = numbers_of(run, *ENDED)
        run.clear(*ENDED)
        await_attempt(run, numbers, "success")

        assert generations_of(run) == made
        assert stage.accepted == len(ENDED) + 1
        assert NO_RECORD in run.log("success", attempt=2)


@pytest.mark.skipif(AIRFLOW < (3, 4), reason="loops are new in Airflow 3.4")
def test_each_pass_of_a_loop_is_paid_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The answer to the second pass is lost; then that pass is cleared, and then the whole run."""
    with staged(tmp_path_factory.mktemp("loop"), "loop") as stage:
        vendor, run = stage.vendor, stage.cluster.run("loop")
        eventually(lambda: stage.accepted == 1, PATIENCE, "the first pass", every=0.1)
        vendor.faults.add("submit", "reset-after")

        assert run.await_end(PATIENCE) == "success", run.states()
        made = {each["client_request_id"]: each["id"] for each in vendor.generations}
        assert stage.accepted == vendor.stats["charges"] == len(made) == 3
        assert {name.split(":")[3] for name in made} == {"pass0", "pass1", "pass2"}
        assert generations_by_submit(run, "passes.generate") == made
        logs = "".join(each.read_text() for each in stage.cluster.home.glob("logs/**/*.log"))
        assert "Found submit" in logs
        videos = {path.name: path.read_bytes() for path in (stage.output / "loop").glob("*.mp4")}
        assert set(videos) == {f"{kind}-{index}.mp4" for kind in ("made", "loaded") for index in range(3)}
        for index in range(3):
            assert videos[f"made-{index}.mp4"] == videos[f"loaded-{index}.mp4"]

        second = next(
            task
            for task in run.tasks("passes.generate")
            if ":pass1:" in run.xcom_of(task, "client_request_id")
        )
        run.clear(task_instance_ids=[str(second["id"])])
        eventually(lambda: run.state in ("queued", "running"), PATIENCE, "the run to go on")
        assert run.await_end(PATIENCE) == "success", run.states()
        assert generations_by_submit(run, "passes.generate") == made
        assert stage.accepted == 3

        run.clear_all()
        eventually(lambda: run.state in ("queued", "running"), PATIENCE, "the run to go on")
        assert run.await_end(PATIENCE) == "success", run.states()
        assert generations_by_submit(run, "passes.generate") == made
        assert stage.accepted == vendor.stats["charges"] == 3

        with (stage.output / "loop" / "costs.csv").open() as costs:
            rows = list(csv.DictReader(costs))
        assert sorted(row["loop_pass"] for row in rows) == ["0", "1", "2"]

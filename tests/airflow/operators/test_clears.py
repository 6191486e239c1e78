"""What is cleared by the REST API's route, as the UI does it, is paid once; Airflow 3.4 empties the store then."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.conftest import connected
from tests.airflow.real_airflow import REMEMBERS, ROOT, VERSION, RealAirflow

pytestmark = pytest.mark.skipif(
    VERSION < (3, 1), reason="its REST API has no such route, or starts no app here"
)

LIBFAKETIME: Final = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
MODEL = "kling-video/v1.6/standard/text-to-video"
RECORD = "kling_generation"
EMPTIES = VERSION >= (3, 4)
NO_RECORD = "There is no record of what previous attempts submitted"
BODY = f"""
common = dict(model="{MODEL}", uncertain_grace=1)
KlingGenerateOperator(task_id="success", prompt="A boat.", **common)
KlingGenerateOperator(task_id="working", prompt="A boat. [emulator: slow=3600]", **common)

@task
def prompts():
    return ["one", "two"]

KlingGenerateOperator.partial(task_id="mapped", **common).expand(prompt=prompts())
"""
TASKS = ("success", "working", "mapped[0]", "mapped[1]")


@pytest.mark.parametrize("clear_on_success", ["False", "True"])
def test_tasks_and_the_whole_run(airflow: RealAirflow, vendor: EmulatorThread, clear_on_success: str) -> None:
    store = {"AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS": clear_on_success}
    run = airflow.run(BODY, **store)
    assert run.state == "success"
    made = {name: run[name].xcom["return_value"] for name in TASKS}
    assert len(set(made.values())) == len(TASKS) == vendor.stats["accepted"]

    run.clear_by_rest("success", "working", "mapped").go_on(**store)
    assert {name: run[name].xcom["return_value"] for name in TASKS} == made
    assert [run[name].tries for name in TASKS] == [2] * len(TASKS)
    assert vendor.stats["accepted"] == len(TASKS)
    forgot = not REMEMBERS or EMPTIES or clear_on_success == "True"
    assert run.log.count(NO_RECORD) == (len(TASKS) if forgot else 0)

    run.clear_by_rest().go_on(**store)
    assert {name: run[name].xcom["return_value"] for name in TASKS} == made
    assert vendor.stats["accepted"] == len(TASKS)
    assert (NO_RECORD in run.log) is (not REMEMBERS or clear_on_success == "True")


@pytest.mark.skipif(not EMPTIES, reason="keeps the store in any case")
def test_a_clear_that_keeps_the_store(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    run = airflow.run(f'KlingGenerateOperator(task_id="make", prompt="A boat.", model="{MODEL}")')
    run.clear_by_rest("make", keep_task_state=True).go_on()

    assert vendor.stats["accepted"] == 1
    assert run["make"].tries == 2
    assert NO_RECORD not in run.log


@pytest.mark.parametrize("wait", ["poke_interval=1", "deferrable=True, poke_interval=5"])
def test_a_wait_that_failed(airflow: RealAirflow, vendor: EmulatorThread, wait: str) -> None:
    prompt = "A boat. [emulator: slow=3600]"
    run = airflow.run(
        f'KlingGenerateOperator(task_id="make", prompt="{prompt}", model="{MODEL}", uncertain_grace=1,'
        f" wait_for_completion=True, timeout=1, {wait})"
    )
    assert run["make"].state == "failed"

    vendor.clock.advance(3700)
    run.clear_by_rest("make").go_on()

    assert run.state == "success"
    assert vendor.stats["accepted"] == vendor.stats["charges"] == 1
    assert (NO_RECORD in run.log) is (not REMEMBERS or EMPTIES)


@pytest.mark.skipif(VERSION < (3, 4), reason="loops are new in Airflow 3.4")
def test_each_pass_of_a_loop(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    """The answer to the second pass is lost; the run is cleared later, and its later passes begin anew."""
    vendor.faults.add("submit", "reset-after", after=1)
    run = airflow.run(
        f"""
        from airflow.sdk import get_current_context, task_group
        from airflow_provider_kling.cost_report import KlingCostReport

        @task_group
        def passes():
            made = KlingGenerateOperator(task_id="make", prompt="A boat.", model="{MODEL}", uncertain_grace=1)
            KlingDownloadOperator(
                task_id="save", generation_id=made.output, path="{airflow.output}/{{loop_index}}.mp4"
            )

        @task
        def report():
            costs = KlingCostReport()
            costs.tell(costs.of_run(get_current_context()), csv_path="{airflow.output}/costs.csv")

        passes.loop(max_iterations=3) >> report()
        """
    )
    assert run.state == "success", {name: each.state for name, each in run.tasks.items()}
    names = [each["client_request_id"].split(":")[3] for each in vendor.generations]
    assert names == ["pass0", "pass1", "pass2"]
    ids = {each["id"] for each in vendor.generations}
    assert {path.name for path in airflow.output.glob("*.mp4")} == {f"{index}.mp4" for index in range(3)}
    costs = (airflow.output / "costs.csv").read_text().splitlines()
    assert sorted(line.rpartition(",")[2] for line in costs[1:]) == ["0", "1", "2"]

    assert "Found submit" in run.log
    videos = {path.name: path.read_bytes() for path in airflow.output.glob("*.mp4")}

    run.clear_by_rest().go_on()

    assert run.state == "success"
    assert {each["id"] for each in vendor.generations} == ids
    assert {path.name: path.read_bytes() for path in airflow.output.glob("*.mp4")} == videos


@pytest.mark.skipif(REMEMBERS, reason="has a record of what was submitted")
@pytest.mark.skipif(
    LIBFAKETIME is None, reason="sets Airflow's clock: install libfaketime (Debian: faketime)"
)
def test_a_run_without_a_logical_date_is_cleared_16_minutes_later(
    vendor: EmulatorThread, tmp_path: Path
) -> None:
    """The clear sets ``queued_at`` and ``start_date`` anew: the search begins at what never changes."""
    offset = tmp_path / "offset"
    offset.write_text("+0s")
    # Python sleeps until a moment of the clock that is not set, which libfaketime refuses.
    sleep = "import select, time\ntime.sleep = lambda seconds: select.select((), (), (), max(0.0, seconds))\n"
    (tmp_path / "sitecustomize.py").write_text(sleep)
    faked = {
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "LD_PRELOAD": str(LIBFAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with RealAirflow(tmp_path / "home", **faked) as airflow:
        connected(airflow, vendor)
        run = airflow.begin(
            f'KlingGenerateOperator(task_id="make", prompt="A boat.", model="{MODEL}", uncertain_grace=1)'
        )
        airflow.ask("forget_logical_date", {}, dag_id=run.dag_id, run_id=run.run_id)
        run.go_on()
        assert run.state == "success"

        offset.write_text("+960s")
        vendor.clock.advance(960)
        run.clear_by_rest("make").go_on()

        assert run.state == "success"
        assert run["make"].tries == 2
        assert NO_RECORD in run.log
        assert vendor.stats["accepted"] == 1

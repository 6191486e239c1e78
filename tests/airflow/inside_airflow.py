"""Runs in the process that has Airflow, and does there what a test outside asks: see real_airflow.py.

A command is a line of JSON on stdin, ``{"call": function, "env": {...}, "with": {arguments}}``, its
answer a line of JSON on the file descriptor that the command line names.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import inside_provider
import inside_version
import sqlalchemy as sa
from airflow.utils import timezone
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.version import version

PAUSE = 0.2
"""Seconds between looks at tasks that are rescheduled."""


def prepare_database() -> str:
    initdb()
    if inside_version.VERSION < (3, 0):
        from airflow.logging_config import configure_logging

        configure_logging()  # alembic has put its own in the place of Airflow's
        # dag.test() adds a stream for a logger that has none, and each line would come twice
        logging.getLogger("airflow.task").addHandler(logging.StreamHandler(io.StringIO()))
    return version


def parse(dag_file: str) -> dict[str, Any]:
    """What the dag processor makes of a file: its DAGs as they are stored, and its import errors."""
    bag = _bag(dag_file)
    return {
        "dags": {dag_id: inside_version.stored_form(dag) for dag_id, dag in bag.dags.items()},
        "import_errors": "\n".join(bag.import_errors.values()),
    }


def test(dag_file: str, dag_id: str, dated: bool) -> dict[str, Any]:
    """One ``dag.test()`` from start to end, with a logical date or, from Airflow 3 on, without."""
    inside_version.activate_assets(_bag(dag_file))
    undated = {} if dated else {"logical_date": None}
    return _report(dag_id, _dag(dag_file, dag_id).test(**undated).run_id)


def begin(dag_file: str, dag_id: str, conf: dict[str, Any] | None = None) -> str:
    """Make a dag run, as ``dag.test()`` does, and leave it to ``go_on``."""
    now = timezone.utcnow()
    with create_session() as session:
        run = inside_version.make_run(_bag(dag_file), _dag(dag_file, dag_id), now, conf, session)
        return run.run_id


def go_on(dag_file: str, dag_id: str, run_id: str) -> dict[str, Any]:
    """Run what can run, until the dag run is over or a task waits for its retry.

    Tasks that wait for their retry when it begins wait no longer. The file is read anew, as each
    worker does: nothing that a task put on its operator is seen by the next try.
    """
    from airflow.models.dagrun import DagRun

    dag = _dag(dag_file, dag_id)
    session = _session()
    run = session.scalars(sa.select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()
    run.dag = inside_version.scheduled_form(dag)
    run.state = "running"
    for ti in run.get_task_instances(session=session):
        if ti.state == "up_for_retry":
            ti.end_date = timezone.utcnow() - timedelta(days=1)
            ti.next_method = ti.next_kwargs = None  # which 3.0 keeps where the trigger ran in this process
            if inside_version.VERSION >= (3, 3):
                ti.retry_delay_override = None
    session.commit()
    while run.state == "running":
        session.expire_all()
        schedulable, _ = run.update_state(session=session)
        for ti in schedulable:
            inside_version.attempt_begins(ti)
            ti.state = "scheduled"
        session.commit()
        tis = run.get_task_instances(session=session)
        ready = [ti for ti in tis if ti.state == "scheduled"]
        if not ready and not any(ti.state == "up_for_reschedule" for ti in tis):
            break
        if not ready:
            time.sleep(PAUSE)
        for ti in ready:
            inside_version.run_task(ti, dag, session)
    session.commit()
    session.close()
    return _report(dag_id, run_id)


def resume(
    dag_file: str, dag_id: str, run_id: str, task_id: str, method: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Have a task that failed go on as if its trigger had ended now."""
    from airflow.models.dagrun import DagRun

    session = _session()
    run = session.scalars(sa.select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()
    (ti,) = (ti for ti in run.get_task_instances(session=session) if ti.task_id == task_id)
    inside_version.take_up(ti, session)
    ti.state = "scheduled"
    ti.next_method = method
    ti.next_kwargs = arguments
    session.commit()
    inside_version.run_task(ti, _dag(dag_file, dag_id), session)
    session.commit()
    session.close()
    return _report(dag_id, run_id)


def clear(dag_file: str, dag_id: str, run_id: str, task_ids: list[str]) -> None:
    """Clear tasks of a run, as a person does in the UI."""
    with create_session() as session:
        inside_version.clear(_dag(dag_file, dag_id), run_id, task_ids, session)


def clear_by_rest(dag_id: str, run_id: str, task_ids: list[str] | None, keep_task_state: bool) -> None:
    """Clear tasks of a run, or the whole run, by the REST API's own route, as the UI does; Airflow 3."""
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    with TestClient(create_app(apps="core")) as client:
        token = client.get("/auth/token").json()["access_token"]
        body: dict[str, Any] = {"dry_run": False, "only_failed": False}
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/clear"
        if task_ids is not None:
            path = f"/api/v2/dags/{dag_id}/clearTaskInstances"
            body |= {"dag_run_id": run_id, "task_ids": task_ids, "reset_dag_runs": True}
        if keep_task_state:
            body["keep_task_state"] = True
        answer = client.post(path, json=body, headers={"Authorization": f"Bearer {token}"})
        assert answer.is_success, f"{answer.status_code} {answer.text}"


def forget_logical_date(dag_id: str, run_id: str) -> None:
    """Make it a run without a logical date, as assets and the REST API start them; Airflow 3."""
    from airflow.models.dagrun import DagRun

    with create_session() as session:
        this = sa.update(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        session.execute(this.values(logical_date=None))


def put_in_state_store(dag_id: str, run_id: str, task_id: str, value: Any) -> None:
    """Overwrite what a task remembers."""
    from airflow.models.task_state_store import TaskStateStoreModel as Store

    with create_session() as session:
        row = session.scalars(
            sa.select(Store).where(Store.dag_id == dag_id, Store.run_id == run_id, Store.task_id == task_id)
        ).one()
        row.value = json.dumps(value)


def _bag(dag_file: str) -> Any:
    return inside_version.DagBag(dag_file)


def _dag(dag_file: str, dag_id: str) -> Any:
    bag = _bag(dag_file)
    if dag_id not in bag.dags:
        raise LookupError(f"{dag_file} has no DAG {dag_id}: {bag.import_errors}")
    return bag.dags[dag_id]


def _session() -> Any:
    from airflow import settings

    return settings.Session()


def _report(dag_id: str, run_id: str) -> dict[str, Any]:
    """What is left of a run in the database."""
    from airflow.models.dagrun import DagRun

    with create_session() as session:
        run = session.scalars(sa.select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()
        tasks: dict[str, dict[str, Any]] = {}
        for ti in run.get_task_instances(session=session):
            tasks[inside_version.name_of(ti.task_id, ti.map_index)] = {
                "state": ti.state,
                "tries": inside_version.tries(ti),
                "shown_as": ti.rendered_map_index,
                "xcom": {},
                "rendered": {},
                "remembered": {},
                "retry_delay": getattr(ti, "retry_delay_override", None),
                "retry_reason": getattr(ti, "retry_reason", None),
            }
        for name, key, value in inside_version.xcoms(dag_id, run_id, session):
            tasks[name]["xcom"][key] = value
        for name, fields in inside_version.rendered(dag_id, run_id, session):
            tasks[name]["rendered"] = fields
        for name, key, value in inside_version.remembered(dag_id, run_id, session):
            tasks[name]["remembered"][key] = value
        return {"run_id": run_id, "state": run.state, "tasks": tasks}


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


COMMANDS = {
    function.__name__: function
    for function in (
        prepare_database,
        parse,
        test,
        begin,
        go_on,
        resume,
        clear,
        clear_by_rest,
        forget_logical_date,
        put_in_state_store,
        inside_provider.store_connection,
        inside_provider.test_connection,
        inside_provider.settings_of,
        inside_provider.hook_form,
        inside_provider.trigger_arguments,
    )
}


def main(answers: int) -> None:
    with os.fdopen(answers, "w") as out:
        for line in sys.stdin:
            command = json.loads(line)
            try:
                with _environment(command["env"]):
                    answer = {"answer": COMMANDS[command["call"]](**command["with"])}
            except Exception:
                answer = {"error": traceback.format_exc()}
            sys.stdout.flush()
            print(json.dumps(answer, default=str), file=out, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

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
import sqlalchemy as sa
from airflow.utils import timezone
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.version import version

AIRFLOW_3 = not version.startswith("2.")
PAUSE = 0.2
"""Seconds between looks at tasks that are rescheduled."""

if AIRFLOW_3:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.xcom import XComModel as XCom
else:
    from airflow.models.dagbag import DagBag
    from airflow.models.xcom import XCom


def prepare_database() -> str:
    initdb()
    if not AIRFLOW_3:
        from airflow.logging_config import configure_logging

        configure_logging()  # alembic has put its own in the place of Airflow's
        # dag.test() adds a stream for a logger that has none, and each line would come twice
        logging.getLogger("airflow.task").addHandler(logging.StreamHandler(io.StringIO()))
    return version


def parse(dag_file: str) -> dict[str, Any]:
    """What the dag processor makes of a file: its DAGs as they are stored, and its import errors."""
    bag = _bag(dag_file)
    return {
        "dags": {dag_id: _stored_form(dag) for dag_id, dag in bag.dags.items()},
        "import_errors": "\n".join(bag.import_errors.values()),
    }


def test(dag_file: str, dag_id: str) -> dict[str, Any]:
    """One ``dag.test()`` from start to end."""
    return _report(dag_id, _dag(dag_file, dag_id).test().run_id)


def begin(dag_file: str, dag_id: str, conf: dict[str, Any] | None = None) -> str:
    """Make a dag run, as ``dag.test()`` does, and leave it to ``go_on``."""
    bag = _bag(dag_file)
    dag = _dag(dag_file, dag_id)
    now = timezone.utcnow()
    with create_session() as session:
        if AIRFLOW_3:
            from airflow.dag_processing.bundles.manager import DagBundlesManager
            from airflow.dag_processing.dagbag import sync_bag_to_db
            from airflow.models.dagrun import get_or_create_dagrun
            from airflow.utils.types import DagRunTriggeredByType

            bundles = DagBundlesManager()
            bundles.sync_bundles_to_db(session=session)
            session.commit()
            sync_bag_to_db(bag, next(iter(bundles.get_all_dag_bundles())).name, None, session=session)
            run = get_or_create_dagrun(
                dag=_scheduled_form(dag),
                run_id=f"manual__{now.isoformat()}",
                logical_date=now,
                data_interval=(now, now),
                run_after=now,
                conf=conf,
                triggered_by=DagRunTriggeredByType.TEST,
                triggering_user_name="test",
                start_date=now,
                session=session,
            )
        else:
            from airflow.models.dag import _get_or_create_dagrun

            dag.sync_to_db(session=session)
            run = _get_or_create_dagrun(
                dag=dag,
                conf=conf,
                start_date=now,
                execution_date=now,
                run_id=f"manual__{now.isoformat()}",
                data_interval=(now, now),
                session=session,
            )
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
    run.dag = _scheduled_form(dag)
    run.state = "running"
    for ti in run.get_task_instances(session=session):
        if ti.state == "up_for_retry":
            ti.end_date = timezone.utcnow() - timedelta(days=1)
            if AIRFLOW_3:
                ti.retry_delay_override = None
    session.commit()
    while run.state == "running":
        session.expire_all()
        schedulable, _ = run.update_state(session=session)
        for ti in schedulable:
            if ti.state != "up_for_reschedule":
                ti.try_number += 1
            ti.state = "scheduled"
        session.commit()
        tis = run.get_task_instances(session=session)
        ready = [ti for ti in tis if ti.state == "scheduled"]
        if not ready and not any(ti.state == "up_for_reschedule" for ti in tis):
            break
        if not ready:
            time.sleep(PAUSE)
        for ti in ready:
            _run_task(ti, dag, session)
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
    ti.state = "scheduled"
    ti.next_method = method
    ti.next_kwargs = arguments
    session.commit()
    _run_task(ti, _dag(dag_file, dag_id), session)
    session.commit()
    session.close()
    return _report(dag_id, run_id)


def clear(dag_file: str, dag_id: str, run_id: str, task_ids: list[str]) -> None:
    """Clear tasks of a run, as a person does in the UI."""
    dag = _dag(dag_file, dag_id)
    if AIRFLOW_3:
        _scheduled_form(dag).clear(task_ids=task_ids, run_id=run_id)
        return
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import clear_task_instances

    with create_session() as session:
        run = session.scalars(sa.select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()
        tis = [ti for ti in run.get_task_instances(session=session) if ti.task_id in task_ids]
        clear_task_instances(tis, session, dag=dag)


def put_in_state_store(dag_id: str, run_id: str, task_id: str, value: Any) -> None:
    """Overwrite what a task remembers."""
    from airflow.models.task_state_store import TaskStateStoreModel as Store

    with create_session() as session:
        row = session.scalars(
            sa.select(Store).where(Store.dag_id == dag_id, Store.run_id == run_id, Store.task_id == task_id)
        ).one()
        row.value = json.dumps(value)


def _bag(dag_file: str) -> Any:
    return DagBag(dag_file)


def _dag(dag_file: str, dag_id: str) -> Any:
    bag = _bag(dag_file)
    if dag_id not in bag.dags:
        raise LookupError(f"{dag_file} has no DAG {dag_id}: {bag.import_errors}")
    return bag.dags[dag_id]


def _stored_form(dag: Any) -> Any:
    if AIRFLOW_3:
        from airflow.serialization.serialized_objects import DagSerialization as Serialization
    else:
        from airflow.serialization.serialized_objects import SerializedDAG as Serialization
    stored = Serialization.to_dict(dag)
    Serialization.from_dict(json.loads(json.dumps(stored)))
    return stored


def _scheduled_form(dag: Any) -> Any:
    """The DAG as the scheduler has it."""
    if not AIRFLOW_3:
        return dag
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))


def _session() -> Any:
    from airflow import settings

    return settings.Session()


def _run_task(ti: Any, dag: Any, session: Any) -> None:
    with contextlib.suppress(Exception):  # Airflow has logged it, and set the task's state
        if AIRFLOW_3:
            from airflow.sdk.definitions.dag import _run_task as run_task

            run_task(ti=ti, task=dag.task_dict[ti.task_id], run_triggerer=True)
        else:
            from airflow.models.dag import _run_task as run_task

            ti.task = dag.task_dict[ti.task_id]
            run_task(ti=ti, inline_trigger=True, session=session)


def _report(dag_id: str, run_id: str) -> dict[str, Any]:
    """What is left of a run in the database."""
    from airflow.models.dagrun import DagRun
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Rendered

    with create_session() as session:
        run = session.scalars(sa.select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()
        tasks: dict[str, dict[str, Any]] = {}
        for ti in run.get_task_instances(session=session):
            tasks[_name(ti)] = {
                "state": ti.state,
                "tries": ti.try_number,
                "shown_as": ti.rendered_map_index,
                "xcom": {},
                "rendered": {},
                "remembered": {},
                "retry_delay": getattr(ti, "retry_delay_override", None),
                "retry_reason": getattr(ti, "retry_reason", None),
            }
        for row in session.scalars(sa.select(XCom).where(XCom.dag_id == dag_id, XCom.run_id == run_id)):
            tasks[_name(row)]["xcom"][row.key] = XCom.deserialize_value(row) if AIRFLOW_3 else row.value
        rendered = sa.select(Rendered).where(Rendered.dag_id == dag_id, Rendered.run_id == run_id)
        for row in session.scalars(rendered):
            tasks[_name(row)]["rendered"] = row.rendered_fields
        if AIRFLOW_3:
            from airflow.models.task_state_store import TaskStateStoreModel as Store

            for row in session.scalars(
                sa.select(Store).where(Store.dag_id == dag_id, Store.run_id == run_id)
            ):
                tasks[_name(row)]["remembered"][row.key] = json.loads(row.value)
        return {"run_id": run_id, "state": run.state, "tasks": tasks}


def _name(row: Any) -> str:
    return row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]"


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

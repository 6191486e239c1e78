"""What differs between Airflow 2.11 and 3.4 in what inside_airflow.py does: each difference once, here."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from airflow.version import version

VERSION = tuple(map(int, version.split(".")[:2]))

if VERSION >= (3, 2):
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization as Serialization
else:
    from airflow.models.dagbag import DagBag
    from airflow.serialization.serialized_objects import SerializedDAG as Serialization

if VERSION >= (3, 0):
    from airflow.models.xcom import XComModel as XCom
else:
    from airflow.models.xcom import XCom

__all__ = [
    "VERSION",
    "DagBag",
    "activate_assets",
    "attempt_begins",
    "clear",
    "make_run",
    "name_of",
    "remembered",
    "rendered",
    "run_task",
    "scheduled_form",
    "stored_form",
    "take_up",
    "tries",
    "xcoms",
]

if (3, 0) <= VERSION < (3, 1):
    # Its console would wrap tracebacks into coloured boxes with all local variables.
    import structlog

    structlog.dev.RichTracebackFormatter.__call__ = lambda self, sio, exc_info: structlog.dev.plain_traceback(
        sio, exc_info
    )

ALL_ATTEMPTS = {"include_all_attempts": True}
"""Of 3.4: what an ORM query has to ask for to see more than the row of the current attempt."""


def stored_form(dag: Any) -> dict[str, Any]:
    """A DAG as the DAG processor stores it."""
    stored = Serialization.to_dict(dag)
    Serialization.from_dict(json.loads(json.dumps(stored)))
    return stored


def scheduled_form(dag: Any) -> Any:
    """A DAG as the scheduler has it."""
    return dag if VERSION < (3, 0) else Serialization.from_dict(Serialization.to_dict(dag))


def make_run(bag: Any, dag: Any, now: datetime, conf: dict[str, Any] | None, session: Any) -> Any:
    """A dag run of which nothing has run yet, made as ``dag.test()`` does it."""
    arguments = {
        "run_id": f"manual__{now.isoformat()}",
        "data_interval": (now, now),
        "conf": conf,
        "start_date": now,
        "session": session,
    }
    if VERSION < (3, 0):
        from airflow.models.dag import _get_or_create_dagrun

        dag.sync_to_db(session=session)
        return _get_or_create_dagrun(dag=dag, execution_date=now, **arguments)
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.types import DagRunTriggeredByType

    bundles = DagBundlesManager()
    bundles.sync_bundles_to_db(session=session)
    session.commit()
    bundle = next(iter(bundles.get_all_dag_bundles())).name
    arguments |= {"logical_date": now, "run_after": now, "triggered_by": DagRunTriggeredByType.TEST}
    if VERSION < (3, 1):
        from airflow.models.dag import _get_or_create_dagrun

        bag.sync_to_db(bundle, None, session=session)
        return _get_or_create_dagrun(dag=scheduled_form(dag), **arguments)
    from airflow.models.dagrun import get_or_create_dagrun

    if VERSION < (3, 2):
        from airflow.models.dagbag import sync_bag_to_db
    else:
        from airflow.dag_processing.dagbag import sync_bag_to_db
    sync_bag_to_db(bag, bundle, None, session=session)
    return get_or_create_dagrun(dag=scheduled_form(dag), triggering_user_name="test", **arguments)


def activate_assets(bag: Any) -> None:
    """Store a file's DAGs where ``dag.test()`` does not: 3.0 then refuses their assets as inactive."""
    if not (3, 0) <= VERSION < (3, 1):
        return
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.utils.session import create_session

    with create_session() as session:
        bundles = DagBundlesManager()
        bundles.sync_bundles_to_db(session=session)
        session.commit()
        bag.sync_to_db(next(iter(bundles.get_all_dag_bundles())).name, None, session=session)


def attempt_begins(ti: Any) -> None:
    """Give a task instance that the scheduler takes up the number of its attempt.

    From 3.4 on, the failure or the clear before it has made the attempt's row, with its number.
    """
    if ti.state != "up_for_reschedule":
        ti.try_number = max(1, ti.try_number) if VERSION >= (3, 4) else ti.try_number + 1


def take_up(ti: Any, session: Any) -> None:
    """Put a task instance that failed back into the attempt that failed.

    From 3.4 on its row stands for the next attempt already, and what the failed one pushed is not seen there.
    """
    if VERSION < (3, 4):
        return
    from airflow.models.taskinstance import TaskInstance as TI
    from airflow.models.xcom import XComModelV2

    failed = sa.select(TI.id).where(
        TI.dag_id == ti.dag_id,
        TI.run_id == ti.run_id,
        TI.task_id == ti.task_id,
        TI.region_index == ti.region_index,
        TI.try_number == ti.try_number - 1,
    )
    failed_id = session.scalars(failed.execution_options(**ALL_ATTEMPTS)).one_or_none()
    if failed_id is not None:
        pushed = sa.update(XComModelV2).where(XComModelV2.task_instance_id == failed_id)
        session.execute(pushed.values(task_instance_id=ti.id))


def run_task(ti: Any, dag: Any, session: Any) -> None:
    """Run one segment of a task, and its trigger inline."""
    task = dag.task_dict[ti.task_id]
    with contextlib.suppress(Exception):  # Airflow has logged it, and set the task's state
        if VERSION >= (3, 1):
            from airflow.sdk.definitions.dag import _run_task

            _run_task(ti=ti, task=task, run_triggerer=True)
        elif VERSION >= (3, 0):
            from airflow.sdk.definitions.dag import _run_task

            ti.task = task
            _run_task(ti=ti, run_triggerer=True)
        else:
            from airflow.models.dag import _run_task

            ti.task = task
            _run_task(ti=ti, inline_trigger=True, session=session)


def clear(dag: Any, run_id: str, task_ids: list[str], session: Any) -> None:
    """Clear tasks of a run, as a person does in the UI."""
    if VERSION >= (3, 0):
        scheduled_form(dag).clear(task_ids=task_ids, run_id=run_id)
        return
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import clear_task_instances

    run = session.scalars(sa.select(DagRun).where(DagRun.dag_id == dag.dag_id, DagRun.run_id == run_id)).one()
    tis = [ti for ti in run.get_task_instances(session=session) if ti.task_id in task_ids]
    clear_task_instances(tis, session, dag=dag)


def name_of(task_id: str, map_index: int) -> str:
    """What the tests call a task instance."""
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


def tries(ti: Any) -> int:
    """How often a task instance has run."""
    return max(0, ti.try_number - 1) if VERSION >= (3, 4) and _is_pending(ti) else ti.try_number


def xcoms(dag_id: str, run_id: str, session: Any) -> Iterator[tuple[str, str, Any]]:
    """Of each XCom the task's name, its key and its value.

    From 3.4 on those of the last attempt that ran: what it pushed stays, though the next attempt, which
    the row in use stands for, sees nothing of it.
    """
    if VERSION >= (3, 4):
        from airflow.models.xcom import XComModelV2

        for name, row in _of_last_attempts(XComModelV2, dag_id, run_id, session):
            yield name, row.key, XCom.deserialize_value(row)
        return
    for row in session.scalars(sa.select(XCom).where(XCom.dag_id == dag_id, XCom.run_id == run_id)):
        value = XCom.deserialize_value(row) if VERSION >= (3, 0) else row.value
        yield name_of(row.task_id, row.map_index), row.key, value


def rendered(dag_id: str, run_id: str, session: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each task instance that ran its name and its rendered template fields."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Rendered

    if VERSION >= (3, 4):
        for name, row in _of_last_attempts(Rendered, dag_id, run_id, session):
            yield name, row.rendered_fields
        return
    of_run = sa.select(Rendered).where(Rendered.dag_id == dag_id, Rendered.run_id == run_id)
    for row in session.scalars(of_run):
        yield name_of(row.task_id, row.map_index), row.rendered_fields


def remembered(dag_id: str, run_id: str, session: Any) -> Iterator[tuple[str, str, Any]]:
    """Of each entry in the task state store, where there is one, the task's name, its key and value."""
    if VERSION < (3, 3):
        return
    from airflow.models.task_state_store import TaskStateStoreModel as Store

    for row in session.scalars(sa.select(Store).where(Store.dag_id == dag_id, Store.run_id == run_id)):
        map_index = row.region_index if VERSION >= (3, 4) else row.map_index
        yield name_of(row.task_id, map_index), row.key, json.loads(row.value)


def _of_last_attempts(model: Any, dag_id: str, run_id: str, session: Any) -> Iterator[tuple[str, Any]]:
    """What the last attempt of each task instance left: the task's name and a row that the attempt keys."""
    from airflow.models.taskinstance import TaskInstance as TI

    of_run = sa.select(TI).where(TI.dag_id == dag_id, TI.run_id == run_id).order_by(TI.try_number)
    attempts = session.scalars(of_run.execution_options(**ALL_ATTEMPTS)).all()
    last = {(ti.task_id, ti.map_index): ti for ti in attempts if not _is_pending(ti)}
    for ti in last.values():
        for row in session.scalars(sa.select(model).where(model.task_instance_id == ti.id)):
            yield name_of(ti.task_id, ti.map_index), row


def _is_pending(ti: Any) -> bool:
    """Whether this row, of 3.4, stands for an attempt that has not begun."""
    return bool(ti.working_set) and ti.state in (None, "up_for_retry")

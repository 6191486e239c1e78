"""Makes DAG runs all of whose task instances are deferred already, as if workers had done it.

Many small runs: Airflow's triggerer reads the whole DAG anew for each trigger that it starts, and
would need minutes for a DAG of a thousand tasks.

Run in the environment of an Airflow: ``python deferred.py FILE``. The file, JSON, holds ``dags``,
the folder to write the DAG file to, ``connection``, the generations to wait for, ``ids``, when each
was submitted, ``submitted_at``, and what schedule and deadline the triggers get.
"""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.models.connection import Connection
from airflow.models.dagrun import get_or_create_dagrun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils import timezone
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType
from sqlalchemy.orm import Session

from airflow_provider_kling.triggers.kling import KlingGenerationTrigger

DAG_ID = "thousand"
TASKS = 20
DAG_FILE = f"""
from airflow.sdk import DAG
from airflow_provider_kling.sensors.kling import KlingGenerationSensor

with DAG("{DAG_ID}"):
    for number in range({TASKS}):
        KlingGenerationSensor(task_id=f"wait_{{number:02}}", generation_id="x", deferrable=True)
"""


def main(order: dict[str, Any]) -> None:
    ids = order["ids"]
    Path(order["dags"], "thousand.py").write_text(DAG_FILE)
    bag = DagBag(order["dags"])
    assert not bag.import_errors, bag.import_errors
    now = timezone.utcnow()
    with create_session() as session:
        session.add(Connection(conn_id="kling_default", conn_type="kling", **order["connection"]))
        bundles = DagBundlesManager()
        bundles.sync_bundles_to_db(session=session)
        session.commit()
        sync_bag_to_db(bag, next(iter(bundles.get_all_dag_bundles())).name, None, session=session)
        dag = DagSerialization.from_dict(DagSerialization.to_dict(bag.dags[DAG_ID]))
        for start in range(0, len(ids), TASKS):
            moment = now - timedelta(seconds=start)
            run = get_or_create_dagrun(
                dag=dag,
                run_id=f"from_{start:05}",
                logical_date=moment,
                data_interval=(moment, moment),
                run_after=moment,
                conf=None,
                triggered_by=DagRunTriggeredByType.TEST,
                triggering_user_name="test",
                start_date=now,
                session=session,
            )
            tis = sorted(run.get_task_instances(session=session), key=lambda ti: ti.task_id)
            for place, ti in enumerate(tis, start):
                defer(ti, order, place, session)


def defer(ti: TaskInstance, order: dict[str, Any], place: int, session: Session) -> None:
    """What a worker leaves behind whose task deferred itself."""
    trigger = Trigger.from_object(
        KlingGenerationTrigger(
            generation_id=order["ids"][place],
            submitted_at=order["submitted_at"][place],
            deadline=order["deadline"],
            schedule=order["schedule"],
        )
    )
    session.add(trigger)
    session.flush()
    ti.state = TaskInstanceState.DEFERRED
    ti.trigger_id = trigger.id
    ti.trigger_timeout = timezone.utcnow() + timedelta(hours=1)
    ti.next_method = "execute_complete"
    ti.next_kwargs = {}
    ti.start_date = timezone.utcnow()
    ti.try_number = 1


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))

"""Run a DAG once in this process: ``run_dag.py DAG_FILE DAG_ID TASK_ID``.

Prints a JSON line for each step, the last with what the task returned. Airflow, told to log JSON,
prints its own lines among them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from airflow import settings
from airflow.dag_processing.dagbag import DagBag
from airflow.models.xcom import XComModel
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.version import version

LOGGER = "run_dag"
"""The ``logger`` of the lines that this script prints."""


def tell(event: str, **facts: Any) -> None:
    print(json.dumps({"logger": LOGGER, "event": event, **facts}), flush=True)


def main(dag_file: str, dag_id: str, task_id: str) -> None:
    initdb()
    tell(f"Airflow {version}, its database is ready")
    bag = DagBag(dag_file)
    if dag_id not in bag.dags:
        for error in bag.import_errors.values():
            tell(error, level="error")
        raise SystemExit(f"{dag_file} has no DAG {dag_id}")
    run = bag.dags[dag_id].test()
    if run.state != "success":
        raise SystemExit(f"The run of {dag_id} ended as {run.state}")
    pushed = XComModel.get_many(run_id=run.run_id, dag_ids=dag_id, task_ids=task_id, key="return_value")
    with create_session() as session:
        returned = session.scalars(pushed).one()
        tell("finished", returned=XComModel.deserialize_value(returned))
    if hasattr(settings, "dispose_async_engine"):  # 3.4; at exit it would be too late to close them
        asyncio.run(settings.dispose_async_engine())


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Each night: what was paid yesterday and never saved, by the vendor's own logs, and its videos saved.

A task can fail for good after its generation was paid. Every submit of the provider carries an id by which
the vendor's logs know it, so what has no video yet is found, reported, and saved. Nothing is submitted.
"""

from __future__ import annotations

import os
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kling.operators.reconcile import KlingReconcileOperator

OUTPUT = os.environ.get("KLING_OUTPUT", "output")

with DAG(
    "kling_reconcile",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
) as dag:
    KlingReconcileOperator(
        task_id="reconcile",
        dag_ids=["kling_quickstart", "kling_text_to_video", "kling_all_in_one"],  # these save here
        path=os.path.join(OUTPUT, "{generation_id}.mp4"),
        csv_path=os.path.join(OUTPUT, "reconciled.csv"),
        action="save",
        retries=2,
    )

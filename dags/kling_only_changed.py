"""Every night over a folder of product pictures: only those that are new or changed cost something."""

from __future__ import annotations

import os

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator

OUTPUT = os.environ.get("KLING_OUTPUT", "output")
PICTURES = os.environ.get("KLING_PICTURES", f"{OUTPUT}/pictures")

with DAG(
    "kling_only_changed",
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1),
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
):
    KlingGenerateBatchOperator(
        task_id="clips",
        requests=f"{PICTURES}/",
        prompt="The product turns slowly.",
        duration=5,
        path=f"{OUTPUT}/clips/",
        on_invalid="skip",
        skip_unchanged=True,
    )

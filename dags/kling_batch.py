"""A campaign as one task: each row of a CSV file becomes a clip; only rows that changed are made again."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator

OUTPUT = os.environ.get("KLING_OUTPUT", "output")
CLIPS = 200

with DAG("kling_batch", schedule=None, tags=["kling"], doc_md=__doc__):

    @task
    def write_rows() -> str:
        """Write the rows that a spreadsheet or a database would give you."""
        path = Path(OUTPUT) / "campaign" / "rows.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["sku", "text"])
            rows.writerows([f"mug-{n:03}", f"Mug number {n} on a table, steam rises."] for n in range(CLIPS))
        return str(path)

    KlingGenerateBatchOperator(
        task_id="clips",
        requests=write_rows(),
        columns={"key": "sku", "prompt": "text"},
        model="kling-video/v1.6/standard/text-to-video",
        duration=5,
        path=f"{OUTPUT}/campaign/clips/",
        max_active=50,
        max_failures=0.05,
        skip_unchanged=True,
    )

"""Every night, each product picture becomes a clip: one mapped task instance a picture.

The list is plain here; in production it comes from a task, and everything after it stays the same.
The pool of the account's concurrency is Airflow's: set ``pool=`` on ``generate`` to bound it.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor

PICTURES = Path(__file__).parent / "pictures"
OUTPUT = os.environ.get("KLING_OUTPUT", "output")

with DAG(
    "kling_product_pictures",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
) as dag:

    @task
    def list_products() -> list[dict[str, str]]:
        """The night's work: the arguments of ``generate`` that differ."""
        return [
            {"image": str(PICTURES / "mug.jpg"), "prompt": "Steam rises from the mug on the table."},
            {"image": str(PICTURES / "lamp.jpg"), "prompt": "The lamp flickers on in a dark room."},
        ]

    generate = KlingGenerateOperator.partial(
        task_id="generate", duration=5, negative_prompt="text, watermark", retries=2
    ).expand_kwargs(list_products())
    wait = KlingGenerationSensor.partial(
        task_id="wait", deferrable=True, poke_interval=5, timeout=3600
    ).expand(generation_id=generate.output)
    download = KlingDownloadOperator.partial(
        task_id="download", path=os.path.join(OUTPUT, "{{ run_id }}", "{generation_id}.mp4"), retries=3
    ).expand(generation_id=generate.output)
    wait >> download

"""Generate and wait in one task: its return value is the id of a generation that is completed."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator

PICTURE = Path(__file__).parent / "pictures" / "lamp.jpg"
OUTPUT = os.environ.get("KLING_OUTPUT", "output")

with DAG("kling_all_in_one", schedule=None, catchup=False, tags=["kling"], doc_md=__doc__) as dag:
    generate = KlingGenerateOperator(
        task_id="generate",
        prompt="The lamp flickers on in a dark room.",
        image=str(PICTURE),
        duration=5,
        wait_for_completion=True,
        deferrable=True,
        poke_interval=5,
    )
    KlingDownloadOperator(
        task_id="download",
        generation_id=generate.output,
        path=os.path.join(OUTPUT, "{generation_id}.mp4"),
    )

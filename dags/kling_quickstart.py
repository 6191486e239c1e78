"""A picture and a prompt become a video file: generate, wait, download.

The three tasks hand on a generation id. The wait is deferred: it holds no worker. Runs against the
emulator as it is, and against the vendor with a key in the connection ``kling_default``.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor

PICTURE = Path(__file__).parent / "pictures" / "mona_lisa.jpg"
OUTPUT = os.environ.get("KLING_OUTPUT", "output")

with DAG("kling_quickstart", schedule=None, catchup=False, tags=["kling"], doc_md=__doc__) as dag:
    generate = KlingGenerateOperator(
        task_id="generate",
        prompt="Mona Lisa puts on glasses with her hands.",
        image=str(PICTURE),
        duration=5,
    )
    wait = KlingGenerationSensor(task_id="wait", generation_id=generate.output, deferrable=True, timeout=3600)
    download = KlingDownloadOperator(
        task_id="download",
        generation_id=generate.output,
        path=os.path.join(OUTPUT, "{generation_id}.mp4"),
    )
    wait >> download

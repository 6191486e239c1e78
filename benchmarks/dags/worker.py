"""A task that does nothing, and each kind of segment that this provider runs on a worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor

OUTPUT = os.environ["KLING_OUTPUT"]
REQUEST: dict[str, Any] = {
    "model": "kling-video/v1.6/standard/image-to-video",
    "prompt": "Slow push-in",
    "image": str(Path(__file__).parent / "pictures" / "mug.jpg"),
}
WAIT: dict[str, Any] = {"deferrable": True, "poke_interval": 2}

with DAG("worker", schedule=None, catchup=False):
    nothing = BashOperator(task_id="nothing", bash_command="true")
    submit = KlingGenerateOperator(task_id="submit", **REQUEST)
    sensor = KlingGenerationSensor(task_id="sensor", generation_id=submit.output, **WAIT)
    download = KlingDownloadOperator(
        task_id="download",
        generation_id=submit.output,
        path=os.path.join(OUTPUT, "{{ run_id }}", "{generation_id}.mp4"),
    )
    whole = KlingGenerateOperator(
        task_id="whole",
        path=os.path.join(OUTPUT, "{{ run_id }} in one", "{generation_id}.mp4"),
        **REQUEST,
        **WAIT,
    )
    nothing >> submit >> sensor >> download >> whole

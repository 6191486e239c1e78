"""The same clips in three forms: one batch, one task for each clip, three tasks for each clip."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG

from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator
from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor

OUTPUT = os.environ["KLING_OUTPUT"]
MODEL = "kling-video/v1.6/standard/text-to-video"
ROWS, MAPPED = int(os.environ["KLING_ROWS"]), int(os.environ["KLING_MAPPED"])
PROMPTS = [f"Product {number} turns." for number in range(MAPPED)]
WAIT: dict[str, Any] = {"deferrable": True, "poke_interval": 2}

with DAG("batch", schedule=None, catchup=False):
    KlingGenerateBatchOperator(
        task_id="batch",
        requests=os.path.join(OUTPUT, "rows.jsonl"),
        path=os.path.join(OUTPUT, "batch", ""),
        model=MODEL,
        max_active=200,
        poke_interval=2,
    )

with DAG("whole", schedule=None, catchup=False):
    KlingGenerateOperator.partial(
        task_id="whole", model=MODEL, path=os.path.join(OUTPUT, "whole", "{generation_id}.mp4"), **WAIT
    ).expand(prompt=PROMPTS)

with DAG("three", schedule=None, catchup=False):
    submit = KlingGenerateOperator.partial(task_id="submit", model=MODEL).expand(prompt=PROMPTS)
    sensor = KlingGenerationSensor.partial(task_id="sensor", **WAIT).expand(generation_id=submit.output)
    download = KlingDownloadOperator.partial(
        task_id="download", path=os.path.join(OUTPUT, "three", "{generation_id}.mp4")
    ).expand(generation_id=submit.output)
    sensor >> download

"""A wave of generations, from a picture to a saved file: half by three tasks, half by one; and a batch beside."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, get_current_context, task

from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator
from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor

MODEL = "kling-video/v1.6/standard/image-to-video"
PICTURE = str(Path(__file__).parent / "pictures" / "mug.jpg")
FOLDER = os.path.join(os.environ["KLING_OUTPUT"], "{{ dag_run.conf['wave'] }}")
PATH = os.path.join(FOLDER, "{generation_id}.mp4")
RETRIES: dict[str, Any] = {"retries": 8, "retry_delay": timedelta(seconds=3)}

with DAG("deployment", schedule=None, catchup=False, max_active_runs=30):

    @task(retries=8, retry_delay=timedelta(seconds=3))
    def prompts(form: str) -> list[str]:
        """One for each generation of this form."""
        conf = get_current_context()["dag_run"].conf
        return [f"{conf['wave']} {form} {number}" for number in range(conf["count"] // 2)]

    @task(retries=8, retry_delay=timedelta(seconds=3))
    def rows() -> list[dict[str, str]]:
        """One for each generation of the batch."""
        conf = get_current_context()["dag_run"].conf
        return [
            {"key": str(number), "prompt": f"{conf['wave']} batch {number}"}
            for number in range(conf["batch"])
        ]

    KlingGenerateBatchOperator(
        task_id="batch",
        requests=rows(),
        model=MODEL,
        image=PICTURE,
        path=os.path.join(FOLDER, "batch", "{generation_id}.mp4"),
        max_active=4,
        poke_interval=5,
        timeout=1800,
        **RETRIES,
    )

    KlingGenerateOperator.partial(
        task_id="all_in_one",
        model=MODEL,
        image=PICTURE,
        wait_for_completion=True,
        deferrable=True,
        poke_interval=5,
        timeout=1800,
        path=PATH,
        **RETRIES,
    ).expand(prompt=prompts.override(task_id="prompts_of_one")("one"))

    generate = KlingGenerateOperator.partial(
        task_id="generate", model=MODEL, image=PICTURE, **RETRIES
    ).expand(prompt=prompts.override(task_id="prompts_of_three")("three"))
    wait = KlingGenerationSensor.partial(
        task_id="wait", deferrable=True, poke_interval=5, timeout=1800, **RETRIES
    ).expand(generation_id=generate.output)
    download = KlingDownloadOperator.partial(task_id="download", path=PATH, **RETRIES).expand(
        generation_id=generate.output
    )
    wait >> download

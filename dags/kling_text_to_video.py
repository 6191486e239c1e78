"""No picture: another model makes a video from the prompt alone.

``parameters`` takes what a model has beyond the operator's own arguments, by the vendor's names.
The prompt and the length come from the run's params, so they can be changed when it is triggered.
"""

from __future__ import annotations

import os

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor

MODEL = "klingai/video-v3-standard-text-to-video"
OUTPUT = os.environ.get("KLING_OUTPUT", "output")

with DAG(
    "kling_text_to_video",
    schedule=None,
    catchup=False,
    tags=["kling"],
    params={
        "prompt": Param("A paper boat sails down a rainy street.", type="string"),
        "duration": Param(4, type="integer", minimum=3, maximum=15),
    },
    doc_md=__doc__,
) as dag:
    generate = KlingGenerateOperator(
        task_id="generate",
        model=MODEL,
        prompt="{{ params.prompt }}",
        duration="{{ params.duration }}",
        parameters={"aspect_ratio": "9:16", "generate_audio": False},
    )
    wait = KlingGenerationSensor(
        task_id="wait",
        generation_id=generate.output,
        model=MODEL,
        mode="reschedule",
        poke_interval=10,
        timeout=3600,
    )
    download = KlingDownloadOperator(
        task_id="download",
        generation_id=generate.output,
        path=os.path.join(OUTPUT, "{generation_id}.mp4"),
    )
    wait >> download

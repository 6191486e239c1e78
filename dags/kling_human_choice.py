"""Four variants of one picture; an editor watches them in Airflow's UI and clicks, and one is published.

Airflow's human-in-the-loop operators (3.1 and newer) hold no worker while the editor thinks. The *Kling*
tab of the task ``choose`` plays the variants side by side, each with the button of its option: the first
option is the first variant, and so on. *Required Actions* asks the same question without the videos.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from airflow import __version__
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_kling.operators.kling import KlingDownloadOperator

PICTURE = Path(__file__).parent / "pictures" / "mug.jpg"
OUTPUT = os.environ.get("KLING_OUTPUT", "output")
VARIANTS = {
    "gentle": {"prompt": "Steam rises from the mug.", "cfg_scale": 0.3},
    "literal": {"prompt": "Steam rises from the mug.", "cfg_scale": 0.8},
    "turning": {"prompt": "The mug turns slowly on the table."},
    "morning": {"prompt": "Morning light moves over the mug."},
}

if tuple(map(int, __version__.split(".")[:2])) >= (3, 1):
    from airflow.providers.standard.operators.hitl import HITLOperator

    with DAG("kling_human_choice", schedule=None, catchup=False, tags=["kling"], doc_md=__doc__) as dag:

        @task.kling_generate(
            image=str(PICTURE),
            duration=5,
            path=f"{OUTPUT}/choices/{{generation_id}}.mp4",
            deferrable=True,
            poke_interval=5,
        )
        def generate() -> list[dict[str, Any]]:
            """Each variant is a generation of its own."""
            return list(VARIANTS.values())

        @task
        def chosen(ids: list[str], answer: dict[str, Any]) -> str:
            """The generation that the editor chose."""
            return ids[list(VARIANTS).index(answer["chosen_options"][0])]

        ids = generate()
        choose = HITLOperator(
            task_id="choose",
            subject="Which video is to be published?",
            body="Watch the variants in the Kling tab of this task, and choose there or here.",
            options=list(VARIANTS),
        )
        ids >> choose
        KlingDownloadOperator(
            task_id="publish",
            generation_id=chosen(ids, choose.output),
            path=f"{OUTPUT}/published/{{generation_id}}.mp4",
            sidecar=True,
        )

"""Generations whose tasks, or whose whole run, a person clears."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_kling.operators.kling import KlingGenerateOperator

SLOW = "A boat. [emulator: slow=3600]"
COMMON: dict[str, Any] = {
    "model": "klingai/video-v3-standard-text-to-video",
    "duration": 3,
    "uncertain_grace": 20,
    "poke_interval": 2,
    "kling_conn_id": "kling_clears",
}


def generate(task_id: str, prompt: str = "A boat.", **arguments: Any) -> None:
    KlingGenerateOperator(task_id=task_id, prompt=prompt, **COMMON, **arguments)


with DAG("clears", schedule=None, catchup=False):

    @task
    def prompts() -> list[str]:
        return ["one", "two"]

    generate("success")
    generate("working", SLOW)
    generate("all_in_one", deferrable=True, path=f"{os.environ['KLING_OUTPUT']}/clears/{{generation_id}}.mp4")
    KlingGenerateOperator.partial(task_id="mapped", **COMMON).expand(prompt=prompts())
    if os.environ.get("KLING_CLEARS") != "ended":
        generate("deferred", SLOW, wait_for_completion=True, deferrable=True)
        generate("blocking", SLOW, wait_for_completion=True)
        generate("marked_failed", SLOW, wait_for_completion=True, deferrable=True)

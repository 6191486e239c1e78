"""Generations whose tasks a person clears or marks as failed while they work."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_kling.operators.kling import KlingGenerateOperator

with DAG("stopped", schedule=None, catchup=False):
    for task_id, deferrable in (("cleared", True), ("failed_deferred", True), ("failed_running", False)):
        KlingGenerateOperator(
            task_id=task_id,
            model="klingai/video-v3-standard-text-to-video",
            prompt="A paper boat.",
            duration=3,
            kling_conn_id="kling_stopped",
            wait_for_completion=True,
            deferrable=deferrable,
            poke_interval=2,
        )

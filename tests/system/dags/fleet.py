"""Fifty generations that wait at the same time."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_kling.operators.kling import KlingGenerateOperator

with DAG("fleet", schedule=None, catchup=False):
    KlingGenerateOperator.partial(
        task_id="generate",
        model="klingai/video-v3-standard-text-to-video",
        duration=3,
        kling_conn_id="kling_fleet",
        wait_for_completion=True,
        deferrable=True,
        poke_interval=5,
        pool="fleet",
    ).expand(prompt=[f"Paper boat number {number}." for number in range(50)])

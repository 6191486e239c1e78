"""Submits whose answers are lost, which are searched for in the triggerer."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_kling.operators.kling import KlingGenerateOperator

with DAG("searches", schedule=None, catchup=False):
    KlingGenerateOperator.partial(
        task_id="generate",
        model="klingai/video-v3-standard-text-to-video",
        duration=3,
        uncertain_grace=60,
        deferrable=True,
        kling_conn_id="kling_searches",
    ).expand(prompt=["one", "two", "three", "four"])

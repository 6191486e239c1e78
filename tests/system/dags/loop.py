"""A loop of three passes, each of which makes a video of the same request; Airflow 3.4 and newer."""

from __future__ import annotations

import os

from airflow.sdk import DAG, get_current_context, task, task_group

from airflow_provider_kling.cost_report import KlingCostReport
from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator

OUTPUT = f"{os.environ['KLING_OUTPUT']}/loop"

with DAG("loop", schedule=None, catchup=False):

    @task_group
    def passes() -> None:
        generate = KlingGenerateOperator(
            task_id="generate",
            model="klingai/video-v3-standard-text-to-video",
            prompt="A boat.",
            duration=3,
            uncertain_grace=20,
            poke_interval=2,
            kling_conn_id="kling_loop",
            path=f"{OUTPUT}/made-{{loop_index}}.mp4",
        )
        KlingDownloadOperator(
            task_id="download",
            generation_id=generate.output,
            path=f"{OUTPUT}/loaded-{{loop_index}}.mp4",
            kling_conn_id="kling_loop",
        )

    @task(retries=5, retry_delay=5)
    def report() -> None:
        costs = KlingCostReport("kling_loop")
        costs.tell(costs.of_run(get_current_context()), csv_path=f"{OUTPUT}/costs.csv")

    passes.loop(max_iterations=3) >> report()

"""A night's clips within a budget: no clip above a limit, and in the morning a report of what it cost.

A generation whose price is above ``max_cost_usd``, by the vendor's own price list, is not submitted.
The report is in the log of the last task and, as CSV, beside the videos.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, get_current_context, task

from airflow_provider_kling.operators.kling import KlingGenerateOperator

PICTURES = Path(__file__).parent / "pictures"
OUTPUT = os.environ.get("KLING_OUTPUT", "output")

with DAG(
    "kling_nightly_budget",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["kling"],
    params={"max_cost_usd": Param(0.5, type="number", exclusiveMinimum=0)},
    doc_md=__doc__,
) as dag:
    generate = KlingGenerateOperator.partial(
        task_id="generate",
        duration=5,
        path=f"{OUTPUT}/nightly/{{generation_id}}.mp4",
        max_cost_usd="{{ params.max_cost_usd }}",
        check_balance=True,
        deferrable=True,
        poke_interval=5,
        retries=2,
    ).expand_kwargs(
        [
            {"image": str(PICTURES / "mug.jpg"), "prompt": "Steam rises from the mug on the table."},
            {"image": str(PICTURES / "lamp.jpg"), "prompt": "The lamp flickers on in a dark room."},
        ]
    )

    @task(trigger_rule="all_done")
    def report() -> dict[str, Any]:
        """What the run cost, whatever became of it."""
        from airflow_provider_kling.cost_report import KlingCostReport

        context = get_current_context()
        costs = KlingCostReport()
        table = costs.of_run(context)
        costs.tell(table, csv_path=f"{OUTPUT}/nightly/{context['run_id'].replace(':', '-')}.csv")
        return {"usd": table.usd, "credits": table.credits}

    generate >> report()

"""Runs when ``kling_bucket_to_bucket`` has saved videos, and reads their facts from the asset's events."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task

VIDEOS = Asset("x-kling://videos")
log = logging.getLogger(__name__)

with DAG(
    "kling_asset_consumer",
    schedule=[VIDEOS],
    start_date=datetime(2026, 1, 1),
    catchup=False,
    tags=["kling"],
    doc_md=__doc__,
) as dag:

    @task
    def tell(**context: Any) -> list[dict[str, Any]]:
        """What each event says of its video."""
        told = context.get("triggering_asset_events") or context.get("triggering_dataset_events") or {}
        facts = [event.extra for events in told.values() for event in events]
        for each in facts:
            cost = each.get("cost") or {}  # a fact that nobody knows is left out
            log.info("%s: %s s, %s USD", each.get("path"), each.get("duration"), cost.get("usd"))
        return facts

    tell()

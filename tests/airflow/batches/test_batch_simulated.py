"""Large batches in simulated time: how fast, how large, and beside what else."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.api.exceptions import KlingError
from airflow_provider_kling.triggers.kling import KlingGenerationTrigger
from tests.airflow.batches.simulation import Simulation

TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"
LARGEST = 64 * 1024
"""Bytes of an XCom, a trigger's row or event, or a record."""


def simulation(folder: Path, count: int, **more: Any) -> Simulation:
    source = folder / "rows.jsonl"
    with source.open("w") as file:
        for number in range(count):
            file.write(json.dumps({"key": f"product {number}", "prompt": f"Product {number} turns."}) + "\n")
    (folder / "out").mkdir()
    given = {"requests": str(source), "path": f"{folder}/out/", "model": TEXT_MODEL, "duration": 5}
    return Simulation({**given, "max_active": 250, **more}, folder)


def records(folder: Path) -> int:
    """Size of the largest record, the state among them."""
    return max(path.stat().st_size for path in folder.glob("out/.kling-batch/**/*.json"))


@pytest.mark.timeout(600)
def test_it_is_as_fast_as_the_limit_allows(tmp_path: Path) -> None:
    """200 requests a minute, and the durations that the vendor publishes."""
    batch = simulation(tmp_path, 1000)
    ended = batch.run()
    assert ended["saved"] == 1000
    # While there is something to submit: at the end the batch waits for its last generations alone.
    sent = [at for at in batch.vendor.sent_at if at <= batch.vendor.last_submit_at]
    assert len(sent) / (sent[-1] - sent[0]) * 60 >= 0.95 * 200
    assert batch.vendor.calls["POLL"] <= 4 * 1000
    assert max(batch.largest.values()) < LARGEST
    assert records(tmp_path) < LARGEST


def test_no_minute_has_more_requests_than_the_connection_may_make(tmp_path: Path) -> None:
    batch = simulation(tmp_path, 400)
    batch.run()
    sent = batch.vendor.sent_at
    # worker and triggerer keep the rate each for itself, and take turns
    most = max(sum(1 for at in sent if begin <= at < begin + 60) for begin in sent[::10])
    assert most <= 200 * 1.25


def test_a_generation_beside_the_batch_is_not_starved(tmp_path: Path) -> None:
    batch = simulation(tmp_path, 600)
    late: list[float] = []

    async def beside(batch: Simulation) -> None:
        for number in range(4):
            generation_id, begun = f"other {number}", time.time()
            batch.vendor.done_at[generation_id] = batch.clock.now + 180.0
            trigger = KlingGenerationTrigger(
                generation_id=generation_id, deadline=begun + 7200, submitted_at=begun, model=TEXT_MODEL
            )
            trigger.task_instance = None  # type: ignore[assignment]
            [event] = [each async for each in trigger.run()]
            assert "error" not in event.payload
            late.append(time.time() - begun - 180.0)

    assert batch.run(beside)["saved"] == 600
    # The triggerer stands still here while the worker works, half a minute at a time.
    assert max(late) < 90.0


@pytest.mark.parametrize(("charged", "most"), [(None, 34), (0.29, 34), (1.0, 19)])
def test_the_limit_on_the_cost_counts_what_was_really_charged(
    tmp_path: Path, charged: float | None, most: int
) -> None:
    """10 USD; the price list says 0.29 for a generation."""
    batch = simulation(tmp_path, 60, max_active=10, max_cost_usd=10.0)
    batch.vendor.charged_usd = charged
    with pytest.raises(KlingError, match=r"exceeds the batch's limit of 10 USD"):
        batch.run()
    summary = batch.xcom["batch"]
    assert (
        len(batch.vendor.done_at) == summary["saved"] == most if charged != 1.0 else summary["saved"] <= most
    )
    assert summary["pending"] == 60 - summary["saved"]
    assert summary["cost_usd"] == pytest.approx((charged or 0.29) * summary["saved"])


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_memory_is_flat(tmp_path: Path, count: int) -> None:
    """What the batch itself holds at most, on top of Airflow and its own code."""
    warm = tmp_path / "warm"
    warm.mkdir()
    simulation(warm, 30, max_active=5).run()
    batch = simulation(tmp_path, count)
    gc.collect()
    tracemalloc.start()
    try:
        with batch._played() as loop:
            trigger = batch._part(None)
            assert trigger is not None
            _, worker = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            event = loop.run_until_complete(batch._wait(trigger))
            _, triggerer = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            assert batch._part(event) is not None
            _, again = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(worker, triggerer, again) < 25e6, (worker, triggerer, again)
    assert max(batch.largest.values()) < LARGEST
    assert records(tmp_path) < LARGEST

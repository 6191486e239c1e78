"""The benchmarks say nothing that they did not measure, and measure what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import outage
from benchmarks.waiting import Result, medians, row

FLOOR = Result(cpu=200.0, share=1.0, connections=0.0, memory=4.0, lag=2.0, worst=5.0)
FINE = replace(FLOOR, cpu=100.0)


def test_a_ratio_where_both_kept_up():
    assert row("kling", FINE, FLOOR).endswith("  0.50")


@pytest.mark.parametrize(
    ("result", "said"),
    [(replace(FINE, share=0.57), "saturated at 57%"), (replace(FINE, failed=3), "3 waits failed")],
)
def test_no_ratio_of_a_run_that_was_saturated_or_failed(result: Result, said: str):
    assert row("http", result, FLOOR).endswith(f"  {said}")
    assert row("kling", FINE, result).endswith("  -")


def test_one_bad_run_of_several_is_enough():
    runs = [FINE, FINE, replace(FINE, failed=1), FINE, replace(FINE, share=0.5)]
    assert medians(runs).failed == 1
    assert medians(runs).share == 0.5


@pytest.mark.parametrize("deferrable", [True, False])
def test_an_outage_costs_no_task_its_generation(deferrable: bool):
    found = outage.measure(deferrable=deferrable, tasks=30, seed=3)

    assert (found.failed, found.attempts) == (0, 30)
    assert found.paid == 30 + found.twice
    assert found.twice <= 1  # a generation that takes longer than the grace
    assert found.over_after > outage.OUTAGE
    # Each task is uncertain for a whole grace at least, on a worker or not.
    if deferrable:
        assert found.worker_seconds < 30 * 5
    else:
        assert found.worker_seconds > 30 * 500

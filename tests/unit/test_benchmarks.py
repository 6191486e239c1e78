"""The benchmark of the wait says nothing that it did not measure."""

from __future__ import annotations

from dataclasses import replace

import pytest

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

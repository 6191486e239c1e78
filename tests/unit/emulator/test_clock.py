from __future__ import annotations

import time

import pytest

from airflow_provider_kling.emulator.clock import Clock, iso


def test_a_frozen_clock_moves_only_by_advance():
    clock = Clock(frozen=True, start=1000.0)
    assert clock.now() == 1000.0
    clock.advance(2.5)
    assert clock.now() == 1002.5


def test_a_running_clock_runs_and_can_be_pushed():
    clock = Clock(start=1000.0)
    first = clock.now()
    time.sleep(0.002)
    assert first < clock.now() < 1100
    clock.advance(100)
    assert clock.now() > 1100


def test_the_clock_does_not_go_back():
    with pytest.raises(ValueError, match="cannot go back"):
        Clock().advance(-1)


def test_times_are_written_as_the_vendor_does():
    assert iso(1785542400.25) == "2026-08-01T00:00:00.250Z"
    assert iso(1785542400) == "2026-08-01T00:00:00.000Z"


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e300])
def test_the_clock_stays_within_what_can_be_written(seconds: float):
    clock = Clock(frozen=True, start=1000.0)
    with pytest.raises(ValueError, match=r"finite|year 9000"):
        clock.advance(seconds)
    assert clock.now() == 1000.0

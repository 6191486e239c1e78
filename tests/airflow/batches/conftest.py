"""An emulator for batches: its clock moves when somebody sleeps, and its videos cost nothing to make."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.airflow.batches.life import quick_videos


@pytest.fixture(scope="module")
def frozen_vendor() -> Iterator[EmulatorThread]:
    patch = pytest.MonkeyPatch()
    quick_videos(patch)
    options = EmulatorOptions(
        frozen_clock=True,
        queued_seconds=2,
        generating_seconds=28,
        spread=0.3,
        log_lag=5,
        log_in_flight_after=10,
        url_lifetime=1e6,
        balance=1e6,
        seed=1,
    )
    with EmulatorThread(options) as emulator:
        yield emulator
    patch.undo()

"""One emulator for the tests of a module; each test finds it as new."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(frozen_clock=True)) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: EmulatorThread) -> EmulatorThread:
    shared.reset()
    return shared

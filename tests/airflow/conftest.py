"""A real Airflow and an emulator for the tests of this folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator

import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.airflow.real_airflow import RealAirflow

# What tests import of Airflow itself neither reads nor writes the configuration in ~/airflow, which may
# be of another version. Set before the modules of this folder are imported.
_HOME = tempfile.TemporaryDirectory(prefix="airflow-of-pytest-")
os.environ["AIRFLOW_HOME"] = _HOME.name


def connected(airflow: RealAirflow, vendor: EmulatorThread) -> RealAirflow:
    connection = {"conn_type": "kling", "host": vendor.url, "password": vendor.api_key}
    airflow.env = {"AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection)}
    return airflow


@pytest.fixture(scope="session")
def started_airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealAirflow]:
    """One Airflow for all modules that a pytest process runs: starting it takes longer than a test."""
    with RealAirflow(tmp_path_factory.mktemp("airflow") / "home") as airflow:
        yield airflow


@pytest.fixture
def vendor() -> Iterator[EmulatorThread]:
    """An emulator whose generations are completed at once.

    Each test has its own, on another port: what one provokes slows down the requests to an account
    for minutes, as it should.
    """
    options = EmulatorOptions(queued_seconds=0, generating_seconds=0, log_lag=0, log_in_flight_after=0)
    with EmulatorThread(options) as emulator:
        yield emulator


@pytest.fixture
def airflow(started_airflow: RealAirflow, vendor: EmulatorThread) -> RealAirflow:
    """A real Airflow whose connection ``kling_default`` leads to the emulator."""
    return connected(started_airflow, vendor)


@pytest.fixture
def slow_vendor() -> Iterator[EmulatorThread]:
    """An emulator whose generations take a second, so that there is something to wait for."""
    options = EmulatorOptions(queued_seconds=0.5, generating_seconds=0.5, log_lag=0)
    with EmulatorThread(options) as emulator:
        yield emulator


@pytest.fixture
def patient_airflow(started_airflow: RealAirflow, slow_vendor: EmulatorThread) -> RealAirflow:
    """A real Airflow whose connection leads to the slow emulator."""
    return connected(started_airflow, slow_vendor)

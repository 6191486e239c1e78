"""Both clients, for every test that asks for ``connect``, and the vendors they talk to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.contract.addresses import self_signed
from tests.contract.drivers import DRIVERS, Driver

KEY = "sk-5d0c8e4b7a19f263-never-to-be-shown"

NAME = "api.kling.invalid"
"""A host name that only a proxy of these tests knows."""

Connect = Callable[..., Driver]


@pytest.fixture(scope="session")
def _vendor() -> Iterator[EmulatorThread]:
    # Proxies reach it under another name.
    with EmulatorThread(EmulatorOptions(frozen_clock=True, keys=(KEY,), allow_remote=True)) as emulator:
        yield emulator


@pytest.fixture
def vendor(_vendor: EmulatorThread) -> EmulatorThread:
    """An emulator whose clock moves when a driven client pauses."""
    _vendor.reset()
    return _vendor


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes a client of an emulator; the settings can be changed: ``connect(vendor, read_timeout=1)``."""
    opened: list[Driver] = []

    def connect(emulator: EmulatorThread, **changes: Any) -> Driver:
        settings = Settings(**{"api_key": emulator.api_key, "base_url": emulator.url, **changes})
        driver: Driver = request.param(settings, emulator.clock)
        opened.append(driver)
        return driver

    yield connect
    for driver in opened:
        driver.close()


@pytest.fixture
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, no certificates and no ~/.netrc of whoever runs the tests."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(self_signed(tmp_path_factory.mktemp("tls"), "127.0.0.1", NAME))


@pytest.fixture(scope="module")
def secure(certificate: str) -> Iterator[EmulatorThread]:
    """An emulator that speaks https, with a certificate that nobody vouches for."""
    options = EmulatorOptions(frozen_clock=True, keys=(KEY,), tls_certificate=certificate, allow_remote=True)
    with EmulatorThread(options) as emulator:
        yield emulator

from __future__ import annotations

import time

import pytest

from airflow_provider_kling.emulator.clock import Clock, iso
from airflow_provider_kling.emulator.options import EmulatorOptions, is_loopback


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


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_hosts_are_accepted(host: str):
    assert is_loopback(host)
    assert EmulatorOptions(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_other_hosts_need_to_be_allowed(host: str):
    with pytest.raises(ValueError, match="loopback"):
        EmulatorOptions(host=host)
    assert EmulatorOptions(host=host, allow_remote=True).host == host


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"queued_seconds": -1}, "queued_seconds"),
        ({"keys": ()}, "keys"),
        ({"keys": ("a b",)}, "keys"),
        ({"keys": ("k", "k")}, "share a key"),
        ({"submit_status": 202}, "submit_status"),
        ({"port": 70000}, "port"),
    ],
)
def test_wrong_options_are_named(wrong: dict[str, object], named: str):
    with pytest.raises(ValueError, match=named):
        EmulatorOptions(**wrong)


def test_all_problems_are_named_at_once():
    with pytest.raises(ValueError, match=r"log_lag.*port"):
        EmulatorOptions(log_lag=-1, port=-1)

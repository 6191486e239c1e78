from __future__ import annotations

import pytest

from airflow_provider_kling.emulator.options import EmulatorOptions, is_loopback


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

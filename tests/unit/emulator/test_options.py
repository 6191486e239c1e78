from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.emulator.options import EmulatorOptions, ErrorShape, IdStyle, is_loopback


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
        ({"queued_seconds": ""}, "queued_seconds is a finite number, got ''"),
        ({"queued_seconds": "five"}, "queued_seconds is a finite number, got 'five'"),
        ({"queued_seconds": float("nan")}, "queued_seconds is a finite number"),
        ({"generating_seconds": float("inf")}, "generating_seconds is a finite number"),
        ({"balance": "1e999"}, "balance is a finite number"),
        ({"url_lifetime": 10**400}, "url_lifetime is a finite number"),
        ({"charge_lag": 1e20}, "charge_lag"),
        ({"queued_seconds": None}, "queued_seconds is a finite number"),
        ({"queued_seconds": True}, "queued_seconds is a finite number"),
        ({"port": "80.5"}, "port is an integer, got '80.5'"),
        ({"port": 80.5}, "port is an integer"),
        ({"seed": "9" * 5000}, "seed is an integer"),
        ({"realistic": "maybe"}, "realistic is true or false, got 'maybe'"),
        ({"realistic": ""}, "realistic is true or false, got ''"),
        ({"ids": "long"}, "ids is one of published, nano"),
        ({"answers": 7}, "answers is one of documented"),
        ({"errors": ""}, "errors is one of documented"),
        ({"faults": 7}, "faults is a list of texts"),
        ({"host": None}, "host is text"),
        ({"keys": ("k\n",)}, "keys"),
        ({"statuses": "meditating"}, "STATUS=WORD"),
        ({"statuses": ("done=succeed",)}, "STATUS=WORD"),
        ({"concurrency": 0}, "concurrency"),
        ({"journal_size": -1}, "journal_size"),
        ({"spread": 1000}, "spread"),
    ],
)
def test_wrong_options_are_named(wrong: dict[str, object], named: str):
    with pytest.raises(ValueError, match=named):
        EmulatorOptions(**wrong)


def test_all_problems_are_named_at_once():
    with pytest.raises(ValueError, match=r"log_lag.*port"):
        EmulatorOptions(log_lag=-1, port=-1)


def test_options_may_be_text():
    read = EmulatorOptions(
        queued_seconds="5",
        port="0",
        realistic="true",
        offline_pictures="False",
        seed="7",
        video_bytes="4096",
        log_in_flight_after=None,
        ids="digits",
        errors="detail",
        keys="one",
        faults="poll:503",
        statuses=["completed=succeed"],
    )
    assert (read.queued_seconds, read.port, read.seed, read.video_bytes) == (5.0, 0, 7, 4096)
    assert (read.realistic, read.offline_pictures) == (True, False)
    assert (read.ids, read.errors) == (IdStyle.DIGITS, ErrorShape.DETAIL)
    assert (read.keys, read.faults) == (("one",), ("poll:503",))
    assert read.words() == {"completed": "succeed"}


@given(
    st.sampled_from([field.name for field in fields(EmulatorOptions)]),
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text()), st.binary()
    ),
)
def test_any_value_is_taken_or_named(name: str, value: object):
    refused = ""
    try:
        options = EmulatorOptions(**{name: value})
    except ValueError as error:
        options, refused = EmulatorOptions(), str(error)
    assert not refused or name in refused
    assert EmulatorOptions(**{name: getattr(options, name)}) == options

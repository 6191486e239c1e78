"""Which addresses a video may be fetched from."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.addresses import kind_of, refusal, refusal_of_name

VENDOR = Settings("key")
EMULATOR = Settings("key", "http://127.0.0.1:8080")
IN_HOUSE = Settings("key", "https://gateway.example.com", allow_private_network=True)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("8.8.8.8", "public"),
        ("2606:4700::1111", "public"),
        ("64:ff9b::808:808", "public"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("10.0.0.1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("64:ff9b::a00:1", "private"),
        ("169.254.169.254", "private"),
        ("fe80::1%eth0", "private"),
        ("fd00::1", "private"),
        ("100.64.0.1", "private"),
        ("224.0.0.1", "private"),
        ("ff02::1", "private"),
        ("240.0.0.1", "private"),
        ("not an address", "private"),
        ("192.0.0.192", "private"),  # where a cloud has its metadata
        ("192.88.99.1", "private"),
        ("::127.0.0.1", "private"),
        ("::a9fe:a9fe", "private"),
        ("fec0::1", "private"),
        ("64:ff9b:1::a9fe:a9fe", "private"),
        ("3fff::1", "private"),
        ("5f00::1", "private"),
    ],
)
def test_the_kind_of_an_address(address: str, kind: str):
    assert kind_of(address) == kind


@given(st.ip_addresses())
def test_each_address_has_a_kind_and_the_vendors_connection_allows_the_public_ones_alone(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
):
    kind = kind_of(str(address))
    assert (refusal(VENDOR, "cdn.example.com", [str(address)]) is None) is (kind == "public")
    assert (refusal(EMULATOR, "cdn.example.com", [str(address)]) is None) is (kind in ("public", "loopback"))
    assert (refusal(IN_HOUSE, "cdn.example.com", [str(address)]) is None) is (kind in ("public", "private"))


def test_one_address_of_several_is_enough_to_refuse():
    refused = refusal(VENDOR, "cdn.example.com", ["8.8.8.8", "10.0.0.1"])
    assert refused == "cdn.example.com is 10.0.0.1, which is not a public address"


def test_the_host_of_the_base_url_is_always_allowed():
    policy = Settings("key", "https://gateway.example.com/kling")
    assert refusal(policy, "Gateway.Example.com.", ["10.0.0.1"]) is None
    assert refusal(policy, "cdn.gateway.example.com", ["10.0.0.1"]) is not None


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "fe80::1%1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "10.1",
        "0",
        "169.254.43518",
        "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
        "\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
    ],
)
def test_what_a_name_says_by_itself(host: str):
    assert refusal_of_name(VENDOR, host)


@pytest.mark.parametrize(
    "host",
    ["cdn.aimlapi.com", "8.8.8.8", "localhost.example.com", "8.8", "xn--bcher-kva.example", "\ud83d", ""],
)
def test_what_a_proxy_resolves_is_not_known_here(host: str):
    assert refusal_of_name(VENDOR, host) is None

"""The time and the bytes of one exchange; what sockets do is in the contract tests of misbehaving servers."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from airflow_provider_kling.api.transport.urllib3_connections import Exchange, resolve


def test_a_new_exchange_has_no_limits_and_a_time_out_that_a_socket_takes():
    with socket.socket() as sock:
        sock.settimeout(Exchange().left())


def test_each_phase_has_its_own_time():
    exchange = Exchange()
    exchange.begin(0.0, 60, 60)
    with pytest.raises(TimeoutError):
        exchange.left()
    exchange.enter(exchange.sending)
    assert 59 < exchange.left() <= 60


def test_the_whole_exchange_may_have_less():
    exchange = Exchange()
    exchange.begin(60, 60, 60, at_most=5)
    exchange.enter(60)
    assert 4 < exchange.left() <= 5


def test_bytes_are_counted():
    exchange = Exchange()
    exchange.begin(60, 60, 60, most_bytes=10)
    assert exchange.received(10) == 10
    with pytest.raises(OSError, match="more bytes"):
        exchange.received(1)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "fe80::1%lo"])
def test_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch, host: str):
    monkeypatch.delattr(socket, "getaddrinfo")
    assert resolve(host, 443, 1) == [host]


def test_a_look_up_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(0.5))
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"api\.example\.com"):
        resolve("api.example.com", 443, 0.05)
    assert time.monotonic() - began < 0.4


def test_each_address_is_tried_once(monkeypatch: pytest.MonkeyPatch):
    found: list[Any] = [
        (socket.AF_INET, 1, 6, "", (address, 443)) for address in ("8.8.8.8", "9.9.9.9", "8.8.8.8")
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert resolve("api.example.com", 443, 1) == ["8.8.8.8", "9.9.9.9"]


def test_a_name_without_an_address(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(socket.gaierror):
        resolve("api.example.com", 443, 1)

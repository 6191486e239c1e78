"""Whatever a proxy does: the deadline of an exchange holds for its tunnel too, and money is told truly."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.api import calls
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.exceptions import ConnectionLostError, KlingError, Money, SubmitUncertainError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.retry import RetryPolicy
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.emulator import EmulatorThread
from tests.contract.conftest import NAME, Connect
from tests.misbehaving_server import BROKEN, ENCODED, NEVER_ENDING, Behaviour, Connection, misbehaving

pytestmark = pytest.mark.usefixtures("plain_environment")

REQUEST = GenerationRequest("kling-video/v1.6/standard/text-to-video", {"prompt": "a cat"})
CONNECT = 0.4
READ = 0.4
SLACK = 1.0
LIMITS: dict[str, Any] = {"connect_timeout": CONNECT, "read_timeout": READ}
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n"
SERVER_HELLO = b"\x16\x03\x03\x40\x00"


def _tunnel_then(how: str, data: bytes = b"") -> Behaviour:
    """The tunnel is made, and what comes through it is no TLS."""

    def behave(connection: Connection) -> None:
        connection.send(ESTABLISHED + b"\r\n")
        getattr(connection, how)(*[data] if data else [])
        connection.hold()

    return behave


def _refusing(status: bytes, body: bytes, *headers: bytes) -> Behaviour:
    return lambda connection: connection.answer(body, *headers, status=status)


# Of the never ending, those that hang while they answer CONNECT; a length or a chunk means nothing there.
HANGING: dict[str, Behaviour] = {
    **{
        name: behave
        for name, behave in NEVER_ENDING.items()
        if not name.startswith(("body", "chunk", "trailer", "length"))
    },
    "tunnel, then silence": _tunnel_then("hold"),
    "tunnel, then TLS that drips": _tunnel_then("drip_forever", SERVER_HELLO[:1]),
    "tunnel, then a record that never ends": _tunnel_then("send", SERVER_HELLO),
    "tunnel, then TLS without end": _tunnel_then("flood", b"\x17\x03\x03\x00\x01\x00"),
    "tunnel headers that drip": lambda connection: (
        connection.send(ESTABLISHED),
        connection.drip_forever(b"X: 1\r\n"),
    )[0],
}
FAILING: dict[str, Behaviour] = {
    **{name: BROKEN[name] for name in ("reset", "reset in the head", "end at once", "not HTTP")},
    "407": _refusing(b"407 Proxy Authentication Required", b"", b"Proxy-Authenticate: Basic realm=x"),
    "403 with a bomb": ENCODED["gzip bomb"],
    "502 with a page": _refusing(b"502 Bad Gateway", b"<html>" + b"a" * 2_000_000),
    "redirect": _refusing(b"302 Found", b"", b"Location: http://127.0.0.1:9/login"),
    "no content": _refusing(b"204 No Content", b""),
    "switching protocols": _refusing(
        b"101 Switching Protocols", b"", b"Upgrade: h2c", b"Connection: upgrade"
    ),
    "tunnel, then closed": _tunnel_then("close"),
    "tunnel, then reset": _tunnel_then("reset"),
    "tunnel, then plain HTTP": _tunnel_then("send", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
}
PROXIES = {**HANGING, **FAILING}


@pytest.fixture(autouse=True)
def _once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What certainly was not accepted is sent again, as often as always; one time is enough here."""
    monkeypatch.setattr(calls, "SUBMIT_RETRIES", RetryPolicy(attempts=1))


@contextmanager
def in_time(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds + SLACK


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    """How one talks to the proxy itself."""
    return str(request.param)


@pytest.mark.parametrize("name", PROXIES)
def test_a_submit_through_it_costs_nothing_and_ends_in_time(
    connect: Connect, vendor: EmulatorThread, certificate: str, scheme: str, name: str
):
    """Whatever a proxy does before the tunnel has TLS in it: the vendor got nothing."""
    with misbehaving(PROXIES[name], certificate if scheme == "https" else None) as server:
        driver = connect(
            vendor,
            base_url=f"https://{NAME}",
            proxy=f"{scheme}://user:hunter2@{server.address}",
            ca_bundle=certificate,
            **LIMITS,
        )
        with in_time(CONNECT), pytest.raises(KlingError) as caught:
            driver.run(driver.calls.submit(REQUEST, "mine"))
        assert server.wait_until_left()
        assert server.requests
        assert all(request.startswith(b"CONNECT ") for request in server.requests)
    assert isinstance(caught.value, ConnectionLostError), repr(caught.value)
    assert caught.value.money is Money.NOT_SPENT
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", PROXIES)
def test_a_download_through_it_ends_in_time(certificate: str, scheme: str, name: str):
    with misbehaving(PROXIES[name], certificate if scheme == "https" else None) as server:
        settings = Settings(
            "key",
            f"https://{NAME}",
            proxy=f"{scheme}://user:hunter2@{server.address}",
            ca_bundle=certificate,
            **LIMITS,
        )
        with (
            KlingClient(settings) as client,
            in_time(CONNECT),
            pytest.raises(ConnectionLostError, match="download stopped") as caught,
            client.fetch(f"https://cdn.{NAME}/v.mp4?ksSecret=hush", {}),
        ):
            pass
        assert server.wait_until_left()
    assert caught.value.money is Money.ALREADY_PAID
    assert "hush" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@contextmanager
def tunnelling(to: str, certificate: str | None) -> Iterator[str]:
    """``host:port`` of a proxy that takes every tunnel to one address.

    :param certificate: PEM file with key and certificate, for TLS to the proxy itself.
    """
    ready = threading.Event()
    address = ""
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            host, _, port = to.rpartition(":")
            there = await asyncio.open_connection(host, int(port))
            writer.write(ESTABLISHED + b"\r\n")
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    async def main() -> None:
        nonlocal address
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            ready.set()
            with suppress(asyncio.CancelledError):
                await server.serve_forever()

    def run() -> None:
        nonlocal task
        task = loop.create_task(main())
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        for each in asyncio.all_tasks(loop):
            each.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    task: asyncio.Task[None] | None = None
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield address
    finally:
        assert task is not None
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


@pytest.mark.parametrize("name", ["silence", "head that drips", "headers without end", "trailers that drip"])
def test_a_vendor_behind_it_is_held_to_the_same_deadline(
    connect: Connect, vendor: EmulatorThread, certificate: str, scheme: str, name: str
):
    """Also with TLS inside the proxy's TLS. The vendor got the submit, so it may be billed."""
    with (
        misbehaving(NEVER_ENDING[name], certificate) as server,
        tunnelling(server.address, certificate if scheme == "https" else None) as proxy,
    ):
        driver = connect(
            vendor,
            base_url=f"https://{NAME}",
            proxy=f"{scheme}://{proxy}",
            ca_bundle=certificate,
            **LIMITS,
        )
        with in_time(CONNECT + READ), pytest.raises(SubmitUncertainError) as caught:
            driver.run(driver.calls.submit(REQUEST, "mine"))
        assert server.wait_until_left()
    assert caught.value.money is Money.MAY_BE_SPENT
    assert len(server.requests) == 1


def test_a_download_through_it_keeps_its_least_rate(certificate: str, scheme: str):
    with (
        misbehaving(NEVER_ENDING["body that drips"], certificate) as server,
        tunnelling(server.address, certificate if scheme == "https" else None) as proxy,
    ):
        settings = Settings(
            "key", f"https://{NAME}", proxy=f"{scheme}://{proxy}", ca_bundle=certificate, **LIMITS
        )
        with (
            KlingClient(settings) as client,
            in_time(CONNECT + 2 * READ),
            pytest.raises(ConnectionLostError, match="not complete"),
            client.fetch(f"https://{NAME}/v.mp4", {}) as stream,
        ):
            list(stream.chunks(1024))
        assert server.wait_until_left()


def test_the_certificate_of_the_proxy_itself_is_checked(
    connect: Connect, vendor: EmulatorThread, certificate: str, tmp_path: Path
):
    with misbehaving(HANGING["silence"], certificate) as server:
        driver = connect(
            vendor, base_url=f"https://{NAME}", proxy=f"https://user:hunter2@{server.address}", **LIMITS
        )
        with in_time(CONNECT), pytest.raises(ConnectionLostError) as caught:
            driver.run(driver.calls.submit(REQUEST, "mine"))
    assert server.requests == [], "no password went to it"
    assert caught.value.money is Money.NOT_SPENT

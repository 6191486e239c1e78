"""What both clients do on the wire: connections, certificates, proxies, redirects, whose headers.

``SILENCES`` is the table of how a request can be lost, and what each client makes of it.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from airflow_provider_kling import __version__
from airflow_provider_kling.api.async_client import AsyncKlingClient
from airflow_provider_kling.api.exceptions import (
    ConfigurationError,
    ConnectionLostError,
    KlingError,
    MalformedReplyError,
    Money,
    Recovery,
)
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.retry import RetryPolicy
from airflow_provider_kling.api.settings import VENDOR_PATH, Settings
from airflow_provider_kling.api.transport.messages import (
    Call,
    ConnectionLost,
    FailureReason,
    Flow,
    HttpResponse,
    Reply,
    Send,
)
from airflow_provider_kling.emulator import EmulatorThread
from tests.contract.addresses import (
    UNKNOWN_NAME,
    Proxy,
    accepting,
    deaf,
    encrypted,
    hang_up,
    other_host,
    proxy,
    refusing,
    reset,
    say_nothing,
    self_signed,
)
from tests.contract.conftest import KEY, NAME, Connect
from tests.contract.drivers import Driver

pytestmark = pytest.mark.usefixtures("plain_environment")

REQUEST = GenerationRequest("kling-video/v1.6/standard/text-to-video", {"prompt": "a cat", "duration": 5})
SHORT = 0.3
"""Seconds, the time-out where one is to run out."""


def reply_of(driver: Driver) -> Reply:
    """What the transport itself says of one submit."""

    def flow() -> Flow[Reply]:
        return (yield Send(driver.calls.endpoints.submit(REQUEST, "mine")))

    return driver.run(flow())


# How a request is lost.


class Loss(NamedTuple):
    """A place to send to, and what is known of a request that was lost there.

    :param place: gives ``host:port``, or is it.
    """

    scheme: str
    place: Callable[[], AbstractContextManager[str]] | str
    why: FailureReason


def answering(raw: bytes) -> Callable[[], AbstractContextManager[str]]:
    """A server that takes a whole submit, and then says something odd."""

    def answer(connection: socket.socket) -> None:
        got = b""
        while b"a cat" not in got:
            got += connection.recv(65536)
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)

    return lambda: accepting(answer)


OK = b"HTTP/1.1 200 OK\r\n"
SILENCES = {
    "name": Loss("http", UNKNOWN_NAME, FailureReason.DNS),
    "name, TLS": Loss("https", UNKNOWN_NAME, FailureReason.DNS),
    "no name at all": Loss("http", f"{'a' * 70}.invalid", FailureReason.UNSENDABLE),
    "refused": Loss("http", refusing, FailureReason.REFUSED),
    "refused, TLS": Loss("https", refusing, FailureReason.REFUSED),
    "connect time-out": Loss("http", deaf, FailureReason.CONNECT_TIMEOUT),
    "connect time-out, TLS": Loss("https", deaf, FailureReason.CONNECT_TIMEOUT),
    "handshake stalls": Loss("https", lambda: accepting(say_nothing), FailureReason.CONNECT_TIMEOUT),
    "handshake is reset": Loss("https", lambda: accepting(reset), FailureReason.UNREACHABLE),
    "handshake is hung up on": Loss("https", lambda: accepting(hang_up), FailureReason.UNREACHABLE),
    "handshake is garbage": Loss(
        "https", lambda: accepting(lambda connection: connection.sendall(b"220 smtp\r\n")), FailureReason.TLS
    ),
    # From here on the request was, or may have been, read.
    "no answer": Loss("http", lambda: accepting(say_nothing), FailureReason.READ_TIMEOUT),
    "reset": Loss("http", lambda: accepting(reset), FailureReason.BROKEN),
    "hung up": Loss("http", lambda: accepting(hang_up), FailureReason.BROKEN),
    "not HTTP": Loss("http", answering(b"hello\r\n\r\n"), FailureReason.BROKEN),
    "short body": Loss("http", answering(OK + b"Content-Length: 20\r\n\r\n{}"), FailureReason.BROKEN),
    "two lengths": Loss(
        "http", answering(OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}"), FailureReason.BROKEN
    ),
    "short chunk": Loss(
        "http", answering(OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{}"), FailureReason.BROKEN
    ),
    "endless header": Loss("http", answering(OK + b"X-A: " + b"a" * 70_000), FailureReason.BROKEN),
}


@pytest.mark.parametrize("name", SILENCES)
def test_how_a_request_is_lost(connect: Connect, vendor: EmulatorThread, name: str):
    scheme, place, why = SILENCES[name]
    with ExitStack() as stack:
        address = place if isinstance(place, str) else stack.enter_context(place())
        driver = connect(
            vendor,
            base_url=f"{scheme}://{address}",
            connect_timeout=SHORT if why is FailureReason.CONNECT_TIMEOUT else 20,
            read_timeout=SHORT if why is FailureReason.READ_TIMEOUT else 20,
            allow_plain_http=True,
        )
        assert reply_of(driver) == ConnectionLost(why, address)


def test_bytes_that_trickle_are_given_up(connect: Connect, vendor: EmulatorThread):
    driver = connect(vendor, read_timeout=SHORT)
    vendor.faults.add("submit", "slow-drip", seconds=8)
    assert reply_of(driver) == ConnectionLost(FailureReason.SLOW, vendor.url.removeprefix("http://"))


def test_a_huge_answer_is_cut(connect: Connect, vendor: EmulatorThread):
    vendor.faults.add("submit", "huge-body", size=40_000_000)
    reply = reply_of(connect(vendor))
    assert isinstance(reply, HttpResponse)
    assert reply.truncated
    assert len(reply.body) == 4 * 1024 * 1024


def test_an_answer_to_a_poll_is_cut_much_earlier(connect: Connect, vendor: EmulatorThread):
    """The triggerer reads thousands of them on one event loop."""
    driver = connect(vendor)
    generation = driver.run(driver.calls.submit(REQUEST))
    vendor.faults.add("poll", "huge-body", size=1_000_000)
    driver.calls.read_retries = RetryPolicy(attempts=1)
    with pytest.raises(MalformedReplyError, match="is longer than 262144 bytes"):
        driver.run(driver.calls.get_generation(generation.id))


# Connections, and what each request says of itself.


def test_polls_share_a_connection(connect: Connect, vendor: EmulatorThread):
    driver = connect(vendor)
    generation = driver.run(driver.calls.submit(REQUEST))
    for _ in range(30):
        driver.run(driver.calls.get_generation(generation.id))
    driver.run(driver.calls.get_balance())
    assert len({entry.connection for entry in vendor.journal}) == 1


def test_a_connection_that_the_server_closed_meanwhile_is_made_again(
    connect: Connect, vendor: EmulatorThread
):
    driver = connect(vendor)
    generation = driver.run(driver.calls.submit(REQUEST))
    vendor.faults.add("poll", "reset-after")
    for _ in range(3):
        driver.run(driver.calls.get_generation(generation.id))
    assert 2 <= len({entry.connection for entry in vendor.journal}) <= 3


def test_what_a_request_says_of_itself(connect: Connect, vendor: EmulatorThread):
    with other_host() as host:
        driver = connect(vendor, base_url=f"http://{host.address}")
        reply_of(driver)
    [(method, path, headers)] = host.requests
    assert (method, path) == ("POST", VENDOR_PATH)
    assert headers["user-agent"] == f"airflow-provider-kling/{__version__}"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["x-client-request-id"] == "mine"
    assert headers["content-type"] == "application/json"
    assert "cookie" not in headers


def test_cookies_are_not_kept(connect: Connect, vendor: EmulatorThread):
    heard: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        while data := connection.recv(65536):
            heard.append(data)
            if b"a cat" in data:
                connection.sendall(OK + b"Set-Cookie: track=you; Path=/\r\nContent-Length: 2\r\n\r\n{}")

    with accepting(answer) as address:
        driver = connect(vendor, base_url=f"http://{address}")
        for _ in range(2):
            assert isinstance(reply_of(driver), HttpResponse)
    assert b"".join(heard).count(b"POST") == 2
    assert b"track" not in b"".join(heard)


@pytest.mark.parametrize("machine", ["127.0.0.1", "default"])
def test_netrc_never_touches_the_key(
    connect: Connect, vendor: EmulatorThread, monkeypatch: pytest.MonkeyPatch, machine: str
):
    entry = "default" if machine == "default" else f"machine {machine}"
    netrc = Path(os.environ["HOME"], ".netrc")
    netrc.write_text(f"{entry} login mallory password wrong\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    driver = connect(vendor)
    assert driver.run(driver.calls.get_balance()) == 1000.0


# Certificates.


def test_a_certificate_that_nobody_vouches_for_is_said_and_not_tried_again(
    connect: Connect, secure: EmulatorThread
):
    driver = connect(secure)
    with pytest.raises(ConnectionLostError, match="the certificate is not trusted") as caught:
        driver.run(driver.calls.submit(REQUEST))
    assert (caught.value.maybe_sent, caught.value.recovery) == (False, Recovery.GIVE_UP)
    assert caught.value.money is Money.NOT_SPENT
    assert driver.asked[Call.SUBMIT] == 1
    assert secure.journal == []


def test_the_connections_bundle_makes_it_trusted(connect: Connect, secure: EmulatorThread, certificate: str):
    driver = connect(secure, ca_bundle=certificate)
    assert driver.run(driver.calls.get_balance()) == 1000.0


def test_a_bundle_that_gets_the_right_content_meanwhile_is_read_again(
    secure: EmulatorThread, certificate: str, tmp_path: Path
):
    """Only the async client lives long enough to meet that."""
    bundle = tmp_path / "own.pem"
    bundle.write_bytes(self_signed(tmp_path, "somebody-else.invalid").read_bytes())
    settings = Settings(secure.api_key, secure.url, ca_bundle=str(bundle))

    async def main() -> None:
        async with AsyncKlingClient(settings) as client:
            asking = client.calls.endpoints.balance()
            for _ in range(2):
                refused = await client.send(asking)
                assert refused == ConnectionLost(
                    FailureReason.CERTIFICATE, secure.url.removeprefix("https://")
                )
            bundle.write_text("being writ")
            assert isinstance(await client.send(asking), ConnectionLost)
            bundle.write_text(Path(certificate).read_text())
            replies = await asyncio.gather(*(client.send(asking) for _ in range(40)))
            assert {isinstance(reply, HttpResponse) and reply.status for reply in replies} == {200}
            assert len(client._retired) == 1

    asyncio.run(main())


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_environments_bundle_makes_it_trusted(
    connect: Connect,
    secure: EmulatorThread,
    certificate: str,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
):
    monkeypatch.setenv(variable, certificate)
    driver = connect(secure)
    assert driver.run(driver.calls.get_balance()) == 1000.0


def test_a_trusted_certificate_of_another_host_is_not(
    connect: Connect, secure: EmulatorThread, certificate: str
):
    driver = connect(secure, base_url=secure.url.replace("127.0.0.1", "localhost"), ca_bundle=certificate)
    with pytest.raises(ConnectionLostError, match="the certificate is not trusted"):
        driver.run(driver.calls.get_balance())


@pytest.mark.parametrize("content", ["", "not a certificate"])
def test_a_bundle_without_certificates(
    connect: Connect, secure: EmulatorThread, tmp_path: Path, content: str
):
    bundle = tmp_path / "own.pem"
    bundle.write_text(content)

    def ask() -> None:
        driver = connect(secure, ca_bundle=str(bundle))
        driver.run(driver.calls.get_balance())

    with pytest.raises(ConfigurationError, match=r"CA bundle .*own\.pem' cannot be used") as caught:
        ask()
    assert caught.value.money is Money.NOTHING_SENT


def test_a_bundle_can_be_a_folder(connect: Connect, secure: EmulatorThread, tmp_path: Path):
    """As ``/etc/ssl/certs`` is one; this one is empty, so that nobody is trusted."""
    reply = reply_of(connect(secure, ca_bundle=str(tmp_path)))
    assert reply == ConnectionLost(FailureReason.CERTIFICATE, secure.url.removeprefix("https://"))


# Proxies.


@pytest.fixture
def tunnel(secure: EmulatorThread) -> Iterator[Proxy]:
    """A proxy that takes every name to the https emulator."""
    with proxy(secure.url.removeprefix("https://")) as known:
        yield known


def test_the_connections_proxy_is_used(
    connect: Connect, secure: EmulatorThread, certificate: str, tunnel: Proxy
):
    driver = connect(
        secure,
        base_url=f"https://{NAME}",
        ca_bundle=certificate,
        proxy=f"http://user:p%40ss@{tunnel.address}",
    )
    assert driver.run(driver.calls.get_balance()) == 1000.0
    assert tunnel.asked == [("CONNECT", f"{NAME}:443")]
    assert tunnel.credentials == [f"Basic {base64.b64encode(b'user:p@ss').decode()}"]
    assert tunnel.keys == [None], "the key travels within TLS"


@pytest.mark.parametrize("named", ["http://{}", "{}"], ids=["with scheme", "without"])
@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
def test_the_environments_proxy_is_used(
    connect: Connect,
    secure: EmulatorThread,
    certificate: str,
    tunnel: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    named: str,
):
    monkeypatch.setenv(variable, named.format(tunnel.address))
    driver = connect(secure, base_url=f"https://{NAME}", ca_bundle=certificate)
    assert driver.run(driver.calls.get_balance()) == 1000.0
    assert len(tunnel.asked) == 1


@pytest.mark.parametrize("place", ["connection", "https_proxy", "ALL_PROXY"])
def test_a_proxy_that_is_reached_by_tls_itself(
    connect: Connect,
    secure: EmulatorThread,
    certificate: str,
    tunnel: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
):
    with encrypted(tunnel.address, certificate) as address:
        url = f"https://user:hunter2@{address}"
        given = {"proxy": url} if place == "connection" else {}
        if not given:
            monkeypatch.setenv(place, url)
        secure.reset()
        driver = connect(secure, base_url=f"https://{NAME}", ca_bundle=certificate, **given)
        assert driver.run(driver.calls.get_balance()) == 1000.0
        generation = driver.run(driver.calls.submit(REQUEST))
        assert driver.run(driver.calls.get_generation(generation.id)).id == generation.id
    assert tunnel.asked[0] == ("CONNECT", f"{NAME}:443")
    assert tunnel.credentials[0] == f"Basic {base64.b64encode(b'user:hunter2').decode()}"
    assert len(secure.generations) == 1


def test_a_tls_proxy_that_nobody_vouches_for_is_not_spoken_to(
    connect: Connect, secure: EmulatorThread, certificate: str, tunnel: Proxy
):
    with encrypted(tunnel.address, certificate) as address:
        driver = connect(secure, base_url=f"https://{NAME}", proxy=f"https://user:hunter2@{address}")
        with pytest.raises(ConnectionLostError) as caught:
            driver.run(driver.calls.submit(REQUEST))
    assert caught.value.money is Money.NOT_SPENT
    assert "hunter2" not in str(caught.value)
    assert "certificate" in str(caught.value)
    assert tunnel.asked == []


def test_no_proxy_is_honoured(
    connect: Connect, secure: EmulatorThread, tunnel: Proxy, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("https_proxy", f"http://{tunnel.address}")
    monkeypatch.setenv("no_proxy", ".kling.invalid")
    driver = connect(secure, base_url=f"https://{NAME}")
    with pytest.raises(ConnectionLostError, match="could not be resolved"):
        driver.run(driver.calls.get_balance())
    assert tunnel.asked == []


def test_loopback_is_never_proxied(connect: Connect, vendor: EmulatorThread, tunnel: Proxy):
    driver = connect(vendor, proxy=f"http://{tunnel.address}")
    assert driver.run(driver.calls.get_balance()) == 1000.0
    assert tunnel.asked == []


def test_a_proxy_does_not_make_a_certificate_trusted(connect: Connect, secure: EmulatorThread, tunnel: Proxy):
    driver = connect(secure, base_url=f"https://{NAME}", proxy=f"http://{tunnel.address}")
    with pytest.raises(ConnectionLostError, match="the certificate is not trusted"):
        driver.run(driver.calls.submit(REQUEST))


@pytest.mark.parametrize("place", [refusing, deaf, lambda: accepting(say_nothing)])
def test_a_proxy_that_cannot_be_used_is_named(
    connect: Connect, secure: EmulatorThread, place: Callable[[], AbstractContextManager[str]]
):
    with place() as address:
        settings = {"base_url": f"https://{NAME}", "connect_timeout": SHORT, "read_timeout": SHORT}
        reply = reply_of(connect(secure, proxy=f"http://user:hunter2@{address}", **settings))
    assert reply == ConnectionLost(FailureReason.PROXY, NAME)


@pytest.mark.parametrize("status", [403, 407, 502])
def test_a_proxy_that_refuses(connect: Connect, secure: EmulatorThread, status: int):
    with proxy("127.0.0.1:1", status) as known:
        driver = connect(secure, base_url=f"https://{NAME}", proxy=f"http://user:hunter2@{known.address}")
        with pytest.raises(ConnectionLostError, match="the proxy could not be used") as caught:
            driver.run(driver.calls.submit(REQUEST))
    assert caught.value.money is Money.NOT_SPENT
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", ["reset-after", "stall-after"])
def test_an_answer_lost_behind_a_proxy_may_be_billed(
    connect: Connect, vendor: EmulatorThread, secure: EmulatorThread, certificate: str, scheme: str, kind: str
):
    """The proxy was reached, and so was the vendor: to submit again would be to pay again."""
    there = secure if scheme == "https" else vendor
    there.reset()
    there.faults.add("submit", kind)
    with proxy(there.url.split("//")[1]) as known:
        driver = connect(
            there,
            base_url=f"{scheme}://{NAME}",
            proxy=f"http://{known.address}",
            ca_bundle=certificate,
            allow_plain_http=True,
            read_timeout=SHORT,
        )
        reply = reply_of(driver)
    assert len(there.generations) == 1
    assert isinstance(reply, ConnectionLost)
    assert reply.why.maybe_sent


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_takes_the_key_elsewhere(connect: Connect, vendor: EmulatorThread, status: int):
    with other_host() as host:
        driver = connect(vendor)
        for call in ("submit", "poll", "billing", "logs"):
            url = f"http://{host.address}/elsewhere"
            vendor.faults.add(call, "redirect", status=status, url=url, times=None)
        calls: list[Flow[object]] = [
            driver.calls.submit(REQUEST, "mine"),
            driver.calls.get_generation("vIvy_TKgZ0vwl7ZYG6Hy0"),
            driver.calls.get_balance(),
            driver.calls.find_row(lambda row: False, since=driver.calls.now() - 60),
        ]
        for flow in calls:
            with pytest.raises(KlingError, match=r"redirect .* to 127\.0\.0\.1\. It was not followed"):
                driver.run(flow)
        assert host.requests == []


@pytest.mark.parametrize("location", ["http://[x", "", "//", "https://127.0.0.1:99999/"])
def test_a_redirect_to_nowhere(connect: Connect, vendor: EmulatorThread, location: str):
    raw = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    with answering(raw.encode())() as address:
        reply = reply_of(connect(vendor, base_url=f"http://{address}"))
    assert isinstance(reply, HttpResponse)
    assert reply.status == 302


@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("named", ["socks5://user:hunter2@{}", "socks4://{}", "socks5h://{}", "ftp://{}"])
def test_a_proxy_that_no_client_can_use_is_refused_by_the_name_of_its_variable(
    connect: Connect, secure: EmulatorThread, monkeypatch: pytest.MonkeyPatch, variable: str, named: str
):
    with refusing() as address:
        monkeypatch.setenv(variable, named.format(address))
        driver = connect(secure, base_url=f"https://{NAME}")
        with pytest.raises(ConnectionLostError) as caught:
            driver.run(driver.calls.submit(REQUEST))
    said = str(caught.value)
    assert variable in said
    assert ("SOCKS" in said) is named.startswith("socks")
    assert "hunter2" not in said
    assert (caught.value.maybe_sent, caught.value.recovery) == (False, Recovery.GIVE_UP)
    assert caught.value.money is Money.NOT_SPENT


def test_a_refused_certificate_shows_the_reason_of_openssl(
    connect: Connect, secure: EmulatorThread, certificate: str
):
    untrusted = reply_of(connect(secure))
    assert isinstance(untrusted, ConnectionLost)
    assert "self-signed certificate" in untrusted.reason
    base_url = secure.url.replace("127.0.0.1", "localhost")
    other = reply_of(connect(secure, base_url=base_url, ca_bundle=certificate))
    assert isinstance(other, ConnectionLost)
    assert "not valid for 'localhost'" in other.reason

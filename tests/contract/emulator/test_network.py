"""Who reaches the emulator, under which name, and what slow, dripping and oversized clients get."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import requests

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.contract.addresses import self_signed

PATH = "/v2/generate/video/kling/generation"
KEY = "kling-emulator-key"
HEADERS = {"Authorization": f"Bearer {KEY}"}
BODY = {"model": "kling-video/v1.6/standard/text-to-video", "prompt": "a cat"}
RULE = json.dumps("poll:503")
LIMIT = 0.8
"""Seconds in which a request must have come, in the tests of slow clients."""


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(frozen_clock=True)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def strict() -> Iterator[EmulatorThread]:
    """One that waits for a request only for a moment."""
    with EmulatorThread(EmulatorOptions(frozen_clock=True, request_seconds=LIMIT)) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: EmulatorThread) -> EmulatorThread:
    shared.reset()
    return shared


@contextmanager
def connected(emulator: EmulatorThread) -> Iterator[socket.socket]:
    parts = urlsplit(emulator.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as sock:
        yield sock


def answer_to(sock: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    try:
        while part := sock.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def billing(emulator: EmulatorThread, timeout: float = 10) -> requests.Response:
    return requests.get(emulator.url + "/v2/billing", headers=HEADERS, timeout=timeout)


def video_url(emulator: EmulatorThread, base: str | None = None) -> str:
    url = (base or emulator.url) + PATH
    generation_id = requests.post(url, json=BODY, headers=HEADERS, timeout=10).json()["id"]
    emulator.clock.advance(60)
    params = {"generation_id": generation_id}
    told = requests.get(url, params=params, headers=HEADERS, timeout=10).json()
    return str(told["video"]["url"])


# Who asks


@pytest.mark.parametrize(
    "path", ["/_emulator/faults", "/_emulator/requests", "/v2/billing", "/cdn/x.mp4", "/"]
)
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::", "169.254.169.254"]
)
def test_another_host_name_is_refused(emulator, path: str, host: str):
    answer = requests.get(emulator.url + path, headers={**HEADERS, "Host": host}, timeout=10)
    assert answer.status_code in (400, 421), answer.text
    assert KEY not in answer.text


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1"])
@pytest.mark.parametrize("path", ["/_emulator/faults", "/_emulator/reset", "/_emulator/keys"])
def test_a_web_page_cannot_post_to_the_control_plane(emulator, path: str, origin: str):
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    answer = requests.post(emulator.url + path, data=RULE, headers=headers, timeout=10)
    assert answer.status_code == 403
    assert emulator.faults.rules() == []


def test_this_machines_names_and_its_own_pages_are_let_in(emulator):
    port = urlsplit(emulator.url).port
    for host in ("127.0.0.1", "localhost", "LOCALHOST", "127.8.8.8", "[::1]"):
        headers = {"Host": f"{host}:{port}", "Origin": f"http://{host}:{port}"}
        answer = requests.post(f"{emulator.url}/_emulator/faults", data=RULE, headers=headers, timeout=10)
        assert answer.status_code == 200, host
    assert len(emulator.faults.rules()) == 5


def test_allow_remote_lets_everybody_in_and_advertise_one_name():
    headers = {"Host": "vendor.example", "Origin": "https://evil.example"}
    with EmulatorThread(EmulatorOptions(allow_remote=True)) as emulator:
        url = f"{emulator.url}/_emulator/faults"
        assert requests.post(url, data=RULE, headers=headers, timeout=10).status_code == 200
    with EmulatorThread(EmulatorOptions(advertise="vendor.example")) as emulator:
        url = emulator.url.replace("vendor.example", "127.0.0.1") + "/_emulator/faults"
        assert requests.post(url, data=RULE, headers=headers, timeout=10).status_code == 403
        del headers["Origin"]
        assert requests.post(url, data=RULE, headers=headers, timeout=10).status_code == 200


# Under which name


def test_the_cdn_has_another_name_than_the_api(emulator):
    by_number, by_name = (
        video_url(emulator),
        video_url(emulator, emulator.url.replace("127.0.0.1", "localhost")),
    )
    port = urlsplit(emulator.url).port
    assert urlsplit(by_number).netloc == f"localhost:{port}"
    assert by_number.startswith(f"{emulator.cdn_url}/")
    assert urlsplit(by_name).netloc == f"127.0.0.1:{port}"
    for url in (by_number, by_name):
        assert requests.get(url, timeout=30).headers["Content-Type"] == "video/mp4"


def test_the_cdn_can_have_a_host_and_a_port_of_its_own():
    options = EmulatorOptions(frozen_clock=True, cdn_host="127.0.0.2", cdn_port=0)
    with EmulatorThread(options) as emulator:
        url = video_url(emulator)
        assert urlsplit(url).hostname == "127.0.0.2"
        assert urlsplit(url).port not in (None, urlsplit(emulator.url).port)
        reached = url.replace("127.0.0.2", "127.0.0.1")
        assert requests.get(reached, timeout=30).headers["Content-Type"] == "video/mp4"
        assert emulator.journal[-1].call == "cdn"


def test_with_tls_the_cdn_keeps_the_name_that_the_certificate_is_for(tmp_path):
    certificate = str(self_signed(tmp_path, "127.0.0.1"))
    with EmulatorThread(EmulatorOptions(frozen_clock=True, tls_certificate=certificate)) as emulator:
        url = emulator.url + PATH
        accepted = requests.post(url, json=BODY, headers=HEADERS, timeout=10, verify=certificate)
        emulator.clock.advance(60)
        params = {"generation_id": accepted.json()["id"]}
        told = requests.get(url, params=params, headers=HEADERS, timeout=10, verify=certificate).json()
        assert told["video"]["url"].startswith(f"{emulator.url}/cdn/")


@pytest.mark.parametrize(
    ("advertise", "url"),
    [
        ("host.docker.internal", "http://host.docker.internal:PORT"),
        ("kling:9000", "http://kling:9000"),
        ("[::1]", "http://[::1]:PORT"),
        ("[::1]:80", "http://[::1]:80"),
    ],
)
def test_it_is_told_by_the_name_it_is_advertised_by(advertise: str, url: str):
    with EmulatorThread(EmulatorOptions(advertise=advertise, cdn_port=0)) as emulator:
        port = emulator.url.rpartition(":")[2]
        assert emulator.url == url.replace("PORT", port)


def test_on_every_address_it_is_told_by_loopback():
    with EmulatorThread(EmulatorOptions(host="0.0.0.0", allow_remote=True)) as emulator:
        assert emulator.url.startswith("http://127.0.0.1:")
        assert billing(emulator).status_code == 200


# Slow, dripping, oversized


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /v2/billing HTTP/1.1\r\nHost: loc",
        b"POST /v2/video/generations HTTP/1.1\r\nHost: localhost\r\n",
    ],
)
def test_a_head_without_an_end_is_closed(strict, sent: bytes):
    with connected(strict) as sock:
        sock.sendall(sent)
        began = time.monotonic()
        assert answer_to(sock).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 10 * LIMIT


def test_a_head_in_drips_is_closed(strict):
    with connected(strict) as sock:
        stop = threading.Event()

        def drip() -> None:
            try:
                while not stop.wait(LIMIT / 8):
                    sock.sendall(b"x")
            except OSError:
                return

        sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        answer_to(sock)
        stop.set()
        thread.join()
        assert time.monotonic() - began < 10 * LIMIT


@pytest.mark.parametrize("framing", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [b"/v2/video/generations", b"/_emulator/faults"])
def test_a_body_without_an_end_is_408(strict, path: bytes, framing: bytes):
    with connected(strict) as sock:
        key = KEY.encode()
        sock.sendall(
            b"POST "
            + path
            + b" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
            + key
            + b"\r\n"
            + framing
            + b"\r\n\r\n"
            + (b"5\r\nhello\r\n" if b"chunked" in framing else b"hello")
        )
        began = time.monotonic()
        assert sock.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began < 10 * LIMIT
    assert billing(strict).status_code == 200
    assert strict.stats["accepted"] == 0


def test_a_kept_connection_is_served_again_after_a_pause(strict):
    with requests.Session() as session:
        for _ in range(3):
            assert session.get(strict.url + "/v2/billing", headers=HEADERS, timeout=10).status_code == 200
            time.sleep(1.5 * LIMIT)
    assert len({entry.connection for entry in strict.journal[-3:]}) == 1


def test_a_body_that_is_announced_too_long_is_413_before_it_comes(emulator):
    with connected(emulator) as sock:
        sock.sendall(
            b"POST /v2/video/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n"
        )
        assert sock.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_many_slow_clients_keep_nobody_out(emulator):
    socks = [socket.create_connection(("127.0.0.1", urlsplit(emulator.url).port)) for _ in range(200)]
    try:
        for sock in socks:
            sock.sendall(b"GET / HT")
        assert billing(emulator, timeout=5).status_code == 200
    finally:
        for sock in socks:
            sock.close()


def test_stopping_does_not_wait_for_slow_clients():
    emulator = EmulatorThread(EmulatorOptions(request_seconds=60)).start()
    with connected(emulator) as one, connected(emulator) as other:
        one.sendall(b"GET / HT")
        other.sendall(b"POST /_emulator/faults HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        time.sleep(0.1)
        began = time.monotonic()
        emulator.stop()
        assert time.monotonic() - began < 5


# Down


def test_connections_are_refused_while_the_vendor_is_down_and_nothing_is_forgotten(emulator):
    requests.post(emulator.url + PATH, json=BODY, headers=HEADERS, timeout=10)
    answer = requests.post(f"{emulator.url}/_emulator/outage", json={"seconds": 0.6}, timeout=10)
    assert answer.json() == {"seconds": 0.6}
    time.sleep(0.2)
    with pytest.raises(requests.ConnectionError, match="refused"):
        billing(emulator)
    time.sleep(0.8)
    assert billing(emulator).status_code == 200
    assert emulator.stats["accepted"] == 1


@pytest.mark.parametrize(
    "body",
    ['{"seconds": -1}', '{"seconds": NaN}', '{"seconds": "long"}', "{}", "[]", "7", '{"seconds": 1e9}'],
)
def test_an_outage_of_no_length_is_400(emulator, body: str):
    answer = requests.post(f"{emulator.url}/_emulator/outage", data=body, timeout=10)
    assert answer.status_code == 400
    assert billing(emulator).status_code == 200

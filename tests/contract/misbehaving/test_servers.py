"""Whatever a server does: both clients end in time and in bounded memory, and say the truth about money."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.api import calls
from airflow_provider_kling.api.async_client import AsyncKlingClient
from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.client import SLOWEST_DOWNLOAD, KlingClient
from airflow_provider_kling.api.download import resumable_fetch
from airflow_provider_kling.api.download.save_video import save_video
from airflow_provider_kling.api.exceptions import (
    ApiError,
    ConnectionLostError,
    DownloadError,
    KlingError,
    MalformedReplyError,
    Money,
    Recovery,
    SubmitUncertainError,
)
from airflow_provider_kling.api.generation import Generation, GenerationRequest, GenerationStatus
from airflow_provider_kling.api.polling import shared_poller
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.polling.shared_poller import SharedPoller
from airflow_provider_kling.api.retry import RetryPolicy
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.messages import ConnectionLost, HttpResponse
from airflow_provider_kling.api.transport.rate_limiter import Limiter
from airflow_provider_kling.emulator import EmulatorThread
from tests.contract.addresses import accepting
from tests.contract.conftest import NAME, Connect
from tests.contract.drivers import Async
from tests.misbehaving_server import (
    BROKEN,
    ENCODED,
    NEVER_ENDING,
    OK,
    REDIRECTS,
    REFUSALS,
    SCENARIOS,
    STANDING,
    Behaviour,
    Connection,
    hinting,
    misbehaving,
)

pytestmark = pytest.mark.usefixtures("plain_environment")

REQUEST = GenerationRequest("kling-video/v1.6/standard/text-to-video", {"prompt": "a cat", "duration": 5})
CONNECT = 0.4
READ = 0.4
SLACK = 1.0
"""Seconds that a machine under load may add."""
MEMORY = 48 * 1024
"""KiB that a scenario may add to what this process had in memory at most."""
LIMITS: dict[str, Any] = {"connect_timeout": CONNECT, "read_timeout": READ}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 86\r\n\r\n"
COMPLETED = b'{"id": "x", "status": "completed", "video": {"url": "https://cdn.example.com/v.mp4"}}'


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    began, peak = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.monotonic() - began < seconds + SLACK
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEMORY


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_submit(connect: Connect, vendor: EmulatorThread, name: str):
    with misbehaving(SCENARIOS[name]) as server:
        driver = connect(vendor, base_url=f"http://{server.address}", **LIMITS)
        with bounded(CONNECT + READ), pytest.raises(KlingError) as caught:
            driver.run(driver.calls.submit(REQUEST, "mine"))
        assert name not in NEVER_ENDING or server.wait_until_left()
    error = caught.value
    assert len(str(error)) < 2000
    assert str(error).isprintable()
    if name in REFUSALS or name in REDIRECTS:
        refused = "403" in name or name in REDIRECTS
        assert (error.money is Money.NOT_SPENT) is refused
    else:
        assert isinstance(error, SubmitUncertainError)
        assert error.money is Money.MAY_BE_SPENT
        assert len(server.requests) == 1, "what may have been accepted is not sent again"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_poll(connect: Connect, vendor: EmulatorThread, name: str):
    with misbehaving(SCENARIOS[name]) as server:
        driver = connect(vendor, base_url=f"http://{server.address}", **LIMITS)
        driver.calls.read_retries = RetryPolicy(attempts=1)
        with bounded(CONNECT + READ), pytest.raises(KlingError) as caught:
            driver.run(driver.calls.get_generation("g1"))
        assert name not in NEVER_ENDING or server.wait_until_left()
    expected = {**NEVER_ENDING, **BROKEN}
    if name in expected:
        assert isinstance(caught.value, ConnectionLostError | MalformedReplyError)
    elif name in ENCODED:
        assert isinstance(caught.value, MalformedReplyError | ApiError)
        assert "encoded" in str(caught.value)
    assert caught.value.money is Money.ONCE


@pytest.mark.parametrize("name", ["head that drips", "trailers that drip", "silence"])
def test_over_tls(connect: Connect, vendor: EmulatorThread, certificate: str, name: str):
    with misbehaving(SCENARIOS[name], certificate) as server:
        driver = connect(vendor, base_url=f"https://{server.address}", ca_bundle=certificate, **LIMITS)
        with bounded(CONNECT + READ), pytest.raises(SubmitUncertainError):
            driver.run(driver.calls.submit(REQUEST, "mine"))
        assert server.wait_until_left()


@pytest.mark.parametrize("status", [200, 201])
def test_early_hints_are_not_the_answer(connect: Connect, vendor: EmulatorThread, status: int):
    with misbehaving(hinting(status, {"id": "g7", "status": "queued"})) as server:
        driver = connect(vendor, base_url=f"http://{server.address}")
        for _ in range(3):
            assert driver.run(driver.calls.submit(REQUEST)).id == "g7"


@pytest.mark.parametrize("late", [0.0, 0.05], ids=["at once", "later"])
def test_an_answer_that_nobody_asked_for_is_not_that_to_the_next_request(
    connect: Connect, vendor: EmulatorThread, late: float
):
    """Which is about another generation: it would be taken for completed, with the video of the first."""

    def behave(connection: Connection) -> None:
        if b"generation_id=g1" not in connection.request:
            connection.answer(STANDING)
            return
        connection.answer(STANDING)
        time.sleep(late)
        connection.answer(COMPLETED)

    async def pause() -> None:
        await asyncio.sleep(0.3)

    with misbehaving(behave) as server:
        driver = connect(vendor, base_url=f"http://{server.address}")
        for generation_id in ("g1", "g2"):
            assert driver.run(driver.calls.get_generation(generation_id)).video_url is None
            if isinstance(driver, Async):  # its connections hear what comes meanwhile
                driver._runner.run(pause())
            time.sleep(0.1)


def test_a_server_that_speaks_first_is_not_listened_to(vendor: EmulatorThread):
    async def main(address: str) -> None:
        settings = Settings("key", f"http://{address}", read_timeout=0.4)
        async with AsyncKlingClient(settings) as client:
            reply = await client.send(client.calls.endpoints.poll("g1"))
        assert isinstance(reply, HttpResponse | ConnectionLost)
        assert b"completed" not in getattr(reply, "body", b"")

    with accepting(lambda sock: sock.sendall(ANSWER + COMPLETED)) as address:
        asyncio.run(main(address))


@pytest.mark.parametrize("name", ["silence", "head that drips", "body that drips", "103 now and then"])
def test_a_wait_keeps_its_time(connect: Connect, vendor: EmulatorThread, name: str):
    """However much longer the settings would give each of its polls."""
    with misbehaving(SCENARIOS[name]) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "LAST_LOOK", 0.3)
        driver = connect(vendor, base_url=f"http://{server.address}", connect_timeout=30, read_timeout=30)
        with bounded(0.5), pytest.raises(KlingError, match="g1"):
            driver.run(
                driver.calls.wait_until_complete(
                    "g1", schedule=Schedule.fixed(15), deadline=driver.calls.deadline(0.2)
                )
            )


def test_a_wait_that_is_cancelled_takes_its_request_with_it(vendor: EmulatorThread):
    async def main(address: str) -> None:
        async with AsyncKlingClient(Settings("key", f"http://{address}")) as client:
            wait = asyncio.create_task(client.wait("g1", timeout=60))
            while not server.requests:
                await asyncio.sleep(0.01)
            wait.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait
            assert await asyncio.to_thread(server.wait_until_left)

    with misbehaving(SCENARIOS["headers that drip"]) as server:
        asyncio.run(main(server.address))


# The shared poller: one account's hundred hanging polls, and the healthy ones beside them.


def by_generation(poisoned: Behaviour) -> Behaviour:
    """Polls of generations that begin with ``bad`` are poisoned; the others complete at their third one."""
    polls: Counter[bytes] = Counter()

    def behave(connection: Connection) -> None:
        if b"generation_id=bad" in connection.request:
            poisoned(connection)
        line = connection.request.partition(b"\r\n")[0]
        polls[line] += 1
        connection.answer(COMPLETED if polls[line] == 3 else STANDING)

    return behave


@pytest.mark.parametrize(
    ("name", "poisoned"),
    [("silence", 96), ("headers that drip", 16), ("body that drips", 96), ("trailers that drip", 96)],
)
def test_hanging_polls_take_nobody_elses_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, poisoned: int
):
    monkeypatch.setattr(shared_poller, "STUCK_AFTER", 0.2)

    async def main() -> None:
        settings = Settings("key", f"http://{server.address}", read_timeout=20)
        calls = VendorCalls(Endpoints(settings, time.time))
        poller = SharedPoller(
            lambda: AsyncKlingClient(settings, connections=shared_poller.MOST_UNDER_WAY), Limiter()
        )

        def wait(generation_id: str) -> asyncio.Task[Generation]:
            flow = calls.wait_until_complete(
                generation_id, schedule=Schedule.fixed(1), deadline=calls.deadline(60)
            )
            return asyncio.create_task(poller.wait(flow))

        hanging = [wait(f"bad{number}") for number in range(poisoned)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(10):  # half of what each of the others may hang
            for generation in await asyncio.gather(*(wait(f"good{number}") for number in range(50))):
                assert generation.video_url
        assert not any(wait.done() for wait in hanging)
        for each in hanging:
            each.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        assert not poller.is_open
        assert await asyncio.to_thread(server.wait_until_left)

    with misbehaving(by_generation(NEVER_ENDING[name])) as server:
        asyncio.run(main())
    assert "have had no complete answer" in caplog.text


def test_a_hanging_host_takes_no_place_of_another(monkeypatch: pytest.MonkeyPatch):
    """Nor does a name that hangs in the system's resolver: its threads are its client's own."""
    released = threading.Event()
    look_up = socket.getaddrinfo

    def hang(host: str, *args: Any, **kwargs: Any) -> Any:
        if host == "hanging.invalid":
            released.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "later")
        return look_up("127.0.0.1" if host == "kling.test" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    async def main(address: str) -> None:
        port = address.rpartition(":")[2]
        options: dict[str, Any] = {"allow_plain_http": True, "connect_timeout": 0.5}
        async with (
            AsyncKlingClient(Settings("key", "http://hanging.invalid", **options)) as hanging,
            AsyncKlingClient(Settings("key", f"http://kling.test:{port}", **options)) as healthy,
        ):
            lost = [
                asyncio.create_task(hanging.send(hanging.calls.endpoints.poll(f"g{number}")))
                for number in range(40)
            ]
            await asyncio.sleep(0.1)
            with bounded(0.2):
                reply = await healthy.send(healthy.calls.endpoints.poll("g1"))
            assert isinstance(reply, HttpResponse)
            for each in await asyncio.gather(*lost):
                assert isinstance(each, ConnectionLost)
                assert not each.why.maybe_sent

    try:
        with misbehaving(lambda connection: connection.answer(STANDING)) as server:
            asyncio.run(main(server.address))
    finally:
        released.set()


# Downloads.


@pytest.fixture
def fetching(vendor: EmulatorThread) -> Iterator[Callable[..., tuple[int, bytes]]]:
    """Fetches a URL with a client whose base URL is loopback."""
    opened: list[KlingClient] = []

    def fetch(url: str, base_url: str = "http://127.0.0.1:9", **options: Any) -> tuple[int, bytes]:
        client = KlingClient(Settings("key", base_url, **{**LIMITS, **options}))
        opened.append(client)
        with client.fetch(url, {}) as stream:
            return stream.status, b"".join(stream.chunks(1024 * 1024))

    yield fetch
    for client in opened:
        client.close()


# Without a length and cut in its head, an answer looks like an empty video, which then is not taken for one.
BREAKING = [name for name in BROKEN if name != "end in the head"]
SLOW = {
    name: NEVER_ENDING[name] for name in NEVER_ENDING if "without end" not in name and "terabyte" not in name
}


@pytest.mark.parametrize("name", [*BREAKING, *SLOW])
def test_a_download(fetching: Callable[..., tuple[int, bytes]], name: str):
    with misbehaving(SCENARIOS[name]) as server:
        with (
            bounded(CONNECT + 2 * READ),
            pytest.raises(ConnectionLostError, match="download stopped") as caught,
        ):
            fetching(f"http://{server.address}/v.mp4?ksSecret=hush")
        assert server.wait_until_left()
    assert caught.value.money is Money.ALREADY_PAID
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [name for name in NEVER_ENDING if "without end" in name or "terabyte" in name]
)
def test_a_download_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    """Neither the time nor the disk has to hold all of it."""
    monkeypatch.setattr(resumable_fetch, "MOST_BYTES", 8 * 1024 * 1024)
    with misbehaving(SCENARIOS[name]) as server:
        client = KlingClient(Settings("key", "http://127.0.0.1:9", **LIMITS))
        with bounded(CONNECT + 2 * READ + 4), client, pytest.raises(DownloadError) as caught:
            save_video(
                client.fetch,
                lambda: Generation(
                    "g1", GenerationStatus.COMPLETED, "completed", f"http://{server.address}/v.mp4"
                ),
                tmp_path / "v.mp4",
                generation_id="g1",
                retries=RetryPolicy(attempts=1),
            )
    assert caught.value.money is Money.ALREADY_PAID
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ENCODED)
def test_an_encoded_video_is_refused_unread(tmp_path: Path, name: str):
    with misbehaving(SCENARIOS[name]) as server:
        client = KlingClient(Settings("key", "http://127.0.0.1:9", **LIMITS))
        with bounded(1), client, pytest.raises(DownloadError, match=r"encoded|answered 500"):
            save_video(
                client.fetch,
                lambda: Generation(
                    "g1", GenerationStatus.COMPLETED, "completed", f"http://{server.address}/v.mp4"
                ),
                tmp_path / "v.mp4",
                generation_id="g1",
                retries=RetryPolicy(attempts=1),
            )


def test_a_slow_download_that_continues_is_not_given_up(fetching: Callable[..., tuple[int, bytes]]):
    """It takes longer than any of the time-outs, and brings enough in each."""
    pieces = 12

    def behave(connection: Connection) -> None:
        connection.send(OK + b"Content-Length: %d\r\n\r\n" % (pieces * SLOWEST_DOWNLOAD))
        for _ in range(pieces):
            connection.send(bytes(SLOWEST_DOWNLOAD))
            time.sleep(READ / 4)
        connection.close()

    with misbehaving(behave) as server:
        began = time.monotonic()
        status, body = fetching(f"http://{server.address}/v.mp4")
        assert time.monotonic() - began > 2 * READ
    assert (status, len(body)) == (200, pieces * SLOWEST_DOWNLOAD)


# Where a video's URL may lead.


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "127.1", "2130706433",
        "10.1.2.3", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fd00::1]",
        "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1", "255.255.255.255",
    ],
)  # fmt: skip
def test_a_videos_url_leads_neither_here_nor_into_the_network(
    fetching: Callable[..., tuple[int, bytes]], host: str
):
    """As long as the base URL is the vendor's: not even a connection is tried."""
    with pytest.raises(ConnectionLostError, match="must not be connected to") as caught:
        fetching(f"https://{host}/v.mp4?ksSecret=hush", "https://api.aimlapi.com")
    assert caught.value.recovery is Recovery.GIVE_UP
    assert caught.value.money is Money.ALREADY_PAID
    assert "hush" not in str(caught.value)


@pytest.mark.usefixtures("names")
def test_a_redirect_leads_nowhere_else_either(
    fetching: Callable[..., tuple[int, bytes]], certificate: str, monkeypatch: pytest.MonkeyPatch
):
    with misbehaving(lambda connection: connection.answer(b"secret")) as inside:

        def redirect(connection: Connection) -> None:
            location = f"Location: https://{inside.address}/latest/meta-data".encode()
            connection.answer(b"", location, status=b"302 Found")

        with misbehaving(redirect, certificate) as cdn:
            port = cdn.address.rpartition(":")[2]
            # The first hop's host is that of the base URL, which is always allowed.
            with pytest.raises(ConnectionLostError, match="must not be connected to"):
                fetching(f"https://{NAME}:{port}/v.mp4", f"https://{NAME}", ca_bundle=certificate)
            assert len(cdn.requests) == 1
        assert inside.requests == []


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to: addresses in turn, as of a name server that rebinds."""
    table: dict[str, list[str]] = {NAME: ["127.0.0.1"]}
    look_up = socket.getaddrinfo

    def resolve(host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        if host not in table:
            return look_up(host, port, *args, **kwargs)
        answers = table[host]
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        return look_up(address, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return table


def test_a_name_is_resolved_once_and_what_was_checked_is_used(
    fetching: Callable[..., tuple[int, bytes]], names: dict[str, list[str]]
):
    names["rebinding.example.com"] = ["192.0.2.1", "127.0.0.1"]
    with misbehaving(lambda connection: connection.answer(b"secret")) as inside:
        port = inside.address.rpartition(":")[2]
        options = {"allow_plain_http": True, "allow_private_network": True}
        with pytest.raises(ConnectionLostError, match="download stopped"):
            fetching(f"http://rebinding.example.com:{port}/v", "https://api.aimlapi.com", **options)
        assert len(names["rebinding.example.com"]) == 1
        assert inside.requests == []


def test_a_private_address_is_allowed_where_the_connection_says_so(
    fetching: Callable[..., tuple[int, bytes]], certificate: str, names: dict[str, list[str]]
):
    """The name goes to TLS all the same: the certificate is that of the name, and not of the address."""
    names[NAME] = ["127.0.0.1"]
    with misbehaving(lambda connection: connection.answer(b"a video"), certificate) as cdn:
        port = cdn.address.rpartition(":")[2]
        url = f"https://{NAME}:{port}/v.mp4"
        assert fetching(url, "https://localhost", ca_bundle=certificate) == (200, b"a video")
        with pytest.raises(ConnectionLostError, match=r"127\.0\.0\.1, which is this machine"):
            fetching(url, "https://api.aimlapi.com", ca_bundle=certificate, allow_private_network=True)

"""How a video is fetched from the CDN, on the wire. Only the blocking client does it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_kling import __version__
from airflow_provider_kling.api.exceptions import (
    ConnectionLostError,
    DownloadError,
    Money,
    Recovery,
)
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.emulator import EmulatorThread
from tests.contract.addresses import accepting, other_host, proxy, refusing, reset
from tests.contract.conftest import KEY, NAME
from tests.contract.drivers import Blocking

pytestmark = pytest.mark.usefixtures("plain_environment")

REQUEST = GenerationRequest(
    "kling-video/v1.6/standard/text-to-video",
    {"prompt": "a cat", "duration": 5, "aspect_ratio": "1:1"},
)


@pytest.fixture
def driver(vendor: EmulatorThread) -> Iterator[Blocking]:
    yield from connected(vendor)


def connected(vendor: EmulatorThread, **changes: Any) -> Iterator[Blocking]:
    driver = Blocking(Settings(**{"api_key": KEY, "base_url": vendor.url, **changes}), vendor.clock)
    yield driver
    driver.close()


def video_url(driver: Blocking) -> str:
    generation = driver.run(driver.calls.submit(REQUEST))
    driver.time.advance(60)
    url = driver.run(driver.calls.get_generation(generation.id)).video_url
    assert url is not None
    return url


def fetched(driver: Blocking, url: str, **headers: str) -> tuple[int, bytes]:
    with driver.client.fetch(url, headers) as stream:
        return stream.status, b"".join(stream.chunks(65536))


def test_the_key_never_goes_to_the_cdn(vendor: EmulatorThread, driver: Blocking):
    status, content = fetched(driver, video_url(driver))
    assert (status, content[4:8]) == (200, b"ftyp")
    [entry] = [entry for entry in vendor.journal if entry.call == "cdn"]
    assert not entry.authorization
    assert all(entry.authorization for entry in vendor.journal if entry.call != "cdn")


def test_what_a_fetch_says_of_itself(driver: Blocking):
    with other_host() as host:
        fetched(driver, f"http://{host.address}/v.mp4?ksSecret=s", Range="bytes=5-")
    [(method, path, headers)] = host.requests
    assert (method, path) == ("GET", "/v.mp4?ksSecret=s")
    assert headers["user-agent"] == f"airflow-provider-kling/{__version__}"
    assert headers["accept-encoding"] == "identity", "lengths and checksums are of the file itself"
    assert headers["range"] == "bytes=5-"
    assert "authorization" not in headers


def test_a_redirect_is_followed_without_the_key(vendor: EmulatorThread, driver: Blocking):
    url = video_url(driver)
    with other_host() as host:
        vendor.faults.add("cdn", "redirect", url=f"http://{host.address}/elsewhere.mp4")
        assert fetched(driver, url, Range="bytes=0-0") == (200, b"{}")
    [(_, path, headers)] = host.requests
    assert path == "/elsewhere.mp4"
    assert headers["range"] == "bytes=0-0"
    assert KEY not in str(headers)


def test_a_redirect_without_end_is_given_as_it_is(vendor: EmulatorThread, driver: Blocking):
    url = video_url(driver)
    vendor.faults.add("cdn", "redirect", times=None)
    assert fetched(driver, url)[0] == 307
    assert sum(entry.call == "cdn" for entry in vendor.journal) == 6


def test_a_redirect_that_gives_up_encryption_is_not_followed(vendor: EmulatorThread, driver: Blocking):
    url = video_url(driver)
    vendor.faults.add("cdn", "redirect", url="http://cdn.kling.invalid/v.mp4?ksSecret=hush")
    with pytest.raises(DownloadError, match=r"http://cdn\.kling\.invalid is not encrypted") as caught:
        fetched(driver, url)
    assert "hush" not in str(caught.value)
    assert caught.value.money is Money.ALREADY_PAID


@pytest.mark.parametrize(
    "url", ["http://[x/v.mp4", "https://127.0.0.1:99999/v.mp4", "https:///v.mp4", "file:///etc/passwd"]
)
def test_what_is_no_url(vendor: EmulatorThread, driver: Blocking, url: str):
    with pytest.raises(DownloadError, match="no usable URL"):
        fetched(driver, url)
    good = video_url(driver)
    vendor.faults.add("cdn", "redirect", url=url)
    with pytest.raises(DownloadError, match="no usable URL"):
        fetched(driver, good)


def test_a_connection_that_cannot_be_made(driver: Blocking):
    with refusing() as address, pytest.raises(ConnectionLostError, match="was refused") as caught:
        fetched(driver, f"http://{address}/v.mp4?ksSecret=hush")
    assert (caught.value.maybe_sent, caught.value.recovery) == (False, Recovery.RETRY_CALL)
    assert caught.value.money is Money.ALREADY_PAID
    assert "hush" not in str(caught.value)


def test_a_connection_that_breaks(vendor: EmulatorThread, driver: Blocking):
    url = video_url(driver)
    vendor.faults.add("cdn", "reset-at", at=5000)
    with pytest.raises(ConnectionLostError, match="broke before the whole answer was read") as caught:
        fetched(driver, url)
    assert caught.value.maybe_sent
    assert "ksSecret" not in str(caught.value)


def test_an_answer_that_never_comes(vendor: EmulatorThread):
    for driver in connected(vendor, read_timeout=0.3):
        url = video_url(driver)
        vendor.faults.add("cdn", "stall-before")
        with pytest.raises(ConnectionLostError, match="no answer came within the read time-out"):
            fetched(driver, url)


def test_a_certificate_that_nobody_vouches_for(secure: EmulatorThread, driver: Blocking):
    with pytest.raises(ConnectionLostError, match="certificate is not trusted") as caught:
        fetched(driver, f"{secure.url}/cdn/x.mp4")
    assert caught.value.recovery is Recovery.GIVE_UP, "the next attempt would meet the same"


def test_a_video_comes_through_the_connections_proxy(secure: EmulatorThread, certificate: str):
    with proxy(secure.url.removeprefix("https://")) as known:
        changes = {"ca_bundle": certificate, "proxy": f"http://{known.address}"}
        for driver in connected(secure, base_url=f"https://{NAME}", **changes):
            status, content = fetched(driver, video_url(driver))
            assert (status, content[4:8]) == (200, b"ftyp")
    assert {target for _, target in known.asked} == {f"{NAME}:443"}


def test_a_proxy_that_breaks_is_named(vendor: EmulatorThread):
    with accepting(reset) as address:
        for driver in connected(vendor, proxy=f"http://user:hunter2@{address}"):
            with pytest.raises(ConnectionLostError, match="the proxy could not be used") as caught:
                fetched(driver, f"https://{NAME}/v.mp4")
            assert "hunter2" not in str(caught.value)

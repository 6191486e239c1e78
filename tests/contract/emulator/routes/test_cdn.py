"""Videos of the emulator: signed, expiring, in ranges, and spoiled on demand."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import av
import pytest
import requests

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread

PATH = "/v2/generate/video/kling/generation"
HEADERS = {"Authorization": "Bearer kling-emulator-key"}
MODEL = "kling-video/v1.6/standard/text-to-video"


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    options = EmulatorOptions(frozen_clock=True, url_lifetime=600)
    with EmulatorThread(options) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: EmulatorThread) -> EmulatorThread:
    shared.reset()
    return shared


def completed(emulator: EmulatorThread, **request: Any) -> str:
    body = {"model": MODEL, "prompt": "a video for the tests", "aspect_ratio": "1:1", **request}
    answer = requests.post(emulator.url + PATH, json=body, headers=HEADERS, timeout=10)
    emulator.clock.advance(60)
    return answer.json()["id"]


def url_of(emulator: EmulatorThread, generation_id: str) -> str:
    params = {"generation_id": generation_id}
    answer = requests.get(emulator.url + PATH, params=params, headers=HEADERS, timeout=10)
    return answer.json()["video"]["url"]


def get(url: str, **headers: str) -> requests.Response:
    return requests.get(url, headers={name.replace("_", "-"): v for name, v in headers.items()}, timeout=30)


def test_the_video_is_real_and_of_the_length_asked_for(emulator):
    answer = get(url_of(emulator, completed(emulator, duration=10)))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "video/mp4"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    with av.open(io.BytesIO(answer.content)) as container:
        assert container.duration == 10_000_000
        assert container.streams.video[0].codec_context.name == "h264"


def test_each_poll_signs_again_and_all_its_urls_are_valid(emulator):
    generation_id = completed(emulator)
    urls = {url_of(emulator, generation_id) for _ in range(5)}
    assert len(urls) == 5
    assert {get(url, Range="bytes=0-0").status_code for url in urls} == {206}


def test_a_url_expires_and_a_poll_gives_a_fresh_one(emulator):
    generation_id = completed(emulator)
    url = url_of(emulator, generation_id)
    expiry = int(parse_qs(urlsplit(url).query)["ksTime"][0], 16)
    assert expiry == int(emulator.clock.now() + 600)
    emulator.clock.advance(601)
    assert get(url).status_code == 403
    assert get(url_of(emulator, generation_id)).status_code == 200


@pytest.mark.parametrize("part", ["cacheKey", "ksSecret", "ksTime"])
def test_a_signature_cannot_be_changed(emulator, part: str):
    url = url_of(emulator, completed(emulator))
    value = parse_qs(urlsplit(url).query)[part][0]
    other = ("8" if value[0] == "7" else "7") + value[1:]
    assert get(url.replace(f"{part}={value}", f"{part}={other}")).status_code == 403
    assert get(url.replace(f"{part}={value}", f"{part}=")).status_code == 403
    assert get(url.partition("?")[0]).status_code == 403


def test_a_signature_is_for_one_video(emulator):
    one, two = completed(emulator), completed(emulator)
    assert get(url_of(emulator, one).replace(one, two)).status_code == 403


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=500-", 500, -1),
        ("bytes=-7", -7, -1),
        ("bytes=0-99999999", 0, -1),
    ],
)
def test_ranges(emulator, asked: str, first: int, last: int):
    url = url_of(emulator, completed(emulator))
    whole = get(url).content
    size = len(whole)
    first, last = first % size, last % size
    answer = get(url, Range=asked)
    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    assert answer.content == whole[first : last + 1]


def test_ranges_that_cannot_be_served(emulator):
    url = url_of(emulator, completed(emulator))
    size = len(get(url).content)
    beyond = get(url, Range=f"bytes={size}-")
    assert beyond.status_code == 416
    assert beyond.headers["Content-Range"] == f"bytes */{size}"
    for ignored in ("bytes=5-2", "lines=1-2", "bytes=0-1,5-6", "bytes=-"):
        assert get(url, Range=ignored).status_code == 200


def test_if_range_serves_the_whole_when_the_video_is_another(emulator):
    url = url_of(emulator, completed(emulator))
    etag = get(url, Range="bytes=0-0").headers["ETag"]
    assert get(url, Range="bytes=5-9", If_Range=etag).status_code == 206
    assert get(url, Range="bytes=5-9", If_Range='"other"').status_code == 200
    assert get(url, If_None_Match=etag).status_code == 304


def test_head_tells_the_length_without_the_video(emulator):
    url = url_of(emulator, completed(emulator))
    answer = requests.head(url, timeout=30)
    assert int(answer.headers["Content-Length"]) == len(get(url).content)
    assert answer.content == b""
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_no_two_generations_have_the_same_video_and_each_keeps_its_own(emulator):
    ids = [completed(emulator), completed(emulator), completed(emulator, prompt="another")]
    first, again = ([get(url_of(emulator, each)) for each in ids] for _ in range(2))
    assert len({answer.content for answer in first}) == 3, "the same prompt is not the same film"
    assert len({answer.headers["ETag"] for answer in first}) == 3
    assert [answer.content for answer in again] == [answer.content for answer in first]
    assert [answer.headers["ETag"] for answer in again] == [answer.headers["ETag"] for answer in first]


def test_many_viewers_at_once_render_once(emulator):
    url = url_of(emulator, completed(emulator, prompt="seen by many at once"))
    before = emulator.stats["rendered"]
    with ThreadPoolExecutor(8) as pool:
        sums = {hashlib.sha256(a.content).hexdigest() for a in pool.map(get, [url] * 8)}
    assert len(sums) == 1
    assert emulator.stats["rendered"] == before + 1


def test_polling_renders_nothing(emulator):
    before = emulator.stats["rendered"]
    url_of(emulator, completed(emulator, prompt="never looked at"))
    assert emulator.stats["rendered"] == before


def test_a_key_sent_to_the_cdn_is_on_record(emulator):
    url = url_of(emulator, completed(emulator))
    get(url, Range="bytes=0-0")
    get(url, Range="bytes=0-0", Authorization="Bearer kling-emulator-key")
    seen = [entry for entry in emulator.journal if entry.call == "cdn"]
    assert [entry.authorization for entry in seen] == [False, True]
    assert {name for name, _ in seen[0].query} == {"ksTime"}, "the journal keeps no signature"


def test_an_unfinished_video_is_not_there(emulator):
    generation_id = completed(emulator)
    url = url_of(emulator, generation_id)
    emulator.reset()
    assert get(url).status_code == 404


def test_the_directive_gives_urls_that_are_expired(emulator):
    generation_id = completed(emulator, prompt="x [emulator: expired-url]")
    assert get(url_of(emulator, generation_id)).status_code == 403


def test_padding_makes_large_videos_that_still_play():
    options = EmulatorOptions(frozen_clock=True, video_bytes=30_000_000)
    with EmulatorThread(options) as emulator:
        answer = get(url_of(emulator, completed(emulator)))
    assert len(answer.content) == 30_000_000
    with av.open(io.BytesIO(answer.content)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 120


def spoiled(emulator: EmulatorThread, kind: str, **options: Any) -> str:
    url = url_of(emulator, completed(emulator))
    emulator.faults.add("cdn", kind, **options)
    return url


def test_fault_short_body_announces_more_than_it_sends(emulator):
    url = spoiled(emulator, "short-body")
    with pytest.raises(requests.exceptions.RequestException) as broken:
        get(url)
    assert "IncompleteRead" in str(broken.value)


def test_fault_reset_at_breaks_at_the_byte(emulator):
    url = spoiled(emulator, "reset-at", at=5000)
    received: list[bytes] = []
    with requests.get(url, stream=True, timeout=30) as answer:
        chunks = answer.iter_content(100)
        with pytest.raises(requests.exceptions.RequestException, match="reset"):
            received.extend(chunks)
    assert sum(map(len, received)) <= 5000
    assert get(url).status_code == 200, "a fault strikes once unless told otherwise"


def test_fault_wrong_length_announces_half_the_video(emulator):
    url = spoiled(emulator, "wrong-length")
    cut = get(url)
    assert len(cut.content) == len(get(url).content) // 2


def test_fault_changed_etag_restarts_a_resumed_download(emulator):
    url = spoiled(emulator, "changed-etag", after=1)
    etag = get(url).headers["ETag"]
    resumed = get(url, Range="bytes=100-", If_Range=etag)
    assert resumed.status_code == 200
    assert resumed.headers["ETag"] != etag


def test_fault_not_a_video_is_html_with_200(emulator):
    answer = get(spoiled(emulator, "not-a-video"))
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


@pytest.mark.parametrize(("kind", "status"), [("expired", 403), ("416", 416), ("503", 503)])
def test_fault_refusals(emulator, kind: str, status: int):
    assert get(spoiled(emulator, kind)).status_code == status


def test_fault_slow_keeps_to_its_rate(emulator):
    url = url_of(emulator, completed(emulator))
    get(url, Range="bytes=0-0")  # rendered now
    emulator.faults.add("cdn", "slow", size=100_000)
    answer = get(url, Range="bytes=0-29999")
    assert answer.elapsed.total_seconds() < 0.3, "headers come at once"
    assert len(answer.content) == 30_000


def test_fault_stall_after_sends_half_and_hangs(emulator):
    url = spoiled(emulator, "stall-after")
    with pytest.raises(requests.exceptions.RequestException, match="timed out"):
        requests.get(url, timeout=0.4)
    assert get(url).status_code == 200

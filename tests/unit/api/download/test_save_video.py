from __future__ import annotations

import base64
import errno
import hashlib
import logging
import os
import stat
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.download.resumable_fetch import CHUNK
from airflow_provider_kling.api.download.save_video import SavedVideo, save_video
from airflow_provider_kling.api.exceptions import DownloadError, KlingError, Money, Recovery
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.api.retry import RetryPolicy
from airflow_provider_kling.api.settings import Settings
from tests.faulty_cdn import Cdn, Fault, serving
from tests.media_samples import mp4

pytestmark = pytest.mark.usefixtures("spool")

ID = "vIvy_TKgZ0vwl7ZYG6Hy0"
VIDEO = mp4(3)
OTHER = mp4(1)
MIB = 1024 * 1024
assert len(VIDEO) > 1.5 * MIB


@pytest.fixture
def cdn() -> Iterator[Cdn]:
    with serving(Cdn(VIDEO)) as cdn:
        yield cdn


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def go(cdn: Cdn, waits: list[float]) -> Iterator[Callable[..., SavedVideo]]:
    settings = Settings("key", base_url="http://127.0.0.1:9", connect_timeout=2, read_timeout=2)
    with KlingClient(settings) as client:

        def go(target: object, **options: Any) -> SavedVideo:
            return save_video(
                client.fetch,
                cdn.completed,
                target,
                generation_id=ID,
                pause=waits.append,
                random=lambda: 0.5,
                now=lambda: 1_800_000_000.0,
                **options,
            )

        yield go


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()


def failure(go: Callable[..., SavedVideo], target: object, **options: Any) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        go(target, **options)
    error = caught.value
    assert error.generation_id == ID
    assert ID in error.what
    assert error.money is Money.ALREADY_PAID
    assert "hush" not in str(error)
    assert error.advice
    return error


class TestWhole:
    def test_a_video_is_saved_with_its_facts(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        target = folder / "new" / "deep" / "clip.mp4"

        saved = go(target)

        assert target.read_bytes() == VIDEO
        assert saved == SavedVideo(
            path=str(target),
            size=len(VIDEO),
            sha256=hashlib.sha256(VIDEO).hexdigest(),
            duration=pytest.approx(3.0),
            width=320,
            height=180,
            skipped=False,
        )
        assert os.listdir(target.parent) == ["clip.mp4"]
        assert len(cdn.requests) == 1
        assert "authorization" not in cdn.requests[0]

    def test_a_new_file_has_the_permissions_of_any_new_file(
        self, go: Callable[..., SavedVideo], folder: Path
    ) -> None:
        (folder / "usual").touch()

        go(folder / "clip.mp4")

        assert (folder / "clip.mp4").stat().st_mode == (folder / "usual").stat().st_mode

    def test_it_is_flushed_to_the_disk_before_it_has_its_name(
        self, go: Callable[..., SavedVideo], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there_when_flushed: list[list[str]] = []
        flush = os.fsync

        def watched(descriptor: int) -> None:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                assert os.fstat(descriptor).st_size == len(VIDEO)
                there_when_flushed.append([each for each in os.listdir(folder) if each[0] != "."])
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", watched)
        go(folder / "clip.mp4")

        assert there_when_flushed == [[]]

    def test_text_and_local_storage_paths_are_local_files(
        self, go: Callable[..., SavedVideo], folder: Path
    ) -> None:
        assert go(str(folder / "a.mp4")).path == str(folder / "a.mp4")
        assert go(UPath(f"file://{folder}/b.mp4")).size == len(VIDEO)
        assert sorted(os.listdir(folder)) == ["a.mp4", "b.mp4"]

    def test_a_uri_as_text_is_not_taken_for_a_local_path(self, go: Callable[..., SavedVideo]) -> None:
        with pytest.raises(TypeError, match="ObjectStoragePath"):
            go("s3://bucket/clip.mp4")

    def test_no_length_announced(self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path) -> None:
        cdn.headers["Content-Length"] = None
        cdn.always = Fault(headers={"Content-Length": None})

        assert go(folder / "clip.mp4").size == len(VIDEO)

    def test_the_longest_name_a_file_system_takes(self, go: Callable[..., SavedVideo], folder: Path) -> None:
        name = "ü" * 125 + ".mp4"

        go(folder / name)

        assert os.listdir(folder) == [name]

    def test_another_length_than_asked_for_is_logged_and_kept(
        self, go: Callable[..., SavedVideo], folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert go(folder / "clip.mp4", expected_seconds=10).duration == pytest.approx(3.0)

        assert "expected 10.00 s" in caplog.text

    def test_memory_does_not_grow_with_the_file(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        # an MP4 may end with a box of any size that players skip
        filling = 60 * MIB
        cdn.content = VIDEO + (filling + 8).to_bytes(4, "big") + b"free" + bytes(filling)
        cdn.etag = '"large"'

        tracemalloc.start()
        try:
            saved = go(folder / "clip.mp4")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert saved.size == len(VIDEO) + filling + 8
        assert peak < 8 * MIB


class TestStatedLength:
    """The vendor's answer states the length of the video beside its URL."""

    def test_the_length_that_is_stated(self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path) -> None:
        cdn.stated_size = len(VIDEO)

        assert go(folder / "clip.mp4").size == len(VIDEO)
        assert len(cdn.requests) == 1

    def test_a_file_cut_by_its_server_is_fetched_again(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        # no length announced: nothing but the vendor's tells that this is not all
        cdn.stated_size = len(VIDEO)
        cdn.faults.append(Fault(body=VIDEO[: -MIB // 2], headers={"Content-Length": None}))

        assert go(folder / "clip.mp4").size == len(VIDEO)
        assert cdn.urls_given == 2

    def test_without_a_length_of_the_server_the_vendor_s_is_binding(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        cdn.stated_size = len(VIDEO) + 1
        cdn.always = Fault(headers={"Content-Length": None})

        error = failure(go, folder / "clip.mp4")

        assert f"{len(VIDEO)} bytes came" in error.what
        assert os.listdir(folder) == []

    def test_a_complete_video_of_another_length_is_kept_after_a_second_look(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        cdn.stated_size = len(VIDEO) + 1

        assert go(folder / "clip.mp4").size == len(VIDEO)
        assert len(cdn.requests) == 2
        assert f"states {len(VIDEO) + 1}" in caplog.text


class TestBrokenDownloads:
    @pytest.mark.parametrize("how", ["reset_at", "close_at"])
    def test_a_download_that_breaks_off_is_resumed(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, waits: list[float], how: str
    ) -> None:
        cdn.faults.append(Fault(**{how: MIB + 1000}))

        saved = go(folder / "clip.mp4")

        assert (folder / "clip.mp4").read_bytes() == VIDEO
        assert saved.sha256 == hashlib.sha256(VIDEO).hexdigest()
        assert cdn.ranges[0] is None
        start = int(str(cdn.ranges[1]).removeprefix("bytes=").removesuffix("-"))
        assert MIB <= start <= MIB + 1000
        assert cdn.requests[1]["if-range"] == cdn.etag
        assert waits == [0.5]
        assert os.listdir(folder) == ["clip.mp4"]

    @pytest.mark.parametrize("at", [0, 1, 4000, len(VIDEO) // 2, len(VIDEO) - 1, len(VIDEO)])
    def test_a_reset_at_any_byte_ends_in_a_whole_file(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, at: int
    ) -> None:
        cdn.faults.append(Fault(reset_at=at))

        go(folder / "clip.mp4")

        assert (folder / "clip.mp4").read_bytes() == VIDEO

    def test_many_breaks_are_borne_as_long_as_there_is_progress(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        filling = 9 * MIB
        cdn.content = VIDEO + (filling + 8).to_bytes(4, "big") + b"free" + bytes(filling)
        cdn.always = Fault(close_at=MIB + 10)

        saved = go(folder / "clip.mp4", retries=RetryPolicy(attempts=2))

        assert saved.size == len(cdn.content)
        assert len(cdn.requests) > 8

    def test_breaks_without_progress_are_not(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, waits: list[float]
    ) -> None:
        cdn.always = Fault(reset_at=1000)

        error = failure(go, folder / "clip.mp4")

        assert error.recovery is Recovery.RETRY_TASK
        assert "5 attempts" in error.what
        assert len(cdn.requests) == 5
        assert waits == [0.5, 1.0, 2.0, 4.0]
        assert os.listdir(folder) == []

    def test_a_server_that_always_starts_again_ends_too(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        cdn.always = Fault(close_at=MIB + 1000, ignore_range=True)

        failure(go, folder / "clip.mp4")

        assert len(cdn.requests) == 5
        assert os.listdir(folder) == []

    @pytest.mark.parametrize("etag", [None, 'W/"weak"'])
    def test_without_a_strong_etag_it_starts_again(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, etag: str | None
    ) -> None:
        cdn.headers["ETag"] = etag
        cdn.faults.append(Fault(close_at=MIB + 1000))

        go(folder / "clip.mp4")

        assert cdn.ranges == [None, None]
        assert (folder / "clip.mp4").read_bytes() == VIDEO

    def test_another_file_by_now_is_fetched_from_its_start(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        cdn.faults.append(Fault(close_at=MIB + 1000, headers={"ETag": '"earlier"'}))

        saved = go(folder / "clip.mp4")

        assert cdn.requests[1]["if-range"] == '"earlier"'
        assert (folder / "clip.mp4").read_bytes() == VIDEO
        assert saved.sha256 == hashlib.sha256(VIDEO).hexdigest()

    @pytest.mark.parametrize(
        "lie",
        [
            pytest.param({"ETag": '"another"'}, id="etag"),
            pytest.param({"Content-Range": f"bytes {MIB}-{len(VIDEO)}/{len(VIDEO) + 1}"}, id="total"),
            pytest.param({"Content-Range": f"bytes 7-{len(VIDEO)}/{len(VIDEO)}"}, id="start"),
            pytest.param({"Content-Range": None}, id="unsaid"),
        ],
    )
    def test_a_part_of_another_file_is_not_put_together(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, lie: dict[str, str | None]
    ) -> None:
        cdn.faults += [Fault(close_at=MIB + 1000), Fault(headers=lie)]

        go(folder / "clip.mp4")

        assert cdn.ranges[2] is None
        assert (folder / "clip.mp4").read_bytes() == VIDEO

    def test_no_such_range(self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path) -> None:
        cdn.faults += [Fault(close_at=MIB + 1000), Fault(status=416)]

        go(folder / "clip.mp4")

        assert cdn.ranges[2] is None
        assert (folder / "clip.mp4").read_bytes() == VIDEO

    def test_more_than_announced_is_not_kept(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        more = Fault(body=VIDEO[MIB:] + b"and more", headers={"Content-Length": None})
        cdn.faults += [Fault(close_at=MIB), more]

        go(folder / "clip.mp4")

        assert (folder / "clip.mp4").read_bytes() == VIDEO

    def test_the_length_is_too_long_for_ever(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        cdn.always = Fault(headers={"Content-Length": str(len(VIDEO) + 100)}, ignore_range=True)

        failure(go, folder / "clip.mp4")

        assert os.listdir(folder) == []

    def test_an_encoded_answer_is_refused_unread(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        import gzip

        packed = gzip.compress(VIDEO)
        headers: dict[str, str | None] = {
            "Content-Encoding": "gzip",
            "Content-Length": str(len(packed)),
        }
        cdn.always = Fault(body=packed, headers=headers)

        with pytest.raises(DownloadError, match="encoded with 'gzip'"):
            go(folder / "clip.mp4")


class TestChecksums:
    @staticmethod
    def stated(content: bytes) -> list[dict[str, str | None]]:
        md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
        sha = base64.b64encode(hashlib.sha256(content).digest()).decode()
        return [
            {"Content-MD5": md5},
            {"Repr-Digest": f"sha-256=:{sha}:"},
            {"Digest": f"SHA-256={sha},md5={md5}"},
            {"x-goog-hash": f"crc32c=n03x6A==,md5={md5}"},
        ]

    def test_stated_and_right(self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path) -> None:
        for number, headers in enumerate(self.stated(VIDEO)):
            cdn.headers = headers
            assert not go(folder / f"{number}.mp4").skipped
            assert go(folder / f"{number}.mp4").skipped

    def test_of_a_part_says_nothing_of_the_whole(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        (folder / f"{ID}.mp4").write_bytes(VIDEO)
        cdn.faults.append(Fault(headers={**self.stated(VIDEO[:1])[0]}))

        assert go(folder / f"{ID}.mp4").skipped
        assert cdn.ranges == ["bytes=0-0"]

    def test_damaged_on_the_way(self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path) -> None:
        damaged = VIDEO[:-1000] + bytes(1000)
        for number, headers in enumerate(self.stated(VIDEO)):
            cdn.headers = headers
            cdn.faults.append(Fault(body=damaged))

            go(folder / f"{number}.mp4")

            assert (folder / f"{number}.mp4").read_bytes() == VIDEO

    def test_damaged_every_time(self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path) -> None:
        cdn.headers = self.stated(OTHER)[1]

        assert "sha256" in failure(go, folder / "clip.mp4").what
        assert os.listdir(folder) == []

    @pytest.mark.parametrize("nonsense", ["md5=short", "md5=ÿ", "sha-256=:%%%:", "", "md5="])
    def test_what_is_no_checksum_is_passed_over(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, nonsense: str
    ) -> None:
        cdn.headers["Digest"] = nonsense

        assert go(folder / "clip.mp4").size == len(VIDEO)


class TestRefusals:
    @pytest.mark.parametrize("status", [403, 404, 410, 401, 400])
    def test_an_expired_url_is_replaced_at_once(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, waits: list[float], status: int
    ) -> None:
        cdn.faults.append(Fault(status=status))

        go(folder / "clip.mp4")

        assert [request["path"] for request in cdn.requests] == [
            "/video.mp4?ksSecret=hush1",
            "/video.mp4?ksSecret=hush2",
        ]
        assert waits == []

    def test_a_url_that_expires_midway_is_resumed_elsewhere(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        cdn.faults += [Fault(close_at=MIB + 1000), Fault(status=403)]

        go(folder / "clip.mp4")

        assert cdn.requests[2]["path"] == "/video.mp4?ksSecret=hush2"
        assert cdn.requests[2]["range"].startswith("bytes=10")
        assert (folder / "clip.mp4").read_bytes() == VIDEO

    def test_a_url_that_is_never_good_ends_it(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, waits: list[float]
    ) -> None:
        cdn.always = Fault(status=403)

        error = failure(go, folder / "clip.mp4")

        assert "403" in error.what
        assert error.recovery is Recovery.RETRY_TASK
        assert cdn.urls_given == 5
        assert waits == [1.0, 2.0, 4.0]
        assert os.listdir(folder) == []

    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_trouble_at_the_server_is_waited_out(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, waits: list[float], status: int
    ) -> None:
        cdn.faults.append(Fault(status=status, headers={"Content-Type": "text/html"}))

        go(folder / "clip.mp4")

        assert cdn.urls_given == 1
        assert waits == [0.5]

    def test_retry_after_is_honoured(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, waits: list[float]
    ) -> None:
        date = "Fri, 15 Jan 2027 08:00:20 GMT"  # 20 s after the test's clock
        cdn.faults += [
            Fault(status=503, headers={"Retry-After": "7"}),
            Fault(status=429, headers={"Retry-After": date}),
        ]

        go(folder / "clip.mp4")

        assert waits == [pytest.approx(7 * 1.05), pytest.approx(20 * 1.05)]

    @pytest.mark.parametrize(
        "kind", ["text/html; charset=utf-8", "application/json", "application/xml", "image/png"]
    )
    def test_a_page_instead_of_a_video(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, kind: str
    ) -> None:
        page = Fault(body=b"<html>Sign in</html>", headers={"Content-Type": kind})
        page.headers["Content-Length"] = "20"
        cdn.faults.append(page)

        go(folder / "clip.mp4")

        assert cdn.urls_given == 2
        assert (folder / "clip.mp4").read_bytes() == VIDEO

    def test_a_page_every_time(self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path) -> None:
        cdn.always = Fault(headers={"Content-Type": "text/html"})

        assert "'text/html'" in failure(go, folder / "clip.mp4").what
        assert os.listdir(folder) == []

    @pytest.mark.parametrize("content", [b"<html>" * 500, b"", VIDEO[:-5000]])
    def test_no_whole_video_under_a_videos_name(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, content: bytes
    ) -> None:
        cdn.content = content

        assert failure(go, folder / "clip.mp4").recovery is Recovery.RETRY_TASK
        assert os.listdir(folder) == []

    def test_nothing_listens(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, waits: list[float]
    ) -> None:
        cdn.url = "http://127.0.0.1:9"

        failure(go, folder / "clip.mp4")

        assert len(waits) == 4
        assert os.listdir(folder) == []

    def test_trouble_with_the_vendor_is_not_ours_to_repeat(self, folder: Path) -> None:
        asked = []

        def ask_vendor() -> Generation:
            asked.append(1)
            raise KlingError("the vendor has no such generation")

        with pytest.raises(KlingError, match="no such generation"):
            save_video(pytest.fail, ask_vendor, folder / "clip.mp4", generation_id=ID, pause=pytest.fail)

        assert asked == [1]
        assert os.listdir(folder) == []


class TestWhatIsThereAlready:
    def test_a_second_save_downloads_nothing(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        clip = folder / f"{ID}.mp4"
        first = go(clip)
        cdn.sent = 0
        before = clip.stat()

        second = go(clip)

        assert second == SavedVideo(**{**{f: getattr(first, f) for f in first.__slots__}, "skipped": True})
        assert cdn.sent <= 1
        after = clip.stat()
        assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)

    def test_one_length_is_not_taken_for_one_video(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        end = (8).to_bytes(4, "big")
        cdn.content = VIDEO + end + b"skip"
        for name, content in (("same", cdn.content), ("other", VIDEO + end + b"free")):
            (folder / f"{name}.mp4").write_bytes(content)

        assert go(folder / "same.mp4").skipped
        assert "content is another" in failure(go, folder / "other.mp4").what

    def test_a_server_without_ranges_is_asked_for_its_length_only(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        (folder / "clip.mp4").write_bytes(VIDEO)
        cdn.always = Fault(ignore_range=True)

        assert go(folder / "clip.mp4").skipped

    def test_an_expired_url_on_the_way_does_not_matter(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        (folder / "clip.mp4").write_bytes(VIDEO)
        cdn.faults.append(Fault(status=403))

        assert go(folder / "clip.mp4").skipped

    @pytest.mark.parametrize(
        ("content", "how"),
        [
            (OTHER, "bytes, the video"),
            (b"", "it has 0 bytes"),
            (bytes(len(VIDEO)), "not a whole video"),
        ],
    )
    def test_another_file_is_left_alone(
        self, go: Callable[..., SavedVideo], folder: Path, content: bytes, how: str
    ) -> None:
        (folder / "clip.mp4").write_bytes(content)

        error = failure(go, folder / "clip.mp4")

        assert how in error.what
        assert error.recovery is Recovery.GIVE_UP
        assert "overwrite=True" in error.advice
        assert (folder / "clip.mp4").read_bytes() == content
        assert os.listdir(folder) == ["clip.mp4"]

    def test_a_stated_checksum_tells_videos_of_one_length_apart(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        same_length = VIDEO + (8).to_bytes(4, "big") + b"free"
        cdn.content = VIDEO + (8).to_bytes(4, "big") + b"skip"
        cdn.headers = TestChecksums.stated(cdn.content)[1]
        (folder / "clip.mp4").write_bytes(same_length)

        assert "sha256" in failure(go, folder / "clip.mp4").what
        assert (folder / "clip.mp4").read_bytes() == same_length

    def test_without_a_length_the_content_decides(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        cdn.always = Fault(headers={"Content-Length": None}, ignore_range=True)
        (folder / "same.mp4").write_bytes(VIDEO)
        (folder / "other.mp4").write_bytes(OTHER)

        assert go(folder / "same.mp4").skipped
        assert "content" in failure(go, folder / "other.mp4").what
        assert sorted(os.listdir(folder)) == ["other.mp4", "same.mp4"]

    def test_overwrite_replaces_in_one_step(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        target = folder / "clip.mp4"
        target.write_bytes(OTHER)
        with target.open("rb") as reader:
            assert not go(target, overwrite=True).skipped

            assert reader.read() == OTHER  # who reads the old file goes on reading it
        assert target.read_bytes() == VIDEO
        assert os.listdir(folder) == ["clip.mp4"]

    def test_overwrite_that_fails_keeps_the_old_file(
        self, go: Callable[..., SavedVideo], cdn: Cdn, folder: Path
    ) -> None:
        (folder / "clip.mp4").write_bytes(OTHER)
        cdn.always = Fault(status=500)

        failure(go, folder / "clip.mp4", overwrite=True)

        assert (folder / "clip.mp4").read_bytes() == OTHER
        assert os.listdir(folder) == ["clip.mp4"]

    @pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
    @pytest.mark.parametrize(("meanwhile", "fine"), [(VIDEO, True), (OTHER, False)])
    def test_a_file_that_appears_meanwhile_is_not_overwritten(
        self,
        cdn: Cdn,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        go: Callable[..., SavedVideo],
        links: bool,
        meanwhile: bytes,
        fine: bool,
    ) -> None:
        target = folder / "clip.mp4"
        if not links:
            monkeypatch.setattr(os, "link", _unsupported)
        give = cdn.completed

        def slow_url() -> Generation:
            target.write_bytes(meanwhile)
            return give()

        monkeypatch.setattr(cdn, "completed", slow_url)

        if fine:
            assert go(target).skipped
        else:
            assert failure(go, target).recovery is Recovery.GIVE_UP
        assert target.read_bytes() == meanwhile
        assert os.listdir(folder) == ["clip.mp4"]

    def test_a_file_system_without_hard_links(
        self, go: Callable[..., SavedVideo], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "link", _unsupported)

        go(folder / "clip.mp4")

        assert os.listdir(folder) == ["clip.mp4"]


def _unsupported(*args: object) -> None:
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


class TestLocalTrouble:
    def test_a_directory_is_no_file(self, go: Callable[..., SavedVideo], folder: Path) -> None:
        for overwrite in (False, True):
            error = failure(go, folder, overwrite=overwrite)
            assert "is a directory" in error.what
            assert error.recovery is Recovery.GIVE_UP

    def test_a_file_in_place_of_a_directory(
        self, go: Callable[..., SavedVideo], folder: Path, cdn: Cdn
    ) -> None:
        (folder / "file").touch()

        for overwrite in (False, True):
            error = failure(go, folder / "file" / "clip.mp4", overwrite=overwrite)
            assert error.recovery is Recovery.GIVE_UP
        assert cdn.requests == []

    def test_a_full_disk(
        self, go: Callable[..., SavedVideo], folder: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
    ) -> None:
        # no disk can be filled here: the file takes one chunk and has no room for the next
        monkeypatch.setattr(Path, "open", _opening_with_little_room)

        error = failure(go, folder / "clip.mp4")

        assert "no space is left" in error.what
        assert "room" in error.advice
        assert error.recovery is Recovery.RETRY_TASK
        assert waits == []
        assert os.listdir(folder) == []


def _opening_with_little_room(path: Path, mode: str) -> IO[bytes]:
    file = open(path, mode, buffering=0)  # noqa: SIM115 - Path.open is what this stands for
    write, room = file.write, CHUNK

    class Little:
        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

        def __enter__(self) -> Little:
            return self

        def __exit__(self, *exc_info: object) -> None:
            file.close()

        def write(self, data: bytes) -> int:
            nonlocal room
            room -= len(data)
            if room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(data)

    return Little()  # type: ignore[return-value]  # as much of a file as is used


class StorageOf:
    """A path in a storage that a test brings along."""

    protocol = "memory"

    def __init__(self, fs: Any, path: str, protocol: str = "memory") -> None:
        self.fs = fs
        self.path = path
        self.protocol = protocol

    fs: Any = None
    path: str = ""

    def __str__(self) -> str:
        return f"{self.protocol}:/{self.path}"


class TestStorage:
    def test_an_object_is_put_whole(self, go: Callable[..., SavedVideo], memory: MemoryFileSystem) -> None:
        saved = go(UPath("memory://bucket/a/clip.mp4"))

        assert saved.path == "memory://bucket/a/clip.mp4"
        assert saved.sha256 == hashlib.sha256(VIDEO).hexdigest()
        assert memory.cat("/bucket/a/clip.mp4") == VIDEO
        assert memory.find("/") == ["/bucket/a/clip.mp4"]

    def test_a_second_save_downloads_nothing(
        self, go: Callable[..., SavedVideo], cdn: Cdn, memory: MemoryFileSystem
    ) -> None:
        target = UPath(f"memory://bucket/{ID}.mp4")
        first = go(target)
        cdn.sent = 0

        second = go(target)

        assert second.skipped
        assert second.sha256 == first.sha256
        assert cdn.sent <= 1

    def test_another_object_is_left_alone_unless_told(
        self, go: Callable[..., SavedVideo], memory: MemoryFileSystem
    ) -> None:
        memory.pipe("/bucket/clip.mp4", OTHER)
        target = UPath("memory://bucket/clip.mp4")

        failure(go, target)
        assert memory.cat("/bucket/clip.mp4") == OTHER

        go(target, overwrite=True)
        assert memory.cat("/bucket/clip.mp4") == VIDEO
        assert memory.find("/") == ["/bucket/clip.mp4"]

    def test_a_prefix_is_no_object(self, go: Callable[..., SavedVideo], memory: MemoryFileSystem) -> None:
        memory.pipe("/bucket/a/clip.mp4", OTHER)

        assert "is a directory" in failure(go, UPath("memory://bucket/a")).what

    def test_a_broken_download_leaves_nothing(
        self, go: Callable[..., SavedVideo], cdn: Cdn, memory: MemoryFileSystem
    ) -> None:
        cdn.always = Fault(close_at=1000)

        failure(go, UPath("memory://bucket/clip.mp4"))

        assert memory.find("/") == []

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_write_that_fails_midway_leaves_nothing(
        self, go: Callable[..., SavedVideo], overwrite: bool
    ) -> None:
        filesystem = FailingWrites()
        filesystem.pipe("/other.mp4", OTHER)
        filesystem.failing = True

        error = failure(go, StorageOf(filesystem, "/clip.mp4"), overwrite=overwrite)

        assert "InternalError: we encountered a problem" in error.what
        assert "X-Amz-Signature" not in str(error)
        assert error.recovery is Recovery.RETRY_TASK
        assert filesystem.find("/") == ["/other.mp4"]

    def test_a_move_that_fails_leaves_nothing(self, go: Callable[..., SavedVideo]) -> None:
        filesystem = FailingMoves()

        failure(go, StorageOf(filesystem, "/clip.mp4"))

        assert filesystem.find("/") == []

    def test_a_task_that_is_stopped_leaves_nothing(self, go: Callable[..., SavedVideo]) -> None:
        filesystem = FailingMoves(KeyboardInterrupt())

        with pytest.raises(KeyboardInterrupt):
            go(StorageOf(filesystem, "/clip.mp4"))

        assert filesystem.find("/") == []

    def test_a_cleanup_that_fails_does_not_hide_why(
        self, go: Callable[..., SavedVideo], caplog: pytest.LogCaptureFixture
    ) -> None:
        filesystem = FailingMoves(cleanup=False)

        assert "no moves today" in failure(go, StorageOf(filesystem, "/clip.mp4")).what
        assert "Could not remove /.clip.mp4." in caplog.text

    def test_a_storage_that_keeps_less_than_it_was_given(self, go: Callable[..., SavedVideo]) -> None:
        filesystem = Forgetful()

        assert "right after it was written" in failure(go, StorageOf(filesystem, "/clip.mp4")).what
        assert filesystem.find("/") == []

    @pytest.mark.parametrize("protocol", ["s3", "memory"])
    def test_what_another_task_wrote_at_the_same_time_stays(
        self, go: Callable[..., SavedVideo], protocol: str
    ) -> None:
        filesystem = SharedKey()

        error = failure(go, StorageOf(filesystem, "/bucket/clip.mp4", protocol))

        assert f"{len(OTHER)} bytes are at" in error.what
        assert "{generation_id}" in error.advice
        assert filesystem.find("/") == ["/bucket/clip.mp4"]
        assert filesystem.cat("/bucket/clip.mp4") == OTHER

    @pytest.mark.parametrize(
        ("trouble", "recovery"),
        [
            (OSError(errno.EROFS, "Read-only file system"), Recovery.GIVE_UP),
            (ConnectionResetError(errno.ECONNRESET, "reset"), Recovery.RETRY_TASK),
            (RuntimeError("no credentials?"), Recovery.RETRY_TASK),
        ],
    )
    def test_a_storage_that_cannot_be_looked_into(
        self, go: Callable[..., SavedVideo], cdn: Cdn, trouble: Exception, recovery: Recovery
    ) -> None:
        error = failure(go, StorageOf(Closed(trouble), "/clip.mp4"))

        assert (trouble.args[-1]) in error.what
        assert error.recovery is recovery
        assert cdn.requests == []

    def test_an_object_that_appears_meanwhile_is_not_overwritten(
        self,
        go: Callable[..., SavedVideo],
        cdn: Cdn,
        memory: MemoryFileSystem,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        give = cdn.completed

        def slow_url() -> Generation:
            memory.pipe("/bucket/clip.mp4", OTHER)
            return give()

        monkeypatch.setattr(cdn, "completed", slow_url)

        failure(go, UPath("memory://bucket/clip.mp4"))

        assert memory.cat("/bucket/clip.mp4") == OTHER

    def test_a_cached_listing_is_not_believed(self, go: Callable[..., SavedVideo]) -> None:
        filesystem = CachedListing()
        filesystem.pipe("/clip.mp4", OTHER)

        failure(go, StorageOf(filesystem, "/clip.mp4"))

        assert filesystem.cat("/clip.mp4") == OTHER

    @pytest.mark.parametrize("protocol", ["s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"])
    def test_an_object_store_gets_one_upload_in_small_parts(
        self, go: Callable[..., SavedVideo], protocol: str
    ) -> None:
        filesystem = OneUpload()

        go(StorageOf(filesystem, "/bucket/clip.mp4", protocol))

        (path, local_suffix, options) = filesystem.uploads.popleft()
        assert (path, local_suffix) == ("/bucket/clip.mp4", ".mp4")
        assert options.get("chunksize", 0) <= 16 * MIB
        assert options.get("max_concurrency", 1) == 1
        assert not filesystem.uploads


class OwnStore(MemoryFileSystem):
    """A memory filesystem that shares nothing with others."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.pseudo_dirs = [""]


class FailingWrites(OwnStore):
    failing = False

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        if not self.failing:
            super().put_file(lpath, rpath, **options)
            return
        self.pipe_file(rpath, b"half")
        raise _InternalError("we encountered a problem at https://b.test/k?X-Amz-Signature=1")


class _InternalError(Exception):
    """As storage libraries raise them: no OSError."""


_InternalError.__name__ = "InternalError"


class FailingMoves(OwnStore):
    def __init__(self, error: BaseException | None = None, *, cleanup: bool = True) -> None:
        super().__init__()
        self.error = error or OSError("no moves today")
        self.cleanup = cleanup

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        raise self.error

    def rm_file(self, path: str) -> None:
        if not self.cleanup:
            raise OSError("nor removals")
        super().rm_file(path)


class Forgetful(OwnStore):
    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes()[:-1])

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        raise AssertionError("it was not whole")


class SharedKey(OwnStore):
    """Somebody else puts an object of the same name a moment after us."""

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        super().put_file(lpath, rpath)
        if options:
            self.pipe_file(rpath, OTHER)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        super().mv(path1, path2)
        self.pipe_file(path2, OTHER)


class Closed(OwnStore):
    def __init__(self, trouble: Exception) -> None:
        super().__init__()
        self.trouble = trouble

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        raise self.trouble


class CachedListing(OwnStore):
    stale = True

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        if self.stale:
            raise FileNotFoundError(path)
        return super().info(path, **options)

    def invalidate_cache(self, path: str | None = None) -> None:
        self.stale = False


class OneUpload(OwnStore):
    def __init__(self) -> None:
        super().__init__()
        self.uploads: deque[tuple[str, str, dict[str, Any]]] = deque()

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        self.uploads.append((rpath, Path(lpath).suffix, options))
        super().put_file(lpath, rpath)

    def mv(self, path1: str, path2: str, **options: Any) -> None:
        raise AssertionError("an object store's put is atomic")


def test_what_is_logged_names_no_signature(
    go: Callable[..., SavedVideo], cdn: Cdn, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cdn.faults += [Fault(status=503), Fault(reset_at=10), Fault(status=403)]

    with caplog.at_level(logging.DEBUG, logger="airflow_provider_kling"):
        go(folder / "clip.mp4")

    ours = [r.getMessage() for r in caplog.records if r.name.startswith("airflow_provider_kling")]
    assert len(ours) == 4
    assert all(ID in message for message in ours)
    assert not any("hush" in message for message in ours)

from __future__ import annotations

import io
import logging
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_kling.api.download.verify import probe, warn_of_other_length
from airflow_provider_kling.api.exceptions import DownloadError, Money, Recovery
from tests.media_samples import FASTSTART, FRAGMENTED, m4a, mp4, picture

ID = "vIvy_TKgZ0vwl7ZYG6Hy0"
WHOLE = mp4(1, options=FASTSTART)
FRAGMENTS = mp4(2, options=FRAGMENTED)


def test_facts_are_the_files_own() -> None:
    facts = probe(io.BytesIO(mp4(2, size=(320, 180))), generation_id=ID)

    assert (facts.duration, facts.width, facts.height) == (pytest.approx(2.0), 320, 180)
    assert (facts.codec, facts.frames) == ("h264", 48)


@pytest.mark.parametrize("options", [{}, FASTSTART, FRAGMENTED], ids=["plain", "faststart", "fragmented"])
def test_every_layout_of_mp4_is_read_from_a_path_too(options: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "video without a suffix"
    path.write_bytes(mp4(1, options=options))

    for source in (path, str(path)):
        facts = probe(source, generation_id=ID)
        assert facts.duration == pytest.approx(1.0)
        assert facts.frames == 24


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=len(WHOLE) - 1))
def test_a_file_cut_at_any_byte_is_refused(length: int) -> None:
    with pytest.raises(DownloadError) as caught:
        probe(io.BytesIO(WHOLE[:length]), generation_id=ID)

    assert caught.value.generation_id == ID
    assert ID in str(caught.value)
    assert caught.value.recovery is Recovery.RETRY_TASK
    assert caught.value.money is Money.ALREADY_PAID


def test_a_fragmented_file_cut_inside_a_fragment_is_refused() -> None:
    with pytest.raises(DownloadError, match=r"cut off"):
        probe(io.BytesIO(FRAGMENTS[: len(FRAGMENTS) * 2 // 3]), generation_id=ID)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<!doctype html><html>expired</html>" * 50, id="html"),
        pytest.param(b'{"message": "expired"}', id="json"),
        pytest.param(b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:5,\n/etc/hostname\n", id="playlist"),
        pytest.param(picture("PNG"), id="picture"),
        pytest.param(bytes(5000), id="zeros"),
        pytest.param(m4a(), id="sound"),
    ],
)
def test_what_is_no_video_is_refused(content: bytes) -> None:
    with pytest.raises(DownloadError, match=f"the video of generation {ID}"):
        probe(io.BytesIO(content), generation_id=ID)


def test_neither_libav_nor_pillow_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(WHOLE)
    code = f"""
import sys
sys.modules["av"] = sys.modules["PIL"] = None
import airflow_provider_kling.api.download.save_video
from airflow_provider_kling.api.download.verify import probe
print(probe({str(path)!r}, generation_id="x").frames)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "24"


def test_a_video_with_sound_only_is_named_as_such() -> None:
    with pytest.raises(DownloadError, match="holds no video stream"):
        probe(io.BytesIO(m4a()), generation_id=ID)


def test_no_copy_of_the_file_is_held(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    path.write_bytes(mp4(20))
    assert path.stat().st_size > 1_500_000

    tracemalloc.start()
    try:
        probe(path, generation_id=ID)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 500_000


@pytest.mark.parametrize(
    ("duration", "expected", "warned"),
    [
        (5.04, 5, False),
        (5.04, None, False),
        (4.0, 5, False),
        (3.9, 5, True),
        (10.5, 10, False),
        (13.0, 15, False),
        (5.0, 10, True),
        (0.0, 5, True),
    ],
)
def test_another_length_is_only_logged(
    duration: float, expected: float | None, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_other_length(duration, expected, ID)

    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned
    assert all(ID in record.getMessage() for record in caplog.records)

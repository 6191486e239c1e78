from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.ui.files.recorded import (
    PICTURE_TYPES,
    VIDEO_TYPES,
    RangeError,
    UnavailableError,
    disposition,
    open_recorded,
    read_picture,
    requested_range,
)

MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isommp42" + b"\x00" * 76
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 40


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 99)),
        ("bytes=10-19", (10, 19)),
        ("bytes=10-1000", (10, 99)),
        ("bytes=-10", (90, 99)),
        ("bytes=-1000", (0, 99)),
        ("bytes=99-99", (99, 99)),
    ],
)
def test_a_range_is_read(header: str | None, expected: tuple[int, int] | None) -> None:
    assert requested_range(header, 100) == expected


@pytest.mark.parametrize(
    "header",
    [
        "bytes=100-",
        "bytes=5-4",
        "bytes=-0",
        "bytes=-",
        "bytes=",
        "items=0-1",
        "bytes=0-1,4-5",
        "bytes=a-b",
        "",
        "bytes=-5-6",
        "bytes=٣-",
    ],
)
def test_a_range_that_the_file_does_not_have_is_refused(header: str) -> None:
    with pytest.raises(RangeError):
        requested_range(header, 100)


@given(st.text(max_size=40), st.integers(0, 10**12))
def test_any_range_is_within_the_file_or_refused(header: str, size: int) -> None:
    try:
        found = requested_range(header, size)
    except RangeError:
        return
    assert found is not None
    assert 0 <= found[0] <= found[1] < size


def test_a_video_is_served_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "clip.txt"
    path.write_bytes(MP4)
    found = open_recorded(str(path), VIDEO_TYPES)
    assert (found.mime, found.size) == ("video/mp4", 100)
    assert b"".join(found.chunks(4, 11)) == b"ftypisom"
    assert found.file.closed


@pytest.mark.parametrize("content", [b"root:x:0:0", b"<html>", b"", PNG, b"[core]\nfernet_key = x"])
def test_what_is_no_video_is_not_served(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match="not of the kind"):
        open_recorded(str(path), VIDEO_TYPES)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (str(tmp_path / "pipe"), str(tmp_path), "/dev/zero"):
        with pytest.raises(UnavailableError):
            open_recorded(place, VIDEO_TYPES)


@pytest.mark.parametrize(
    "place",
    [
        "https://example.com/a.mp4",
        "http://169.254.169.254/",
        "data:video/mp4;base64,AA",
        "nowhere/a.mp4",
        "no-such://x/y",
        "",
    ],
)
def test_nothing_but_files_and_objects_is_opened(place: str) -> None:
    with pytest.raises(UnavailableError):
        open_recorded(place, VIDEO_TYPES)


def test_an_object_in_storage_is_served(tmp_path: Path) -> None:
    try:
        from airflow.sdk.io import attach
    except ImportError:  # Airflow 2
        from airflow.io.store import attach
    from fsspec.implementations.memory import MemoryFileSystem

    attach("memory", fs=MemoryFileSystem())
    MemoryFileSystem().pipe_file("/videos/clip.mp4", MP4)
    found = open_recorded("memory://videos/clip.mp4", VIDEO_TYPES)
    assert (found.mime, found.size) == ("video/mp4", 100)
    assert b"".join(found.chunks(0, 99)) == MP4


def test_a_picture_is_shown_only_while_it_is_the_one_that_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "mug.png"
    path.write_bytes(PNG)
    sha256 = hashlib.sha256(PNG).hexdigest()
    assert read_picture(str(path), sha256) == (PNG, PICTURE_TYPES["PNG"])
    path.write_bytes(PNG + b"!")
    with pytest.raises(UnavailableError, match="changed after"):
        read_picture(str(path), sha256)


def test_a_file_s_name_cannot_add_a_header() -> None:
    said = disposition('/videos/a"\r\nSet-Cookie: x.mp4', download=True, fallback="video.mp4")
    assert said.startswith("attachment; ")
    assert not set(said) & set("\r\n")
    assert said.count('"') == 2

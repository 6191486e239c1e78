from __future__ import annotations

import io
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.media.audio import has_frames, is_wave
from tests.media_samples import sound

MP3 = sound("mp3", "libmp3lame")
AAC = sound("adts", "aac")


@pytest.mark.parametrize(("content", "kind"), [(MP3, "MP3"), (AAC, "AAC")], ids=["MP3", "AAC"])
class TestFrames:
    def test_are_found(self, content: bytes, kind: str) -> None:
        assert has_frames(io.BytesIO(content), kind)

    def test_are_found_behind_something_else(self, content: bytes, kind: str) -> None:
        assert has_frames(io.BytesIO(b"ID3\x04\0\0\0\0\x0f\x50" + bytes(2000) + content), kind)
        assert has_frames(io.BytesIO(bytes(5000) + content), kind)

    def test_of_a_file_that_is_cut_in_the_last_one(self, content: bytes, kind: str) -> None:
        assert has_frames(io.BytesIO(content[:-20]), kind)

    def test_are_not_of_the_other_kind(self, content: bytes, kind: str) -> None:
        assert not has_frames(io.BytesIO(content), "AAC" if kind == "MP3" else "MP3")

    def test_a_single_one_is_no_sound(self, content: bytes, kind: str) -> None:
        assert not has_frames(io.BytesIO(content[:25]), kind)


@given(st.text(min_size=1, max_size=3000), st.sampled_from(["utf-8", "utf-16", "utf-16-be", "utf-32"]))
def test_text_is_no_sound(text: str, encoding: str) -> None:
    content = text.encode(encoding, errors="replace")
    assert not has_frames(io.BytesIO(content), "MP3")
    assert not has_frames(io.BytesIO(content), "AAC")


@pytest.mark.parametrize("content", [b"\xff" * 5_000_000, b"\xff\xfb\x90\x64" * 10**6, os.urandom(10**6)])
def test_time_is_bounded(content: bytes) -> None:
    started = time.process_time()
    has_frames(io.BytesIO(content), "MP3")
    has_frames(io.BytesIO(content), "AAC")
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("chunks", "fine"),
    [
        (b"fmt \x10\0\0\0" + bytes(16) + b"data\x04\0\0\0" + bytes(4), True),
        (b"LIST\x03\0\0\0abc\0fmt \x10\0\0\0" + bytes(16) + b"data\xff\xff\xff\xff" + bytes(4), True),
        (b"data\x04\0\0\0" + bytes(4), False),
        (b"fmt \x10\0\0\0" + bytes(16), False),
        (b"fmt \x10\0\0\0" + bytes(16) + b"data\x04\0\0\0", False),
        (b"junk" * 1000, False),
        (b"", False),
    ],
)
def test_wave(chunks: bytes, fine: bool) -> None:
    assert is_wave(io.BytesIO(b"RIFF\0\0\0\0WAVE" + chunks)) is fine

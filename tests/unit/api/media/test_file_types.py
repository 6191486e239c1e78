from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.media.file_types import HEAD, content_of
from tests.media_samples import m4a, mp4, picture, sound


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (picture("JPEG"), "JPEG"),
        (picture("PNG"), "PNG"),
        (picture("GIF"), "GIF"),
        (picture("WEBP"), "WebP"),
        (picture("AVIF"), "AVIF"),
        (picture("BMP"), "BMP"),
        (picture("TIFF"), "TIFF"),
        (mp4(0.2), "MP4"),
        (mp4(0.2, suffix=".mov"), "QuickTime"),
        (m4a(), "MP4"),
        (sound("mp3", "libmp3lame"), "MP3"),
        (sound("adts", "aac"), "AAC"),
        ("A boat.".encode("utf-16"), "text in UTF-16"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\xef\xbb\xbf<svg/>", "XML or SVG"),
        (b"A boat.", "text"),
        (b"", "empty"),
        (bytes(64), "of an unknown kind"),
    ],
)
def test_a_file_is_named_by_its_first_bytes(content: bytes, name: str) -> None:
    assert content_of(content[:HEAD]) == name


@given(st.binary(max_size=HEAD))
def test_anything_has_a_name(head: bytes) -> None:
    assert content_of(head)

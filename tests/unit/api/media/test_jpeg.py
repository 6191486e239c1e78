from __future__ import annotations

import io
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_kling.api.media.jpeg import MOST_SCANS, read_jpeg
from airflow_provider_kling.api.media.picture import Picture
from tests.media_samples import orientation, picture

BASELINE = picture("JPEG", (500, 400), quality=90)
PROGRESSIVE = picture("JPEG", (500, 400), progressive=True)


def facts(content: bytes) -> Picture:
    return read_jpeg(io.BytesIO(content))


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
    progressive=st.booleans(),
    turned=st.integers(1, 8),
    restart=st.sampled_from([0, 3]),
    optimize=st.booleans(),
)
def test_it_says_what_pillow_says(
    size: tuple[int, int], mode: str, progressive: bool, turned: int, restart: int, optimize: bool
) -> None:
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert(mode).save(
        file,
        "JPEG",
        progressive=progressive,
        exif=orientation(turned),
        restart_marker_blocks=restart,
        optimize=optimize,
    )

    said = facts(file.getvalue())

    assert (said.width, said.height, said.orientation) == (*size, turned)
    assert said.oddities == []


@pytest.mark.parametrize("content", [BASELINE, PROGRESSIVE], ids=["baseline", "progressive"])
def test_what_is_cut_is_never_complete(content: bytes) -> None:
    for length in range(2, len(content) - 1):
        with suppress(ValueError):
            assert facts(content[:length]).oddities == ["end is missing"]


def test_scans() -> None:
    start = PROGRESSIVE.rindex(b"\xff\xda")
    scan = PROGRESSIVE[start:-2]
    had = PROGRESSIVE.count(b"\xff\xda")

    assert facts(PROGRESSIVE[:-2] + scan * (MOST_SCANS - had) + b"\xff\xd9").oddities == []
    with pytest.raises(ValueError, match=f"more than {MOST_SCANS} scans"):
        facts(PROGRESSIVE[:-2] + scan * (MOST_SCANS - had + 1) + b"\xff\xd9")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (b"\xff\xc3\0\x0b\x08\0\x10\0\x10\x01\x01\x11\0", "SOF3"),
        (b"\xff\xc0\0\x0b\x0c\0\x10\0\x10\x01\x01\x11\0", "12 bits"),
        (b"\xff\xc0\0\x0b\x08\0\0\0\x10\x01\x01\x11\0", "16 x 0"),
        (b"\xff\xc0\0\x04\x08\0", "cut off"),
        (b"\xff\xc0\0\x01", "impossible length"),
        (b"\xff\xda\0\x02", "before their size"),
        (b"", "ends before its pixels"),
    ],
)
def test_what_no_viewer_opens(frame: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        facts(b"\xff\xd8" + frame + b"\xff\xd9")


@settings(deadline=None)
@given(st.sampled_from([BASELINE, PROGRESSIVE]), st.data())
def test_damage_raises_nothing_else(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=20)):
        damaged[position] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        facts(bytes(damaged))

from __future__ import annotations

import io
import struct
import time
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_kling.api.media.picture import Picture
from airflow_provider_kling.api.media.png import read_png, write_mended
from tests.media_samples import orientation, picture

PNG = picture("PNG", (500, 400))


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def facts(content: bytes) -> Picture:
    return read_png(io.BytesIO(content))


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    mode=st.sampled_from(["1", "L", "P", "RGB", "RGBA", "LA", "I;16"]),
    turned=st.integers(1, 8),
)
def test_it_says_what_pillow_says(size: tuple[int, int], mode: str, turned: int) -> None:
    content = io.BytesIO()
    Image.new(mode, size).save(content, "PNG", exif=orientation(turned))

    said = facts(content.getvalue())

    assert (said.width, said.height, said.orientation, said.oddities) == (*size, turned, [])


def test_a_file_without_its_end_whose_pixels_never_end_is_not_read_on() -> None:
    # 40 MB of a kind that expands to 40 GB
    bomb = zlib.compressobj(9)
    data = b"".join(bomb.compress(bytes(10**6)) for _ in range(300))
    content = PNG[:33] + chunk(b"IDAT", data) * 5

    started = time.process_time()
    with pytest.raises(ValueError, match="ends before its end"):
        facts(content)
    assert time.process_time() - started < 1


def test_repair_keeps_all_that_is_right() -> None:
    wrong = chunk(b"tEXt", b"Title\0A boat", 1)
    right = chunk(b"tEXt", b"Author\0me")
    file, target = io.BytesIO(PNG[:33] + wrong + right + PNG[33:-12]), io.BytesIO()

    write_mended(file, target)

    assert target.getvalue() == PNG[:33] + right + PNG[33:]


@settings(deadline=None)
@given(st.data())
def test_damage_raises_nothing_else(data: st.DataObject) -> None:
    damaged = bytearray(PNG)
    for position in data.draw(st.lists(st.integers(0, len(PNG) - 1), min_size=1, max_size=20)):
        damaged[position] = data.draw(st.integers(0, 255))
    with suppress(ValueError):
        facts(bytes(damaged))

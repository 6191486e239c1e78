"""Pictures that are small to send and huge to decode, of every kind that ``convert_image`` opens."""

from __future__ import annotations

import functools
import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from airflow_provider_kling.api.media import image_decoder
from tests.media_samples import picture

ROOT = Path(image_decoder.__file__).resolve().parents[3]
MEMORY = 1024
"""MB that the decoder may have in memory."""
OWN_MEMORY = 120
"""MB that the task's own process may have."""
CPU = 32.0
"""Seconds of the decoder."""

ATTACK = f"""
import json, resource, sys, tempfile
sys.path.insert(0, {str(ROOT)!r})
from airflow_provider_kling.api.media.image import PictureError, write_converted
with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as target:
    file.write(sys.stdin.buffer.read())
    file.flush()
    try:
        said = write_converted(file, target, 10_000_000)
    except PictureError as error:
        said = "refused: " + str(error)
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
child = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([said, int(peak) / 1024, child.ru_maxrss / 1024, child.ru_utime + child.ru_stime]))
"""


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, depth: int, colour: int, *before: bytes) -> bytes:
    """A PNG of zeros, all of them there."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * bits + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    data = _png_chunk(b"IDAT", packed) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(before) + data


def _packed_text(length: int) -> bytes:
    return _png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(length), 9))


def _profile(length: int) -> bytes:
    return _png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(length), 9))


def _tiff(width: int, height: int, *, data: bytes, compression: int, count: int | None = None) -> bytes:
    """One strip of 24 bits a pixel.

    :param count: strips that the tags claim.
    """
    strips = 1 if count is None else count
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 2),
        (273, 4, strips, 200), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, strips, len(data)),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + table + struct.pack("<I", 0)
    return head.ljust(200, b"\0") + data


def _gif(width: int, height: int, frames: int = 1) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00"
    return head + frame * frames + b";"


def _bmp(width: int, height: int) -> bytes:
    """Run-length encoded: two bytes for up to 255 pixels."""
    row = b"\xff\x00" * (width // 255) + b"\0\0"
    data = row * height + b"\0\x01"
    palette = bytes(4 * 256)
    start = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start)
    return (
        head
        + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 1, 1, 256, 0)
        + palette
        + data
    )


def _drawn(form: str, size: tuple[int, int], **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, form, **options)
    return file.getvalue()


def _animation(form: str, frames: int, size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    first, *rest = [Image.new("RGB", size, (n % 256, n // 256, 0)) for n in range(frames)]
    first.save(file, form, save_all=True, append_images=rest, duration=10)
    return file.getvalue()


def _claiming(content: bytes, marker: bytes, offset: int, claim: bytes) -> bytes:
    """A picture whose header claims another size."""
    at = content.index(marker) + offset
    return content[:at] + claim + content[at + len(claim) :]


def _scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    content = picture("JPEG", (2000, 2000), progressive=True)
    start = content.rindex(b"\xff\xda")
    return content[:-2] + content[start:-2] * count + b"\xff\xd9"


BOMBS: dict[str, Callable[[], bytes]] = {
    "png, 900 million black dots": lambda: _png(30_000, 30_000, 1, 0),
    "png, 100 million pixels of 64 bits": lambda: _png(10_000, 10_000, 16, 6),
    "png, a palette": lambda: _png(16_000, 16_000, 8, 3),
    "png, a line of 2 billion": lambda: _claiming(_png(8, 8, 8, 2), b"IHDR", 4, struct.pack(">I", 2**31 - 1)),
    "png, texts of a gigabyte": lambda: _png(400, 400, 8, 2, *[_packed_text(50_000_000)] * 20),
    "png, a profile of 500 MB": lambda: _png(400, 400, 8, 2, _profile(500_000_000)),
    "webp, 64 million pixels": lambda: _drawn("WEBP", (8_000, 8_000), lossless=True, method=0),
    "webp that claims it": lambda: _claiming(
        _drawn("WEBP", (64, 64), lossless=True), b"VP8L", 9, struct.pack("<I", (1 << 28) - 1)
    ),
    "webp, 2,000 frames": lambda: _animation("WEBP", 2000, (32, 32)),
    "avif that claims 65,535 pixels a side": lambda: _claiming(
        _drawn("AVIF", (64, 64)), b"ispe", 8, struct.pack(">II", 65_535, 65_535)
    ),
    "avif, 50 million pixels": lambda: _drawn("AVIF", (7_100, 7_100), speed=10, quality=1),
    "tiff, 10 billion pixels": lambda: _tiff(100_000, 100_000, data=zlib.compress(bytes(10**6)), compression=8),
    "tiff, packed 1,000 to 1": lambda: _tiff(
        12_000, 12_000, data=zlib.compress(bytes(12_000 * 12_000 * 3), 9), compression=8
    ),
    "tiff, a billion strips": lambda: _tiff(400, 400, data=b"x" * 100, compression=1, count=2**30),
    "gif, as large as it can be": lambda: _gif(65_535, 65_535),
    "gif, 100,000 frames": lambda: _gif(400, 400, 100_000),
    "bmp, run lengths": lambda: _bmp(25_500, 10_000),
    "bmp that claims 2 billion lines": lambda: _claiming(_bmp(255, 1), b"BM", 22, struct.pack("<i", 2**31 - 1)),
    "jpeg, 2,000 scans": lambda: _scans(2000),
    "jpeg, 65,500 pixels a side": lambda: _claiming(
        picture("JPEG", (64, 64)), b"\xff\xc0", 5, struct.pack(">HH", 65_500, 65_500)
    ),
    "heic without its library": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(10_000),
}  # fmt: skip


@functools.cache
def attack(name: str) -> tuple[str, float, float, float]:
    try:
        content = BOMBS[name]()
    except KeyError:  # a Pillow without AVIF
        pytest.skip("this Pillow writes none")
    done = subprocess.run([sys.executable, "-c", ATTACK], input=content, capture_output=True, check=True)
    said, own, child, cpu = json.loads(done.stdout)
    return said, own, child, cpu


@pytest.mark.parametrize("name", BOMBS)
def test_it_costs_no_more_than_is_allowed(name: str) -> None:
    """Refused, or decoded within the limits; and the task's own process holds none of it."""
    said, own, child, cpu = attack(name)
    assert child < MEMORY, said
    assert own < OWN_MEMORY, said
    assert cpu < CPU, said
    assert "Traceback" not in said

"""The decoder as it is run: a script with two files and limits of its own."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.api.media import image_decoder
from tests.media_samples import picture


def run(job: str, content: bytes, most_bytes: int = 10**6, **replaced: int) -> tuple[int, dict[str, Any]]:
    """Run it, with some of its limits replaced."""
    script = Path(image_decoder.__file__).read_text()
    for name, value in replaced.items():
        (line,) = [each for each in script.splitlines() if each.startswith(f"{name}: Final")]
        script = script.replace(line, f"{name} = {value}")
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(script)
        file.flush()
        with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
            source.write(content)
            source.flush()
            command = [sys.executable, file.name, job, str(most_bytes)]
            done = subprocess.run(command, stdin=source, stdout=target, stderr=subprocess.PIPE, check=False)
    lines = done.stderr.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}


def test_a_picture_is_decoded() -> None:
    assert run("convert", picture("WEBP")) == (
        0,
        {
            "source": "WEBP",
            "source_width": 640,
            "source_height": 480,
            "format": "JPEG",
            "width": 640,
            "height": 480,
        },
    )


def test_memory_is_limited() -> None:
    # 55 million pixels of a megapixel's price, with room for a quarter of them
    code, said = run("convert", bomb(7_000), MOST_MEMORY=250 * 1024**2)

    assert code == 1
    assert "takes more than 250 MiB of memory" in said["refused"]


def test_what_needs_more_is_refused_before_it_is_decoded() -> None:
    code, said = run("convert", bomb(8_000))

    assert code == 1
    assert said["refused"].startswith("has 8000 x 8000 pixels; at most ")


def test_time_is_limited() -> None:
    code, said = run("convert", picture("PNG", (6_000, 6_000)), MOST_CPU=0)

    assert code < 0  # the system ended it
    assert said == {}


@pytest.mark.parametrize("content", [b"", b"text", picture("WEBP")[:100], picture("GIF")[:20]], ids=len)
def test_what_cannot_be_decoded_is_said(content: bytes) -> None:
    code, said = run("convert", content)

    assert code == 1
    assert said["refused"]
    assert "object at 0x" not in said["refused"]


def bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    packed, row = zlib.compressobj(), bytes(3 * side + 1)
    pixels = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")

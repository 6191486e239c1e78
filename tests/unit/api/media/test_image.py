from __future__ import annotations

import io
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_kling.api.media.image import (
    MOST_PIXELS,
    documented_limits,
    inspect,
    write_converted,
    write_mended,
)
from airflow_provider_kling.api.media.orientation import write_upright
from airflow_provider_kling.api.media.picture import Picture, PictureError
from tests.media_samples import chunk, orientation, picture, stored

ROOT = Path(__file__).resolve().parents[4]
JPEG = picture("JPEG")
PROGRESSIVE = picture("JPEG", progressive=True)
PNG = picture("PNG")


def turned(content: bytes) -> Image.Image:
    with stored(content) as file, tempfile.TemporaryFile() as target:
        write_upright(file, target)
        target.seek(0)
        return Image.open(io.BytesIO(target.read()))


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (JPEG, "JPEG"),
        (PROGRESSIVE, "JPEG"),
        (picture("JPEG", mode="L"), "JPEG"),
        (picture("JPEG", mode="CMYK"), "JPEG"),
        (picture("MPO", save_all=True, append_images=[Image.new("RGB", (640, 480))]), "JPEG"),
        (PNG, "PNG"),
        (picture("PNG", mode="RGBA"), "PNG"),
        (picture("PNG", mode="1"), "PNG"),
        (picture("PNG", save_all=True, append_images=[Image.new("RGB", (640, 480))]), "PNG"),
    ],
)
def test_a_whole_picture(content: bytes, form: str) -> None:
    assert inspect(io.BytesIO(content)) == Picture(form, 640, 480)


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=len(PNG) - 13))  # the last 12 hold nothing
def test_a_png_cut_at_any_byte_is_found_out(length: int) -> None:
    with pytest.raises(PictureError):
        inspect(io.BytesIO(PNG[:length]))


@settings(deadline=None, max_examples=30)  # each starts a decoder
@given(st.sampled_from([JPEG, PROGRESSIVE]), st.floats(min_value=0, max_value=0.9))
def test_a_jpeg_cut_short_is_found_out(whole: bytes, part: float) -> None:
    # of a progressive one the last scans are missing then, which viewers show, and so is accepted
    cut = whole[: int(len(whole) * (part if whole is JPEG else part / 4))]

    with pytest.raises(PictureError, match=r"cut off|neither a JPEG"):
        inspect(stored(cut))


@settings(deadline=None)
@given(st.sampled_from([JPEG, PROGRESSIVE, PNG]), st.data())
def test_damage_raises_nothing_else(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=20)):
        damaged[position] = data.draw(st.integers(0, 255))
    with suppress(PictureError):
        inspect(stored(bytes(damaged)))


def test_a_damaged_pixel_of_a_png_is_found_out() -> None:
    damaged = bytearray(PNG)
    damaged[PNG.index(b"IDAT") + 20] ^= 0xFF

    with pytest.raises(PictureError):
        inspect(io.BytesIO(damaged))


@pytest.mark.parametrize("content", [picture("GIF"), picture("WEBP"), picture("BMP"), b"", b"text"])
def test_other_formats_are_refused(content: bytes) -> None:
    with pytest.raises(PictureError):
        inspect(io.BytesIO(content))


def bomb(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [13_400, 100_000])
def test_a_decompression_bomb_is_refused_by_its_size(side: int) -> None:
    assert side**2 > MOST_PIXELS

    with pytest.raises(PictureError, match=f"{side} x {side} pixels; at most {MOST_PIXELS:,}"):
        inspect(io.BytesIO(bomb(side)))


def test_a_large_camera_picture_is_no_bomb() -> None:
    assert inspect(io.BytesIO(bomb(12_000))).width == 12_000


class TestWhatViewersAccept:
    """Each is accepted, and what is sent of it opens in a strict reader."""

    @pytest.mark.parametrize(
        ("content", "oddity"),
        [
            pytest.param(JPEG[:-2], "end is missing", id="JPEG without its end"),
            pytest.param(PROGRESSIVE[:-2], "end is missing", id="progressive JPEG without its end"),
            pytest.param(JPEG[:-2] + bytes(100), "end is missing", id="JPEG with zeros for its end"),
            pytest.param(PNG[:-12], "end is missing", id="PNG without its last chunk"),
            pytest.param(PNG[:-6], "end is missing", id="PNG cut in its last chunk"),
            pytest.param(
                PNG[:33] + chunk(b"tEXt", b"Title\0A boat")[:-4] + b"\0\0\0\1" + PNG[33:],
                "chunk 'tEXt' has another checksum",
                id="PNG, a comment with another checksum",
            ),
        ],
    )
    def test_oddities(self, content: bytes, oddity: str) -> None:
        found = inspect(stored(content))
        assert (found.width, found.height, found.oddities) == (640, 480, [oddity])

        mended = stored(b"")
        write_mended(found, stored(content), mended)

        assert inspect(mended).oddities == []
        mended.seek(0)
        with Image.open(mended) as strict:
            strict.load()
            assert (
                strict.tobytes()
                == Image.open(io.BytesIO(PNG if found.format == "PNG" else whole(content))).tobytes()
            )

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(PNG[:33] + chunk(b"eXIf", b"arbitrary") + PNG[33:], id="PNG, eXIf of anything"),
            pytest.param(PNG[:33] + chunk(b"prVt", b"private") + PNG[33:], id="PNG, a private chunk"),
            pytest.param(PNG + b"something behind it", id="PNG, something behind it"),
            pytest.param(JPEG + b"something behind it", id="JPEG, something behind it"),
            pytest.param(JPEG[:2] + b"\xff\xff\xff" + JPEG[3:], id="JPEG, filling in front of a marker"),
            pytest.param(picture("JPEG", exif=b"Exif\0\0nonsense"), id="JPEG, EXIF of anything"),
        ],
    )
    def test_what_needs_no_word(self, content: bytes) -> None:
        assert inspect(stored(content)).oddities == []


def whole(jpeg: bytes) -> bytes:
    return PROGRESSIVE if jpeg.startswith(PROGRESSIVE[:-2]) else JPEG


class TestBounded:
    """What a picture costs is known from its bytes before anything is decoded."""

    def test_scans_are_counted(self) -> None:
        start = PROGRESSIVE.rindex(b"\xff\xda")
        many = PROGRESSIVE[:-2] + PROGRESSIVE[start:-2] * 10_000 + b"\xff\xd9"

        with pytest.raises(PictureError, match="more than 500 scans"):
            inspect(io.BytesIO(many))

    def test_segments_are_counted(self) -> None:
        with pytest.raises(PictureError, match="more than 10,000 segments"):
            inspect(io.BytesIO(JPEG[:2] + b"\xff\xfe\0\2" * 20_000 + JPEG[2:]))

    def test_chunks_are_counted(self) -> None:
        with pytest.raises(PictureError, match="more than 100,000 chunks"):
            inspect(io.BytesIO(PNG[:33] + chunk(b"prVt", b"") * 100_001 + PNG[33:]))

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(b"\xff\xd8" + b"\xff" * 5_000_000, id="filling without end"),
            pytest.param(JPEG[:-2] + b"\xff\0" * 2_500_000 + b"\xff\xd9", id="pixels without end"),
            pytest.param(JPEG[:2] + b"x" * 5_000_000 + JPEG[2:], id="something in between"),
        ],
    )
    def test_time_is_linear(self, content: bytes) -> None:
        started = time.process_time()
        with suppress(PictureError):
            inspect(io.BytesIO(content))
        assert time.process_time() - started < 3

    def test_a_large_picture_is_turned_in_bounded_memory(self) -> None:
        # 170 million pixels of one colour: 1.4 GB to decode and turn at their full size
        content = picture("JPEG", (13_000, 13_000), mode="L", exif=orientation(6), quality=30)
        assert len(content) < 3_000_000
        code = f"""
import io, resource, sys, tempfile
sys.path.insert(0, {str(ROOT)!r})
from airflow_provider_kling.api.media.orientation import write_upright
with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as target:
    file.write(sys.stdin.buffer.read())
    write_upright(file, target)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""
        done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)

        assert int(done.stdout) < 450

    def test_what_is_too_large_to_turn_is_refused_by_its_size(self) -> None:
        wide = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
        exif = orientation(6).tobytes().removeprefix(b"Exif\0\0")
        content = (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", wide)
            + chunk(b"eXIf", exif)
            + chunk(b"IDAT", zlib.compress(bytes(1000)))
            + chunk(b"IEND", b"")
        )
        assert not inspect(io.BytesIO(content)).upright

        with pytest.raises(PictureError, match="has 13000 x 13000 pixels; at most"):
            turned(content)

    def test_a_submit_of_an_upright_picture_imports_no_pillow(self, tmp_path: Path) -> None:
        path = tmp_path / "boat.png"
        path.write_bytes(PNG)
        code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.modules["PIL"] = sys.modules["av"] = None
from airflow_provider_kling.api.media.resolve import resolve_all
parameters = {{"prompt": "a boat", "image_url": {str(path)!r}}}
sent, _ = resolve_all("kling-video/v1.6/standard/image-to-video", parameters, open_path=None)
print(len(sent["image_url"]) > 100)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "True"


class TestConverted:
    @pytest.mark.parametrize("form", ["WEBP", "AVIF", "GIF", "TIFF", "BMP", "HEIF"])
    def test_every_common_format(self, form: str) -> None:
        if form == "HEIF":
            pytest.importorskip("pi_heif")
            content = (Path(__file__).parent / "boat.heic").read_bytes()
        else:
            content = picture(form)

        with stored(content) as file, tempfile.TemporaryFile() as target:
            said = write_converted(file, target, 10**6)
            found = inspect(target)

        assert (found.format, found.width, found.height) == ("JPEG", 640, 480)
        assert said.startswith(f"from {form}, 640 x 480, to JPEG, 640 x 480, ")

    def test_what_shows_through_becomes_a_png(self) -> None:
        image = Image.new("RGBA", (640, 480), (255, 0, 0, 100))
        file = io.BytesIO()
        image.save(file, "WEBP", lossless=True)

        with stored(file.getvalue()) as source, tempfile.TemporaryFile() as target:
            write_converted(source, target, 10**6)
            target.seek(0)
            made = Image.open(target)
            assert (made.format, made.mode) == ("PNG", "RGBA")

    def test_what_is_too_long_becomes_smaller(self) -> None:
        file = io.BytesIO()
        Image.effect_noise((2000, 1500), 100).save(file, "PNG")

        with stored(file.getvalue()) as source, tempfile.TemporaryFile() as target:
            write_converted(source, target, 500_000)
            found = inspect(target)
            assert target.seek(0, 2) <= 500_000
        assert (found.width, found.height) in ((1000, 750), (500, 375))

    def test_it_arrives_upright(self) -> None:
        content = picture("WEBP", exif=orientation(6))

        with stored(content) as source, tempfile.TemporaryFile() as target:
            write_converted(source, target, 10**6)
            assert inspect(target) == Picture("JPEG", 480, 640)

    @pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16", "LA"])
    def test_all_modes(self, mode: str) -> None:
        file = io.BytesIO()
        Image.new(mode, (640, 480)).save(file, "TIFF")

        with stored(file.getvalue()) as source, tempfile.TemporaryFile() as target:
            write_converted(source, target, 10**6)
            assert inspect(target).width == 640

    @pytest.mark.parametrize("content", [b"", b"text", picture("WEBP")[:100]], ids=["nothing", "text", "cut"])
    def test_what_is_no_picture_is_refused_without_an_object_in_the_message(self, content: bytes) -> None:
        with (
            stored(content) as source,
            tempfile.TemporaryFile() as target,
            pytest.raises(PictureError) as caught,
        ):
            write_converted(source, target, 10**6)
        assert "<" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((300, 300), []),
        ((300, 750), []),
        ((750, 300), []),
        ((299, 300), ["299 x 300 pixels"]),
        ((751, 300), ["aspect ratio of 2.50:1"]),
        ((300, 751), ["aspect ratio of 0.40:1"]),
        ((100, 3000), ["100 x 3000 pixels", "aspect ratio of 0.03:1"]),
    ],
)
def test_documented_limits(size: tuple[int, int], words: list[str]) -> None:
    problems = documented_limits(Picture("PNG", *size))

    assert len(problems) == len(words)
    for problem, word in zip(problems, words, strict=True):
        assert word in problem

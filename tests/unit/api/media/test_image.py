from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from airflow_provider_kling.api.media.image import (
    MOST_PIXELS,
    Picture,
    PictureError,
    documented_limits,
    inspect,
    write_upright,
)
from tests.media_samples import orientation, picture

JPEG = picture("JPEG")
PROGRESSIVE = picture("JPEG", progressive=True)
PNG = picture("PNG")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_late_exif(png: bytes, exif: Image.Exif) -> bytes:
    """Move nothing, add the EXIF chunk behind the pixels."""
    return png[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + png[-12:]


def turned(file: bytes) -> Image.Image:
    target = io.BytesIO()
    write_upright(io.BytesIO(file), target)
    return Image.open(target)


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
    assert inspect(io.BytesIO(content)) == Picture(form, 640, 480, upright=True)


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=len(PNG) - 5))  # the last 4 are the checksum of nothing
def test_a_png_cut_at_any_byte_is_found_out(length: int) -> None:
    with pytest.raises(PictureError):
        inspect(io.BytesIO(PNG[:length]))


@settings(deadline=None)
@given(st.sampled_from([JPEG, PROGRESSIVE]), st.floats(min_value=0, max_value=0.9))
def test_a_jpeg_cut_short_is_found_out(whole: bytes, part: float) -> None:
    with pytest.raises(PictureError, match="damaged or cut off"):
        inspect(io.BytesIO(whole[: int(len(whole) * part)]))


@settings(deadline=None)
@given(st.sampled_from([JPEG, PROGRESSIVE, PNG]), st.data())
def test_damage_raises_nothing_else(whole: bytes, data: st.DataObject) -> None:
    damaged = bytearray(whole)
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=20)):
        damaged[position] = data.draw(st.integers(0, 255))
    with suppress(PictureError):
        if not inspect(io.BytesIO(damaged)).upright:
            write_upright(io.BytesIO(damaged), io.BytesIO())


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


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None], ids=["pillow's limit", "none set"])
@pytest.mark.parametrize("side", [13_400, 100_000])
def test_a_decompression_bomb_is_not_opened(
    limit: int | None, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert side**2 > MOST_PIXELS

    with pytest.raises(PictureError, match=f"{MOST_PIXELS:,}"):
        inspect(io.BytesIO(bomb(side)))


def test_a_large_camera_picture_is_no_bomb() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inspect(io.BytesIO(bomb(12_000))).width == 12_000


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
    problems = documented_limits(Picture("PNG", *size, upright=True))

    assert len(problems) == len(words)
    for problem, word in zip(problems, words, strict=True):
        assert word in problem


class TestUpright:
    @pytest.mark.parametrize("value", range(1, 9))
    def test_all_orientations_of_a_jpeg(self, value: int) -> None:
        content = picture("JPEG", exif=orientation(value))
        assert inspect(io.BytesIO(content)).upright is (value == 1)

        upright = turned(content)

        assert upright.format == "JPEG"
        assert upright.size == ((480, 640) if value >= 5 else (640, 480))
        # the bright side of the stored picture is its right one; where each orientation shows it:
        x, y = {1: (1, 0), 2: (-1, 0), 3: (-1, 0), 4: (1, 0)}.get(value, (0, 1 if value < 7 else -1))
        middle_x, middle_y = upright.width // 2, upright.height // 2
        bright = upright.convert("L").getpixel((middle_x + 100 * x, middle_y + 100 * y))
        dark = upright.convert("L").getpixel((middle_x - 100 * x, middle_y - 100 * y))
        assert isinstance(bright, int)
        assert isinstance(dark, int)
        assert bright > 200
        assert dark < 50
        assert inspect(_file(upright)).upright

    @pytest.mark.parametrize("value", [0, 9, 255])
    def test_an_orientation_that_does_not_exist_is_none(self, value: int) -> None:
        assert inspect(io.BytesIO(picture("JPEG", exif=orientation(value)))).upright

    def test_exif_that_nobody_can_read_is_none(self) -> None:
        broken = picture("JPEG", exif=b"Exif\0\0nonsense that is no TIFF header")

        assert inspect(io.BytesIO(broken)).upright

    @pytest.mark.parametrize("late", [False, True], ids=["before the pixels", "behind them"])
    def test_a_png_is_turned_too(self, late: bool) -> None:
        content = with_late_exif(PNG, orientation(6)) if late else picture("PNG", exif=orientation(6))
        assert not inspect(io.BytesIO(content)).upright

        upright = turned(content)

        assert (upright.format, upright.size) == ("PNG", (480, 640))

    def test_the_colour_profile_stays_and_the_rest_of_exif_goes(self) -> None:
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        exif = orientation(6)
        exif[0x010F] = "a camera"
        content = picture("JPEG", exif=exif, icc_profile=profile)

        upright = turned(content)

        assert upright.info["icc_profile"] == profile
        assert len(upright.getexif()) == 0

    @pytest.mark.parametrize("sampling", [0, 1, 2])
    def test_the_chroma_subsampling_stays(self, sampling: int) -> None:
        from PIL import JpegImagePlugin

        content = picture("JPEG", exif=orientation(3), subsampling=sampling)

        assert JpegImagePlugin.get_sampling(turned(content)) == sampling

    @pytest.mark.parametrize("mode", ["L", "CMYK"])
    def test_other_modes_stay(self, mode: str) -> None:
        assert turned(picture("JPEG", mode=mode, exif=orientation(8))).mode == mode

    def test_a_cut_picture_raises(self) -> None:
        with pytest.raises(PictureError):
            turned(picture("JPEG", exif=orientation(6))[:2000])


def _file(image: Image.Image) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format=image.format)
    return file

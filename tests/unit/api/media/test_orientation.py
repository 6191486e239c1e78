from __future__ import annotations

import io
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from airflow_provider_kling.api.media.image import inspect
from airflow_provider_kling.api.media.orientation import read_orientation, write_upright
from airflow_provider_kling.api.media.picture import PictureError
from tests.media_samples import chunk, orientation, picture, stored

PNG = picture("PNG")


def with_late_exif(png: bytes, exif: Image.Exif) -> bytes:
    """Move nothing, add the EXIF chunk behind the pixels."""
    return png[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + png[-12:]


def turned(content: bytes) -> Image.Image:
    with stored(content) as file, tempfile.TemporaryFile() as target:
        write_upright(file, target)
        target.seek(0)
        return Image.open(io.BytesIO(target.read()))


def _file(image: Image.Image) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, format=image.format)
    return file


@pytest.mark.parametrize("value", range(1, 9))
def test_an_orientation(value: int) -> None:
    exif = orientation(value)
    exif[0x010F] = "a camera"
    assert read_orientation(exif.tobytes()) == value
    assert read_orientation(exif.tobytes().removeprefix(b"Exif\0\0")) == value


@pytest.mark.parametrize("value", range(1, 9))
def test_the_byte_order_of_motorola(value: int) -> None:
    exif = Image.Exif()
    exif.endian = ">"
    exif[0x0112] = value
    assert exif.tobytes().startswith(b"Exif\0\0MM")
    assert read_orientation(exif.tobytes()) == value


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_one_that_does_not_exist_is_upright(value: int) -> None:
    assert read_orientation(orientation(value).tobytes()) == 1


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"Exif\0\0", b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0"]),
)
def test_anything_else_is_upright_or_a_value_that_exists(content: bytes, head: bytes) -> None:
    assert 1 <= read_orientation(head + content) <= 8


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

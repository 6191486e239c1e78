from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from airflow_provider_kling.api.media.exif import read_orientation
from tests.media_samples import orientation


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

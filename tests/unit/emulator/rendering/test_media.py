from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from airflow_provider_kling.emulator.rendering.media import (
    MAX_BYTES,
    BadMedia,
    PictureStore,
    check_picture,
    check_sound,
    decode_data_uri,
    sample_picture,
)


def picture(size: tuple[int, int], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(300, 300), (750, 300), (300, 750), (1024, 576)])
def test_pictures_within_the_limits_pass(kind: str, size: tuple[int, int]):
    check_picture(picture(size, kind))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (picture((299, 400)), "at least 300"),
        (picture((760, 300)), "ratio"),
        (picture((300, 760)), "ratio"),
        (picture((400, 400), "GIF"), "neither a JPEG nor a PNG"),
        (picture((400, 400), "WEBP"), "neither a JPEG nor a PNG"),
        (b"<html>no</html>", "neither a JPEG nor a PNG"),
        (b"", "neither a JPEG nor a PNG"),
        (picture((900, 900), "JPEG")[:-2000], "neither a JPEG nor a PNG"),
        (b"x" * (MAX_BYTES + 1), "at most"),
    ],
)
def test_others_are_refused_with_what_was_found(content: bytes, says: str):
    with pytest.raises(BadMedia, match=says):
        check_picture(content)


def test_a_mask_may_be_of_any_shape_but_has_to_be_a_picture():
    check_picture(picture((64, 200)), mask=True)
    with pytest.raises(BadMedia):
        check_picture(b"mask", mask=True)


@pytest.mark.parametrize(
    "head",
    [b"ID3\x04", b"\xff\xfb\x90", b"\xff\xf1\x50", b"RIFF\0\0\0\0WAVE", b"\0\0\0\x20ftypM4A "],
)
def test_sounds_are_known_by_their_content(head: bytes):
    check_sound(head + bytes(100))


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "neither"), (b"OggS" + bytes(20), "neither"), (b"ID3" + bytes(5 << 20), "at most")],
)
def test_other_sounds_are_refused(content: bytes, says: str):
    with pytest.raises(BadMedia, match=says):
        check_sound(content)


def test_data_uris_are_decoded():
    text = base64.b64encode(b"bytes").decode()
    assert decode_data_uri(f"data:image/png;base64,{text}") == b"bytes"


@pytest.mark.parametrize("uri", ["data:image/png,xx", "data:image/png;base64,***", "data:"])
def test_what_is_no_base64_is_refused(uri: str):
    with pytest.raises(BadMedia):
        decode_data_uri(uri)


def test_the_sample_picture_is_shipped_and_valid():
    check_picture(sample_picture())


def test_kept_pictures_come_back(tmp_path):
    store = PictureStore(tmp_path, offline=False, timeout=1)
    digest = store.keep(picture((320, 340)))
    assert store.open(digest).size == (320, 340)
    assert store.keep(picture((320, 340))) == digest
    assert len(list(tmp_path.iterdir())) == 1


def test_a_huge_jpeg_is_opened_smaller(tmp_path):
    store = PictureStore(tmp_path, offline=False, timeout=1)
    image = store.open(store.keep(picture((6400, 3600), "JPEG")))
    assert max(image.size) <= 3200
    assert image.width / image.height == pytest.approx(16 / 9, rel=0.01)

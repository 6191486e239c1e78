from __future__ import annotations

import base64
import hashlib
import io
import logging
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from upath import UPath

from airflow_provider_kling.api.catalog.parameter import MediaKind, MediaPlace
from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError, Money, Recovery
from airflow_provider_kling.api.media import resolve as resolve_module
from airflow_provider_kling.api.media.resolve import Resolved, resolve, resolve_all
from tests.media_samples import m4a, mp4, orientation, picture, sound

pytestmark = pytest.mark.usefixtures("spool")

MIB = 1024 * 1024
JPEG = picture("JPEG")
PNG = picture("PNG")
MP3 = sound("mp3", "libmp3lame")
AAC = sound("adts", "aac")


def place(kind: MediaKind = "image", path: str = "image_url") -> MediaPlace:
    return MediaPlace(path, kind)


def get(value: Any, kind: MediaKind = "image", **options: Any) -> Resolved:
    return resolve(place(kind), value, open_path=UPath, **options)


def refusal(value: Any, kind: MediaKind = "image") -> str:
    with pytest.raises(InvalidRequestError) as caught:
        get(value, kind)
    error = caught.value
    assert error.money is Money.NOT_SPENT
    assert error.recovery is Recovery.GIVE_UP
    assert all(problem.startswith("image_url: ") for problem in error.problems)
    assert len(str(error)) < 600
    return error.what


def data_uri(content: bytes, mime: str = "image/jpeg") -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def text_sent(resolved: Resolved) -> str:
    if isinstance(resolved.sent, str):
        return resolved.sent
    text = b"".join(resolved.sent).decode()
    assert len(text) == len(resolved.sent)
    return text


def content_sent(resolved: Resolved) -> bytes:
    return base64.b64decode(text_sent(resolved).partition(",")[2], validate=True)


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    path = tmp_path / "a picture #1.dat"
    path.write_bytes(JPEG)
    return path


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "https://example.com/a.jpg",
            "http://127.0.0.1:8000/a",
            "HTTPS://example.com/a.jpg?X-Amz-Signature=abc",
            "  https://example.com/a.jpg\n",
        ],
    )
    def test_are_passed_on(self, url: str) -> None:
        resolved = get(url)

        assert text_sent(resolved) == url.strip().replace("HTTPS", "https")
        assert resolved.size is None
        assert "Signature" not in repr(resolved)

    def test_count_without_their_signature(self) -> None:
        first = get("https://example.com/a.jpg?id=1&X-Amz-Signature=abc&X-Amz-Date=1")
        again = get("https://example.com/a.jpg?id=1&X-Amz-Signature=def&X-Amz-Date=2")
        other = get("https://example.com/a.jpg?id=2&X-Amz-Signature=def&X-Amz-Date=2")

        assert first.sha256 == again.sha256 != other.sha256

    @pytest.mark.parametrize("url", ["https://", "https:///a.jpg", "http://[::1", "https://a b.com/x"])
    def test_that_are_none_are_refused(self, url: str) -> None:
        assert "is not a URL" in refusal(url)


class TestFiles:
    def test_every_way_to_name_one(self, jpeg: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(jpeg.parent)
        ways = [
            str(jpeg),
            jpeg,
            jpeg.name,
            jpeg.as_uri(),
            f"file://{jpeg}",
            f"FILE://localhost{jpeg}",
            UPath(jpeg),
            UPath(f"file://{jpeg}"),
        ]

        for way in ways:
            resolved = get(way)

            assert text_sent(resolved) == data_uri(JPEG)
            assert resolved.sha256 == hashlib.sha256(JPEG).hexdigest()
            assert resolved.size == len(JPEG)
            assert jpeg.name in resolved.source

    def test_the_type_comes_from_the_content(self, tmp_path: Path) -> None:
        path = tmp_path / "picture.jpg"
        path.write_bytes(PNG)

        assert text_sent(get(path)) == data_uri(PNG, "image/png")

    def test_content_never_shows(self, jpeg: Path) -> None:
        assert "base64" not in repr(get(jpeg))

    def test_a_link_is_followed(self, jpeg: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(jpeg)

        assert text_sent(get(tmp_path / "link")) == data_uri(JPEG)

    def test_what_is_no_file_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")

        assert "does not exist on this worker" in refusal(tmp_path / "nothing.jpg")
        assert f"in {Path.cwd()}" in refusal("nothing.jpg")
        assert "is a directory" in refusal(tmp_path)
        assert "not a regular file" in refusal(tmp_path / "pipe")
        assert "cannot be opened" in refusal("n" * 5000 + ".jpg")
        assert "is no path" in refusal("a\0b.jpg")
        assert "three slashes" in refusal("file://pictures/a.jpg")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_what_may_not_be_read_is_refused(self, jpeg: Path) -> None:
        jpeg.chmod(0)

        assert "may not be read" in refusal(jpeg)

    def test_a_long_path_is_still_recognised(self, tmp_path: Path) -> None:
        folder = tmp_path.joinpath(*["a-folder-with-a-long-name"] * 8)
        folder.mkdir(parents=True)
        (folder / "picture").write_bytes(JPEG)
        assert get(folder / "picture").size == len(JPEG)
        (folder / "picture").write_bytes(b"text")

        assert "a-long-name/picture is text" in refusal(folder / "picture")

    def test_bare_base64_is_recognised_and_not_shown(self) -> None:
        text = base64.b64encode(JPEG).decode()

        what = refusal(text)

        assert "bare base64" in what
        assert text[:30] not in what

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty"),
            (b"<!DOCTYPE html><html>", "is HTML"),
            (b"<svg/>", "is XML or SVG"),
            (b"hello", "is text"),
            (b"\0\1\2", "unknown kind"),
            (picture("WEBP"), "is WebP"),
            (picture("GIF"), "is GIF"),
            (picture("TIFF"), "is TIFF"),
            (picture("BMP"), "is BMP"),
            (b"\0\0\0\x18ftypheic", "is HEIC"),
            (b"%PDF-1.7", "is PDF"),
        ],
    )
    def test_other_content_is_named(self, tmp_path: Path, content: bytes, words: str) -> None:
        path = tmp_path / "picture.jpg"
        path.write_bytes(content)

        what = refusal(path)

        assert words in what
        assert "JPEG or PNG" in what
        assert "picture.jpg" in what


class TestPictures:
    def test_limits_of_an_image(self, tmp_path: Path) -> None:
        path = tmp_path / "thin.png"
        path.write_bytes(picture("PNG", (1200, 200)))

        with pytest.raises(InvalidRequestError) as caught:
            get(path)

        assert len(caught.value.problems) == 2
        assert all("thin.png" in problem for problem in caught.value.problems)
        assert "at least 300" in str(caught.value)
        assert "2.5" in str(caught.value)

    def test_a_mask_has_none_but_type_and_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "mask.png"
        path.write_bytes(picture("PNG", (1200, 20)))

        assert get(path, "mask").size == path.stat().st_size
        path.write_bytes(picture("GIF"))
        assert "is GIF" in refusal(path, "mask")

    @pytest.mark.parametrize("kind", ["image", "mask"])
    def test_a_cut_picture_is_refused(self, tmp_path: Path, kind: MediaKind) -> None:
        path = tmp_path / "cut.jpg"
        path.write_bytes(JPEG[: len(JPEG) // 2])

        assert "cut off" in refusal(path, kind)

    def test_a_picture_that_lies_is_turned(self, tmp_path: Path) -> None:
        path = tmp_path / "phone.jpg"
        path.write_bytes(picture("JPEG", exif=orientation(6)))

        resolved = get(path)

        sent = Image.open(io.BytesIO(content_sent(resolved)))
        assert (sent.format, sent.size) == ("JPEG", (480, 640))
        assert text_sent(resolved).startswith("data:image/jpeg;base64,")
        # what counts is what the user has, not what this version of Pillow makes of it
        assert resolved.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_an_upright_picture_is_sent_untouched(self, tmp_path: Path) -> None:
        path = tmp_path / "camera.jpg"
        path.write_bytes(picture("JPEG", exif=orientation(1), quality=60))

        assert content_sent(get(path)) == path.read_bytes()

    def test_a_picture_too_large_when_turned(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "phone.jpg"
        noise = Image.effect_noise((640, 480), 80)
        noise.save(path, format="JPEG", exif=orientation(6), quality=10)
        small = replace(resolve_module._PICTURES, most_bytes=path.stat().st_size)
        monkeypatch.setattr(resolve_module, "_PICTURES", small)
        monkeypatch.setattr(resolve_module, "_ALLOWED", {**resolve_module._ALLOWED, "image": small})

        assert "after applying its EXIF rotation" in refusal(path)


class TestConverted:
    @pytest.mark.parametrize("form", ["WEBP", "AVIF", "GIF", "TIFF", "BMP"])
    def test_an_image_of_another_format(
        self, tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "mug"
        path.write_bytes(picture(form))
        assert "convert_image=True makes one" in refusal(path)

        with caplog.at_level(logging.INFO):
            resolved = get(path, convert=True)

        sent = Image.open(io.BytesIO(content_sent(resolved)))
        assert (sent.format, sent.size) == ("JPEG", (640, 480))
        # the request is recognised by what the user has
        assert resolved.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert resolved.size == path.stat().st_size
        assert f"{path} is converted from {form}, 640 x 480, to JPEG, 640 x 480" in caplog.text

    def test_an_image_that_is_fine_is_sent_untouched(self, jpeg: Path) -> None:
        assert content_sent(get(jpeg, convert=True)) == JPEG

    def test_an_image_that_is_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "large.png"
        Image.effect_noise((1600, 1200), 80).save(path)
        small = replace(resolve_module._PICTURES, most_bytes=300_000)
        monkeypatch.setattr(resolve_module, "_PICTURES", small)
        monkeypatch.setattr(resolve_module, "_ALLOWED", {**resolve_module._ALLOWED, "image": small})

        assert len(content_sent(get(path, convert=True))) <= 300_000
        assert "bytes or more" in refusal(path)

    def test_limits_hold_all_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "small.webp"
        path.write_bytes(picture("WEBP", (100, 100)))

        with pytest.raises(InvalidRequestError, match="100 x 100"):
            get(path, convert=True)

    @pytest.mark.parametrize("content", [b"text", b"", picture("WEBP")[:200], bytes(100)])
    def test_what_is_no_image_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "mug.webp"
        path.write_bytes(content)

        with pytest.raises(InvalidRequestError, match=r"mug\.webp"):
            get(path, convert=True)

    def test_a_mask_is_not_converted(self, tmp_path: Path) -> None:
        path = tmp_path / "mask.webp"
        path.write_bytes(picture("WEBP"))

        with pytest.raises(InvalidRequestError, match="is WebP"):
            get(path, "mask", convert=True)


class TestDataUris:
    def test_are_checked_and_passed_on(self) -> None:
        uri = data_uri(PNG, "image/png")

        resolved = get(uri)

        assert text_sent(resolved) == uri
        assert resolved.sha256 == hashlib.sha256(PNG).hexdigest()
        assert resolved.source == "the data URI"

    def test_a_wrong_type_is_corrected(self) -> None:
        assert text_sent(get(data_uri(PNG, "image/jpg"))) == data_uri(PNG, "image/png")
        assert text_sent(get(data_uri(PNG, ""))) == data_uri(PNG, "image/png")
        assert text_sent(get("DATA:" + data_uri(PNG)[5:])) == data_uri(PNG, "image/png")

    def test_are_turned(self) -> None:
        resolved = get(data_uri(picture("JPEG", exif=orientation(8))))

        assert Image.open(io.BytesIO(content_sent(resolved))).size == (480, 640)

    @pytest.mark.parametrize("length", [1, 2, 3, 4, 100])
    def test_the_length_does_not_matter(self, length: int) -> None:
        longer = JPEG + bytes(length)

        assert content_sent(get(data_uri(longer))) == longer

    @pytest.mark.parametrize(
        ("uri", "words"),
        [
            ("data:", "not of the form"),
            ("data:image/png,abc", "not of the form"),
            ("data:image/png;base64", "not of the form"),
            ("data:image/png;base64,", "is empty"),
            ("data:image/png;base64,abcde", "not valid base64"),
            ("data:image/png;base64,abc", "of an unknown kind"),
            ("data:image/png;base64,ab=cdefg", "not valid base64"),
            ("data:image/png;base64,YWJjé", "not valid base64"),
            ("data:image/png;base64,YWJj!", "not valid base64"),
            ("data:image/png;base64,YW Jj\nYWJj", "is text"),
            ("data:image/png;base64,-__-", "of an unknown kind"),
            (data_uri(b"hello"), "is text"),
            (data_uri(picture("PNG", (100, 100))), "100 x 100"),
        ],
    )
    def test_that_are_none_are_refused(self, uri: str, words: str) -> None:
        what = refusal(uri)

        assert words in what
        assert "the data URI" in what

    @pytest.mark.parametrize(
        "spelling",
        [
            lambda text: text.rstrip("="),
            lambda text: "\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\n",
            lambda text: "\r\n ".join(text[at : at + 64] for at in range(0, len(text), 64)),
            lambda text: " " + text,
            lambda text: text.replace("+", "-").replace("/", "_"),
            lambda text: text.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
            lambda text: text.replace("+", "-").replace("/", "_").rstrip("=") + "\n",
            lambda text: text + "=",
        ],
        ids=[
            "unpadded",
            "lines",
            "folded",
            "space",
            "URL's alphabet",
            "escaped",
            "URL's, unpadded",
            "padded twice",
        ],
    )
    @pytest.mark.parametrize("length", [0, 1, 2, 800_000])
    def test_base64_as_others_write_it(self, spelling: Any, length: int) -> None:
        content = JPEG + os.urandom(length)
        head, _, text = data_uri(content).partition(",")

        assert content_sent(get(f"{head},{spelling(text)}")) == content

    def test_base64_that_ends_before_its_end(self) -> None:
        part = base64.b64encode(bytes(3 * MIB // 4 - 1)).decode()
        assert len(part) == MIB
        assert part.endswith("=")

        assert "ends before its end" in refusal("data:image/png;base64," + part * 2)

    @settings(deadline=None)
    @given(st.text(max_size=200))
    def test_any_text_is_resolved_or_refused(self, text: str) -> None:
        for value in (text, f"data:{text}", f"data:image/png;base64,{text}", f"file://{text}"):
            try:
                outcome: object = text_sent(get(value))
            except InvalidRequestError as error:
                outcome = error.problems
            assert outcome


class TestObjectStorage:
    def test_an_object_is_read_by_uri_and_by_path(self, memory: MemoryFileSystem) -> None:
        memory.pipe("/bucket/a.png", PNG)

        for value in ("memory://bucket/a.png", UPath("memory://bucket/a.png")):
            resolved = get(value)

            assert text_sent(resolved) == data_uri(PNG, "image/png")
            assert resolved.sha256 == hashlib.sha256(PNG).hexdigest()
            assert resolved.source == "memory://bucket/a.png"

    def test_what_is_not_there(self, memory: MemoryFileSystem) -> None:
        memory.pipe("/bucket/folder/a.png", PNG)

        assert "memory://bucket/b.png does not exist" in refusal("memory://bucket/b.png")
        assert "is a directory" in refusal("memory://bucket/folder")

    def test_a_large_object_is_not_read(
        self, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        memory.pipe("/bucket/long.mp3", b"ID3" + bytes(5 * MIB))
        monkeypatch.setattr(memory, "open", pytest.fail)

        assert "at most 5 MB" in refusal("memory://bucket/long.mp3", "audio")

    def test_an_object_that_is_larger_than_it_says(
        self, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        memory.pipe("/bucket/long.mp3", b"ID3" + bytes(5 * MIB))
        monkeypatch.setattr(memory, "info", lambda path: {"type": "file", "size": None})

        assert "at most 5 MB" in refusal("memory://bucket/long.mp3", "audio")

    def test_a_storage_in_trouble_is_no_bad_request(
        self, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(path: str) -> None:
            raise RuntimeError("503 at https://bucket.test/a.png?X-Amz-Signature=abc")

        monkeypatch.setattr(memory, "info", fail)

        with pytest.raises(KlingError) as caught:
            get("memory://bucket/a.png")

        error = caught.value
        assert not isinstance(error, InvalidRequestError)
        assert error.recovery is Recovery.RETRY_TASK
        assert error.money is Money.NOT_SPENT
        assert "memory://bucket/a.png" in str(error)
        assert "abc" not in str(error)

    def test_a_scheme_that_nobody_knows(self) -> None:
        with pytest.raises(KlingError, match=r"nowhere://bucket/a\.png"):
            get("nowhere://bucket/a.png")

    def test_a_refused_permission(self, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(path: str) -> None:
            raise PermissionError("Access Denied")

        monkeypatch.setattr(memory, "info", refuse)

        assert "may not be read (Access Denied)" in refusal("memory://bucket/a.png")


class TestSigning:
    @pytest.fixture
    def signing(self, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> MemoryFileSystem:
        def sign(path: str, expiration: int) -> str:
            return f"https://bucket.test{path}?X-Amz-Expires={expiration}&X-Amz-Signature=abc"

        monkeypatch.setattr(memory, "sign", sign)
        return memory

    def test_a_signed_url_instead_of_the_bytes(self, signing: MemoryFileSystem) -> None:
        signing.pipe("/bucket/a.png", PNG)

        resolved = get("memory://bucket/a.png", sign_seconds=600)

        assert text_sent(resolved) == "https://bucket.test/bucket/a.png?X-Amz-Expires=600&X-Amz-Signature=abc"
        assert resolved.sha256 == get("memory://bucket/a.png").sha256
        assert "Signature" not in repr(resolved)

    def test_the_content_is_checked_all_the_same(self, signing: MemoryFileSystem) -> None:
        signing.pipe("/bucket/a.png", picture("GIF"))

        with pytest.raises(InvalidRequestError, match="is GIF"):
            get("memory://bucket/a.png", sign_seconds=600)

    def test_a_picture_to_turn_is_sent_as_bytes(self, signing: MemoryFileSystem) -> None:
        signing.pipe("/bucket/a.jpg", picture("JPEG", exif=orientation(6)))

        assert text_sent(get("memory://bucket/a.jpg", sign_seconds=600)).startswith("data:image/jpeg")

    def test_a_storage_that_cannot_sign_and_a_local_file(self, memory: MemoryFileSystem, jpeg: Path) -> None:
        memory.pipe("/bucket/a.png", PNG)

        assert text_sent(get("memory://bucket/a.png", sign_seconds=600)) == data_uri(PNG, "image/png")
        assert text_sent(get(jpeg, sign_seconds=600)) == data_uri(JPEG)

    def test_a_storage_whose_credentials_cannot_sign_sends_the_bytes_and_says_why(
        self, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def sign(path: str, expiration: int) -> str:  # as gcsfs does with a token alone
            raise AttributeError("you need a private key to sign credentials.\nhttps://b.test/a?sig=abc")

        monkeypatch.setattr(memory, "sign", sign)
        memory.pipe("/bucket/a.png", PNG)

        with caplog.at_level(logging.INFO, logger="airflow_provider_kling"):
            assert text_sent(get("memory://bucket/a.png", sign_seconds=600)) == data_uri(PNG, "image/png")

        (line,) = [each.getMessage() for each in caplog.records]
        assert line.startswith("memory://bucket/a.png cannot be presigned, so its bytes are sent (Attribute")
        assert "private key" in line
        assert "abc" not in line
        assert "\n" not in line


def wav() -> bytes:
    samples = bytes(8000)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    data = struct.pack("<4sI", b"data", len(samples)) + samples
    return struct.pack("<4sI4s", b"RIFF", 4 + len(form) + len(data), b"WAVE") + form + data


class TestSoundAndVideo:
    @pytest.mark.parametrize(
        ("content", "mime"),
        [
            (MP3, "audio/mpeg"),
            (b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + MP3, "audio/mpeg"),
            (MP3 + b"TAG" + bytes(125), "audio/mpeg"),
            (AAC, "audio/aac"),
            (wav(), "audio/wav"),
            (m4a(), "audio/mp4"),
            (m4a().replace(b"ftypisom", b"ftypM4A "), "audio/mp4"),
        ],
    )
    def test_sound(self, tmp_path: Path, content: bytes, mime: str) -> None:
        path = tmp_path / "voice"
        path.write_bytes(content)

        assert text_sent(get(path, "audio")) == data_uri(content, mime)

    @pytest.mark.parametrize("content", [b"OggS" + bytes(50), b"fLaC" + bytes(50), JPEG, b"text"])
    def test_other_sound_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "voice.mp3"
        path.write_bytes(content)

        assert "MP3, WAV, M4A" in refusal(path, "audio")

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            pytest.param("A boat.".encode("utf-16") * 99, "is text in UTF-16", id="text"),
            pytest.param(b"ID3\x04" + bytes(5000), "begins like MP3", id="a tag alone"),
            pytest.param(b"\xff\xfb\x90\x64" + bytes(5000), "begins like MP3", id="one header"),
            pytest.param(b"\xff\xfb" * 3000, "begins like MP3", id="headers without frames"),
            pytest.param(b"\xff\xf1\x50\x80" + bytes(5000), "begins like AAC", id="one AAC header"),
            pytest.param(b"RIFF\x24\0\0\0WAVEjunk", "begins like WAV", id="RIFF alone"),
            pytest.param(b"\0\0\0\x20ftypM4A \0\0\0\0", "has no index", id="four bytes in place"),
            pytest.param(mp4(1), "begins like MP4", id="a silent video"),
            pytest.param(m4a()[:-20], "cut off", id="cut"),
        ],
    )
    def test_what_only_begins_like_sound_is_refused(self, tmp_path: Path, content: bytes, words: str) -> None:
        path = tmp_path / "voice.mp3"
        path.write_bytes(content)

        assert words in refusal(path, "audio")

    def test_too_much_sound(self, tmp_path: Path) -> None:
        path = tmp_path / "voice.mp3"
        path.write_bytes(MP3 + bytes(5 * MIB - len(MP3)))
        assert get(path, "audio").size == 5 * MIB
        path.write_bytes(MP3 + bytes(5 * MIB - len(MP3) + 1))

        assert "5,242,881 bytes" in refusal(path, "audio")

    @pytest.mark.parametrize(
        ("content", "mime"),
        [
            (mp4(1), "video/mp4"),
            (mp4(1, suffix=".mov"), "video/quicktime"),
            (mp4(1, suffix=".mov", options={})[20:], "video/quicktime"),
        ],
    )
    def test_video(self, tmp_path: Path, content: bytes, mime: str) -> None:
        path = tmp_path / "reference"
        path.write_bytes(content)

        assert text_sent(get(path, "video")) == data_uri(content, mime)

    def test_other_video_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "reference.mp4"
        path.write_bytes(b"\x1aE\xdf\xa3" + bytes(50))
        assert "Matroska" in refusal(path, "video")
        path.write_bytes(b"\0\0\0\x14ftypqt  \0\0\0\0" + bytes(5000))
        assert "it has no index" in refusal(path, "video")
        path.write_bytes(mp4(1)[:-1])
        assert "cut off" in refusal(path, "video")

        with path.open("wb") as file:
            file.truncate(100 * MIB + 1)
        assert "at most 100 MB" in refusal(path, "video")


class TestAll:
    MODEL = "kling-video/v1.6/standard/image-to-video"

    def test_values_are_replaced_and_named(self, jpeg: Path) -> None:
        parameters = {"prompt": "a prompt", "image_url": str(jpeg), "duration": 5}

        sent, resolved = resolve_all(self.MODEL, parameters, open_path=UPath)

        assert sent == {**parameters, "image_url": resolved["image_url"].sent}
        assert text_sent(resolved["image_url"]) == data_uri(JPEG)
        assert list(resolved) == ["image_url"]
        assert parameters["image_url"] == str(jpeg)

    def test_every_problem_is_named_at_once(self, jpeg: Path, tmp_path: Path) -> None:
        thin = tmp_path / "thin.png"
        thin.write_bytes(picture("PNG", (1200, 200)))
        parameters = {
            "image_url": "nothing.jpg",
            "elements": [{"frontal_image_url": str(jpeg)}, {"frontal_image_url": str(thin)}],
        }

        with pytest.raises(InvalidRequestError) as caught:
            resolve_all("a-model/that-nobody-knows", parameters, open_path=UPath)

        assert len(caught.value.problems) == 3
        assert "image_url: nothing.jpg does not exist" in str(caught.value)
        assert str(caught.value).count("elements[1].frontal_image_url: ") == 2
        assert caught.value.money is Money.NOT_SPENT

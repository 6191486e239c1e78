"""The media of a request: checked against the documented limits, and fetched where they are URLs."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
from functools import cache
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from PIL import Image

from airflow_provider_kling.emulator.rendering.video import placeholder

# The limits are those of the vendor's v3 turbo pages; the emulator holds every model to them.
MAX_BYTES = 50 * 1024 * 1024
MIN_SIDE = 300
MAX_RATIO = 2.5
_FORMATS = ("JPEG", "PNG")
MAX_SOUND_BYTES = 5 * 1024 * 1024
_ENOUGH_PIXELS = (1600, 1600)

SAMPLE_NAME = "mona_lisa_extended.jpg"
"""Last part of the URL in the vendor's published samples; the picture ships with the emulator."""


class BadMedia(Exception):
    """A picture or an audio file that the vendor would refuse; the message says why."""


class PictureStore:
    """Pictures on disk, by the sha256 of their bytes.

    :param folder: where they are kept; its owner removes it.
    :param offline: draw a placeholder for a URL that cannot be fetched.
    :param timeout: seconds for fetching one picture.
    """

    def __init__(self, folder: Path, *, offline: bool, timeout: float) -> None:
        self._folder = folder
        self._offline = offline
        self._timeout = aiohttp.ClientTimeout(total=timeout)

    def keep(self, content: bytes) -> str:
        """Store a picture and return its sha256."""
        digest = hashlib.sha256(content).hexdigest()
        path = self._folder / digest
        if not path.exists():
            path.write_bytes(content)
        return digest

    def open(self, digest: str) -> Image.Image:
        """The picture as stored: its EXIF rotation is ignored.

        A very large JPEG is read at a smaller scale; a video needs no more.
        """
        with Image.open(self._folder / digest) as image:
            image.draft("RGB", _ENOUGH_PIXELS)
            image.load()
            return image

    async def fetch(self, url: str, session: aiohttp.ClientSession) -> str:
        """Fetch a picture once, check it, store it, and return its sha256.

        :raises BadMedia: it cannot be fetched, or the vendor would refuse it.
        """
        if urlsplit(url).path.rsplit("/", 1)[-1] == SAMPLE_NAME:
            return self.keep(sample_picture())
        try:
            content = await self._read(url, session)
        except BadMedia:
            if not self._offline:
                raise
            return self.keep(_as_png(placeholder(url.partition("?")[0])))
        await asyncio.to_thread(check_picture, content)
        return self.keep(content)

    async def _read(self, url: str, session: aiohttp.ClientSession) -> bytes:
        named = url.partition("?")[0]
        try:
            async with session.get(url, timeout=self._timeout) as response:
                if response.status != 200:
                    raise BadMedia(f"{named} answered with status {response.status}")
                content = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    content += chunk
                    if len(content) > MAX_BYTES:
                        raise BadMedia(f"{named} is larger than {MAX_BYTES} bytes")
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise BadMedia(f"{named} could not be fetched ({type(error).__name__})") from error
        return bytes(content)


@cache
def sample_picture() -> bytes:
    """The picture of the vendor's published samples."""
    return (resources.files(__package__) / "pictures" / SAMPLE_NAME).read_bytes()


def decode_data_uri(uri: str) -> bytes:
    """The content of a ``data:...;base64,...`` URI.

    :raises BadMedia: it is not base64.
    """
    head, comma, text = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise BadMedia("a data URI without ';base64,'")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadMedia(f"not valid base64 ({error})") from error


def check_picture(content: bytes, *, mask: bool = False) -> None:
    """Check a picture against the documented limits, by its content and not by its name.

    :param mask: a mask is as large as the picture it belongs to: only type and bytes count.
    :raises BadMedia: what is wrong with it.
    """
    if len(content) > MAX_BYTES:
        raise BadMedia(f"{len(content)} bytes; at most {MAX_BYTES} are allowed")
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            width, height = image.size
            image.draft("RGB", _ENOUGH_PIXELS)
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadMedia("neither a JPEG nor a PNG picture that can be read") from error
    if mask:
        return
    if min(width, height) < MIN_SIDE:
        raise BadMedia(f"{width}x{height} pixels; at least {MIN_SIDE} a side are needed")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise BadMedia(f"{width}x{height} pixels; the sides' ratio is at most 1:{MAX_RATIO}")


def check_sound(content: bytes) -> None:
    """Check an avatar's audio against the documented limits: MP3, WAV, M4A or AAC, at most 5 MB.

    :raises BadMedia: what is wrong with it.
    """
    if len(content) > MAX_SOUND_BYTES:
        raise BadMedia(f"{len(content)} bytes; at most {MAX_SOUND_BYTES} are allowed")
    head = content[:12]
    frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0  # MP3 and AAC alike
    wave = head[:4] == b"RIFF" and head[8:] == b"WAVE"
    if not (frame or wave or head[:3] == b"ID3" or head[:4] == b"ADIF" or head[4:8] == b"ftyp"):
        raise BadMedia("neither MP3 nor WAV, M4A or AAC")


def _as_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()

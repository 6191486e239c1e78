"""Real pictures and videos for tests, made on the spot."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from pathlib import Path
from typing import IO, Any

import av
from PIL import Image

FASTSTART = {"movflags": "+faststart"}
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}


def mp4(
    seconds: float = 2,
    *,
    size: tuple[int, int] = (320, 180),
    options: dict[str, str] = FASTSTART,
    noise: int = 40,
    suffix: str = ".mp4",
    codec: str = "libx264",
    audio: str | None = None,
) -> bytes:
    """An H.264 video of noise, so that it has some weight: about 600 KB a second.

    :param suffix: chooses the container: ``.mov`` is QuickTime's.
    :param codec: libav's name of the video encoder.
    :param audio: libav's name of the encoder of a silent sound track; None for no sound.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video").with_suffix(suffix)  # a real file: +faststart reads it again
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream(
                codec, rate=24, options={"preset": "ultrafast"} if codec == "libx264" else {}
            )
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.gop_size = 12
            voice = container.add_stream(audio, rate=44100, layout="mono") if audio else None
            assert voice is None or isinstance(voice, av.AudioStream)
            for number in range(round(seconds * 24)):
                picture = Image.effect_noise(size, noise + number).convert("RGB")
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
                if voice is not None:
                    container.mux(voice.encode(_silence(number * 1024)))
            container.mux(stream.encode())
            if voice is not None:
                container.mux(voice.encode())
        return path.read_bytes()


def m4a() -> bytes:
    """Half a second of silence, AAC in MP4: a container without a video stream."""
    return sound("mp4", "aac")


def sound(form: str, codec: str, frames: int = 20) -> bytes:
    """Silence, 1,024 samples a frame.

    :param form: libav's name of the container: ``mp4``, ``mp3`` or ``adts``.
    :param codec: libav's name of the encoder, for example ``aac`` or ``libmp3lame``.
    """
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=44100, layout="mono")
        assert isinstance(stream, av.AudioStream)
        for number in range(frames):
            container.mux(stream.encode(_silence(number * 1024)))
        container.mux(stream.encode())
    return file.getvalue()


def _silence(pts: int) -> av.AudioFrame:
    frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
    frame.sample_rate = 44100
    frame.pts = pts
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    return frame


def picture(
    form: str = "JPEG",
    size: tuple[int, int] = (640, 480),
    *,
    mode: str = "RGB",
    colour: Any = None,
    **options: Any,
) -> bytes:
    """A picture, left half dark and right half bright, so that turning it shows."""
    image = Image.new(mode, size, colour or 0)
    image.paste(Image.new(mode, (size[0] - size[0] // 2, size[1]), "white"), (size[0] // 2, 0))
    file = io.BytesIO()
    image.save(file, format=form, **options)
    return file.getvalue()


def orientation(value: int) -> Image.Exif:
    """EXIF data that says how a camera was held."""
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def stored(content: bytes) -> IO[bytes]:
    """The content in a file of the operating system."""
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(content)
    return file

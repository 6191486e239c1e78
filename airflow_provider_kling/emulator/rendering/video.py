"""Videos: real H.264 in MP4, drawn from the reference picture and the prompt.

The picture is slowly zoomed and panned, the prompt is the caption below, and the first half second
shows which generation it is, so that no two videos are alike. The same input gives the same bytes, so
that a video keeps its ETag.
"""

from __future__ import annotations

import colorsys
import hashlib
import io
import textwrap
import unicodedata
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    import av

FRAMES_A_SECOND = 24
_PIXELS = 1280 * 720
_LONGEST_SIDE = 1280
_ZOOM = 0.14
_PIXEL_FORMAT = "yuv420p"
_ENCODING: dict[str, Any] = {
    "preset": "veryfast",
    "crf": "26",
    "x264-params": "colormatrix=smpte170m:range=tv",  # what Pillow's YCbCr is
}
_OPENING_FRAMES = 12
_FRAME = Fraction(1, FRAMES_A_SECOND)
_THREADS = 2  # Not the machine's number of cores: x264's output depends on it.


class EncoderMissing(ModuleNotFoundError):
    """A video cannot be rendered: PyAV, which brings the H.264 encoder, is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "the emulator cannot render videos without PyAV; "
            "install it with: pip install 'airflow-provider-kling[emulator]'",
            name="av",
        )


def encoder() -> Any:
    """PyAV, loaded when the first video is rendered, so that an emulator that renders none works without it.

    :raises EncoderMissing: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise EncoderMissing from error
    return av


class Film:
    """The part that the videos of one picture and one prompt share: all but their first half second.

    Encoding takes a second or two, an opening a tenth of it, and many generations are asked for with the
    same picture and prompt.

    :param seconds: its length.
    :param caption: shown over the lower edge; cut where it is long.
    :param picture: the reference picture, whose shape the video takes; None draws a background
        of colours that depend on the caption.
    :param aspect_ratio: of a video without a picture, for example ``"9:16"``; None is 16:9.
    :raises EncoderMissing: PyAV is not installed.
    """

    def __init__(
        self,
        *,
        seconds: int,
        caption: str,
        picture: Image.Image | None = None,
        aspect_ratio: str | None = None,
    ) -> None:
        self._size = frame_size(picture.size if picture else _ratio(aspect_ratio))
        scene = _background(caption, self._size) if picture is None else picture.convert("RGB")
        # Slightly larger than the frame: zooming in must not show the pixels.
        scene = scene.resize(_scaled(self._size, 1 + _ZOOM), Image.Resampling.LANCZOS)
        self._scene = _planes(scene)
        self._caption = _Strip(_text_strip(caption, self._size), top=False)
        self._count = seconds * FRAMES_A_SECOND
        self._opening = min(_OPENING_FRAMES, self._count)
        self._rest = self._encoded(self._opening, self._count)

    def write(self, target: Path, label: str = "") -> None:
        """Write an MP4 that is playable from its first bytes on.

        :param label: shown over the upper edge of the first half second.
        :raises EncoderMissing: PyAV is not installed.
        """
        av = encoder()
        strips = [_Strip(_text_strip(label, self._size), top=True)] if label else []
        packets = self._encoded(0, self._opening, *strips)
        with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = self._stream(container)
            for content, pts, dts, is_keyframe in [*packets, *self._rest]:
                packet = av.Packet(content)
                packet.stream, packet.time_base = stream, _FRAME
                packet.pts, packet.dts, packet.is_keyframe = pts, dts, is_keyframe
                container.mux(packet)

    def _stream(self, container: Any) -> Any:
        stream = container.add_stream("libx264", rate=FRAMES_A_SECOND)
        stream.width, stream.height = self._size
        stream.pix_fmt = _PIXEL_FORMAT
        stream.codec_context.thread_count = _THREADS
        stream.options = _ENCODING
        return stream

    def _encoded(self, first: int, last: int, *strips: _Strip) -> list[tuple[bytes, int, int, bool]]:
        """Some of its frames, encoded by themselves, so that they can be put behind others."""
        packets = []
        with encoder().open(io.BytesIO(), "w", format="mp4") as container:
            stream = self._stream(container)
            for number in range(first, last):
                packets += stream.encode(self._frame(number, [self._caption, *strips]))
            packets += stream.encode(None)
            return [(bytes(each), each.pts, each.dts, each.is_keyframe) for each in packets]

    def _frame(self, number: int, strips: list[_Strip]) -> av.VideoFrame:
        done = number / max(1, self._count - 1)
        done = done * done * (3 - 2 * done)
        frame: av.VideoFrame = encoder().VideoFrame(*self._size, _PIXEL_FORMAT)
        frame.pts, frame.time_base = number, _FRAME
        sizes = (self._size, *[_halved(self._size)] * 2)
        # Zooming brightness and the two half-size colours is twice as fast as zooming RGB pixels.
        for index, plane in enumerate(frame.planes):
            width, height = sizes[index]
            box = _view(self._scene[index].size, done)
            image = self._scene[index].resize(sizes[index], Image.Resampling.BILINEAR, box=box)
            for strip in strips:
                mask = strip.masks[index]
                image.paste(strip.planes[index], (0, 0 if strip.top else height - mask.height), mask)
            if plane.line_size != width:
                image = image.crop((0, 0, plane.line_size, height))
            plane.update(image.tobytes())
        return frame


def render_video(
    target: Path,
    *,
    seconds: int,
    caption: str,
    picture: Image.Image | None = None,
    aspect_ratio: str | None = None,
    label: str = "",
) -> None:
    """Draw one video and write it; the parameters are those of :class:`Film` and its ``write``.

    :raises EncoderMissing: PyAV is not installed.
    """
    film = Film(seconds=seconds, caption=caption, picture=picture, aspect_ratio=aspect_ratio)
    film.write(target, label)


def frame_size(shape: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the video for a picture of this shape: of the 720p class, even."""
    width, height = shape
    scale = min(_LONGEST_SIDE / max(width, height), (_PIXELS / (width * height)) ** 0.5)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def placeholder(text: str) -> Image.Image:
    """A placeholder for a picture that cannot be fetched."""
    return _background(text, (_LONGEST_SIDE, _LONGEST_SIDE * 9 // 16))


class _Strip:
    """A line of text on a dark band, in the colours of video, with its masks."""

    def __init__(self, strip: Image.Image, *, top: bool) -> None:
        alpha = strip.getchannel("A")
        self.planes = _planes(strip.convert("RGB"))
        self.masks = (alpha, *[alpha.resize(_halved(alpha.size))] * 2)
        self.top = top


def _view(scene: tuple[int, int], done: float) -> tuple[float, float, float, float]:
    """The part of the scene that is visible at this fraction of the video."""
    width, height = scene
    share = 1 - _ZOOM * done
    left = width * (1 - share) * (0.35 + 0.3 * done)
    top = height * (1 - share) * (0.6 - 0.2 * done)
    return left, top, left + width * share, top + height * share


def _planes(image: Image.Image) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Brightness and, at half the size, the two colours, in the narrow ranges of video."""
    bright, blue, red = image.convert("YCbCr").split()
    half = _halved(image.size)
    return (
        bright.point([round(16 + level * 219 / 255) for level in range(256)]),
        blue.resize(half).point([round(128 + (level - 128) * 224 / 255) for level in range(256)]),
        red.resize(half).point([round(128 + (level - 128) * 224 / 255) for level in range(256)]),
    )


def _text_strip(text: str, size: tuple[int, int]) -> Image.Image:
    """A text on a dark band, as wide as the frame."""
    width = size[0]
    points = max(14, round(min(size) / 24))
    font = ImageFont.load_default(points)
    columns = max(8, int(width * 0.92 / (points * 0.55)))
    lines = textwrap.wrap(_plain(text), columns, max_lines=3, placeholder=" ...", break_on_hyphens=False)
    text = "\n".join(lines) or " "
    pad = points // 2
    line_height = round(points * 1.35)
    height = (line_height * max(1, len(lines)) + 2 * pad) // 2 * 2
    strip = Image.new("RGBA", (width, height), (0, 0, 0, 150))
    ImageDraw.Draw(strip).multiline_text(
        (width / 2, pad),
        text,
        font=font,
        fill=(255, 255, 255, 255),
        anchor="ma",
        align="center",
        spacing=line_height - points,
    )
    return strip


def _background(seed: str, size: tuple[int, int]) -> Image.Image:
    """A gradient between two colours chosen by the seed, with a few soft discs."""
    digest = hashlib.sha256(seed.encode("utf-8", "replace")).digest()
    dark, light = _colour(digest[0], 0.75, 0.30), _colour(digest[1], 0.45, 0.85)
    ramp = Image.linear_gradient("L").rotate(digest[6] % 4 * 90).resize(size)
    image = Image.composite(Image.new("RGB", size, light), Image.new("RGB", size, dark), ramp)
    draw = ImageDraw.Draw(image, "RGBA")
    width, height = size
    for number in range(5):
        x, y, radius, shade = digest[8 + number * 4 : 12 + number * 4]
        r = min(size) * (40 + radius) / 700
        left, top = x / 255 * width - r, y / 255 * height - r
        draw.ellipse((left, top, left + 2 * r, top + 2 * r), fill=(255, 255, 255, 20 + shade // 6))
    return image


def _colour(hue: int, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue / 256, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _plain(text: str) -> str:
    """The text in the letters that Pillow's own font has, which are those of ASCII."""
    text = unicodedata.normalize("NFKD", " ".join(text.split()))
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return (
        text.translate({0x2013: "-", 0x2014: "-", 0x2018: "'", 0x2019: "'"})
        .encode("ascii", "replace")
        .decode()
    )


def _ratio(aspect_ratio: str | None) -> tuple[int, int]:
    width, _, height = (aspect_ratio or "16:9").partition(":")
    try:
        shape = int(width), int(height)
    except ValueError:
        return 16, 9
    return shape if min(shape) > 0 else (16, 9)


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] // 2, size[1] // 2


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return round(size[0] * factor), round(size[1] * factor)

"""Reference pictures: within the documented limits, whole, and upright."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from PIL import Image, ImageOps, JpegImagePlugin

SHORTEST_SIDE: Final = 300
"""Pixels. Documented on the vendor's v3 turbo pages, as the next one, and taken for all models."""
WIDEST: Final = 2.5
"""The long side over the short side."""
MOST_PIXELS: Final = 178_956_970
"""Ours: where Pillow speaks of a decompression bomb. It bounds the memory of a decode."""

_ORIENTATION: Final = 0x0112
_TURNED: Final = range(2, 9)  # 1 is upright; other values are mistakes of the writer
_JPEG_QUALITY: Final = 95
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MOST_EXIF: Final = 1024 * 1024  # bytes
_PIECE: Final = 256 * 1024  # bytes
_FORMATS: Final = {"JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG"}
"""Pillow's names of what is taken. MPO is what many phones and cameras write into a ``.jpg``."""


class PictureError(ValueError):
    """The picture cannot be used; the message says why, in words that follow its name."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What was found in a picture file.

    :param format: ``JPEG`` or ``PNG``.
    :param width: pixels, as stored.
    :param height: pixels, as stored.
    :param upright: False where EXIF says that it has to be turned or mirrored to be seen right.
    """

    format: str
    width: int
    height: int
    upright: bool


def inspect(file: BinaryIO) -> Picture:
    """Read a picture to its end.

    The memory that this takes is bounded: of a JPEG an eighth of each side is decoded, which
    still reads all of its data; of a PNG every chunk's checksum is verified, piece by piece, and no
    pixel decoded.

    :param file: seekable, binary; left anywhere.
    :raises PictureError: not a JPEG or PNG, damaged, cut off, or of absurdly many pixels.
    """
    try:
        with _opened(file) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise PictureError(f"has {width} x {height} pixels; at most {MOST_PIXELS:,} are taken")
            kind = _FORMATS[image.format or ""]
            if kind == "PNG":
                exif = Image.Exif()
                exif.load(_read_png(file))
            else:
                exif = image.getexif()
                image.draft("L", (max(1, width // 8), max(1, height // 8)))
                image.load()
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"has too many pixels; at most {MOST_PIXELS:,} are taken") from error
    except Exception as error:  # Pillow's readers raise what they like on damaged files
        raise _damaged(error) from error
    return Picture(kind, width, height, upright=exif.get(_ORIENTATION) not in _TURNED)


def documented_limits(picture: Picture) -> list[str]:
    """What the vendor's documented limits say against a picture, in words that follow its name."""
    short, long = sorted((picture.width, picture.height))
    size = f"{picture.width} x {picture.height}"
    problems = []
    if short < SHORTEST_SIDE:
        problems.append(f"is {size} pixels; each side must have at least {SHORTEST_SIDE}")
    if long > short * WIDEST:
        problems.append(
            f"is {size}, an aspect ratio of {picture.width / picture.height:.2f}:1; "
            f"allowed is 1:{WIDEST} to {WIDEST}:1"
        )
    return problems


def write_upright(file: BinaryIO, target: BinaryIO) -> None:
    """Write the picture turned as its EXIF orientation asks, in its own format.

    A JPEG is encoded again with quality 95 and its own chroma subsampling. The colour profile
    stays; other metadata, such as the place where it was taken, does not.

    :raises PictureError: it does not decode.
    """
    try:
        with _opened(file) as image:
            kind = _FORMATS[image.format or ""]
            options: dict[str, Any] = {"icc_profile": image.info.get("icc_profile")}
            if kind == "JPEG":
                sampling = JpegImagePlugin.get_sampling(image)
                options |= {"quality": _JPEG_QUALITY, "subsampling": sampling}
            ImageOps.exif_transpose(image).save(target, format=kind, **options)
    except Exception as error:
        raise _damaged(error) from error


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MOST_PIXELS decides
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            yield image


def _read_png(file: BinaryIO) -> bytes:
    """Verify a PNG to its end, and return its EXIF, which may stand behind the pixels.

    Pillow would read a chunk whole to verify it, and all pixels may stand in one.

    :raises ValueError: it is damaged or cut off.
    """
    file.seek(len(_PNG_SIGNATURE))
    exif, pixels = b"", 0
    while True:
        header = file.read(8)
        if len(header) != 8:
            raise ValueError("it ends before its end")
        length, kind = struct.unpack(">I4s", header)
        if kind == b"IEND":
            break
        checksum, left = zlib.crc32(kind), length
        if kind == b"eXIf" and length <= _MOST_EXIF:
            exif = file.read(length)
            file.seek(-len(exif), os.SEEK_CUR)
        while left and (piece := file.read(min(left, _PIECE))):
            checksum = zlib.crc32(piece, checksum)
            left -= len(piece)
        if left or file.read(4) != checksum.to_bytes(4, "big"):
            raise ValueError(f"its chunk {kind!r} is cut off or has another checksum")
        pixels += length if kind == b"IDAT" else 0
    if not pixels:
        raise ValueError("it has no pixels")
    return exif


def _damaged(error: Exception) -> PictureError:
    return PictureError(f"is damaged or cut off ({error})")

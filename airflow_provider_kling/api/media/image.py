"""Reference pictures: within the documented limits, complete, and of a kind that the vendor takes."""

from __future__ import annotations

import shutil
from typing import BinaryIO, Final

from airflow_provider_kling.api.media import jpeg, png
from airflow_provider_kling.api.media.decoder_process import decoded
from airflow_provider_kling.api.media.picture import Picture, PictureError

SHORTEST_SIDE: Final = 300
"""Pixels. Documented on the vendor's v3 turbo pages, as the next one, and taken for all models."""
WIDEST: Final = 2.5
"""The long side over the short side."""
MOST_PIXELS: Final = 178_956_970
"""Ours: where Pillow speaks of a decompression bomb."""


def inspect(file: BinaryIO) -> Picture:
    """Read the structure of a picture to its end: the markers of a JPEG, the chunks of a PNG.

    Nothing is decoded, but of a JPEG without the marker of its end, as only its pixels say then
    whether it is complete. What viewers accept is accepted.

    :param file: of the operating system, seekable; left anywhere.
    :raises PictureError: not a JPEG or PNG, damaged, cut off, or of absurdly many pixels or scans.
    """
    found = _structure(file)
    if _is_too_large(found):
        raise PictureError(f"has {found.width} x {found.height} pixels; at most {MOST_PIXELS:,} are taken")
    if found.format == "JPEG" and found.oddities and not decoded("is_complete", file, file)["complete"]:
        raise PictureError("is cut off: it ends before all of its pixels")
    return found


def is_too_large(file: BinaryIO) -> bool:
    """Whether a picture that the vendor would take has more pixels than are taken.

    :param file: as for :func:`inspect`.
    """
    try:
        return _is_too_large(_structure(file))
    except PictureError:
        return False


def _structure(file: BinaryIO) -> Picture:
    file.seek(0)
    head = file.read(8)
    try:
        if head.startswith(b"\xff\xd8\xff"):
            return jpeg.read_jpeg(file)
        if head == b"\x89PNG\r\n\x1a\n":
            return png.read_png(file)
    except ValueError as error:
        raise PictureError(f"is damaged or cut off: {error}") from error
    raise PictureError("is neither a JPEG nor a PNG")


def _is_too_large(picture: Picture) -> bool:
    return picture.width * picture.height > MOST_PIXELS


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


def write_mended(picture: Picture, file: BinaryIO, target: BinaryIO) -> None:
    """Write a picture with oddities so that strict readers take it too; its pixels stay as they are.

    :param target: empty; left at its end.
    """
    if picture.format == "PNG":
        png.write_mended(file, target)
        return
    file.seek(0)
    shutil.copyfileobj(file, target)
    target.write(b"\xff\xd9")


def write_converted(file: BinaryIO, target: BinaryIO, most_bytes: int) -> str:
    """Write a picture of any common format as JPEG, or as PNG where it is transparent.

    It is turned upright, and made smaller where it would have too many bytes; of an animation the
    first picture is taken.

    :param file: WebP, AVIF, GIF, TIFF, BMP, JPEG, PNG, or HEIC with the extra ``heic``.
    :param target: left at its end.
    :return: what was done, in words that follow "converted".
    :raises PictureError: it does not decode, or not within the memory and time that are allowed.
    """
    done = decoded("convert", file, target, most_bytes)
    return (
        f"from {done['source']}, {done['source_width']} x {done['source_height']}, "
        f"to {done['format']}, {done['width']} x {done['height']}, {target.tell():,} bytes"
    )

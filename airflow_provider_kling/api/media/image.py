"""Reference pictures: within the documented limits, complete, and upright."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from airflow_provider_kling.api.media import jpeg, png
from airflow_provider_kling.api.media.exif import UPRIGHT

SHORTEST_SIDE: Final = 300
"""Pixels. Documented on the vendor's v3 turbo pages, as the next one, and taken for all models."""
WIDEST: Final = 2.5
"""The long side over the short side."""
MOST_PIXELS: Final = 178_956_970
"""Ours: where Pillow speaks of a decompression bomb."""

_DECODER: Final = Path(__file__).with_name("image_decoder.py")
_MOST_SECONDS: Final = 120.0  # by the clock; the decoder limits its own CPU time


class PictureError(ValueError):
    """The picture cannot be used; the message says why, in words that follow its name."""


class TooLargeError(PictureError):
    """It has more pixels than are taken."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What was found in a picture file.

    :param format: ``JPEG`` or ``PNG``.
    :param width: pixels, as stored.
    :param height: pixels, as stored.
    :param upright: False where EXIF says that it has to be turned or mirrored to be seen right.
    :param oddities: what is wrong with it that no viewer minds, in words that follow "its".
    """

    format: str
    width: int
    height: int
    upright: bool
    oddities: tuple[str, ...] = ()


def inspect(file: BinaryIO) -> Picture:
    """Read the structure of a picture to its end: the markers of a JPEG, the chunks of a PNG.

    Nothing is decoded, but of a JPEG without the marker of its end, as only its pixels say then
    whether it is complete. What viewers accept is accepted.

    :param file: of the operating system, seekable; left anywhere.
    :raises PictureError: not a JPEG or PNG, damaged, cut off, or of absurdly many pixels or scans.
    """
    file.seek(0)
    head = file.read(8)
    try:
        if head.startswith(b"\xff\xd8\xff"):
            said = jpeg.read_jpeg(file)
            oddities = () if said.complete else ("end is missing",)
            found = Picture("JPEG", said.width, said.height, said.orientation == UPRIGHT, oddities)
        elif head == b"\x89PNG\r\n\x1a\n":
            facts = png.read_png(file)
            upright = facts.orientation == UPRIGHT
            found = Picture("PNG", facts.width, facts.height, upright, tuple(facts.oddities))
        else:
            raise PictureError("is neither a JPEG nor a PNG")
    except PictureError:
        raise
    except ValueError as error:
        raise PictureError(f"is damaged or cut off: {error}") from error
    if found.width * found.height > MOST_PIXELS:
        raise TooLargeError(f"has {found.width} x {found.height} pixels; at most {MOST_PIXELS:,} are taken")
    if found.format == "JPEG" and found.oddities and not _decoded("is_complete", file, file)["complete"]:
        raise PictureError("is cut off: it ends before all of its pixels")
    return found


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


def write_upright(file: BinaryIO, target: BinaryIO) -> None:
    """Write the picture turned as its EXIF orientation asks, in its own format.

    A JPEG is encoded again with quality 95 and its own chroma subsampling; one of more than 55
    million pixels becomes half as wide and high. The colour profile stays; other metadata, such as
    the place where it was taken, does not.

    :param file: of the operating system, as the next one; left anywhere.
    :param target: left at its end.
    :raises PictureError: it does not decode, or not within the memory and time that are allowed.
    """
    _decoded("turn", file, target)


def write_converted(file: BinaryIO, target: BinaryIO, most_bytes: int) -> str:
    """Write a picture of any common format as JPEG, or as PNG where it is transparent.

    It is turned upright, and made smaller where it would have too many bytes; of an animation the
    first picture is taken.

    :param file: WebP, AVIF, GIF, TIFF, BMP, JPEG, PNG, or HEIC with the extra ``heic``.
    :param target: left at its end.
    :return: what was done, in words that follow "converted".
    :raises PictureError: it does not decode, or not within the memory and time that are allowed.
    """
    done = _decoded("convert", file, target, most_bytes)
    return (
        f"from {done['source']}, {done['source_width']} x {done['source_height']}, "
        f"to {done['format']}, {done['width']} x {done['height']}, {target.tell():,} bytes"
    )


def _decoded(job: str, file: BinaryIO, target: BinaryIO, most_bytes: int = 0) -> dict[str, Any]:
    """Have the decoder do a job in a process of its own."""
    file.flush()
    target.flush()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # wherever Pillow is
        "MALLOC_ARENA_MAX": "2",  # each further arena counts as 64 MiB of address space
    }
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, with a script of this package
            [sys.executable, "-P", str(_DECODER), job, str(most_bytes)],
            stdin=file,
            stdout=target,
            stderr=subprocess.PIPE,
            env=environment,
            timeout=_MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PictureError(f"could not be decoded within {_MOST_SECONDS:.0f} s") from None
    target.seek(0, os.SEEK_END)
    try:
        result: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    except (IndexError, ValueError):
        raise PictureError(
            "could not be decoded within the memory and time that are allowed "
            f"(the decoder ended with {done.returncode})"
        ) from None
    if "refused" in result:
        raise PictureError(result["refused"])
    return result

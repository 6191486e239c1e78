"""How a camera was held, as EXIF says, and the picture turned upright."""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from airflow_provider_kling.api.media.decoder_process import decoded
from airflow_provider_kling.api.media.picture import UPRIGHT

LARGEST_EXIF: Final = 1024 * 1024  # bytes

_ORIENTATION: Final = 0x0112
_SHORT: Final = 3
_MOST_ENTRIES: Final = 512


def read_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8; 1, which is upright, where it cannot be read, as viewers take it.

    :param exif: a TIFF structure, with or without ``Exif`` in front.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(min(entries, _MOST_ENTRIES)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if tag == _ORIENTATION and kind == _SHORT:
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT


def write_upright(file: BinaryIO, target: BinaryIO) -> None:
    """Write the picture turned as its EXIF orientation asks, in its own format.

    A JPEG is encoded again with quality 95 and its own chroma subsampling; one of more than 55
    million pixels becomes half as wide and high. The colour profile stays; other metadata, such as
    the place where it was taken, does not.

    :param file: of the operating system, as the next one; left anywhere.
    :param target: left at its end.
    :raises PictureError: it does not decode, or not within the memory and time that are allowed.
    """
    decoded("turn", file, target)

"""The structure of a JPEG: what its markers say, without decoding a pixel."""

from __future__ import annotations

import os
import re
import struct
from typing import BinaryIO, Final

from airflow_provider_kling.api.media.orientation import read_orientation
from airflow_provider_kling.api.media.picture import UPRIGHT, Picture

MOST_SCANS: Final = 500
"""A progressive JPEG has about ten. Each scan costs a decoder a pass over all pixels."""
MOST_SEGMENTS: Final = 10_000

_PIECE: Final = 256 * 1024  # bytes
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a scan, FF 00 and D0 to D7 belong to the pixels
_FRAMES: Final = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
_OTHER_FRAMES: Final = (0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF)
_NO_END: Final = "end is missing"
_SOS, _EOI, _EXIF, _DQT, _TEM = 0xDA, 0xD9, 0xE1, 0xDB, 0x01


def read_jpeg(file: BinaryIO) -> Picture:
    """Read all markers up to the end of the first picture.

    :param file: seekable; left anywhere.
    :raises ValueError: it is damaged or cut off before its pixels begin, of a kind that viewers do
        not open, or has more scans or segments than any camera or program writes.
    """
    facts = Picture("JPEG")
    scans = 0  # passes of a decoder over the pixels
    file.seek(2)  # behind FF D8
    for _ in range(MOST_SEGMENTS):
        marker = _marker(file)
        if marker is None:
            facts.oddities.append(_NO_END)
            break
        if marker == _EOI:
            break
        if marker == _TEM or 0xD0 <= marker <= 0xD8:  # these stand alone
            continue
        body = _segment(file)
        if body is None:
            facts.oddities.append(_NO_END)
            break
        if marker in _FRAMES and not facts.width:
            _read_frame(facts, body)
        elif marker in _OTHER_FRAMES:
            raise ValueError(f"it is of a kind that few programs open (SOF{marker - 0xC0})")
        elif marker == _EXIF and body.startswith(b"Exif\0\0") and facts.orientation == UPRIGHT:
            facts.orientation = read_orientation(body)
        elif marker == _SOS:
            if not facts.width:
                raise ValueError("its pixels begin before their size is said")
            scans += 1
            if scans > MOST_SCANS:
                raise ValueError(f"it has more than {MOST_SCANS} scans")
            _skip_pixels(file)
    else:
        raise ValueError(f"it has more than {MOST_SEGMENTS:,} segments")
    if not scans:
        raise ValueError("it ends before its pixels")
    return facts


def _read_frame(facts: Picture, body: bytes) -> None:
    if len(body) < 6:
        raise ValueError("its size is cut off")
    precision, facts.height, facts.width, components = struct.unpack_from(">BHHB", body)
    if precision != 8:
        raise ValueError(f"it has {precision} bits per colour; 8 are what programs open")
    if not facts.width or not facts.height or not 1 <= components <= 4:
        raise ValueError(f"its size is {facts.width} x {facts.height} with {components} colours")


def _marker(file: BinaryIO) -> int | None:
    """The next marker; None at the end of the file. What stands in between is skipped, as decoders do."""
    while byte := file.read(1):
        if byte != b"\xff":
            _skip_to_ff(file)
            continue
        while byte == b"\xff":
            byte = file.read(1)
        if byte and byte != b"\0":
            return byte[0]
    return None


def _skip_to_ff(file: BinaryIO) -> None:
    while piece := file.read(_PIECE):
        position = piece.find(b"\xff")
        if position >= 0:
            file.seek(position - len(piece), os.SEEK_CUR)
            return


def _segment(file: BinaryIO) -> bytes | None:
    """The body of a segment; None where the file ends in it."""
    head = file.read(2)
    if len(head) < 2:
        return None
    length = int.from_bytes(head, "big") - 2
    if length < 0:
        raise ValueError("a segment of it has an impossible length")
    body = file.read(length)
    return body if len(body) == length else None


def _skip_pixels(file: BinaryIO) -> None:
    """Go to the marker behind a scan, or to the end of the file."""
    while piece := file.read(_PIECE):
        if found := _MARKER.search(piece):
            file.seek(found.start() - len(piece), os.SEEK_CUR)
            return
        if len(piece) > 1 and piece.endswith(b"\xff"):  # a marker may begin here
            file.seek(-1, os.SEEK_CUR)

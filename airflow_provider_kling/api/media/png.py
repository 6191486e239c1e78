"""The structure of a PNG: its chunks and their checksums, without decoding a pixel."""

from __future__ import annotations

import os
import struct
import zlib
from typing import BinaryIO, Final

from airflow_provider_kling.api.media.orientation import LARGEST_EXIF, read_orientation
from airflow_provider_kling.api.media.picture import Picture
from airflow_provider_kling.api.redaction import shown

MOST_CHUNKS: Final = 100_000

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PIECE: Final = 256 * 1024  # bytes
_MOST_UNPACKED: Final = 1 << 30
"""Bytes of pixels that are unpacked to see whether they are complete, which takes a few seconds."""
_CHANNELS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def read_png(file: BinaryIO) -> Picture:
    """Read all chunks, and verify the checksums of those that a viewer needs.

    A chunk is read piece by piece, as all pixels may stand in one.

    :param file: seekable; left anywhere.
    :raises ValueError: it is damaged or cut off.
    """
    facts = Picture("PNG")
    pixels = unpacked = 0
    file.seek(len(_SIGNATURE))
    for _ in range(MOST_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            if pixels and _are_all_pixels_there(file, unpacked):
                facts.oddities.append("end is missing")
                return facts
            raise ValueError("it ends before its end")
        length, kind = struct.unpack(">I4s", header)
        if not facts.width and kind != b"IHDR":
            raise ValueError("it does not begin with its size")
        optional = bool(kind[0] & 0x20)  # a small letter; a viewer can do without it
        body = b""
        if kind == b"IHDR" or (kind == b"eXIf" and length <= LARGEST_EXIF):
            body = file.read(length)
            file.seek(-len(body), os.SEEK_CUR)
        if not _checksum_is_right(file, kind, length):
            if not optional:
                raise ValueError(f"its chunk {shown(kind.decode('latin-1'))} has another checksum")
            facts.oddities.append(f"chunk {kind.decode('latin-1')!r} has another checksum")
        if kind == b"IHDR":
            unpacked = _read_header(facts, body)
        elif kind == b"eXIf":
            facts.orientation = read_orientation(body)
        elif kind == b"IDAT":
            pixels += length
        elif kind == b"IEND":
            break
    else:
        raise ValueError(f"it has more than {MOST_CHUNKS:,} chunks")
    if not pixels:
        raise ValueError("it has no pixels")
    return facts


def write_mended(file: BinaryIO, target: BinaryIO) -> None:
    """Write a PNG that :func:`read_png` accepted with an end, and without chunks of a wrong checksum.

    :param target: empty, binary.
    """
    file.seek(0)
    target.write(file.read(len(_SIGNATURE)))
    kind = b""
    while kind != b"IEND" and len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        start = file.tell()
        if not _checksum_is_right(file, kind, length):
            continue
        file.seek(start - 8)
        left = length + 12
        while left and (piece := file.read(min(left, _PIECE))):
            target.write(piece)
            left -= len(piece)
    if kind != b"IEND":
        target.write(struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")))


def _checksum_is_right(file: BinaryIO, kind: bytes, length: int) -> bool:
    """Read a chunk to its end.

    :raises ValueError: the file ends in it.
    """
    checksum, left = zlib.crc32(kind), length
    while left and (piece := file.read(min(left, _PIECE))):
        checksum = zlib.crc32(piece, checksum)
        left -= len(piece)
    stated = file.read(4)
    if kind == b"IEND" and not left and len(stated) < 4:
        return True  # nothing that could be missed
    if left or len(stated) < 4:
        raise ValueError(f"it ends in its chunk {shown(kind.decode('latin-1'))}")
    return stated == checksum.to_bytes(4, "big")


def _read_header(facts: Picture, body: bytes) -> int:
    """About how many bytes the pixels are when they are unpacked."""
    if len(body) != 13:
        raise ValueError("its size is cut off")
    facts.width, facts.height, bits, colours = struct.unpack_from(">IIBB", body)
    if not facts.width or not facts.height or colours not in _CHANNELS or bits not in (1, 2, 4, 8, 16):
        raise ValueError(f"its size is {facts.width} x {facts.height}, in colours of kind {colours}/{bits}")
    unpacked: int = facts.height * (facts.width * _CHANNELS[colours] * bits // 8 + 2)
    return unpacked


def _are_all_pixels_there(file: BinaryIO, expected: int) -> bool:
    """Whether the compressed pixels have their own end; in constant memory.

    :param expected: bytes that they expand to. What expands to much more is not read on.
    """
    if expected > _MOST_UNPACKED:
        return False
    file.seek(len(_SIGNATURE))
    most = 2 * expected + _PIECE  # interlaced ones take a little more
    unpacked = zlib.decompressobj()
    while len(header := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", header)
        if kind != b"IDAT":
            file.seek(length + 4, os.SEEK_CUR)
            continue
        while length and (piece := file.read(min(length, _PIECE))):
            length -= len(piece)
            try:
                while piece and not unpacked.eof:
                    most -= len(unpacked.decompress(piece, _PIECE))
                    piece = unpacked.unconsumed_tail
                    if most < 0:
                        return False
            except zlib.error:
                return False
        file.seek(4, os.SEEK_CUR)
    return unpacked.eof

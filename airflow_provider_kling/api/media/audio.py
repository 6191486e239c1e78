"""Sounds: whether a file is one, by its frames and not by its first bytes alone."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import BinaryIO, Final, NamedTuple

_RESYNC: Final = 64 * 1024
"""Bytes of something else that may stand in front of the first frame, as players allow."""
_FRAMES: Final = 3
"""So many frames in a row are no accident."""

# kbit/s by MPEG version (1, or 2 and 2.5) and layer, by the index in the header
_BITRATES: Final = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLE_RATES: Final = (44100, 48000, 32000)


class _Frame(NamedTuple):
    length: int  # bytes
    kind: tuple[float, ...]  # the same for all frames of a file


def has_frames(file: BinaryIO, kind: str) -> bool:
    """Whether there are frames of MP3 or AAC in a file, behind its tags.

    :param file: seekable; left anywhere.
    :param kind: ``MP3`` or ``AAC``.
    """
    size = file.seek(0, os.SEEK_END)
    start = _behind_tags(file)
    file.seek(start)
    head = file.read(_RESYNC)
    frame_of = _mp3_frame if kind == "MP3" else _adts_frame
    position = head.find(b"\xff")
    while position >= 0:
        if _is_row(file, start + position, size, frame_of):
            return True
        position = head.find(b"\xff", position + 1)
    return False


def is_wave(file: BinaryIO) -> bool:
    """Whether a RIFF file has a format and samples.

    :param file: seekable; left anywhere.
    """
    size = file.seek(0, os.SEEK_END)
    position, has_format = 12, False
    for _ in range(1000):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return False
        kind, length = struct.unpack("<4sI", header)
        if kind == b"fmt ":
            has_format = length >= 14
        elif kind == b"data":
            return has_format and position + 8 < size
        position += 8 + length + length % 2
    return False


def _behind_tags(file: BinaryIO) -> int:
    position = 0
    for _ in range(10):
        file.seek(position)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        length = 0
        for byte in head[6:10]:
            length = length << 7 | byte & 0x7F
        position += 10 + length + (10 if head[5] & 0x10 else 0)
    return position


def _is_row(file: BinaryIO, position: int, size: int, frame_of: Callable[[bytes], _Frame | None]) -> bool:
    kind = None
    for number in range(_FRAMES):
        file.seek(position)
        frame = frame_of(file.read(7))
        if frame is None or (kind is not None and frame.kind != kind):
            return False
        kind = frame.kind
        position += frame.length
        if position >= size:
            return number > 0  # a very short sound; the last frame may be cut, as players allow
    return True


def _mp3_frame(head: bytes) -> _Frame | None:
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version = {0: 2.5, 2: 2, 3: 1}.get(head[1] >> 3 & 3)
    layer = 4 - (head[1] >> 1 & 3)
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version is None or layer == 4 or bitrate in (0, 15) or rate == 3:
        return None
    samples_a_second = _SAMPLE_RATES[rate] // {1: 1, 2: 2, 2.5: 4}[version]
    bits_a_second = 1000 * _BITRATES[1 if version == 1 else 2, layer][bitrate]
    padding = head[2] >> 1 & 1
    if layer == 1:
        length = (12 * bits_a_second // samples_a_second + padding) * 4
    else:
        samples = 72 if layer == 3 and version != 1 else 144
        length = samples * bits_a_second // samples_a_second + padding
    return _Frame(length, (version, layer, rate))


def _adts_frame(head: bytes) -> _Frame | None:
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:
        return None
    rate = head[2] >> 2 & 15
    length = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    return _Frame(length, (head[1] & 8, rate)) if rate < 13 and length > 7 else None

"""The index of an MP4 or QuickTime file: what it says, and whether the samples it names are in the file.

Only boxes of the index are read (ISO/IEC 14496-12); nothing is decoded. Every count that the file
claims is checked against the bytes that are there before anything is allocated or repeated, so that a
hostile file costs no more memory and time than its size allows.

Edit lists are ignored: they say what a player shows, not whether the file is complete.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, NamedTuple

from airflow_provider_kling.api.redaction import shown

LARGEST_INDEX: Final = 8 * 1024 * 1024
"""Bytes of all index boxes of a file. A video of an hour needs about 3 MiB, the vendor's clips 50 KiB."""
MOST_BOXES: Final = 65_536

_CODECS: Final = {
    **dict.fromkeys((b"avc1", b"avc3"), "h264"),
    **dict.fromkeys((b"hvc1", b"hev1"), "hevc"),
    b"av01": "av1",
    b"vp09": "vp9",
    b"mp4v": "mpeg4",
}
_SETTINGS: Final = {
    **dict.fromkeys((b"avc1", b"avc3"), b"avcC"),
    **dict.fromkeys((b"hvc1", b"hev1"), b"hvcC"),
}
"""Without this box no decoder can start."""


class Mp4Error(ValueError):
    """The file is no complete MP4 video; the message says why, in words that follow its name."""


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video file says about itself.

    :param duration: seconds of the video track, by its samples.
    :param width: pixels.
    :param height: pixels.
    :param codec: name of the video codec, for example ``h264``.
    :param frames: number of coded frames of the video track.
    """

    duration: float
    width: int
    height: int
    codec: str
    frames: int


class _Box(NamedTuple):
    kind: bytes
    start: int
    body: int
    end: int


@dataclass(slots=True)
class _Track:
    number: int
    handler: bytes
    timescale: int
    descriptions: int = 0
    width: int = 0
    height: int = 0
    codec: str = ""
    samples: int = 0
    units: int = 0  # of the timescale

    def check_description(self, number: int) -> None:
        if not 1 <= number <= self.descriptions:
            raise _damaged(f"samples of kind {number}, and {self.descriptions} kinds are described")


@dataclass(slots=True)
class _Defaults:
    """What the samples of a fragment have where they say nothing themselves."""

    duration: int = 0
    size: int = 0


def read_mp4(file: BinaryIO) -> VideoFacts:
    """Read the facts of the first video track, and check that every sample of all tracks is in the file.

    :param file: seekable; left anywhere.
    :raises Mp4Error: no MP4 or QuickTime file, no video in it, cut off, or its index is damaged.
    :raises OSError: the file cannot be read.
    """
    return _Reader(file).read()


def has_sound(file: BinaryIO) -> bool:
    """Whether there is a sound track with samples, all of which are in the file.

    :param file: seekable; left anywhere.
    :raises Mp4Error: no MP4 or QuickTime file, cut off, or its index is damaged.
    """
    return any(track.handler == b"soun" and track.samples for track in _Reader(file).tracks())


class _Reader:
    """One reading of one file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self._boxes = 0
        self._index_bytes = 0
        self._tracks: dict[int, _Track] = {}
        self._defaults: dict[int, _Defaults] = {}

    def read(self) -> VideoFacts:
        """The facts of the first video track."""
        video = next((track for track in self.tracks() if track.handler == b"vide"), None)
        if video is None:
            raise Mp4Error("holds no video stream")
        if not video.samples:
            raise Mp4Error("holds no frame: it is cut off")
        if not video.width or not video.height:
            raise Mp4Error("has a video stream without a size")
        seconds = video.units / video.timescale if video.timescale else 0.0
        return VideoFacts(seconds, video.width, video.height, video.codec, video.samples)

    def tracks(self) -> list[_Track]:
        """All tracks, whose samples are in the file."""
        index: _Box | None = None
        fragments: list[_Box] = []
        access: list[_Box] = []
        for box in self._top_level():
            if box.kind == b"moov" and index is None:
                index = box
            elif box.kind == b"moof":
                fragments.append(box)
            elif box.kind == b"mfra":
                access.append(box)
            elif box.kind == b"sidx":
                self._check_segments(box)
        if index is None:
            raise Mp4Error("is not a readable MP4, or it is cut off: it has no index")
        self._read_index(self._load(index))
        for fragment in fragments:
            self._read_fragment(self._load(fragment), fragment.start)
        starts = {fragment.start for fragment in fragments}
        for box in access:
            self._check_access(box, starts)
        return list(self._tracks.values())

    # Boxes

    def _top_level(self) -> Iterator[_Box]:
        """The boxes of the file. What follows the last one and is no box is skipped, as players do."""
        position, fragmented = 0, False
        while position + 8 <= self._size:
            self._count()
            self._file.seek(position)
            head = self._file.read(16)
            length, kind, header = _box_head(head, self._size - position)
            fragmented |= kind == b"moof"
            if length < header:
                if fragmented:
                    raise Mp4Error(f"is damaged at byte {position:,}")
                return
            yield _Box(kind, position, position + header, position + length)
            position += length

    def _load(self, box: _Box) -> memoryview:
        length = box.end - box.body
        self._index_bytes += length
        if box.end > self._size:
            raise Mp4Error(f"is cut off in its index, after {self._size:,} of at least {box.end:,} bytes")
        if self._index_bytes > LARGEST_INDEX:
            raise Mp4Error(f"has an index of more than {LARGEST_INDEX // 1024**2} MiB")
        self._file.seek(box.body)
        content = self._file.read(length)
        if len(content) != length:
            raise Mp4Error("became shorter while it was read")
        return memoryview(content)

    def _children(self, data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
        position = 0
        while position + 8 <= len(data):
            self._count()
            length, kind, header = _box_head(data[position : position + 16], len(data) - position)
            if length < header or position + length > len(data):
                raise _damaged("a box that is longer than the one around it")
            yield kind, data[position + header : position + length]
            position += length

    def _first_children(self, data: memoryview) -> dict[bytes, memoryview]:
        found: dict[bytes, memoryview] = {}
        for kind, body in self._children(data):
            found.setdefault(kind, body)
        return found

    def _count(self) -> None:
        self._boxes += 1
        if self._boxes > MOST_BOXES:
            raise Mp4Error(f"has more than {MOST_BOXES:,} boxes")

    # The index of a whole file

    def _read_index(self, moov: memoryview) -> None:
        parts = list(self._children(moov))
        _need(dict(parts), b"mvhd")
        for kind, body in parts:
            if kind == b"trak":
                self._read_track(body)
        for kind, body in parts:
            if kind != b"mvex":
                continue
            for name, trex in self._children(body):
                if name == b"trex":
                    number, description, duration, size = _unpack(">IIII", trex, 4)
                    if number in self._tracks:
                        self._tracks[number].check_description(description)
                    self._defaults[number] = _Defaults(duration, size)

    def _read_track(self, trak: memoryview) -> None:
        parts = self._first_children(trak)
        mdia = self._first_children(_need(parts, b"mdia"))
        tkhd, mdhd = _need(parts, b"tkhd"), _need(mdia, b"mdhd")
        (number,) = _unpack(">I", tkhd, 20 if _version(tkhd) else 12)
        (timescale,) = _unpack(">I", mdhd, 20 if _version(mdhd) else 12)
        (handler,) = _unpack(">4s", _need(mdia, b"hdlr"), 8)
        track = _Track(number, handler, timescale)
        stbl = self._first_children(_need(self._first_children(_need(mdia, b"minf")), b"stbl"))
        self._read_descriptions(track, _need(stbl, b"stsd"), tkhd)
        self._read_samples(track, stbl)
        self._tracks.setdefault(number, track)

    def _read_descriptions(self, track: _Track, stsd: memoryview, tkhd: memoryview) -> None:
        (claimed,) = _unpack(">I", stsd, 4)
        entries = list(self._children(stsd[8:]))
        track.descriptions = len(entries)
        if claimed != len(entries) or not entries:
            raise _damaged(f"{len(entries)} sample descriptions instead of {claimed:,}")
        if track.handler != b"vide":
            return
        codec, entry = entries[0]
        track.codec = _CODECS.get(codec, codec.decode("ascii", "replace").strip())
        track.width, track.height = _unpack(">HH", entry, 24)
        if codec in _SETTINGS:
            _need(self._first_children(entry[78:]), _SETTINGS[codec])
        if not (track.width and track.height):  # the size it is shown at, in 16.16
            width, height = _unpack(">II", tkhd, 88 if _version(tkhd) else 76)
            track.width, track.height = width >> 16, height >> 16

    def _read_samples(self, track: _Track, stbl: dict[bytes, memoryview]) -> None:
        """Every sample of the sample tables: a chunk's samples stand one behind the other at its offset."""
        sizes: Sequence[int]
        count, constant, sizes = _sample_sizes(stbl)
        _table(_need(stbl, b"stsc"), 12)
        entries, table = _table(_need(stbl, b"stts"), 8)
        times = _numbers("I", 2 * entries, table)
        timed = sum(times[::2])
        if timed > count:
            raise Mp4Error(f"is damaged: its index has times for {timed:,} samples, and sizes for {count:,}")
        track.units += sum(number * units for number, units in zip(times[::2], times[1::2], strict=True))
        if b"stss" in stbl:
            _table(stbl[b"stss"], 4)
        if not count:
            return  # all samples are in fragments
        if b"co64" in stbl:
            offsets = _numbers("Q", *_table(stbl[b"co64"], 8))
        else:
            offsets = _numbers("I", *_table(_need(stbl, b"stco"), 4))
        placed = 0
        for first, last, per_chunk, description in _runs(_need(stbl, b"stsc"), len(offsets)):
            track.check_description(description)
            for chunk in range(first, last):
                if placed >= count:
                    break
                held = min(per_chunk, count - placed)
                length = held * constant if constant else sum(sizes[placed : placed + held])
                self._check_inside(offsets[chunk], length, placed, count)
                placed += held
        if placed < count:
            raise Mp4Error(f"names {count:,} samples in its index, and places {placed:,} of them")
        track.samples += count

    def _check_inside(self, start: int, length: int, done: int, count: int | None) -> None:
        if start + length > self._size:
            of = f" of {count:,}" if count is not None else ""
            raise Mp4Error(
                f"is cut off or damaged after {done:,}{of} samples: the next ones end at byte "
                f"{start + length:,}, and it has {self._size:,}"
            )

    # Fragments

    def _read_fragment(self, moof: memoryview, start: int) -> None:
        base = start
        for kind, traf in self._children(moof):
            if kind != b"traf":
                continue
            parts = list(self._children(traf))
            header = next((body for name, body in parts if name == b"tfhd"), None)
            if header is None:
                raise _damaged("a fragment without a header")
            flags, number = _unpack(">II", header, 0)
            track = self._tracks.get(number)
            if track is None:
                raise _damaged(f"a fragment of track {number}, which is not in it")
            fields = iter(_optional(header, 8, flags, ((0x1, "Q"), (0x2, "I"), (0x8, "I"), (0x10, "I"))))
            explicit, _, duration, size = fields
            known = self._defaults.get(number)
            if known is None:
                raise _damaged(f"a fragment of track {number}, which has no defaults for fragments")
            defaults = _Defaults(
                known.duration if duration is None else duration, known.size if size is None else size
            )
            position = explicit if explicit is not None else (start if flags & 0x20000 else base)
            origin = position
            for name, body in parts:
                if name == b"tfdt":  # when the fragment begins; some writers leave out other durations
                    (begins,) = _unpack(">Q" if _version(body) else ">I", body, 4)
                    track.units = max(track.units, begins)
                elif name == b"trun":
                    position = self._read_run(track, body, defaults, origin, position)
            base = position

    def _read_run(
        self, track: _Track, trun: memoryview, defaults: _Defaults, origin: int, position: int
    ) -> int:
        """Account for one run of samples; returns where it ends in the file."""
        flags, count = _unpack(">II", trun, 0)
        offset, first_flags = _optional(trun, 8, flags, ((0x1, "i"), (0x4, "I")))
        table = trun[8 + 4 * sum(value is not None for value in (offset, first_flags)) :]
        columns = [flag for flag in (0x100, 0x200, 0x400, 0x800) if flags & flag]
        if count * 4 * len(columns) > len(table):
            raise _damaged(f"a run of {count:,} samples in a box of {len(trun):,} bytes")
        numbers = _numbers("I", count * len(columns), table)

        def total(flag: int, default: int) -> int:
            return sum(numbers[columns.index(flag) :: len(columns)]) if flag in columns else count * default

        start = position if offset is None else origin + offset
        length = total(0x200, defaults.size)
        if start < 0:
            raise _damaged("samples before its start")
        if count and not length:
            raise _damaged("a run of samples without content")
        self._check_inside(start, length, track.samples, None)
        track.samples += count
        track.units += total(0x100, defaults.duration)
        return start + length

    def _check_segments(self, box: _Box) -> None:
        """A segment index says how long the segments behind it are."""
        sidx = self._load(box)
        wide = _version(sidx)
        (first,) = _unpack(">Q" if wide else ">I", sidx, 20 if wide else 16)
        start = 30 if wide else 22
        (count,) = _unpack(">H", sidx, start)
        table = sidx[start + 2 :]
        if count * 12 > len(table):
            raise _damaged(f"a segment index of {count} entries in {len(sidx)} bytes")
        lengths = _numbers("I", count * 3, table)[::3]
        end = box.end + first + sum(length & 0x7FFFFFFF for length in lengths)
        if end > self._size:
            raise Mp4Error(f"is cut off after {self._size:,} of at least {end:,} bytes")

    def _check_access(self, box: _Box, fragments: set[int]) -> None:
        """The table at the end of a fragmented file says where each fragment begins."""
        if box.end > self._size:
            return  # all fragments are in front of it
        for kind, tfra in self._children(self._load(box)):
            if kind != b"tfra":
                continue
            lengths, count = _unpack(">II", tfra, 8)
            extra = sum((lengths >> shift & 3) + 1 for shift in (0, 2, 4))
            head = ">QQ" if _version(tfra) else ">II"
            stride = struct.calcsize(head) + extra
            if count * stride > len(tfra) - 16:
                raise _damaged(f"a fragment table of {count:,} entries in {len(tfra):,} bytes")
            for entry in range(count):
                _, moof = _unpack(head, tfra, 16 + entry * stride)
                if moof not in fragments:
                    raise Mp4Error(f"is cut off or damaged: no fragment begins at byte {moof:,}")


def _box_head(head: bytes | memoryview, room: int) -> tuple[int, bytes, int]:
    """Length of a box with its header, its kind, length of its header."""
    length, kind = struct.unpack_from(">I4s", head)
    if length == 1:
        return (struct.unpack_from(">Q", head, 8)[0], kind, 16) if len(head) >= 16 else (0, kind, 16)
    return (room if length == 0 else length), kind, 8


def _sample_sizes(stbl: dict[bytes, memoryview]) -> tuple[int, int, Sequence[int]]:
    """How many samples there are, the size of all of them or 0, and the size of each where they differ."""
    if b"stsz" in stbl:
        body = stbl[b"stsz"]
        constant, count = _unpack(">II", body, 4)
        if constant or not count:
            return count, constant, ()
        bits = 32
    else:
        body = _need(stbl, b"stz2")
        bits, count = _unpack(">II", body, 4)
        bits &= 0xFF
    table = body[12:]
    if bits not in (4, 8, 16, 32) or (count * bits + 7) // 8 > len(table):
        raise _damaged(f"{count:,} samples in a box of {len(body):,} bytes")
    if bits == 4:
        packed = bytes(table[: (count + 1) // 2])
        halves = bytearray(2 * len(packed))
        halves[::2] = packed.translate(bytes(byte >> 4 for byte in range(256)))
        halves[1::2] = packed.translate(bytes(byte & 15 for byte in range(256)))
        return count, 0, halves[:count]
    return count, 0, _numbers({8: "B", 16: "H", 32: "I"}[bits], count, table)


def _runs(stsc: memoryview, chunks: int) -> Iterator[tuple[int, int, int, int]]:
    """First chunk, the one behind the last, samples in each, their description; chunks count from 0."""
    entries, table = _table(stsc, 12)
    numbers = _numbers("I", entries * 3, table)
    expected = 1
    for entry in range(entries):
        first, per_chunk, description = numbers[entry * 3 : entry * 3 + 3]
        after = numbers[entry * 3 + 3] if entry + 1 < entries else chunks + 1
        if first != expected or (after <= first and entry + 1 < entries):
            raise _damaged("chunks out of order")
        if per_chunk >> 31:  # players read it as a negative number
            raise _damaged(f"chunks of {per_chunk:,} samples")
        expected = after
        yield first - 1, min(after - 1, chunks), per_chunk, description


def _table(body: memoryview, entry: int) -> tuple[int, memoryview]:
    """Number of entries, and the entries, of a box that has nothing else behind its version."""
    (count,) = _unpack(">I", body, 4)
    if count * entry > len(body) - 8:
        raise _damaged(f"{count:,} entries in a box of {len(body):,} bytes")
    return count, body[8:]


def _numbers(code: str, count: int, table: memoryview) -> array[int]:
    numbers = array({"I": "I", "Q": "Q", "H": "H", "B": "B"}[code])
    numbers.frombytes(table[: count * numbers.itemsize])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


def _optional(
    body: memoryview, position: int, flags: int, fields: Sequence[tuple[int, str]]
) -> list[int | None]:
    """Fields that are there only where their flag is set."""
    found: list[int | None] = []
    for flag, code in fields:
        if flags & flag:
            (value,) = _unpack(f">{code}", body, position)
            position += struct.calcsize(f">{code}")
            found.append(value)
        else:
            found.append(None)
    return found


def _need(parts: dict[bytes, memoryview], kind: bytes) -> memoryview:
    try:
        return parts[kind]
    except KeyError:
        raise _damaged(f"no box {shown(kind.decode())}") from None


def _version(body: memoryview) -> int:
    return body[0] if len(body) else 0


def _unpack(form: str, body: memoryview, position: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(form, body, position)
    except struct.error:
        raise _damaged("a box that is too short") from None


def _damaged(how: str) -> Mp4Error:
    return Mp4Error(f"is damaged: its index has {how}")

from __future__ import annotations

import io
import struct
import time
import tracemalloc
from collections.abc import Callable

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_kling.api.download.mp4_boxes import (
    LARGEST_INDEX,
    MOST_BOXES,
    Mp4Error,
    has_sound,
    read_mp4,
)
from tests.media_samples import FASTSTART, FRAGMENTED, m4a, mp4, picture

SMALL = (64, 48)
LAYOUTS = {
    "plain": mp4(1, size=SMALL, options={}),
    "faststart": mp4(1, size=SMALL, options=FASTSTART),
    "fragmented": mp4(1, size=SMALL, options=FRAGMENTED),
    "fragments after a first part": mp4(1, size=SMALL, options={"movflags": "frag_keyframe"}),
    "offsets from each fragment": mp4(
        1, size=SMALL, options={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    ),
    "dash with an index of segments": mp4(
        1, size=SMALL, options={"movflags": "dash+frag_keyframe+global_sidx"}
    ),
    "QuickTime": mp4(1, size=SMALL, suffix=".mov", options={}),
    "M4V": mp4(1, size=SMALL, suffix=".m4v", options={}),
}
PLAIN = LAYOUTS["plain"]

CONTAINERS = (
    b"moov",
    b"trak",
    b"edts",
    b"mdia",
    b"minf",
    b"dinf",
    b"stbl",
    b"mvex",
    b"moof",
    b"traf",
    b"mfra",
)

ONLY_A_PLAYER_SEES = {
    b"mdat": "the content of the frames",
    b"stsd": "a codec nobody knows",
    b"dref": "that the samples are said to be in another file",
    b"mvhd": "when something is shown, and for how long",
    b"mdhd": "when something is shown, and for how long",
    b"stts": "when something is shown, and for how long",
    b"elst": "what of the frames is shown",
    b"mfhd": "the number of a fragment",
    b"stss": "where a player can jump to",
    b"sidx": "where a player can jump to",
    b"udta": "who made the file",
}
"""Boxes in which damage may pass here that a demuxer or decoder would see, and what is damaged then.

Found by ten kinds of damage at each byte of each index of these files: 1,074 of 82,680 pass, all in these."""


def demuxer_refuses(content: bytes) -> bool:
    """Whether libav finds the file incomplete or unreadable; it reads every packet and decodes none."""
    try:
        with av.open(io.BytesIO(content), format="mp4") as container:
            if not container.streams.video:
                return True
            stream, frames = container.streams.video[0], 0
            for packet in container.demux():
                if packet.is_corrupt:
                    return True
                frames += packet.stream_index == stream.index and packet.size > 0
            return frames == 0 or frames < stream.frames or not stream.width
    except (av.error.FFmpegError, AttributeError):  # AttributeError: of a stream with an unknown codec
        return True
    except UnicodeDecodeError:  # PyAV's own, over damaged names
        return False


def refuses(content: bytes) -> bool:
    try:
        read_mp4(io.BytesIO(content))
    except Mp4Error:
        return True
    return False


def box_at(content: bytes, position: int) -> bytes:
    """The innermost box that this byte belongs to."""
    inside, start, end = b"", 0, len(content)
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", content, start)
        if position >= start + length:
            start += length
            continue
        inside = kind
        if kind not in CONTAINERS or position < start + 8:
            break
        start, end = start + 8, start + length
    return inside


INDEX = {
    layout: [at for at in range(len(whole)) if box_at(whole, at) != b"mdat"]
    for layout, whole in LAYOUTS.items()
}


def edited(content: bytes, path: str, change: Callable[[bytes], bytes]) -> bytes:
    """The file with the body of one box changed: ``moov/trak/mdia``. What stands behind it moves."""
    first, _, rest = path.partition("/")
    parts, position = [], 0
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        body = content[position + 8 : position + length]
        if kind == first.encode():
            body = edited(body, rest, change) if rest else change(body)
        parts.append(struct.pack(">I4s", len(body) + 8, kind) + body)
        position += length
    return b"".join(parts)


def renamed(content: bytes, path: str, name: bytes) -> bytes:
    holder, _, kind = path.rpartition("/")
    return edited(content, holder, lambda body: body.replace(kind.encode(), name, 1))


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


STBL = "moov/trak/mdia/minf/stbl"


class TestFacts:
    @pytest.mark.parametrize("content", LAYOUTS.values(), ids=LAYOUTS)
    def test_every_layout(self, content: bytes) -> None:
        facts = read_mp4(io.BytesIO(content))

        assert (facts.duration, facts.width, facts.height) == (pytest.approx(1.0), *SMALL)
        assert (facts.codec, facts.frames) == ("h264", 24)
        assert not demuxer_refuses(content)

    @pytest.mark.parametrize(
        "flags",
        [
            "",
            "faststart",
            "rtphint",
            "negative_cts_offsets",
            "delay_moov+frag_keyframe",
            "frag_every_frame+empty_moov",
            "separate_moof+frag_keyframe",
            "omit_tfhd_offset+frag_keyframe",
            "cmaf+frag_keyframe",
            "skip_sidx+dash+frag_keyframe",
            "hybrid_fragmented",
        ],
    )
    def test_pictures_and_sound_interleaved(self, flags: str) -> None:
        content = mp4(1, size=SMALL, options={"movflags": flags} if flags else {}, audio="aac")

        facts = read_mp4(io.BytesIO(content))

        assert (facts.frames, facts.width, facts.height) == (24, *SMALL)
        assert facts.duration == pytest.approx(1.0, abs=0.1)
        assert has_sound(io.BytesIO(content))
        for missing in (1, 100, len(content) // 2):
            assert refuses(content[:-missing]) or not demuxer_refuses(content[:-missing])

    @pytest.mark.parametrize(
        ("codec", "name", "suffix"),
        [
            ("libx265", "hevc", ".mp4"),
            ("libsvtav1", "av1", ".mp4"),
            ("libvpx-vp9", "vp9", ".mp4"),
            ("mpeg4", "mpeg4", ".mov"),
            ("libx264", "h264", ".3gp"),
            ("libx264", "h264", ".ismv"),
        ],
    )
    def test_other_codecs_and_containers(self, codec: str, name: str, suffix: str) -> None:
        if codec not in av.codecs_available:
            pytest.skip(f"this PyAV has no {codec}")
        facts = read_mp4(io.BytesIO(mp4(1, size=SMALL, options={}, codec=codec, suffix=suffix)))

        assert (facts.codec, facts.frames) == (name, 24)

    def test_lengths_of_64_bits(self) -> None:
        # the muxer leaves eight bytes in front of mdat for this
        start = PLAIN.index(b"\0\0\0\x08free")
        (length,) = struct.unpack_from(">I", PLAIN, start + 8)
        wide = PLAIN[:start] + struct.pack(">I4sQ", 1, b"mdat", length + 8) + PLAIN[start + 16 :]

        assert read_mp4(io.BytesIO(wide)) == read_mp4(io.BytesIO(PLAIN))

    def test_offsets_of_64_bits(self) -> None:
        def widened(body: bytes) -> bytes:
            count, *offsets = struct.unpack(f">{(len(body) - 4) // 4}I", body[4:])
            return body[:4] + struct.pack(f">I{count}Q", count, *offsets)

        wide = renamed(edited(PLAIN, f"{STBL}/stco", widened), f"{STBL}/stco", b"co64")

        assert not demuxer_refuses(wide)
        assert read_mp4(io.BytesIO(wide)) == read_mp4(io.BytesIO(PLAIN))

    @pytest.mark.parametrize("bits", [8, 16])
    def test_short_sample_sizes(self, bits: int) -> None:
        content = mp4(1, size=(16, 16), options={}, noise=0)

        def shortened(body: bytes) -> bytes:
            _, count, *sizes = struct.unpack(f">{(len(body) - 4) // 4}I", body[4:])
            if bits == 8:
                sizes = [min(size, 255) for size in sizes]
            return body[:4] + struct.pack(f">II{count}{'B' if bits == 8 else 'H'}", bits, count, *sizes)

        short = renamed(edited(content, f"{STBL}/stsz", shortened), f"{STBL}/stsz", b"stz2")

        assert read_mp4(io.BytesIO(short)) == read_mp4(io.BytesIO(content))

    def test_sample_sizes_of_four_bits(self) -> None:
        count = 24
        body = struct.pack(">III", 0, 4, count) + bytes([0x12] * (count // 2))
        short = renamed(edited(PLAIN, f"{STBL}/stsz", lambda _: body), f"{STBL}/stsz", b"stz2")

        assert read_mp4(io.BytesIO(short)).frames == count

    def test_the_last_box_may_be_of_no_length(self) -> None:
        content = LAYOUTS["faststart"]
        position = content.index(b"mdat") - 4
        open_ended = content[:position] + b"\0\0\0\0" + content[position + 4 :]

        assert read_mp4(io.BytesIO(open_ended)).frames == 24

    @pytest.mark.parametrize("tail", [b"\0", bytes(40), b"junk behind it", box(b"free", bytes(50))[:20]])
    def test_what_follows_the_last_box_is_skipped_as_players_do(self, tail: bytes) -> None:
        assert read_mp4(io.BytesIO(PLAIN + tail)).frames == 24

    @pytest.mark.parametrize("first", [0, 500, 0x7FFFFFFF])
    def test_an_edit_list_changes_nothing(self, first: int) -> None:
        # half of the video is not shown, or nothing
        other = edited(
            PLAIN, "moov/trak/edts/elst", lambda body: body[:8] + struct.pack(">II", 500, first) + body[16:]
        )

        assert read_mp4(io.BytesIO(other)) == read_mp4(io.BytesIO(PLAIN))

    def test_without_a_size_in_the_description_the_one_it_is_shown_at(self) -> None:
        def without_size(body: bytes) -> bytes:
            return body[:40] + bytes(4) + body[44:]

        facts = read_mp4(io.BytesIO(edited(PLAIN, f"{STBL}/stsd", without_size)))

        assert (facts.width, facts.height) == SMALL

    def test_an_unknown_codec_is_named(self) -> None:
        facts = read_mp4(io.BytesIO(PLAIN.replace(b"avc1\0\0", b"vvc1\0\0", 1)))

        assert facts.codec == "vvc1"


class TestRefused:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            pytest.param(b"", "no index", id="nothing"),
            pytest.param(b"<!doctype html><html>expired</html>" * 50, "no index", id="html"),
            pytest.param(b'{"message": "expired"}', "no index", id="json"),
            pytest.param(b"#EXTM3U\n#EXTINF:5,\n/etc/hostname\n", "no index", id="playlist"),
            pytest.param(picture("PNG"), "no index", id="picture"),
            pytest.param(bytes(5000), "no index", id="zeros"),
            pytest.param(box(b"ftyp", b"isom") + bytes(5000), "no index", id="a first box alone"),
            pytest.param(box(b"moov", b""), "no box 'mvhd'", id="an empty index"),
            pytest.param(m4a(), "holds no video stream", id="sound"),
        ],
    )
    def test_what_is_no_video(self, content: bytes, words: str) -> None:
        with pytest.raises(Mp4Error, match=words):
            read_mp4(io.BytesIO(content))

    def test_a_fragment_that_the_table_at_the_end_names_is_missing(self) -> None:
        content = LAYOUTS["fragmented"]
        first = content.index(b"moof")

        with pytest.raises(Mp4Error, match="no fragment begins at byte"):
            read_mp4(io.BytesIO(content[:first] + b"free" + content[first + 4 :]))

    @settings(deadline=None)
    @given(st.sampled_from([*LAYOUTS]), st.floats(min_value=0, max_value=1, exclude_max=True))
    def test_a_file_cut_at_any_byte_is_refused_where_a_demuxer_would(self, layout: str, part: float) -> None:
        whole = LAYOUTS[layout]
        cut = whole[: int(len(whole) * part)]

        assert refuses(cut) or not demuxer_refuses(cut)

    @settings(deadline=None)
    @given(st.sampled_from(["plain", "faststart", "QuickTime", "M4V"]), st.integers(min_value=1))
    def test_a_file_without_fragments_cut_at_any_byte_is_refused(self, layout: str, missing: int) -> None:
        whole = LAYOUTS[layout]

        assert refuses(whole[: -(1 + missing % len(whole))])

    @settings(deadline=None, max_examples=300)
    @given(st.sampled_from([*LAYOUTS]), st.data())
    def test_damage_at_any_byte_is_refused_where_a_demuxer_would(
        self, layout: str, data: st.DataObject
    ) -> None:
        whole = LAYOUTS[layout]
        # four of five in the index, which is a tenth of the file
        index = st.sampled_from(INDEX[layout])
        position = data.draw(st.one_of(index, index, index, index, st.integers(0, len(whole) - 1)))
        damaged = bytearray(whole)
        damaged[position] ^= data.draw(st.integers(1, 255))

        if demuxer_refuses(damaged) and not refuses(damaged):
            assert box_at(whole, position) in ONLY_A_PLAYER_SEES

    @settings(deadline=None)
    @given(st.binary(max_size=400), st.integers(0, len(PLAIN)))
    def test_whatever_stands_in_a_file_raises_nothing_else(self, content: bytes, position: int) -> None:
        refuses(content)
        refuses(PLAIN[:position] + content + PLAIN[position + len(content) :])


class TestBounded:
    """Hostile files: a few bytes that claim billions of samples take neither memory nor time."""

    BILLIONS = 0xFFFFFFFF

    def tables(self) -> dict[str, bytes]:
        most = self.BILLIONS
        return {
            "sizes": edited(PLAIN, f"{STBL}/stsz", lambda _: struct.pack(">III", 0, 0, most)),
            "one size": edited(PLAIN, f"{STBL}/stsz", lambda _: struct.pack(">III", 0, 1, most)),
            "one chunk": edited(
                edited(PLAIN, f"{STBL}/stsz", lambda _: struct.pack(">III", 0, 1, most)),
                f"{STBL}/stsc",
                lambda _: struct.pack(">IIIII", 0, 1, 1, most, 1),
            ),
            "chunks": edited(PLAIN, f"{STBL}/stco", lambda _: struct.pack(">II", 0, most)),
            "times": edited(PLAIN, f"{STBL}/stts", lambda _: struct.pack(">IIII", 0, 1, most, most)),
            "runs": edited(PLAIN, f"{STBL}/stsc", lambda _: struct.pack(">II", 0, most)),
            "descriptions": edited(
                PLAIN, f"{STBL}/stsd", lambda body: struct.pack(">II", 0, most) + body[8:]
            ),
            "a run of a fragment": edited(
                LAYOUTS["fragmented"],
                "moof/traf/trun",
                lambda body: body[:4] + struct.pack(">I", most) + body[8:],
            ),
            "a run without sizes": edited(
                LAYOUTS["fragmented"], "moof/traf/trun", lambda _: struct.pack(">II", 0, most)
            ),
            "the table at the end": edited(
                LAYOUTS["fragmented"], "mfra/tfra", lambda body: body[:12] + struct.pack(">I", most)
            ),
        }

    @pytest.mark.parametrize(
        "name",
        [
            "sizes",
            "one size",
            "one chunk",
            "chunks",
            "times",
            "runs",
            "descriptions",
            "a run of a fragment",
            "a run without sizes",
            "the table at the end",
        ],
    )
    def test_claims_are_checked_before_anything_is_allocated(self, name: str) -> None:
        content = self.tables()[name]

        tracemalloc.start()
        started = time.process_time()
        try:
            with pytest.raises(Mp4Error):
                read_mp4(io.BytesIO(content))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert peak < 1_000_000
        assert time.process_time() - started < 0.5

    def test_boxes_are_counted(self) -> None:
        with pytest.raises(Mp4Error, match=f"more than {MOST_BOXES:,} boxes"):
            read_mp4(io.BytesIO(box(b"free", b"") * (MOST_BOXES + 1)))

    def test_an_index_without_end_is_not_read(self) -> None:
        class Sparse(io.BytesIO):
            """A file of a terabyte."""

            def seek(self, offset: int, whence: int = 0) -> int:
                return 1 << 40 if whence == 2 else super().seek(offset, whence)

        head = struct.pack(">I4sQ", 1, b"moov", 1 << 40)

        with pytest.raises(Mp4Error, match=f"more than {LARGEST_INDEX // 1024**2} MiB"):
            read_mp4(Sparse(head))

    def test_no_copy_of_the_file_is_held(self) -> None:
        content = io.BytesIO(PLAIN + box(b"free", bytes(5_000_000)))

        tracemalloc.start()
        try:
            read_mp4(content)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert peak < 100_000

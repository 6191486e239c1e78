"""Is it a whole video? Asked of a real demuxer, which reads every packet and decodes none."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import IO, Final

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from airflow_provider_kling.api.exceptions import (
    DownloadError,
)

log = logging.getLogger(__name__)

_CONTAINER: Final = "mp4"
"""The vendor documents MP4. Naming it keeps libav from taking a playlist, which would make it open
other addresses, or a single picture for a video."""


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video file says about itself.

    :param duration: seconds.
    :param width: pixels.
    :param height: pixels.
    :param codec: name of the video codec, for example ``h264``.
    :param frames: number of coded frames of the video stream.
    """

    duration: float
    width: int
    height: int
    codec: str
    frames: int


def probe(source: str | os.PathLike[str] | IO[bytes], *, generation_id: str) -> VideoFacts:
    """Read a video's facts, and check that it is whole.

    Every packet is read to the end, in constant memory; nothing is decoded.

    :param source: path of a local file, or a seekable binary file.
    :param generation_id: the generation it came from, for the error's message.
    :raises DownloadError: not an MP4 file, no video stream in it, or cut off.
    """
    opened = os.fspath(source) if isinstance(source, os.PathLike) else source
    try:
        with av.open(opened, mode="r", format=_CONTAINER) as container:
            return _read(container, generation_id)
    except av.error.InvalidDataError as error:
        raise _unusable("is not a readable MP4 video, or it is cut off", generation_id) from error
    except av.error.FFmpegError as error:
        raise _unusable(f"cannot be read as a video ({error.strerror})", generation_id) from error


def warn_of_other_length(duration: float, expected_seconds: float | None, generation_id: str) -> None:
    """Log a warning where a video is clearly shorter or longer than what was asked for.

    The vendor's 5 s clips are often 5.04 s long, so a second, or a fifth for long clips, is
    nothing to talk about. Another length is no error: the video is paid for, and whole.

    :param duration: seconds, as the file says.
    :param expected_seconds: seconds that were asked for; None where nobody knows.
    """
    if expected_seconds is None:
        return
    if abs(duration - expected_seconds) > max(1.0, 0.2 * expected_seconds):
        log.warning(
            "The video of generation %s is %.2f s long, not %.2f s. It is whole, and kept.",
            generation_id,
            duration,
            expected_seconds,
        )


def _read(container: InputContainer, generation_id: str) -> VideoFacts:
    if not container.streams.video:
        raise _unusable("holds no video stream", generation_id)
    stream = container.streams.video[0]
    frames, end = 0, 0
    for packet in container.demux():
        # libav flags a packet that ends with the file before its own end
        if packet.is_corrupt:
            raise _unusable(f"is cut off or damaged after {frames} frame(s)", generation_id)
        if packet.stream_index == stream.index and packet.size:
            frames += 1
            end = max(end, (packet.pts or 0) + (packet.duration or 0))
    # stream.frames is what the file's index announces; 0 in a fragmented file, which has none
    if frames == 0 or frames < stream.frames:
        raise _unusable(f"holds {frames} of {stream.frames} frame(s): it is cut off", generation_id)
    if not stream.width or not stream.height:
        raise _unusable("has a video stream without a size", generation_id)
    return VideoFacts(
        duration=_seconds(container, stream, end),
        width=stream.width,
        height=stream.height,
        codec=stream.codec_context.name,
        frames=frames,
    )


def _seconds(container: InputContainer, stream: VideoStream, end: int) -> float:
    if container.duration:
        return container.duration / av.time_base
    return float(end * stream.time_base) if stream.time_base else 0.0


def _unusable(what: str, generation_id: str) -> DownloadError:
    return DownloadError(
        f"What came as the video of generation {generation_id} {what}.",
        advice="Run the task again: it fetches the same generation from a fresh URL.",
        generation_id=generation_id,
    )

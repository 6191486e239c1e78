"""Whether a downloaded file is the complete video of a generation."""

from __future__ import annotations

import os
from typing import BinaryIO

from airflow_provider_kling.api.download.mp4_boxes import Mp4Error, VideoFacts, read_mp4
from airflow_provider_kling.api.exceptions import DownloadError
from airflow_provider_kling.api.redaction import logger

log = logger(__name__)


def probe(source: str | os.PathLike[str] | BinaryIO, *, generation_id: str) -> VideoFacts:
    """Read a video's facts, and check that the file is complete: every sample of its index is in it.

    Nothing is decoded, so damage inside a frame is not seen here: the checksums that the server
    states, where it states any, were compared while the file arrived.

    :param source: path of a local file, or a seekable binary file.
    :param generation_id: the generation it came from, for the error's message.
    :raises DownloadError: not an MP4 file, no video stream in it, damaged, or cut off.
    """
    try:
        if isinstance(source, str | os.PathLike):
            with open(source, "rb") as file:
                return read_mp4(file)
        return read_mp4(source)
    except Mp4Error as error:
        raise DownloadError(
            f"The file downloaded as the video of generation {generation_id} {error}.",
            advice="Run the task again: it fetches the same generation from a fresh URL.",
            generation_id=generation_id,
        ) from error


def warn_of_other_length(duration: float, expected_seconds: float | None, generation_id: str) -> None:
    """Log a warning where a video is clearly shorter or longer than what was asked for.

    The vendor's 5 s clips are often 5.04 s long, so a second, or a fifth for long clips, is not
    worth a warning. Another length is no error: the video is paid for, and complete.

    :param duration: seconds, as the file says.
    :param expected_seconds: seconds that were requested; None if unknown.
    """
    if expected_seconds is None:
        return
    if abs(duration - expected_seconds) > max(1.0, 0.2 * expected_seconds):
        log.warning(
            "Video of generation %s is %.2f s long, expected %.2f s; keeping it (the file is complete).",
            generation_id,
            duration,
            expected_seconds,
        )

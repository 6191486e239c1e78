"""From the vendor's CDN to where the user wants the video: whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import random as _random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_kling.api.download.mp4_boxes import VideoFacts
from airflow_provider_kling.api.download.resumable_fetch import Fetch, VideoSource, new_digest
from airflow_provider_kling.api.download.targets import TakenError, Target, target_for
from airflow_provider_kling.api.download.verify import probe, warn_of_other_length
from airflow_provider_kling.api.exceptions import DownloadError, Recovery
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.api.paths import safe_name
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.retry import Clock, Random, RetryPolicy

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class SavedVideo:
    """A video that is where it was wanted.

    :param path: the target, as it was given.
    :param size: bytes.
    :param sha256: of its content, hexadecimal.
    :param duration: seconds, as the file says.
    :param width: pixels.
    :param height: pixels.
    :param skipped: True when it was there already, and nothing was downloaded.
    """

    path: str
    size: int
    sha256: str
    duration: float
    width: int
    height: int
    skipped: bool


def save_video(
    fetch: Fetch,
    ask_vendor: Callable[[], Generation],
    target: object,
    *,
    generation_id: str,
    overwrite: bool = False,
    expected_seconds: float | None = None,
    retries: RetryPolicy | None = None,
    pause: Callable[[float], None] = time.sleep,
    random: Random = _random.random,
    now: Clock = time.time,
) -> SavedVideo:
    """Bring a generation's video to its target. Never submits, never costs anything.

    The video is streamed to a temporary file, resumed where the connection breaks, checked against
    the length and the checksums that the server states, read to its end by a demuxer, and only
    then given its name. Whatever fails, no half file is seen and no temporary file stays.

    :param fetch: opens a URL; the client's.
    :param ask_vendor: asks the vendor for the completed generation with its signed URL, now and when
        that expired.
    :param target: a local path (str or ``os.PathLike``), or a path in object storage.
    :param overwrite: False keeps a file that is there: when it is this video (the same length,
        readable to its end, and the checksums that the server states, or else this generation's id
        in its name) nothing is downloaded, so that a retry costs nothing; where neither tells, it
        is compared with the video. Another file is an error. True replaces whatever is there.
    :param expected_seconds: length that was asked for; another one is logged.
    :param retries: how often to retry the CDN; None for the default.
    :param pause: how to wait, in seconds.
    :param random: jitter in [0, 1).
    :param now: epoch seconds.
    :raises DownloadError: with what happened and what to do; the generation stays paid and usable.
    """
    place = target_for(target, generation_id)
    source = VideoSource(
        fetch,
        ask_vendor,
        generation_id=generation_id,
        retries=retries or RetryPolicy(),
        pause=pause,
        random=random,
        now=now,
    )
    there = None if overwrite else place.size()
    if there is not None:
        saved = _existing(source, place, there, generation_id)
    else:
        try:
            saved = _download(source, place, overwrite, generation_id)
        except TakenError:  # by another task, or by a previous attempt of this one that still ran
            there = place.size()
            if there is None:
                raise _other_file("this connection may not read it", place, generation_id) from None
            saved = _existing(source, place, there, generation_id)
    warn_of_other_length(saved.duration, expected_seconds, generation_id)
    return saved


def _download(source: VideoSource, place: Target, overwrite: bool, generation_id: str) -> SavedVideo:
    with place.staging() as staged:
        sha256 = source.save(staged)
        size = staged.stat().st_size
        with ThreadPoolExecutor(1, "kling-flush") as thread:  # while the demuxer reads it
            flushed = thread.submit(place.flush, staged)
            facts = probe(staged, generation_id=generation_id)
        flushed.result()
        place.place(staged, overwrite=overwrite)
    saved = _saved_video(place, size, sha256, facts, skipped=False)
    log.info(
        "The video of generation %s is at %s: %d bytes, %.2f s, %d x %d.",
        generation_id,
        saved.path,
        saved.size,
        saved.duration,
        saved.width,
        saved.height,
    )
    return saved


def _existing(source: VideoSource, place: Target, there: int, generation_id: str) -> SavedVideo:
    """Facts of the file that is there, if it is the generation's video."""
    remote = source.remote()
    if remote.size is not None and remote.size != there:
        raise _other_file(f"it has {there} bytes, the video {remote.size}", place, generation_id)
    with place.copy() as local:
        for name, stated in remote.checksums.items():
            if _digest(local, name) != stated:
                raise _other_file(f"its {name} is another", place, generation_id)
        sha256 = _digest(local, "sha256")
        try:
            facts = probe(local, generation_id=generation_id)
        except DownloadError as error:
            raise _other_file("it is not a whole video", place, generation_id) from error
    # Two clips can have one length: where neither a checksum nor the name tells, the content does.
    told = remote.checksums or safe_name(generation_id) in place.shown
    if remote.size is None or not told:
        with place.staging() as staged:
            if source.save(staged) != sha256:
                raise _other_file("its content is another", place, generation_id)
    log.info("The video of generation %s is at %s already; nothing to do.", generation_id, place.shown)
    return _saved_video(place, there, sha256, facts, skipped=True)


def _saved_video(place: Target, size: int, sha256: str, facts: VideoFacts, *, skipped: bool) -> SavedVideo:
    return SavedVideo(
        path=place.shown,
        size=size,
        sha256=sha256,
        duration=facts.duration,
        width=facts.width,
        height=facts.height,
        skipped=skipped,
    )


def _other_file(how: str, place: Target, generation_id: str) -> DownloadError:
    return DownloadError(
        f"{place.shown} exists, and it is not the video of generation {generation_id}: {how}.",
        advice="The file was left as it is. Remove it, choose a path with {generation_id} in it, or set "
        "overwrite=True; then clear the task: the same generation is used.",
        recovery=Recovery.GIVE_UP,
        generation_id=generation_id,
    )


def _digest(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: new_digest(name)).hexdigest()

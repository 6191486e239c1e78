"""The JSON file beside a video: what was asked for, what came of it, what it cost."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_kling.api.download.save_video import SavedVideo
from airflow_provider_kling.api.download.targets import TakenError, Target, target_for
from airflow_provider_kling.api.exceptions import KlingError
from airflow_provider_kling.api.redaction import clean
from airflow_provider_kling.hooks.object_storage import place_of

log = logging.getLogger(__name__)

SCHEMA: Final = 1
_LARGEST: Final = 10 * 1024 * 1024  # bytes; no sidecar is near that


def sidecar_path(video: str) -> str:
    """The sidecar's path for a video's: ``clip.mp4`` has ``clip.json`` beside it."""
    head, slash, name = video.rpartition("/")
    stem = PurePosixPath(name).stem if name.lower().endswith((".mp4", ".mov", ".m4v")) else name
    return f"{head}{slash}{stem}.json"


def content(
    saved: SavedVideo,
    *,
    generation_id: str,
    saved_at: float,
    request: Mapping[str, Any] | None,
    cost: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What a sidecar says.

    :param saved_at: epoch seconds.
    :param request: as the operator pushes it to XCom: media by their source and checksum, never
        their bytes. None where only the generation is known.
    :param cost: as :meth:`.Cost.as_dict` wrote it.
    """
    asked = dict(request or {})
    return {
        "schema": SCHEMA,
        "generation_id": generation_id,
        "client_request_id": asked.get("client_request_id"),
        "model": asked.get("model"),
        "request": asked.get("parameters"),
        "submitted_at": _iso(asked.get("submitted_at")),
        "saved_at": _iso(saved_at),
        "cost": dict(cost) if cost else None,
        "video": {
            "path": saved.path,
            "size": saved.size,
            "sha256": saved.sha256,
            "duration": saved.duration,
            "width": saved.width,
            "height": saved.height,
        },
    }


def check_writable(path: str, *, conn_id: str | None = None) -> None:
    """Try that a sidecar can be written, and replaces nothing but an older sidecar.

    :param path: see :func:`.place_of`; the longest that it can be.
    :raises DownloadError: it could not be written.
    """
    target = target_for(place_of(path, conn_id), "to come")
    size = target.size()
    target.check_writable(free=size is not None and not _is_sidecar(target, size))


def write(path: str, said: Mapping[str, Any], *, generation_id: str, conn_id: str | None = None) -> bool:
    """Write a sidecar in one step for every reader; an older one is replaced, any other file is left alone.

    Never fails: the video is saved, and a sidecar only informs. Why it was not written is logged.

    :param path: see :func:`.place_of`.
    :param conn_id: the connection of the storage, where the URI names none.
    :return: whether it was written.
    """
    try:
        target = target_for(place_of(path, conn_id), generation_id)
        size = target.size()
        if size is not None and not _is_sidecar(target, size):
            log.warning(
                "Did not write the sidecar of generation %s: %s exists, and is not a sidecar. "
                "The video is saved.",
                generation_id,
                path,
            )
            return False
        text = json.dumps(said, indent=2, ensure_ascii=False) + "\n"
        with target.staging() as staged:
            # half an emoji, as a template can leave it, becomes its escape
            staged.write_text(text, encoding="utf-8", errors="backslashreplace")
            target.flush(staged)
            target.place(staged, overwrite=size is not None)
    except TakenError:
        log.warning(
            "Did not write the sidecar of generation %s: something is at %s that this connection may not "
            "read, or appeared there just now. The video is saved.",
            generation_id,
            path,
        )
        return False
    except Exception as error:  # storage libraries raise what they like
        why = error.what if isinstance(error, KlingError) else f"{type(error).__name__}: {error}"
        log.warning(
            "Could not write the sidecar of generation %s to %s: %s. The video is saved.",
            generation_id,
            path,
            clean(why).rstrip("."),
        )
        return False
    return True


def _is_sidecar(target: Target, size: int) -> bool:
    """Whether what is there is a sidecar, of whatever generation."""
    if size > _LARGEST:
        return False
    with target.copy() as local:
        try:
            said = json.loads(local.read_bytes())
        except ValueError:
            return False
    return isinstance(said, dict) and isinstance(said.get("schema"), int) and "generation_id" in said


def _iso(epoch: Any) -> str | None:
    if not isinstance(epoch, int | float):
        return None
    try:
        return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # no moment that a calendar has
        return None

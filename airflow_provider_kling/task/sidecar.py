"""The JSON file beside a video: what was asked for, what came of it, what it cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_kling.api.download.save_video import SavedVideo
from airflow_provider_kling.api.download.targets import target_for
from airflow_provider_kling.hooks.object_storage import place_of

SCHEMA: Final = 1


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

    :param landed_at: epoch seconds.
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


def write(path: str, said: Mapping[str, Any], *, generation_id: str, conn_id: str | None = None) -> None:
    """Write a sidecar in one step for every reader; an older one is replaced.

    :param path: see :func:`.place_of`.
    :param conn_id: the connection of the storage, where the URI names none.
    :raises DownloadError: it could not be written; the video is there.
    """
    target = target_for(place_of(path, conn_id), generation_id)
    with target.staging() as staged:
        staged.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        target.flush(staged)
        target.place(staged, overwrite=True)


def _iso(epoch: Any) -> str | None:
    if not isinstance(epoch, int | float):
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")

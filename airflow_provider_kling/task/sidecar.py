"""The JSON file beside a video: what was asked for, what came of it, what it cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Final

from airflow_provider_kling.api.download.save_video import SavedVideo
from airflow_provider_kling.api.download.targets import TakenError, Target, target_for
from airflow_provider_kling.api.exceptions import DownloadError, KlingError, Money, Recovery
from airflow_provider_kling.api.paths import is_stored, local_path
from airflow_provider_kling.api.redaction import clean, logger
from airflow_provider_kling.hooks.object_storage import place_of, target_path

log = logger(__name__)

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


@dataclass(frozen=True, slots=True)
class Existing:
    """A video of this provider that stands at a target path.

    :param generation_id: what made it, as its sidecar says.
    :param client_request_id: likewise.
    :param sha256: of the file.
    :param video: the file; None where it is the video of another request.
    """

    generation_id: str
    client_request_id: str | None
    sha256: str
    video: SavedVideo | None = None


def look_at_target(path: Any, described: Mapping[str, Any]) -> Existing | None:
    """Compare what stands at a path with a request.

    :param path: the target, without a placeholder for the generation.
    :param described: the request: model, and parameters with media by checksum.
    :return: None where nothing stands there.
    :raises KlingError: a file is there that this provider did not write, or that was changed since; or the
        storage cannot be asked. Nothing was submitted.
    """
    place = target_path(path, generation_id="x", model=described.get("model"))
    target = target_for(place, "to come")
    try:
        size = target.size()
        if size is None:
            return None
        said = _sidecar(sidecar_path(target.shown), getattr(path, "conn_id", None))
        video = said.get("video") if said else None
        if said is None or not isinstance(video, dict) or video.get("size") != size:
            raise _foreign(target.shown, "no sidecar tells what it was made from, or it has another size")
        digest = _sha256(target)
    except (KlingError, DownloadError):
        raise
    except Exception as error:  # storage libraries raise what they like
        raise KlingError(
            f"Could not check what is at {target.shown}: {type(error).__name__}: {clean(str(error))}.",
            money=Money.NOT_SPENT,
            recovery=Recovery.RETRY_TASK,
        ) from error
    if digest != video.get("sha256"):
        raise _foreign(target.shown, "it was changed since it was saved")
    generation_id = str(said.get("generation_id") or "")
    if _by_content(said.get("model"), said.get("request")) != _by_content(
        described.get("model"), described.get("parameters")
    ):
        return Existing(generation_id, said.get("client_request_id"), digest)
    saved = SavedVideo(
        path=target.shown,
        size=size,
        sha256=digest,
        duration=video.get("duration") or 0.0,
        width=video.get("width") or 0,
        height=video.get("height") or 0,
        skipped=True,
    )
    return Existing(generation_id, said.get("client_request_id"), digest, saved)


def is_still(path: Any, sha256: str | None, *, model: str | None = None) -> bool:
    """Whether what stands at a path is the file that was found there before; False where it cannot be read.

    :param path: the target, without a placeholder for the generation.
    :param sha256: of the file that was found; None for none.
    """
    if sha256 is None:
        return False
    target = target_for(target_path(path, generation_id="x", model=model), "to come")
    try:
        return target.size() is not None and _sha256(target) == sha256
    except Exception as error:  # storage libraries raise what they like
        log.warning("Could not check what is at %s: %s", target.shown, clean(str(error)))
        return False


def _sha256(target: Target) -> str:
    with target.copy() as local, local.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sidecar(path: str, conn_id: str | None) -> dict[str, Any] | None:
    try:
        place: Any = place_of(path, conn_id)
        stored: bool = is_stored(place)
        with place.open("rb") if stored else local_path(place).open("rb") as file:
            said = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return None
    return said if isinstance(said, dict) and "generation_id" in said else None


def _by_content(model: Any, parameters: Any) -> str:
    return json.dumps([model, _without_sources(parameters)], sort_keys=True, default=str)


def _without_sources(value: Any) -> Any:
    """Media count by their checksum, wherever they were read from."""
    if isinstance(value, Mapping):
        if "sha256" in value and "source" in value:
            return {"sha256": value["sha256"]}
        return {name: _without_sources(each) for name, each in value.items()}
    return [_without_sources(each) for each in value] if isinstance(value, list | tuple) else value


def _foreign(path: str, why: str) -> KlingError:
    return KlingError(
        f"{path} exists, and skip_unchanged cannot tell what it is: {why}.",
        money=Money.NOT_SPENT,
        advice="The file was left as it is. Remove it, or choose another path; then clear the task.",
        recovery=Recovery.GIVE_UP,
    )

"""What operators leave behind of a completed generation: the video, its sidecar, XComs, asset events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_kling.api.billing.cost import Cost, cost_of
from airflow_provider_kling.api.billing.price_list import video_seconds, with_defaults
from airflow_provider_kling.api.calls import LONGEST_LOG_WINDOW
from airflow_provider_kling.api.exceptions import KlingError
from airflow_provider_kling.api.generation import Generation, GenerationRequest, GenerationStatus
from airflow_provider_kling.api.redaction import clean, logger
from airflow_provider_kling.api.retry import CLOCK_SKEW
from airflow_provider_kling.hooks import metrics
from airflow_provider_kling.hooks.lineage import media_uris, place_uri, tell_assets
from airflow_provider_kling.task import sidecar, xcom

if TYPE_CHECKING:
    from airflow_provider_kling.api.download.save_video import SavedVideo
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.task.sidecar import Existing
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)

Push = Callable[[str, Any], None]
"""Pushes an XCom: key, value."""


@dataclass(slots=True)
class Variant:
    """One generation of a task, from its request to its saved video.

    :param generation_id: None until it was submitted.
    :param index: its place in the list of variants.
    :param request: what was asked for, as :data:`.xcom.REQUEST` has it; None until it was submitted, or if
        that is not known.
    :param generation: as the vendor described it when its video could be fetched.
    :param path: where its video was saved; None for nowhere.
    :param duration: seconds of video.
    :param cost: as :meth:`.Cost.as_dict` writes it.
    :param failure: why there is no video.
    :param reused: whether it was completed before this attempt began.
    :param unchanged: whether the video stood there, and nothing was submitted.
    :param replaces: SHA-256 of the file at the path, which was made from another request.
    :param is_done: whether nothing is left to do for it.
    """

    generation_id: str | None = None
    index: int = 0
    request: Mapping[str, Any] | None = None
    generation: Generation | None = None
    path: str | None = None
    duration: float | None = None
    cost: Mapping[str, Any] | None = None
    failure: KlingError | None = None
    reused: bool = False
    unchanged: bool = False
    replaces: str | None = None
    is_done: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """What an asset's event says of it."""
        facts = {
            "generation_id": self.generation_id,
            "model": (self.request or {}).get("model"),
            "path": self.path,
            "duration": self.duration,
            "cost": self.cost,
            "reused": self.unchanged or None,
        }
        return {name: value for name, value in facts.items() if value is not None}


def save_video(
    hook: KlingHook,
    generation_id: str,
    path: Any,
    push: Push,
    *,
    overwrite: bool,
    with_sidecar: bool,
    request: Mapping[str, Any] | None = None,
    cost: Cost | None = None,
) -> SavedVideo:
    """Save the video, push ``video`` and ``path``, and write the sidecar, which never fails the task.

    :param request: see :class:`Variant`.
    :return: the video, and where it is.
    :raises DownloadError: the generation stays paid and can be saved again.
    """
    saved = hook.download(
        generation_id,
        path,
        overwrite=overwrite,
        model=_named(request, "model"),
        client_request_id=_named(request, "client_request_id"),
        expected_seconds=expected_seconds(request),
    )
    facts = asdict(saved)
    del facts["skipped"]
    push(xcom.VIDEO, {"generation_id": generation_id, **facts})
    push(xcom.PATH, saved.path)
    if with_sidecar:
        write_sidecar(
            saved,
            generation_id=generation_id,
            request=request,
            cost=cost.as_dict() if cost else None,
            conn_id=getattr(path, "conn_id", None),
        )
    return saved


def reuse_video(push: Push, variant: Variant, existing: Existing, described: Mapping[str, Any]) -> None:
    """Push what a task pushes for a video that it made, of one that stood there unchanged.

    :param variant: whose video it is.
    :param existing: what stands there.
    :param described: the request; see :class:`.GenerationRequest`.
    """
    video, generation_id = existing.video, existing.generation_id
    assert video is not None
    log.info(
        "%s is the video of this very request (generation %s) and unchanged; keeping it. Nothing was "
        "submitted, and this costs nothing.",
        video.path,
        generation_id,
    )
    variant.generation_id, variant.path, variant.duration = generation_id, video.path, video.duration
    variant.request = {
        xcom.GENERATION_ID: generation_id,
        **described,
        "client_request_id": existing.client_request_id,
        "submitted_at": None,
    }
    variant.cost = Cost(0.0, 0.0, None, None).as_dict()
    variant.unchanged = variant.is_done = True
    facts = asdict(video)
    del facts["skipped"]
    push(xcom.GENERATION_ID, generation_id)
    push(xcom.CLIENT_REQUEST_ID, existing.client_request_id)
    push(xcom.REQUEST, variant.request)
    push_generation(
        push, Generation(generation_id, GenerationStatus.COMPLETED, "completed", duration=video.duration)
    )
    push(xcom.COST, variant.cost)
    push(xcom.VIDEO, {"generation_id": generation_id, **facts})
    push(xcom.PATH, video.path)
    push(xcom.WAS_REUSED, True)


def _named(request: Any, name: str) -> str | None:
    """What a request has under a name; None where that is no text, as after somebody edited an XCom."""
    value = request.get(name) if isinstance(request, Mapping) else None
    return value if isinstance(value, str) else None


def expected_seconds(request: Mapping[str, Any] | None) -> float | None:
    """How long the video should be by what was asked for; None where that does not tell.

    :param request: see :class:`Variant`.
    """
    with only_informs("work out the length that was asked for"):
        if request:
            return video_seconds(with_defaults(request["model"], request["parameters"]))
    return None


def write_sidecar(
    saved: SavedVideo,
    *,
    generation_id: str,
    request: Mapping[str, Any] | None,
    cost: Mapping[str, Any] | None,
    saved_at: float | None = None,
    conn_id: str | None = None,
) -> None:
    """Write the JSON file beside a video; never fails the task.

    :param request: see :class:`Variant`, also for the next one.
    :param saved_at: epoch seconds; None for now.
    :param conn_id: of the object storage, where the path does not name it.
    """
    with only_informs("write the sidecar"):
        now = time.time() if saved_at is None else saved_at
        said = sidecar.content(saved, generation_id=generation_id, saved_at=now, request=request, cost=cost)
        beside = sidecar.sidecar_path(saved.path)
        sidecar.write(beside, said, generation_id=generation_id, conn_id=conn_id)


@contextmanager
def only_informs(what: str) -> Iterator[None]:
    """Keep a video that is paid from failing for want of what is said about it."""
    try:
        yield
    except Exception as error:  # whatever it is: the video matters more
        log.warning("Could not %s; continuing: %s: %s", what, type(error).__name__, clean(str(error)))


def push_generation(push: Push, generation: Generation) -> None:
    """What a finished wait leaves in XCom: ``video_url``, signed and expiring, and ``generation``."""
    push(xcom.VIDEO_URL, generation.video_url)
    push(xcom.GENERATION, generation.as_dict())


def push_cost(
    hook: KlingHook, generation: Generation, push: Push, request: Mapping[str, Any] | None = None
) -> Cost:
    """Ask what a completed generation cost, and push it as ``cost``; never fails for want of an answer.

    :param request: see :class:`Variant`; without it there is no estimate.
    """
    cost = Cost(generation.credits_used, None, None, None)
    with only_informs("look up what the generation cost"):
        client = hook.get_conn()
        asked = request or {}
        since = asked.get("submitted_at") or client.calls.now() - LONGEST_LOG_WINDOW
        wanted = GenerationRequest(asked["model"], asked["parameters"]) if "parameters" in asked else None
        cost = client.run(cost_of(client.calls, generation, since=since - CLOCK_SKEW, request=wanted))
    push(xcom.COST, cost.as_dict())
    return cost


def count_completion(
    context: Context, generation: Generation, cost: Cost, request: Mapping[str, Any] | None
) -> None:
    """Send the metrics of a generation that completed while this task waited for it.

    :param request: see :class:`Variant`.
    """
    with only_informs("count the completion"):
        tags, asked = metrics.task_tags(context), request or {}
        submitted_at = asked.get("submitted_at")
        seconds = None if submitted_at is None else time.time() - submitted_at
        model = generation.model or asked.get("model")
        metrics.count_completion(tags, model, seconds)
        metrics.count(metrics.CREDITS, cost.credits or 0, **tags, model=model)


def announce(
    context: Context, outlets: Sequence[Any], results: Sequence[Variant], *, several: bool = False
) -> tuple[list[str], list[str]]:
    """Put what was made into the events of the task's outlet assets.

    :param outlets: the task's.
    :param results: all that the task made. Airflow keeps what is announced here only if the task does not
        defer afterwards, so call it at the end.
    :param several: whether an asset's event gets a list of each fact, as the XComs have it.
    :return: URIs of the pictures that went in, and of the videos that came out.
    """
    with only_informs("tell the task's outlet assets"):
        tell_assets(context, outlets, [each.facts for each in results], several=several)
    inputs: list[str] = []
    outputs: list[str] = []
    with only_informs("work out the task's lineage"):
        inputs = [uri for each in results for uri in media_uris((each.request or {}).get("parameters"))]
        outputs = [uri for each in results if each.path is not None and (uri := place_uri(each.path))]
    return list(dict.fromkeys(inputs)), outputs

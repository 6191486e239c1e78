"""What operators leave behind of a completed generation: the video, its sidecar, XComs, asset events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_kling.api.cost import Cost, cost_of
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.once import CLOCK_SKEW
from airflow_provider_kling.api.pricing import video_seconds
from airflow_provider_kling.hooks import sidecar
from airflow_provider_kling.hooks.lineage import media_uris, place_uri, tell_assets
from airflow_provider_kling.waiting import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from airflow_provider_kling.compat import Context
    from airflow_provider_kling.hooks.kling import KlingHook

Push = Callable[[str, Any], None]
"""Pushes an XCom: key, value."""


def land(
    hook: KlingHook,
    generation_id: str,
    path: Any,
    push: Push,
    *,
    overwrite: bool,
    with_sidecar: bool,
    request: Mapping[str, Any] | None = None,
    cost: Cost | None = None,
) -> str:
    """Land the video, and then its sidecar; pushes ``video`` and ``path``.

    :param request: what was asked for, as :class:`.Generating` pushes it; None where nobody knows.
    :return: where the video is.
    :raises DownloadError: the generation stays paid and can be landed again.
    """
    asked = request or {}
    landed = hook.download(
        generation_id,
        path,
        overwrite=overwrite,
        model=asked.get("model"),
        client_request_id=asked.get("client_request_id"),
        expected_seconds=video_seconds(asked.get("parameters") or {}),
    )
    if with_sidecar:
        said = sidecar.content(
            landed,
            generation_id=generation_id,
            landed_at=time.time(),
            request=request,
            cost=cost.as_dict() if cost else None,
        )
        beside = sidecar.sidecar_path(landed.path)
        sidecar.write(beside, said, generation_id=generation_id, conn_id=getattr(path, "conn_id", None))
    facts = asdict(landed)
    del facts["skipped"]
    push("video", {"generation_id": generation_id, **facts})
    push("path", landed.path)
    return landed.path


def push_cost(
    hook: KlingHook, generation: Generation, push: Push, request: Mapping[str, Any] | None = None
) -> Cost:
    """Ask what a completed generation cost, and push it as ``cost``; never fails for want of an answer.

    :param request: see :func:`land`; without it there is no estimate.
    """
    client = hook.get_conn()
    asked = request or {}
    since = asked.get("submitted_at") or client.flows.now() - DEFAULT_TIMEOUT
    wanted = GenerationRequest(asked["model"], asked["parameters"]) if asked else None
    cost = client.run(cost_of(client.flows, generation, since=since - CLOCK_SKEW, request=wanted))
    push("cost", cost.as_dict())
    return cost


def tell(
    context: Context,
    task: Any,
    *,
    generation_id: str,
    path: str | None,
    duration: float | None,
    request: Mapping[str, Any] | None = None,
    cost: Cost | None = None,
) -> None:
    """Tell who wants to know: the events of the task's outlet assets, and OpenLineage."""
    asked = request or {}
    facts = {
        "generation_id": generation_id,
        "model": asked.get("model"),
        "path": path,
        "duration": duration,
        "cost": cost.as_dict() if cost else None,
    }
    tell_assets(context, task.outlets, {name: value for name, value in facts.items() if value is not None})
    uri = place_uri(path) if path is not None else None
    task.lineage = (
        [*task.lineage[0], *media_uris(asked.get("parameters"))],
        [*task.lineage[1], *([uri] if uri else [])],
    )

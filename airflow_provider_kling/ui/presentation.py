"""Converts what Airflow has stored of a generation to what the page may show: no key, no signed URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, get_args
from urllib.parse import quote

from airflow_provider_kling.api.catalog.models import schedule_for
from airflow_provider_kling.api.paths import scheme_of
from airflow_provider_kling.api.redaction import clean
from airflow_provider_kling.ui import datamodels
from airflow_provider_kling.ui.database import Attempt
from airflow_provider_kling.ui.generations import GenerationFacts, count_of

_SHOWN_ELSEWHERE: Final = ("prompt", "negative_prompt")
_LONGEST_TEXT: Final = 10_000
_HIDDEN: Final = "…"


def generation(facts: GenerationFacts) -> datamodels.Generation:
    """One generation for the page."""
    attempt, request = facts.attempt, facts.request
    pictures = [
        datamodels.Picture(
            parameter=name,
            source=clean(source),
            size=_whole(medium.get("size")),
            url=f"{_address(facts)}/pictures/{number}" if is_readable(source) else None,
        )
        for number, (name, medium, source) in enumerate(media_of(facts.parameters))
    ]
    message = facts.failure_message
    failure = None
    if message is not None:
        failure = datamodels.Failure(kind=facts.failure_kind or "KlingError", message=clean_message(message))
    playable = bool(facts.video) or (facts.status in ("completed", "saved") and not facts.batch)
    negative = facts.parameters.get("negative_prompt")
    return datamodels.Generation(
        dag_id=attempt.dag_id,
        run_id=attempt.run_id,
        task_id=attempt.task_id,
        map_index=attempt.map_index,
        try_number=attempt.try_number,
        place=facts.place if facts.several else None,
        label=facts.row[1] if facts.row else attempt.label,
        task_state=attempt.state,
        status=facts.status,
        generation_id=facts.generation_id,
        client_request_id=_text(request.get("client_request_id")),
        model=facts.model,
        prompt=facts.prompt,
        negative_prompt=negative if isinstance(negative, str) and negative else None,
        parameters=_parameters(facts.parameters),
        pictures=pictures,
        queued_at=epoch(attempt.queued_at),
        started_at=epoch(attempt.started_at),
        ended_at=epoch(attempt.ended_at),
        submitted_at=facts.submitted_at,
        completed_at=facts.completed_at,
        waited=facts.waited,
        usual_seconds=schedule_for(None, facts.model).usual_seconds,
        seconds=facts.seconds,
        cost=_cost(facts.cost),
        video=_video(facts.video),
        failure=failure,
        batch=_batch(facts),
        video_url=f"{_address(facts, of_video=True)}/video" if playable else None,
    )


def attempt(found: Attempt) -> datamodels.TaskAttempt:
    """One attempt for the page."""
    return datamodels.TaskAttempt(
        try_number=found.try_number,
        state=found.state,
        queued_at=epoch(found.queued_at),
        started_at=epoch(found.started_at),
        ended_at=epoch(found.ended_at),
        current=found.current,
    )


def media_of(value: Any, name: str = "") -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Media of a request, in its order: parameter, description, source."""
    if isinstance(value, Mapping):
        if is_medium(value):
            yield name, value, value["source"]
            return
        for key, item in value.items():
            yield from media_of(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from media_of(item, f"{name}[{number}]")


def is_medium(value: Any) -> bool:
    """Whether a value of a request describes a medium: its source and checksum."""
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("source"), str)
        and isinstance(value.get("sha256"), str)
    )


def is_readable(source: str) -> bool:
    """Whether a source is a file or an object in storage; a picture at another host is not fetched."""
    return scheme_of(source) not in ("http", "https", "data") and ("/" in source or "." in source)


def clean_message(message: str) -> str:
    """An error's message without what a page must not show; its lines stay apart."""
    return "\n".join(clean(line) for line in message[:_LONGEST_TEXT].splitlines())


def epoch(moment: datetime | None) -> float | None:
    """A moment as epoch seconds."""
    return None if moment is None else moment.timestamp()


def _task_address(found: Attempt) -> str:
    parts = (found.dag_id, found.run_id, found.task_id)
    dag_id, run_id, task_id = (quote(part, safe="") for part in parts)
    task = f"api/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{found.map_index}"
    return f"{task}/attempts/{found.try_number}"


def _address(facts: GenerationFacts, *, of_video: bool = False) -> str:
    """Where the app has a generation's pictures, or its video, which another task may have saved."""
    if facts.row is not None:
        return f"{_task_address(facts.attempt)}/rows/{quote(facts.row[0], safe='')}"
    if of_video and facts.saved_by is not None and facts.saved_by.id != facts.attempt.id:
        # A download task has a video of its own, and never several.
        return f"{_task_address(facts.saved_by)}/generations/0"
    return f"{_task_address(facts.attempt)}/generations/{facts.place}"


def _batch(facts: GenerationFacts) -> datamodels.Batch | None:
    if not (batch := facts.batch):
        return None
    statuses = get_args(datamodels.RowStatus)
    return datamodels.Batch(
        total=count_of(batch, "total"),
        counts={status: count_of(batch, status) for status in statuses},
        cost_usd=facts.usd,
        seconds=facts.seconds,
        updated_at=_float(batch.get("updated_at")),
        estimated_end=_float(batch.get("estimated_end")),
        finished=bool(batch.get("finished", True)),
        manifest=clean(batch["manifest"]) if isinstance(batch.get("manifest"), str) else None,
        rows_url=f"{_task_address(facts.attempt)}/rows",
    )


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    left = {name: value for name, value in parameters.items() if name not in _SHOWN_ELSEWHERE}
    return {str(name): _without_media(value) for name, value in left.items() if not is_medium(value)}


def _without_media(value: Any) -> Any:
    if is_medium(value):
        return _HIDDEN
    if isinstance(value, Mapping):
        return {str(key): _without_media(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_media(item) for item in value]
    return clean(value) if isinstance(value, str) else value


def _cost(cost: Mapping[str, Any]) -> datamodels.Cost | None:
    usd, credits = (_float(cost.get(name)) for name in ("usd", "credits"))
    if usd is None and credits is None:
        return None
    return datamodels.Cost(usd=usd, usd_source=_text(cost.get("usd_source")), credits=credits)


def _video(video: Mapping[str, Any]) -> datamodels.Video | None:
    if not video:
        return None
    return datamodels.Video(
        path=clean(video["path"]),
        size=_whole(video.get("size")),
        sha256=_text(video.get("sha256")),
        duration=_float(video.get("duration")),
        width=_whole(video.get("width")),
        height=_whole(video.get("height")),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

"""The bodies of the app's answers; the page's types are generated from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from airflow_provider_kling.ui.generations import Status


class Picture(BaseModel):
    """A reference picture, or another medium of the request.

    :param parameter: the vendor's name of the parameter, with an index where it is a list.
    :param source: where it was read from.
    :param url: of this app; None where it cannot be shown, as a picture at another host.
    """

    parameter: str
    source: str
    size: int | None
    url: str | None


class Cost(BaseModel):
    """What a generation cost, and who says so."""

    usd: float | None
    usd_source: str | None
    credits: float | None


class Video(BaseModel):
    """A saved video."""

    path: str
    size: int | None
    sha256: str | None
    duration: float | None
    width: int | None
    height: int | None


class Failure(BaseModel):
    """Why there is no video.

    :param kind: the error's class.
    :param message: what happened, what it means for money, and what to do.
    """

    kind: str
    message: str


class Batch(BaseModel):
    """How far a batch is. Times are epoch seconds.

    :param counts: status -> rows.
    :param seconds: of saved and kept video; None until the batch ends.
    :param estimated_end: None where nothing is known.
    :param rows_url: of this app: a page of its rows.
    """

    total: int
    counts: dict[str, int]
    cost_usd: float | None
    seconds: float | None
    updated_at: float | None
    estimated_end: float | None
    finished: bool
    manifest: str | None
    rows_url: str


class Generation(BaseModel):
    """One generation, as the page shows it. Times are epoch seconds.

    :param place: which of the task's variants it is, from 0; None where it makes one.
    :param label: the key of a batch's row; or the name of a mapped task instance, where its DAG gives one.
    :param batch: not None where this stands for all rows of a batch.
    :param parameters: those that are neither prompt nor media.
    :param usual_seconds: the model's usual time from submit to video.
    :param video_url: of this app; None until there is something to play.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    place: int | None
    label: str | None
    task_state: str | None
    status: Status
    generation_id: str | None
    client_request_id: str | None
    model: str | None
    prompt: str
    negative_prompt: str | None
    parameters: dict[str, Any]
    pictures: list[Picture]
    queued_at: float | None
    started_at: float | None
    ended_at: float | None
    submitted_at: float | None
    completed_at: float | None
    waited: float | None
    usual_seconds: float
    seconds: float | None
    cost: Cost | None
    video: Video | None
    failure: Failure | None
    batch: Batch | None
    video_url: str | None


class TaskAttempt(BaseModel):
    """One attempt of the task. Times are epoch seconds."""

    try_number: int
    state: str | None
    queued_at: float | None
    started_at: float | None
    ended_at: float | None
    current: bool


class TaskView(BaseModel):
    """What the tab of a task instance shows.

    :param kind: ``generations`` of this task; ``choice`` among those upstream of a human-in-the-loop
        task; ``other`` for a task that has nothing to do with Kling.
    :param now: the server's clock, so that the page can tell how long ago things were.
    :param going_on: whether anything can still change without a person.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    kind: Literal["generations", "choice", "other"]
    operator: str | None
    state: str | None
    attempts: list[TaskAttempt]
    generations: list[Generation]
    now: float
    going_on: bool


StatusFilter = Literal["waiting", "completed", "failed"]
Sort = Literal["newest", "oldest", "dearest", "cheapest"]


class GalleryFilters(BaseModel):
    """What a viewer wants to see. None means everything.

    :param text: has to be in the prompt, whatever its case.
    :param since: epoch seconds of the submit.
    :param until: epoch seconds, exclusive.
    """

    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    model: str | None = None
    status: StatusFilter | None = None
    text: str | None = Field(default=None, max_length=500)
    since: float | None = Field(default=None, ge=0, le=4e9)
    until: float | None = Field(default=None, ge=0, le=4e9)


class GalleryQuery(GalleryFilters):
    """Which page of it, in which order."""

    sort: Sort = "newest"
    page: int = Field(default=1, ge=1, le=100_000)


RowStatus = Literal["saved", "reused", "failed", "invalid", "submitted", "uncertain", "pending"]


class RowsQuery(BaseModel):
    """Which rows of a batch.

    :param text: has to be in the key, whatever its case.
    """

    status: RowStatus | None = None
    text: str | None = Field(default=None, max_length=200)
    page: int = Field(default=1, ge=1, le=100_000)


class RowsPage(BaseModel):
    """One page of the rows of a batch.

    :param count: of the rows that were asked for.
    :param complete: whether they are all rows of the batch; while it runs, they are those of which
        something is recorded, the latest first, and their status is not filtered by.
    :param now: the server's clock.
    """

    rows: list[Generation]
    count: int
    page: int
    pages: int
    complete: bool
    now: float


class GalleryPage(BaseModel):
    """One page of the gallery."""

    generations: list[Generation]
    page: int
    pages: int
    now: float


class DayTotal(BaseModel):
    """The generations that one model was asked for on one day, in UTC."""

    day: str
    model: str
    count: int
    usd: float


class Wait(BaseModel):
    """How long one generation took, in seconds."""

    submitted_at: float
    model: str
    seconds: float
    usual_seconds: float


class FailureCount(BaseModel):
    """How many generations failed for one reason."""

    kind: str
    count: int


class Facets(BaseModel):
    """What can be chosen from in the filters."""

    dags: list[str]
    tasks: list[str]
    models: list[str]


class Summary(BaseModel):
    """Totals and plots of all generations that the filters let through.

    :param seconds: of video.
    :param usd: of those whose cost is known.
    :param usd_unknown: how many have a video, and no known cost.
    :param waits: the latest of them, at most some hundreds.
    """

    count: int
    seconds: float
    usd: float
    usd_unknown: int
    by_day: list[DayTotal]
    waits: list[Wait]
    failures: list[FailureCount]
    facets: Facets

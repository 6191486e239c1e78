"""Generations, put together from the XComs that the tasks of one run have left."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, cast, get_args

from airflow_provider_kling.task import xcom
from airflow_provider_kling.ui.database import Attempt, TaskKey, XCom

KEYS: Final = (
    xcom.GENERATION_ID,
    xcom.REQUEST,
    xcom.GENERATION,
    xcom.COST,
    xcom.VIDEO,
    xcom.FAILURE,
    xcom.BATCH,
)
"""The XComs that are read; not ``video_url``, which is signed."""

Status = Literal[
    "queued",
    "submitting",
    "generating",
    "retrying",
    "submitted",
    "completed",
    "saved",
    "failed",
    "reused",
    "invalid",
    "uncertain",
    "pending",
]
"""The last four are of the rows of a batch alone."""
WAITING: Final = ("queued", "submitting", "generating", "retrying")
"""Statuses that are not final."""

_WORKING: Final = ("running", "deferred", "scheduled", "queued", "up_for_reschedule", "restarting", None)
_OVER: Final = ("failed", "upstream_failed")
_RUNNING_RUN: Final = ("running", "queued")


@dataclass(slots=True)
class GenerationFacts:
    """One generation and its outcome.

    :param attempt: of the task that submitted it, or that alone knows it.
    :param place: which of the variants it is, from 0.
    :param several: whether the task makes a list of variants.
    :param request: model, parameters, client request id, epoch seconds of the submit.
    :param saved_by: the attempt that saved the video.
    :param completed_at: when the task saw the video.
    :param batch: how far a batch is, where this stands for one.
    :param row: name, key and status of a batch's row, where this is one.
    :param tasks: those that know of it, each with Airflow's id of its attempt.
    """

    attempt: Attempt
    place: int
    several: bool
    generation_id: str | None
    request: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    video: Mapping[str, Any] = field(default_factory=dict)
    failure: Mapping[str, Any] = field(default_factory=dict)
    saved_by: Attempt | None = None
    submitted_at: float | None = None
    completed_at: float | None = None
    failed_at: float | None = None
    batch: Mapping[str, Any] = field(default_factory=dict)
    row: tuple[str, str, Status] | None = None
    tasks: dict[TaskKey, Any] = field(default_factory=dict)

    @property
    def attempt_ids(self) -> tuple[Any, ...]:
        """Airflow's ids of the attempts that know of it, that of its owner first."""
        return tuple({self.attempt.id: None, **dict.fromkeys(self.tasks.values())})

    @property
    def model(self) -> str | None:
        """The vendor's model id, where it is known."""
        found = self.request.get("model") or self.generation.get("model")
        return found if isinstance(found, str) else None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What was asked for, media by source and checksum."""
        return _mapping(self.request.get("parameters"))

    @property
    def prompt(self) -> str:
        """The prompt; empty where there is none."""
        found = self.parameters.get("prompt")
        return found if isinstance(found, str) else ""

    @property
    def usd(self) -> float | None:
        """What it cost, in USD."""
        return _number(self.batch.get("cost_usd")) if self.batch else _number(self.cost.get("usd"))

    @property
    def seconds(self) -> float | None:
        """Length of the video, or of all videos of a batch."""
        if self.batch:
            return _number(self.batch.get("video_seconds"))
        return _number(self.video.get("duration")) or _number(self.generation.get("duration"))

    @property
    def waited(self) -> float | None:
        """Seconds from the submit to when its task saw the video."""
        if self.submitted_at is None or self.completed_at is None:
            return None
        return max(0.0, self.completed_at - self.submitted_at)

    @property
    def failure_message(self) -> str | None:
        """The error's whole message: what happened, what it means for money, what to do."""
        found = _mapping(self.failure.get("error")).get("message")
        return found if isinstance(found, str) else None

    @property
    def failure_kind(self) -> str | None:
        """The error's class."""
        found = _mapping(self.failure.get("error")).get("kind")
        return found if isinstance(found, str) else None

    @property
    def status(self) -> Status:
        """Its status, as far as Airflow knows."""
        state = self.attempt.state
        if self.row is not None:
            return self.row[2]
        if self.batch:
            return self._status_of_batch
        if self.video:
            return "saved"
        if self.failure and state not in ("up_for_retry", *_WORKING):
            return "failed"
        if self.generation:
            return "completed"
        if state in _OVER:
            return "failed"
        if state == "up_for_retry":
            return "retrying"
        if self.failure:
            return "failed"
        if state in _WORKING:
            if self.generation_id is not None:
                return "generating"
            return "submitting" if state == "running" else "queued"
        return "generating" if self.attempt.run_state in _RUNNING_RUN else "submitted"

    @property
    def _status_of_batch(self) -> Status:
        state = self.attempt.state
        if state in _OVER:
            return "failed"
        if state == "up_for_retry":
            return "retrying"
        return "generating" if state in _WORKING and not self.batch.get("finished") else "saved"

    def rows(self, *statuses: str) -> int:
        """How many rows of a batch have one of some statuses."""
        return sum(count_of(self.batch, each) for each in statuses)


def count_of(batch: Mapping[str, Any], name: str) -> int:
    """A count in the XCom of a batch."""
    found = batch.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0


def assemble(attempts: Iterable[Attempt], xcoms: Iterable[XCom]) -> list[GenerationFacts]:
    """Put generations together, across the tasks of a run that know of the same one.

    The task that submitted a generation owns it; a sensor and a download add what they know. A
    generation that no task here submitted belongs to the first that names it.

    :param attempts: of any number of runs.
    :param xcoms: those of :data:`KEYS` of these attempts; others are ignored.
    """
    owners = {each.id: each for each in attempts}
    by_attempt: dict[Any, dict[str, XCom]] = defaultdict(dict)
    for each in xcoms:
        if each.attempt_id in owners:
            by_attempt[each.attempt_id][each.key] = each
    parts: list[GenerationFacts] = []
    for attempt_id, known in by_attempt.items():
        parts.extend(_of_attempt(owners[attempt_id], known))
    return _merged(parts)


def without_xcoms(attempt: Attempt) -> GenerationFacts:
    """What stands for the generation of a task that has not submitted one yet."""
    return GenerationFacts(attempt, 0, False, None, tasks={attempt.task: attempt.id})


def _of_attempt(attempt: Attempt, known: Mapping[str, XCom]) -> list[GenerationFacts]:
    values = {key: _decoded(pushed.value) for key, pushed in known.items()}
    if batch := _mapping(values.pop(xcom.BATCH, None)):
        failure = _mapping(values.get(xcom.FAILURE))
        tasks = {attempt.task: attempt.id}
        return [GenerationFacts(attempt, 0, False, None, failure=failure, batch=batch, tasks=tasks)]
    several = isinstance(values.get(xcom.GENERATION_ID), list) or isinstance(values.get(xcom.FAILURE), list)
    lists = {key: value if several and isinstance(value, list) else [value] for key, value in values.items()}
    count = max((len(each) for each in lists.values()), default=0)
    found = []
    for place in range(count):
        at = {key: each[place] for key, each in lists.items() if place < len(each)}
        maps = {key: _mapping(at.get(key)) for key in KEYS if key != xcom.GENERATION_ID}
        generation_id = (
            at.get(xcom.GENERATION_ID)
            or maps[xcom.GENERATION].get("id")
            or maps[xcom.VIDEO].get("generation_id")
        )
        if not isinstance(generation_id, str):
            generation_id = maps[xcom.FAILURE].get("generation_id") or None
        if generation_id is None and not any(maps.values()):
            continue
        facts = GenerationFacts(
            attempt,
            place,
            several,
            generation_id,
            request=maps[xcom.REQUEST],
            generation=maps[xcom.GENERATION],
            cost=maps[xcom.COST],
            video=maps[xcom.VIDEO] if isinstance(maps[xcom.VIDEO].get("path"), str) else {},
            failure=maps[xcom.FAILURE],
            submitted_at=_number(maps[xcom.REQUEST].get("submitted_at")),
            tasks={attempt.task: attempt.id},
        )
        if facts.generation:
            facts.completed_at = _number(facts.generation.get("completed_at")) or _seen(
                known[xcom.GENERATION].at
            )
        if facts.failure:
            facts.failed_at = _seen(known[xcom.FAILURE].at)
        if facts.video:
            facts.saved_by = attempt
        found.append(facts)
    return found


def _merged(parts: Sequence[GenerationFacts]) -> list[GenerationFacts]:
    merged: list[GenerationFacts] = []
    owner: dict[tuple[str, str, str], GenerationFacts] = {}
    for part in sorted(parts, key=lambda each: not each.request):  # those who submitted come first
        key = (part.attempt.dag_id, part.attempt.run_id, part.generation_id or "")
        known = owner.get(key) if part.generation_id else None
        if known is None or (part.request and known.request):
            merged.append(part)
            if part.generation_id:
                owner.setdefault(key, part)
            continue
        known.tasks = {**part.tasks, **known.tasks}
        known.generation = known.generation or part.generation
        known.cost = _dearer(known.cost, part.cost)
        known.failure = known.failure or part.failure
        known.completed_at = known.completed_at or part.completed_at
        known.failed_at = known.failed_at or part.failed_at
        if part.video and not known.video:
            known.video, known.saved_by = part.video, part.saved_by
    return merged


def _dearer(one: Mapping[str, Any], other: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of two cost entries of one generation, the more complete one."""
    return one if _number(one.get("usd")) is not None or not other else other


def _decoded(text: str | None) -> Any:
    """A value as it was pushed; some ways of pushing store it as JSON inside of JSON."""
    value: Any = text
    for _ in range(2):
        if not isinstance(value, str) or (value is not text and value[:1] not in ("{", "[", '"')):
            break
        try:
            value = json.loads(value)
        except ValueError:
            break
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _seen(at: datetime) -> float:
    return at.timestamp()


def by_place(found: Iterable[GenerationFacts]) -> list[GenerationFacts]:
    """Sorted by task, map index and place."""
    return sorted(found, key=lambda each: (each.attempt.task_id, each.attempt.map_index, each.place))


def of_row(task: GenerationFacts, row: Mapping[str, Any]) -> GenerationFacts:
    """One row of a batch.

    :param task: what stands for the batch.
    :param row: as its manifest or its record has it, with its ``name``.
    """
    request = {**_mapping(row.get("request"))}
    request |= {name: row[name] for name in ("model", "client_request_id") if row.get(name)}
    video = {**_mapping(row.get("video"))}
    if isinstance(row.get("path"), str):
        video["path"] = row["path"]
    status = str(row.get("status"))
    if status == "submitted" and task.status == "generating":
        status = "generating"
    known = status if status in get_args(Status) else "submitted"
    error = row.get("error") if known in ("failed", "invalid", "uncertain", "pending") else None
    generation_id = row.get("generation_id")
    return GenerationFacts(
        task.attempt,
        0,
        False,
        generation_id if isinstance(generation_id, str) else None,
        request=request,
        cost=_mapping(row.get("cost")),
        video=video if known in ("saved", "reused") and "path" in video else {},
        failure={"error": {"kind": "", "message": error}} if isinstance(error, str) and error else {},
        saved_by=task.attempt,
        submitted_at=_number(row.get("submitted_at")),
        completed_at=_number(row.get("saved_at")),
        row=(str(row["name"]), str(row.get("key")), cast(Status, known)),
    )

"""Every XCom of a task: its key, how it is pushed and pulled, and the request of an upstream task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_provider_kling.version_compat import Context

GENERATION_ID: Final = "generation_id"
"""The generation id; of several variants, a list with None where a submit failed."""
CLIENT_REQUEST_ID: Final = "client_request_id"
"""What the submit carried, and what finds it in the vendor's request log."""
REQUEST: Final = "request"
"""What was asked for: generation id, model, parameters with media by source and checksum, client request id,
and the epoch seconds of the submit."""
GENERATION: Final = "generation"
"""The completed generation as a dict."""
VIDEO_URL: Final = "video_url"
"""The vendor's URL of the video: signed, and it expires."""
COST: Final = "cost"
"""See :meth:`.Cost.as_dict`."""
PATH: Final = "path"
"""Where the video was saved."""
VIDEO: Final = "video"
"""What is known of the saved file: size in bytes, SHA-256, seconds, width, height."""
WAS_REUSED: Final = "reused"
"""True where ``skip_unchanged`` kept the video that stood at the path; absent otherwise."""
ORPHANS: Final = "orphans"
"""What was paid and never saved: generation id, dag, task and USD of each, 1000 at most."""
BATCH: Final = "batch"
"""The summary of a batch: counts by status, cost, seconds of video, path of the manifest."""
FAILURE: Final = "failure"
"""Why there is no video, as a trigger's event tells it; of several variants, a list with None elsewhere."""


_MANY: Final = 100
"""Instances of a task whose requests are not all pulled to find one among them."""
_NOT_STORABLE: Final = re.compile("[\0\ud800-\udfff]")


def push(context: Context, key: str, value: Any, *, index: int | None = None, count: int = 1) -> None:
    """Push an XCom of the running task: a value, or a list with a value for each of its variants.

    :param context: Airflow's.
    :param index: which variant it is of; None where the task makes one generation.
    :param count: how many variants there are.
    """
    ti: Any = context["ti"]
    if index is not None:
        values = [*(pull(context, key) or [])]
        values += [None] * (count - len(values))
        values[index] = value
        value = values
    ti.xcom_push(key=key, value=storable(value))


def pull(context: Context, key: str) -> Any:
    """What this attempt of the running task pushed before it was deferred; None for nothing."""
    ti: Any = context["ti"]
    # without map_indexes no log calls a miss an error; the others of a mapped task have to be left out
    own = {} if ti.map_index in (None, -1) else {"map_indexes": ti.map_index}
    return ti.xcom_pull(task_ids=ti.task_id, key=key, **own)


def storable(value: Any) -> Any:
    """The value with each character replaced that a database cannot store: NUL, and half of a character.

    What informs about a video is stored as well as it can be, and never keeps the video from arriving.
    """
    if isinstance(value, str):
        return _NOT_STORABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {storable(name): storable(each) for name, each in value.items()}
    return [storable(each) for each in value] if isinstance(value, list | tuple) else value


def upstream_request(context: Context, generation_id: str) -> Mapping[str, Any] | None:
    """The request of a generation, as the task upstream that made it pushed it.

    It is found by the generation's id alone, so that the ids may be mapped over, filtered, concatenated or
    chosen from on their way. A task that made another generation costs one pull of its ids.

    :param context: Airflow's, of the task that asks.
    :return: generation id, model, parameters, client request id, epoch seconds of the submit; None where no
        task upstream made this generation.
    """
    ti: Any = context["ti"]
    task: Any = context["task"]
    for task_id in sorted(task.get_flat_relative_ids(upstream=True)):
        if not _generates(task.dag.get_task(task_id)):
            continue
        # without map_indexes this asks for those of all instances at once, and no log calls a miss an error
        ids = list(_each(ti.xcom_pull(task_ids=task_id, key=GENERATION_ID)))
        if generation_id not in ids:
            continue
        pulls: list[dict[str, Any]] = [{}]
        if len(ids) > _MANY:  # most likely none is missing, and then its place is its map index
            pulls.insert(0, {"map_indexes": ids.index(generation_id)})
        for arguments in pulls:
            for request in _each(ti.xcom_pull(task_ids=task_id, key=REQUEST, **arguments)):
                if isinstance(request, Mapping) and request.get(GENERATION_ID) == generation_id:
                    return request
    return None


def _each(pulled: Any) -> Iterator[Any]:
    """Each value among those of all instances of a task, and of all their variants."""
    if isinstance(pulled, Iterable) and not isinstance(pulled, str | Mapping):
        for each in pulled:
            yield from _each(each)
    else:
        yield pulled


def _generates(task: Any) -> bool:
    """Whether a task pushes requests, mapped or not, without loading what makes it one."""
    kind = getattr(task, "operator_class", None) or type(task)
    return bool(getattr(kind, "pushes_requests", False))

"""The app's routes. Each has Airflow authenticate the viewer and check their permission on its DAG."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final

from airflow.utils.session import create_session
from fastapi import APIRouter, Header, HTTPException, Query, Response, status
from fastapi.responses import FileResponse, StreamingResponse

from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.ui import database, datamodels, gallery, presentation
from airflow_provider_kling.ui.access import READS_XCOMS, GetUserDep, readable_dags
from airflow_provider_kling.ui.database import Attempt, TaskKey
from airflow_provider_kling.ui.files import batch_rows, recorded, vendor_video
from airflow_provider_kling.ui.generations import (
    KEYS,
    WAITING,
    GenerationFacts,
    assemble,
    by_place,
    of_row,
    without_xcoms,
)

STATIC: Final = Path(__file__).parent / "static"
_LIVE: Final = (
    "awaiting_input",
    "running",
    "deferred",
    "scheduled",
    "queued",
    "up_for_retry",
    "up_for_reschedule",
    "restarting",
)
_TASK: Final = "/api/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/{map_index}"
_ATTEMPT: Final = _TASK + "/attempts/{try_number}"
_GENERATION: Final = _ATTEMPT + "/generations/{place}"
_ROW: Final = _ATTEMPT + "/rows/{name}"
_PRIVATE: Final = {"Cache-Control": "private, no-cache"}
_MEDIA_POLICY: Final = {
    **_PRIVATE,
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_OURS: Final = ("Kling",)
"""How the names of this provider's operators begin; the decorator's is ``@task.kling_generate``."""

router = APIRouter()


@router.get("/", include_in_schema=False)
def page(user: GetUserDep) -> FileResponse:
    """The page, which fetches everything else."""
    return FileResponse(STATIC / "index.html", media_type="text/html", headers=_PRIVATE)


@router.get(_TASK, dependencies=READS_XCOMS)
def task(dag_id: str, run_id: str, task_id: str, map_index: str) -> datamodels.TaskView:
    """What the tab of a task instance shows.

    :param map_index: anything but a number stands for a task that is not mapped, as Airflow leaves its
        placeholder in the address of such a task's tab.
    """
    key = _key(dag_id, run_id, task_id, map_index)
    with create_session() as session:
        attempts = database.read_attempts(session, key)
        if not attempts:
            raise _not_found("There is no such task instance.")
        last = attempts[0]
        kind, found = _generations_of(session, key, attempts)
    going_on = last.state is None or last.state in _LIVE or any(each.status in WAITING for each in found)
    return datamodels.TaskView(
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        map_index=key.map_index,
        kind=kind,
        operator=last.operator,
        state=last.state,
        attempts=[presentation.attempt(each) for each in attempts],
        generations=[presentation.generation(each) for each in found],
        now=time.time(),
        going_on=going_on and kind != "other",
    )


def _generations_of(session: Any, key: TaskKey, attempts: list[Attempt]) -> tuple[Any, list[GenerationFacts]]:
    """The generations to show with a task instance, and in which way."""
    own = assemble(attempts, database.read_xcoms(session, KEYS, database.of_task(key)))
    asks = database.asks_a_person(session, attempts[0].id)
    if not own and not asks:
        ours = any(_is_ours(each.operator) for each in attempts)
        return ("generations", [without_xcoms(attempts[0])]) if ours else ("other", [])
    of_run = database.of_run(key.dag_id, key.run_id)
    everyone = assemble(
        [*database.read_producers(session, KEYS, of_run), *(each for each in attempts if not each.current)],
        database.read_xcoms(session, KEYS, of_run),
    )
    if asks:
        upstream = database.tasks_upstream(session, key)
        found = [each for each in everyone if each.attempt.task_id in upstream and each.attempt.current]
        return "choice" if found else "other", by_place(found)
    shown = [each for each in everyone if key in each.tasks]
    mine = [each for each in shown if each.attempt.task == key]
    # What a task submitted is its own; a sensor or a download shows the generation that it knows of.
    return "generations", by_place(mine if any(each.request for each in mine) else shown)


def _is_ours(operator: str | None) -> bool:
    return operator is not None and (operator.startswith(_OURS) or "kling" in operator.lower())


@router.get("/api/generations")
def generations(
    user: GetUserDep, query: Annotated[datamodels.GalleryQuery, Query()]
) -> datamodels.GalleryPage:
    """One page of the generations that the viewer may see."""
    with create_session() as session:
        found, pages = gallery.page(session, _readable(session, user), query)
    return datamodels.GalleryPage(
        generations=[presentation.generation(each) for each in found],
        page=query.page,
        pages=pages,
        now=time.time(),
    )


@router.get("/api/summary")
def summary(user: GetUserDep, filters: Annotated[datamodels.GalleryFilters, Query()]) -> datamodels.Summary:
    """Totals and plots of the generations that the viewer may see."""
    with create_session() as session:
        found = gallery.entries(session, _readable(session, user), filters)
    return gallery.summary(found, filters)


def _readable(session: Any, user: Any) -> set[str]:
    return readable_dags(user, database.dags_with(session, KEYS))


@router.get(_GENERATION + "/video", dependencies=READS_XCOMS, response_class=StreamingResponse)
def video(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str,
    try_number: int,
    place: int,
    download: bool = False,
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The video that a task instance has recorded; where its file cannot be reached, the vendor's."""
    facts, conn_id = _one(_key(dag_id, run_id, task_id, map_index), try_number, place)
    return _video_of(facts, conn_id, download, range_header, if_none_match)


def _video_of(
    facts: GenerationFacts, conn_id: str, download: bool, range_header: str | None, known: str | None
) -> Response:
    name = str(facts.video.get("path") or f"{facts.generation_id}.mp4")
    headers = _MEDIA_POLICY | {
        "Accept-Ranges": "bytes",
        "Content-Disposition": recorded.disposition(name, download=download, fallback="video.mp4"),
    }
    reasons = []
    if facts.video:
        try:
            return _saved(facts.video["path"], headers, range_header, known)
        except recorded.UnavailableError as error:
            reasons.append(f"The saved file: {error}")
    if facts.generation_id is None:
        raise _not_found("This task has recorded no video.")
    try:
        found = vendor_video.open_video(facts.generation_id, conn_id, range_header)
    except recorded.UnavailableError as error:
        reasons.append(f"The vendor: {error}")
        raise _not_found(" ".join(reasons)) from None
    return StreamingResponse(
        found.chunks(), found.status, headers | found.headers | {"X-Kling-Source": "vendor"}, "video/mp4"
    )


def _saved(path: str, headers: dict[str, str], range_header: str | None, known: str | None) -> Response:
    found = recorded.open_recorded(path, recorded.VIDEO_TYPES)
    headers = headers | {"ETag": f'"{found.version}"', "X-Kling-Source": "saved"}
    if known == headers["ETag"] and range_header is None:
        found.file.close()
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    try:
        wanted = recorded.requested_range(range_header, found.size)
    except recorded.RangeError as error:
        found.file.close()
        raise HTTPException(416, str(error), headers={"Content-Range": f"bytes */{error.size}"}) from None
    first, last = wanted or (0, found.size - 1)
    headers["Content-Length"] = str(last - first + 1)
    if wanted:
        headers["Content-Range"] = f"bytes {first}-{last}/{found.size}"
    return StreamingResponse(found.chunks(first, last), 206 if wanted else 200, headers, found.mime)


@router.get(_GENERATION + "/pictures/{number}", dependencies=READS_XCOMS, response_class=Response)
def picture(
    dag_id: str, run_id: str, task_id: str, map_index: str, try_number: int, place: int, number: int
) -> Response:
    """A reference picture, as long as it is the one that was sent."""
    facts, _ = _one(_key(dag_id, run_id, task_id, map_index), try_number, place)
    return _picture_of(facts, number)


def _picture_of(facts: GenerationFacts, number: int) -> Response:
    found = list(presentation.media_of(facts.parameters))
    if not 0 <= number < len(found) or not presentation.is_readable(found[number][2]):
        raise _not_found("This task has recorded no such picture.")
    _, medium, source = found[number]
    try:
        content, mime = recorded.read_picture(source, medium["sha256"])
    except recorded.UnavailableError as error:
        raise _not_found(str(error)) from None
    return Response(content, headers=_MEDIA_POLICY, media_type=mime)


@router.get(_ATTEMPT + "/rows", dependencies=READS_XCOMS)
def rows(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str,
    try_number: int,
    query: Annotated[datamodels.RowsQuery, Query()],
) -> datamodels.RowsPage:
    """One page of the rows of a batch."""
    key = _key(dag_id, run_id, task_id, map_index)
    batch, _ = _one(key, try_number, 0)
    first = (query.page - 1) * gallery.PAGE_SIZE
    try:
        source = batch_rows.rows_of(batch.batch)
        found, count = source.page(first, gallery.PAGE_SIZE, status=query.status, text=query.text)
    except recorded.UnavailableError as error:
        raise _not_found(f"The rows: {error}") from None
    return datamodels.RowsPage(
        rows=[presentation.generation(of_row(batch, each)) for each in found],
        count=count,
        page=query.page,
        pages=gallery.pages_of(count),
        complete=source.complete,
        now=time.time(),
    )


@router.get(_ROW + "/video", dependencies=READS_XCOMS, response_class=StreamingResponse)
def row_video(
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: str,
    try_number: int,
    name: str,
    download: bool = False,
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The video of a row, if it is in the folder of the batch; where it cannot be reached, the vendor's."""
    facts, conn_id = _row(_key(dag_id, run_id, task_id, map_index), try_number, name)
    return _video_of(facts, conn_id, download, range_header, if_none_match)


@router.get(_ROW + "/pictures/{number}", dependencies=READS_XCOMS, response_class=Response)
def row_picture(
    dag_id: str, run_id: str, task_id: str, map_index: str, try_number: int, name: str, number: int
) -> Response:
    """A reference picture of a row, as long as it is the one that was sent."""
    facts, _ = _row(_key(dag_id, run_id, task_id, map_index), try_number, name)
    return _picture_of(facts, number)


def _row(key: TaskKey, try_number: int, name: str) -> tuple[GenerationFacts, str]:
    """One row of a batch as it is recorded, and the connection that submitted it."""
    batch, conn_id = _one(key, try_number, 0)
    try:
        row = batch_rows.rows_of(batch.batch).find(name)
    except recorded.UnavailableError as error:
        raise _not_found(f"The rows: {error}") from None
    if row is None:
        raise _not_found("This batch has recorded no such row.")
    facts = of_row(batch, row)
    if facts.video and not batch_rows.is_below(facts.video["path"], str(batch.batch.get("manifest"))):
        facts.video = {}
    return facts, conn_id


def _one(key: TaskKey, try_number: int, place: int) -> tuple[GenerationFacts, str]:
    """One generation as this very task instance has recorded it, and the connection that submitted it."""
    with create_session() as session:
        attempts = [each for each in database.read_attempts(session, key) if each.try_number == try_number]
        found = assemble(attempts, database.read_xcoms(session, KEYS, database.of_task(key)))
        for each in found:
            if each.place == place:
                conn_id = database.connection_id(session, each.attempt)
                return each, conn_id or DEFAULT_CONNECTION_ID
    raise _not_found("This task instance has recorded no such generation.")


def _key(dag_id: str, run_id: str, task_id: str, map_index: str) -> TaskKey:
    number = int(map_index) if map_index.isascii() and map_index.isdigit() and len(map_index) < 10 else -1
    return TaskKey(dag_id, run_id, task_id, number)


def _not_found(why: str) -> HTTPException:
    return HTTPException(status.HTTP_404_NOT_FOUND, why)

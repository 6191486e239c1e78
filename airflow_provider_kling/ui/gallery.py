"""The gallery: all generations that a viewer may see, filtered, sorted, summed and page by page."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.catalog.models import schedule_for
from airflow_provider_kling.task import xcom
from airflow_provider_kling.ui import database
from airflow_provider_kling.ui.datamodels import (
    DayTotal,
    Facets,
    FailureCount,
    GalleryFilters,
    GalleryQuery,
    Sort,
    StatusFilter,
    Summary,
    Wait,
)
from airflow_provider_kling.ui.generations import KEYS, WAITING, GenerationFacts, Status, assemble

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

PAGE_SIZE: Final = 24
_MOST_RUNS_NAMED: Final = 200
"""Runs in one condition; with more, whole DAGs are read."""
MOST_KEPT: Final = 100_000
"""Generations of which this process remembers what filters and sums need, about half a kilobyte each."""
MOST_WAITS: Final = 400
"""Points in the plot of waiting times."""
OTHER_FAILURE: Final = "Task failed"
"""The reason of a failure that left no error of this provider."""
BATCH_FAILURE: Final = "Row of a batch"
BATCH_MODEL: Final = "batch"
"""What the plots call the rows of batches, whose models and errors are in their manifests."""
SUBMITTED: Final = ("saved", "failed", "submitted", "uncertain")
"""Rows of a batch for which there is a generation."""

Run = tuple[str, str]
"""DAG id and run id."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What filters, sorts and sums need of one generation, or of all rows of a batch.

    :param attempts: ids of the attempts that know of it, that of its owner first.
    :param prompt: casefolded.
    :param count: of the generations that it stands for.
    :param failed: how many of them.
    :param time: epoch seconds of the submit, or else of the start of the task.
    """

    attempts: tuple[Any, ...]
    dag_id: str
    task_id: str
    place: int
    model: str | None
    prompt: str
    status: Status
    time: float
    usd: float | None
    seconds: float | None
    submitted_at: float | None
    waited: float | None
    failure_kind: str | None
    count: int
    failed: int

    @classmethod
    def of(cls, facts: GenerationFacts) -> Entry:
        """From all that is known of it."""
        return cls(
            attempts=facts.attempt_ids,
            dag_id=facts.attempt.dag_id,
            task_id=facts.attempt.task_id,
            place=facts.place,
            model=BATCH_MODEL if facts.batch else facts.model,
            prompt=facts.prompt.casefold(),
            status=facts.status,
            time=_time(facts),
            usd=facts.usd,
            seconds=facts.seconds,
            submitted_at=facts.submitted_at,
            waited=facts.waited,
            failure_kind=BATCH_FAILURE if facts.batch else facts.failure_kind,
            count=facts.rows(*SUBMITTED) if facts.batch else 1,
            failed=facts.rows("failed") if facts.batch else int(facts.status == "failed"),
        )


def page(
    session: Session, dag_ids: Collection[str], query: GalleryQuery
) -> tuple[list[GenerationFacts], int]:
    """One page of the generations that the filters let through, and of how many pages it is.

    By time, and where the database can do all of the filtering, it finds the page too, which then has all the
    variants of :data:`PAGE_SIZE` task instances. Otherwise the page is found among what is kept in memory.
    Either way only the page itself is read in full.

    :param dag_ids: those that the viewer may read.
    """
    if query.sort in ("newest", "oldest") and not any((query.model, query.status, query.text)):
        return _page_by_time(session, dag_ids, query)
    matching = ordered(matches(entries(session, dag_ids, query), query), query.sort)
    first = (query.page - 1) * PAGE_SIZE
    shown = matching[first : first + PAGE_SIZE]
    found = _facts(session, database.of_attempts({each for entry in shown for each in entry.attempts}))
    by_place = {(each.attempt.id, each.place): each for each in found}
    wanted = [(each.attempts[0], each.place) for each in shown]
    return [by_place[key] for key in wanted if key in by_place], pages_of(len(matching))


def _page_by_time(
    session: Session, dag_ids: Collection[str], query: GalleryQuery
) -> tuple[list[GenerationFacts], int]:
    pushed, total = database.read_page(
        session,
        (xcom.GENERATION_ID, xcom.BATCH),
        _conditions(dag_ids, query, task_id=query.task_id),
        newest_first=query.sort == "newest",
        offset=(query.page - 1) * PAGE_SIZE,
        limit=PAGE_SIZE,
    )
    if not pushed:
        return [], pages_of(total)
    shown = {id_ for id_, _ in pushed}
    facts = {
        (each.attempt.id, each.place): each
        for each in _facts(session, database.beside(pushed))
        if each.attempt.id in shown
    }
    in_order = ordered([Entry.of(each) for each in facts.values()], query.sort)
    return [facts[each.attempts[0], each.place] for each in in_order], pages_of(total)


def _facts(session: Session, conditions: database.Conditions) -> list[GenerationFacts]:
    attempts = database.read_producers(session, KEYS, conditions)
    return assemble(attempts, database.read_xcoms(session, KEYS, conditions))


def pages_of(total: int) -> int:
    """How many pages a number of items needs, one at least."""
    return max(1, -(-total // PAGE_SIZE))


def _conditions(
    dag_ids: Collection[str], filters: GalleryFilters, task_id: str | None = None
) -> database.Conditions:
    chosen = set(dag_ids) if filters.dag_id is None else set(dag_ids) & {filters.dag_id}
    return database.of_dags(
        chosen,
        run_id=filters.run_id,
        task_id=task_id,
        since=_moment(filters.since),
        until=_moment(filters.until),
    )


_kept: OrderedDict[Run, tuple[tuple[Any, ...], list[Entry]]] = OrderedDict()
_kept_lock: Final = Lock()
_reading: Final = Lock()
"""Held while runs are read, so that two viewers who come at once do not read the same."""


def entries(session: Session, dag_ids: Collection[str], filters: GalleryFilters) -> list[Entry]:
    """All generations of the runs that match some filters.

    What was read of a run is kept in memory, and read again when Airflow has changed anything in it.

    :param dag_ids: those that the viewer may read; nothing else is looked for in what is kept.
    """
    versions = database.run_versions(session, KEYS, _conditions(dag_ids, filters))
    found = _known(versions)
    if len(found) < len(versions):
        with _reading:
            found = _known(versions)
            if changed := versions.keys() - found.keys():
                read = _read(session, changed)
                _keep({run: (versions[run], entries) for run, entries in read.items()})
                found |= read
    return [each for entries in found.values() for each in entries]


def _known(versions: Mapping[Run, tuple[Any, ...]]) -> dict[Run, list[Entry]]:
    """Of these runs those that are kept and have not changed."""
    with _kept_lock:
        kept = {run: _kept[run] for run in versions if run in _kept}
    return {run: entries for run, (version, entries) in kept.items() if version == versions[run]}


def _keep(read: dict[Run, tuple[tuple[Any, ...], list[Entry]]]) -> None:
    with _kept_lock:
        for run, kept in read.items():
            _kept[run] = kept
            _kept.move_to_end(run)
        count = sum(len(found) for _, found in _kept.values())
        while count > MOST_KEPT:
            count -= len(_kept.popitem(last=False)[1][1])


def _read(session: Session, runs: Collection[Run]) -> dict[Run, list[Entry]]:
    if len(runs) > _MOST_RUNS_NAMED:
        conditions = database.of_dags({dag_id for dag_id, _ in runs})
    else:
        conditions = database.of_runs(runs)
    attempts: dict[Run, list[database.Attempt]] = {run: [] for run in runs}
    run_of: dict[Any, Run] = {}
    for attempt in database.read_producers(session, KEYS, conditions):
        run = (attempt.dag_id, attempt.run_id)
        if run in attempts:
            attempts[run].append(attempt)
            run_of[attempt.id] = run
    pushed: dict[Run, list[database.XCom]] = defaultdict(list)
    for each in database.read_xcoms(session, KEYS, conditions):
        if each.attempt_id in run_of:
            pushed[run_of[each.attempt_id]].append(each)
    # Run by run, so that little is decoded at a time.
    return {
        run: [Entry.of(each) for each in assemble(attempts[run], pushed.pop(run, ()))] for run in attempts
    }


def matches(found: Iterable[Entry], wanted: GalleryFilters) -> list[Entry]:
    """Those that all filters let through."""
    text = wanted.text.casefold() if wanted.text else None
    return [
        each
        for each in found
        if (wanted.task_id is None or each.task_id == wanted.task_id)
        and (wanted.model is None or each.model == wanted.model)
        and (text is None or text in each.prompt)
        and (wanted.status is None or wanted.status == group_of(each.status))
        and (wanted.since is None or each.time >= wanted.since)
        and (wanted.until is None or each.time < wanted.until)
    ]


def group_of(status: Status) -> StatusFilter | None:
    """What a viewer filters by; None for what was submitted and not waited for."""
    if status in WAITING:
        return "waiting"
    if status in ("completed", "saved"):
        return "completed"
    return "failed" if status == "failed" else None


_NOWHERE: Final = float("-inf")


def _time(each: GenerationFacts) -> float:
    if each.submitted_at is not None:
        return each.submitted_at
    started = each.attempt.started_at
    return started.timestamp() if started else _NOWHERE


def _usd(each: Entry) -> float:
    return _NOWHERE if each.usd is None else each.usd


def ordered(found: Sequence[Entry], sort: Sort) -> list[Entry]:
    """Sort generations; by time, those of one task instance stay together, in the order of its variants."""
    if sort == "dearest":
        return sorted(found, key=lambda each: (-_usd(each), -each.time, str(each.attempts[0]), each.place))
    if sort == "cheapest":
        return sorted(
            found,
            key=lambda each: (each.usd is None, _usd(each), -each.time, str(each.attempts[0]), each.place),
        )
    latest: dict[Any, float] = {}
    for each in found:
        latest[each.attempts[0]] = max(each.time, latest.get(each.attempts[0], _NOWHERE))
    sign = -1 if sort == "newest" else 1
    return sorted(
        found, key=lambda each: (sign * latest[each.attempts[0]], str(each.attempts[0]), each.place)
    )


def summary(found: Sequence[Entry], filters: GalleryFilters) -> Summary:
    """Totals and plots of the generations that the filters let through."""
    matching = matches(found, filters)
    days: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    waits: list[Wait] = []
    failures: Counter[str] = Counter()
    for each in matching:
        model = each.model or "unknown"
        if each.time != _NOWHERE:
            day = datetime.fromtimestamp(each.time, UTC).date().isoformat()
            total = days[day, model]
            total[0] += each.count
            total[1] += each.usd or 0.0
        if each.waited is not None and each.submitted_at is not None:
            usual = schedule_for(None, each.model).usual_seconds
            waits.append(
                Wait(submitted_at=each.submitted_at, model=model, seconds=each.waited, usual_seconds=usual)
            )
        if each.failed:
            failures[each.failure_kind or OTHER_FAILURE] += each.failed
    finished = [
        each for each in matching if each.model == BATCH_MODEL or group_of(each.status) == "completed"
    ]
    return Summary(
        count=sum(each.count for each in matching),
        seconds=round(sum(each.seconds or 0.0 for each in finished), 2),
        usd=round(sum(each.usd or 0.0 for each in matching), 6),
        usd_unknown=sum(each.usd is None for each in finished),
        by_day=[
            DayTotal(day=day, model=model, count=int(count), usd=round(usd, 6))
            for (day, model), (count, usd) in sorted(days.items())
        ],
        waits=sorted(waits, key=lambda wait: wait.submitted_at)[-MOST_WAITS:],
        failures=[FailureCount(kind=kind, count=count) for kind, count in failures.most_common()],
        facets=Facets(
            dags=sorted({each.dag_id for each in found}),
            tasks=sorted({each.task_id for each in found}),
            models=sorted({each.model for each in found if each.model}),
        ),
    )


def _moment(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC)

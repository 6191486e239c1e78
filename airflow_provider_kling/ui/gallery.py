"""The gallery: all generations that a viewer may see, filtered, sorted, summed and page by page."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_provider_kling.api.catalog.models import schedule_for
from airflow_provider_kling.task import xcom
from airflow_provider_kling.ui import database
from airflow_provider_kling.ui.datamodels import DayTotal, Facets, FailureCount, Summary, Wait
from airflow_provider_kling.ui.generations import KEYS, WAITING, GenerationFacts, Status, assemble

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

PAGE_SIZE: Final = 24
_MOST_RUNS_NAMED: Final = 200
"""Runs in one condition; with more, whole DAGs are read."""
_MOST_RUNS_KEPT: Final = 20_000
MOST_WAITS: Final = 400
"""Points in the plot of waiting times."""
OTHER_FAILURE: Final = "Task failed"
"""The reason of a failure that left no error of this provider."""

Sort = Literal["newest", "oldest", "dearest", "cheapest"]
StatusFilter = Literal["waiting", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class Filters:
    """What a viewer wants to see. None means everything.

    :param text: has to be in the prompt, whatever its case.
    :param since: epoch seconds; the run's ``run_after``.
    :param until: epoch seconds, exclusive.
    """

    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    model: str | None = None
    status: StatusFilter | None = None
    text: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of generations, and of how many pages it is."""

    generations: list[GenerationFacts]
    pages: int


def page(session: Session, dag_ids: Collection[str], filters: Filters, sort: Sort, number: int) -> Page:
    """One page of the generations that the filters let through.

    By time, and where the database can do all of the filtering, only this page is read; it has all the
    variants of :data:`PAGE_SIZE` task instances. Otherwise all are read, at first, and then what changed.

    :param dag_ids: those that the viewer may read.
    :param number: from 1.
    """
    first = (number - 1) * PAGE_SIZE
    if sort not in ("newest", "oldest") or any((filters.model, filters.status, filters.text)):
        matching = ordered(everything(session, dag_ids, filters).matching(filters), sort)
        return Page(matching[first : first + PAGE_SIZE], _pages(len(matching)))
    pushed, total = database.read_page(
        session,
        xcom.GENERATION_ID,
        _conditions(dag_ids, filters, task_id=filters.task_id),
        newest_first=sort == "newest",
        offset=first,
        limit=PAGE_SIZE,
    )
    if not pushed:
        return Page([], _pages(total))
    conditions = database.beside(pushed)
    attempts = database.read_producers(session, KEYS, conditions)
    shown = {each.id for each in pushed}
    everyone = assemble(attempts, database.read_xcoms(session, KEYS, conditions))
    return Page(ordered([each for each in everyone if each.attempt.id in shown], sort), _pages(total))


def _pages(total: int) -> int:
    return max(1, -(-total // PAGE_SIZE))


def _conditions(
    dag_ids: Collection[str], filters: Filters, task_id: str | None = None
) -> database.Conditions:
    chosen = set(dag_ids) if filters.dag_id is None else set(dag_ids) & {filters.dag_id}
    return database.of_dags(
        chosen,
        run_id=filters.run_id,
        task_id=task_id,
        since=_moment(filters.since),
        until=_moment(filters.until),
    )


@dataclass(frozen=True, slots=True)
class Everything:
    """All generations of the DAGs, runs and days that some filters name."""

    all: list[GenerationFacts]

    def matching(self, wanted: Filters) -> list[GenerationFacts]:
        """Those that the other filters let through too."""
        text = wanted.text.casefold() if wanted.text else None
        return [
            each
            for each in self.all
            if (wanted.task_id is None or each.attempt.task_id == wanted.task_id)
            and (wanted.model is None or each.model == wanted.model)
            and (text is None or text in each.prompt.casefold())
            and (wanted.status is None or wanted.status == group_of(each.status))
            and (wanted.since is None or _time(each) >= wanted.since)
            and (wanted.until is None or _time(each) < wanted.until)
        ]


_kept: OrderedDict[tuple[str, str], tuple[tuple[Any, ...], list[GenerationFacts]]] = OrderedDict()
_kept_lock: Final = Lock()


def everything(session: Session, dag_ids: Collection[str], filters: Filters) -> Everything:
    """All generations of the runs that have anything to do with some filters.

    What was read of a run is kept in memory, and read again when Airflow has changed anything in it.

    :param dag_ids: those that the viewer may read; nothing else is looked for in what is kept.
    """
    versions = database.run_versions(session, KEYS, _conditions(dag_ids, filters))
    with _kept_lock:
        known = {run: _kept[run] for run in versions if run in _kept and _kept[run][0] == versions[run]}
    found = [each for _, kept in known.values() for each in kept]
    changed = versions.keys() - known.keys()
    if changed:
        read = _read(session, changed)
        with _kept_lock:
            for run, facts in read.items():
                _kept[run] = (versions[run], facts)
                _kept.move_to_end(run)
            while len(_kept) > _MOST_RUNS_KEPT:
                _kept.popitem(last=False)
        found += [each for facts in read.values() for each in facts]
    return Everything(found)


def _read(
    session: Session, runs: Collection[tuple[str, str]]
) -> dict[tuple[str, str], list[GenerationFacts]]:
    if len(runs) > _MOST_RUNS_NAMED:
        conditions = database.of_dags({dag_id for dag_id, _ in runs})
    else:
        conditions = database.of_runs(runs)
    attempts = database.read_producers(session, KEYS, conditions)
    by_run: dict[tuple[str, str], list[GenerationFacts]] = {run: [] for run in runs}
    for each in assemble(attempts, database.read_xcoms(session, KEYS, conditions)):
        run = (each.attempt.dag_id, each.attempt.run_id)
        if run in by_run:
            by_run[run].append(each)
    return by_run


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


def _usd(each: GenerationFacts) -> float:
    return _NOWHERE if each.usd is None else each.usd


def ordered(found: Sequence[GenerationFacts], sort: Sort) -> list[GenerationFacts]:
    """Sort generations; by time, those of one task instance stay together, in the order of its variants."""
    if sort == "dearest":
        return sorted(found, key=lambda each: (-_usd(each), -_time(each)))
    if sort == "cheapest":
        return sorted(found, key=lambda each: (each.usd is None, _usd(each), -_time(each)))
    latest: dict[Any, float] = {}
    for each in found:
        latest[each.attempt.id] = max(_time(each), latest.get(each.attempt.id, _NOWHERE))
    sign = -1 if sort == "newest" else 1
    return sorted(found, key=lambda each: (sign * latest[each.attempt.id], str(each.attempt.id), each.place))


def summary(found: Everything, filters: Filters) -> Summary:
    """Totals and plots of the generations that the filters let through."""
    matching = found.matching(filters)
    days: dict[tuple[str, str], list[float]] = defaultdict(list)
    waits: list[Wait] = []
    failures: Counter[str] = Counter()
    for each in matching:
        model = each.model or "unknown"
        if (time := _time(each)) != _NOWHERE:
            day = datetime.fromtimestamp(time, UTC).date().isoformat()
            days[day, model].append(each.usd or 0.0)
        if each.waited is not None and each.submitted_at is not None:
            usual = schedule_for(None, each.model).usual_seconds
            waits.append(
                Wait(submitted_at=each.submitted_at, model=model, seconds=each.waited, usual_seconds=usual)
            )
        if each.status == "failed":
            failures[each.failure_kind or OTHER_FAILURE] += 1
    finished = [each for each in matching if each.status in ("completed", "saved")]
    return Summary(
        count=len(matching),
        seconds=round(sum(each.seconds or 0.0 for each in finished), 2),
        usd=round(sum(each.usd or 0.0 for each in matching), 6),
        usd_unknown=sum(each.usd is None for each in finished),
        by_day=[
            DayTotal(day=day, model=model, count=len(usd), usd=round(sum(usd), 6))
            for (day, model), usd in sorted(days.items())
        ],
        waits=sorted(waits, key=lambda wait: wait.submitted_at)[-MOST_WAITS:],
        failures=[FailureCount(kind=kind, count=count) for kind, count in failures.most_common()],
        facets=Facets(
            dags=sorted({each.attempt.dag_id for each in found.all}),
            tasks=sorted({each.attempt.task_id for each in found.all}),
            models=sorted({each.model for each in found.all if each.model}),
        ),
    )


def _moment(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC)

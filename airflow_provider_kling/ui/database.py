"""Reads Airflow's database, the same way for all versions: task instances, their attempts and their XComs.

Up to Airflow 3.3 an XCom belongs to a task instance, and a retry clears it; the attempts before the last
are in a table of their own. From 3.4 on each attempt is a row of its own, with its XComs.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import (
    String,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
    union_all,
)

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, FromClause, Select
    from sqlalchemy.orm import Session

    Conditions = Sequence[ColumnElement[bool]]

_TI: Final = TaskInstance.__table__
_RUN: Final = DagRun.__table__
_TABLES: Final = TaskInstance.metadata.tables
BY_ATTEMPT: Final = "xcom_v2" in _TABLES
"""Whether XComs belong to an attempt, as from Airflow 3.4 on."""


class TaskKey(NamedTuple):
    """A task instance, whatever its attempt.

    :param map_index: -1 where the task is not mapped.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


class Attempt(NamedTuple):
    """One attempt of a task instance.

    :param id: Airflow's id of it.
    :param current: whether it is the last one.
    :param run_state: of the DAG run, which tells whether anything is going to change.
    """

    id: Any
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    state: str | None
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    operator: str | None
    label: str | None
    current: bool
    run_state: str | None

    @property
    def task(self) -> TaskKey:
        """Which task instance it is an attempt of."""
        return TaskKey(self.dag_id, self.run_id, self.task_id, self.map_index)


class XCom(NamedTuple):
    """One XCom.

    :param attempt_id: Airflow's id of the attempt.
    :param value: as JSON.
    """

    attempt_id: Any
    key: str
    value: str | None
    at: datetime


def _map_index(table: FromClause) -> ColumnElement[int]:
    if not BY_ATTEMPT:
        return table.c.map_index
    from airflow.models.dynamic_region import (  # type: ignore[import-not-found]  # 3.4 and newer
        SENTINEL_REGION_ID,
        DynamicRegion,
    )

    regions = DynamicRegion.__table__
    mapped = (
        select(regions.c.id)
        .where(regions.c.id == table.c.region_id, regions.c.node_id == table.c.task_id)
        .correlate(table)
        .exists()
    )
    plain = table.c.region_id == SENTINEL_REGION_ID
    return case((plain | mapped, table.c.region_index), else_=literal(-1))


def _operator(table: FromClause) -> ColumnElement[str | None]:
    return case((table.c.custom_operator_name != "", table.c.custom_operator_name), else_=table.c.operator)


def _plain(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """An id as the driver gives it, mostly a text: UUIDs take long to make and to compare."""
    return type_coerce(column, String)


def _typed(ids: Iterable[Any]) -> list[Any]:
    """Ids as their column takes them: they were text before Airflow 3.2."""
    text = isinstance(_TI.c.id.type, String)
    return [uuid.UUID(each) if isinstance(each, str) and not text else each for each in ids]


def _attempts(table: FromClause, current: ColumnElement[bool]) -> Select[Any]:
    c = table.c
    return select(
        _plain(c.id if "id" in c else c.task_instance_id).label("id"),
        c.dag_id,
        c.run_id,
        c.task_id,
        _map_index(table).label("map_index"),
        c.try_number,
        c.state,
        c.queued_dttm,
        c.start_date,
        c.end_date,
        _operator(table).label("operator"),
        c.rendered_map_index,
        current.label("current"),
        select(_RUN.c.state)
        .where(_RUN.c.dag_id == c.dag_id, _RUN.c.run_id == c.run_id)
        .correlate(table)
        .scalar_subquery()
        .label("run_state"),
    )


def _current() -> ColumnElement[bool]:
    return _TI.c.working_set.is_(True) if BY_ATTEMPT else true()


def of_task(key: TaskKey) -> Conditions:
    """Restricts a reading to one task instance, with all of its attempts."""
    return (*of_run(key.dag_id, key.run_id), _TI.c.task_id == key.task_id, _map_index(_TI) == key.map_index)


def of_run(dag_id: str, run_id: str) -> Conditions:
    """Restricts a reading to one DAG run."""
    return (_TI.c.dag_id == dag_id, _TI.c.run_id == run_id)


def of_runs(runs: Collection[tuple[str, str]]) -> Conditions:
    """Restricts a reading to some DAG runs, each a DAG id and a run id."""
    return (tuple_(_TI.c.dag_id, _TI.c.run_id).in_(sorted(runs)),)


def of_dags(
    dag_ids: Collection[str],
    *,
    run_id: str | None = None,
    task_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Conditions:
    """Restricts a reading to some DAGs, and further.

    :param since: the earliest start of a task instance.
    :param until: the latest, exclusive.
    """
    conditions: list[ColumnElement[bool]] = [_TI.c.dag_id.in_(sorted(dag_ids)) if dag_ids else false()]
    if run_id is not None:
        conditions.append(_TI.c.run_id == run_id)
    if task_id is not None:
        conditions.append(_TI.c.task_id == task_id)
    if since is not None:
        conditions.append(_TI.c.start_date >= since)
    if until is not None:
        conditions.append(_TI.c.start_date < until)
    return conditions


def of_attempts(ids: Collection[Any]) -> Conditions:
    """Restricts a reading to some attempts, by Airflow's ids of them."""
    return (_TI.c.id.in_(_typed(ids)),)


def read_attempts(session: Session, key: TaskKey) -> list[Attempt]:
    """All attempts of a task instance, the last one first; none where there is no such task instance."""
    found = [Attempt(*row) for row in session.execute(_attempts(_TI, _current()).where(*of_task(key)))]
    if not BY_ATTEMPT and found:
        from airflow.models.taskinstancehistory import TaskInstanceHistory

        past = TaskInstanceHistory.__table__
        earlier = _attempts(past, false()).where(
            past.c.dag_id == key.dag_id,
            past.c.run_id == key.run_id,
            past.c.task_id == key.task_id,
            past.c.map_index == key.map_index,
        )
        found += [Attempt(*row) for row in session.execute(earlier)]
    return sorted(found, key=lambda each: (each.current, each.try_number), reverse=True)


def read_producers(session: Session, keys: Collection[str], conditions: Conditions) -> list[Attempt]:
    """The last attempt of each task instance that has pushed one of some XComs."""
    found: dict[Any, Attempt] = {}
    for table, join in _xcom_tables():
        query = _attempts(_TI, _current()).select_from(join)
        query = query.where(table.c.key.in_(keys), _current(), *conditions)
        found.update((row[0], Attempt(*row)) for row in session.execute(query.distinct()))
    return list(found.values())


def read_xcoms(session: Session, keys: Collection[str], conditions: Conditions) -> Iterator[XCom]:
    """XComs as the database has them; what a custom XCom backend keeps elsewhere is not read."""
    for table, join in _xcom_tables():
        # As text: what is never shown need not be decoded.
        columns = (_plain(_TI.c.id), table.c.key, cast(table.c.value, Text), table.c.timestamp)
        query = select(*columns).select_from(join).where(table.c.key.in_(keys), *conditions)
        for row in session.execute(query):
            yield XCom(*row)


def read_page(
    session: Session,
    keys: Collection[str],
    conditions: Conditions,
    *,
    newest_first: bool,
    offset: int,
    limit: int,
) -> tuple[list[tuple[Any, TaskKey]], int]:
    """The task instances that have pushed one of some XComs, by when they pushed it, page by page.

    :param keys: of the XComs; no task pushes two of them.
    :return: one page of them, each with Airflow's id of its last attempt, and how many there are in all.
    """
    parts = [
        select(
            _plain(_TI.c.id).label("id"),
            _TI.c.dag_id.label("dag_id"),
            _TI.c.run_id.label("run_id"),
            _TI.c.task_id.label("task_id"),
            _map_index(_TI).label("map_index"),
            table.c.timestamp.label("at"),
        )
        .select_from(join)
        .where(table.c.key.in_(keys), _current(), *conditions)
        for table, join in _xcom_tables()
    ]
    rows = (parts[0] if len(parts) == 1 else union_all(*parts)).subquery()
    total = session.scalar(select(func.count()).select_from(rows)) or 0
    direction = rows.c.at.desc() if newest_first else rows.c.at.asc()
    query = select(*rows.c).order_by(direction, rows.c.map_index).offset(offset).limit(limit)
    return [(id_, TaskKey(*key)) for id_, *key, _ in session.execute(query)], total


def beside(pushed: Sequence[tuple[Any, TaskKey]]) -> Conditions:
    """Restricts a reading to some task instances, and to those that may have gone on with their work.

    The latter are the instances of other tasks of the same runs, of the same map index or not mapped.
    """
    runs = {(key.dag_id, key.run_id) for _, key in pushed}
    indexes = {key.map_index for _, key in pushed} | {-1}
    others = and_(
        tuple_(_TI.c.dag_id, _TI.c.run_id).in_(sorted(runs)),
        _TI.c.task_id.not_in({key.task_id for _, key in pushed}),
        _map_index(_TI).in_(indexes),
    )
    return (or_(_TI.c.id.in_(_typed(id_ for id_, _ in pushed)), others),)


def run_versions(
    session: Session, keys: Collection[str], conditions: Conditions
) -> dict[tuple[str, str], tuple[Any, ...]]:
    """DAG id and run id -> what changes when anything about the run's generations does."""
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    ti = _TI.c
    for table, join in _xcom_tables():
        columns = (
            ti.dag_id,
            ti.run_id,
            func.count(),
            type_coerce(func.max(table.c.timestamp), String),
            type_coerce(func.max(ti.updated_at), String),
            func.max(_RUN.c.state),
        )
        with_runs = join.join(_RUN, and_(_RUN.c.dag_id == ti.dag_id, _RUN.c.run_id == ti.run_id))
        query = select(*columns).select_from(with_runs).where(table.c.key.in_(keys), _current(), *conditions)
        for dag_id, run_id, *version in session.execute(query.group_by(ti.dag_id, ti.run_id)):
            found[dag_id, run_id] = (*found.get((dag_id, run_id), ()), *version)
    return found


def _xcom_tables() -> Iterator[tuple[FromClause, FromClause]]:
    """Each table of XComs, and how its rows find their attempts."""
    if not BY_ATTEMPT:
        xcom = XComModel.__table__
        yield xcom, xcom.join(_TI, _same_task(xcom, _TI))
        return
    newer, older, owner = _TABLES["xcom_v2"], _TABLES["xcom_v1"], _TABLES["legacy_task_data_owner"]
    yield newer, newer.join(_TI, newer.c.task_instance_id == _TI.c.id)
    yield older, older.join(owner, _same_task(older, owner)).join(_TI, owner.c.task_instance_id == _TI.c.id)


def _same_task(one: FromClause, other: FromClause) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in ("dag_id", "run_id", "task_id", "map_index")))


_dags_seen: Final[dict[str, tuple[float, frozenset[str]]]] = {}
"""Database -> when it was last asked, and the ids of DAGs that were found by then."""
_SEEN_AGAIN: Final = 600.0
"""Seconds before the last time from which XComs are looked at again, as clocks differ."""


def dags_with(session: Session, keys: Collection[str]) -> set[str]:
    """Ids of the DAGs whose tasks have pushed one of some XComs, at any time.

    Only the first time looks at all XComs, which takes long where there are millions: Airflow 3.4 has no
    index on their keys. Later ones look at what was pushed since, found by the ids, which rise with time.
    """
    database, now = str(session.get_bind().engine.url), time.time()
    last, found = _dags_seen.get(database, (None, frozenset()))
    for table, join in _xcom_tables():
        query = select(_TI.c.dag_id).select_from(join).where(table.c.key.in_(keys)).distinct()
        if last is not None:
            query = query.where(_pushed_since(table, last - _SEEN_AGAIN))
        found |= set(session.scalars(query))
    _dags_seen[database] = (now, found)
    return set(found)


def _pushed_since(table: FromClause, epoch: float) -> ColumnElement[bool]:
    if "id" in table.c:
        return table.c.id >= uuid.UUID(int=int(epoch * 1000) << 80)  # they are UUIDs of version 7
    return table.c.timestamp >= datetime.fromtimestamp(epoch, UTC)


def asks_a_person(session: Session, attempt_id: Any) -> bool:
    """Whether an attempt is a human-in-the-loop task that waits for its answer."""
    from airflow.models.hitl import HITLDetail

    asked = HITLDetail.__table__
    return session.scalar(select(asked.c.ti_id).where(asked.c.ti_id.in_(_typed([attempt_id])))) is not None


def tasks_upstream(session: Session, key: TaskKey) -> set[str]:
    """Ids of all tasks upstream of a task, by the DAG as it is now; none where it is gone from it."""
    from airflow.models.serialized_dag import SerializedDagModel

    dag: Any = SerializedDagModel.get_dag(key.dag_id, session=session)
    if dag is None or not dag.has_task(key.task_id):
        return set()
    return set(dag.get_task(key.task_id).get_flat_relative_ids(upstream=True))


def connection_id(session: Session, attempt: Attempt) -> str | None:
    """The rendered ``kling_conn_id`` of an attempt; None where Airflow has not kept it."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields

    if BY_ATTEMPT:
        row: Any = RenderedTaskInstanceFields.get_for_attempt(*_typed([attempt.id]), session=session)
        fields = getattr(row, "rendered_fields", row)
    else:
        table = RenderedTaskInstanceFields.__table__
        task = attempt.task
        fields = session.scalar(
            select(table.c.rendered_fields).where(
                *(table.c[name] == getattr(task, name) for name in TaskKey._fields)
            )
        )
    found = fields.get("kling_conn_id") if isinstance(fields, dict) else None
    return found if isinstance(found, str) and found else None

"""Rows in an Airflow database of this process: DAGs, runs, task instances and their XComs, as tasks leave them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import uuid6
from airflow import settings
from airflow.configuration import conf
from sqlalchemy import String, event, insert, select

NOW: Final = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
_BUNDLE: Final = "kling-tests"
MODEL: Final = "kling-video/v1.6/standard/image-to-video"


@contextlib.contextmanager
def database(folder: Path) -> Iterator[None]:
    """Give this process an empty Airflow database of its own."""
    before = conf.get("database", "sql_alchemy_conn")
    _use(f"sqlite:///{folder / 'airflow.db'}")
    from airflow.models import import_all_models
    from airflow.models.base import Base

    import_all_models()
    Base.metadata.create_all(settings.engine)
    try:
        yield
    finally:
        settings.dispose_orm()
        _use(before)


def _use(url: str) -> None:
    conf.set("database", "sql_alchemy_conn", url)
    settings.configure_vars()
    settings.configure_orm()


@contextlib.contextmanager
def counted_queries() -> Iterator[list[str]]:
    """Collect the statements that are sent to the database."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    event.listen(settings.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(settings.engine, "before_cursor_execute", note)


class Rows:
    """Adds rows, and writes them when the block is left.

    :param start: when the first run began.
    """

    def __init__(self, start: datetime = NOW) -> None:
        self.start = start
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self._runs: dict[tuple[str, str], int] = {}
        self._dags: dict[str, uuid.UUID] = {}

    def __enter__(self) -> Rows:
        from airflow.models import import_all_models
        from airflow.models.base import Base

        import_all_models()
        tables = Base.metadata.tables
        runs, versions, bundles = (tables[name] for name in ("dag_run", "dag_version", "dag_bundle"))
        with settings.engine.connect() as connection:
            for number, dag_id, run_id in connection.execute(select(runs.c.id, runs.c.dag_id, runs.c.run_id)):
                self._runs[dag_id, run_id] = number
            if _BUNDLE not in connection.scalars(select(bundles.c.name)).all():
                self._add("dag_bundle", name=_BUNDLE, active=True)
            known = connection.execute(select(versions.c.dag_id, versions.c.id))
            self._dags = dict(map(tuple, known))
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self._write()

    def run(self, dag_id: str, run_id: str, *, state: str = "success", at: datetime | None = None) -> None:
        """Add a run, and its DAG where it is new."""
        if dag_id not in self._dags:
            self._dag(dag_id)
        number = max(self._runs.values(), default=0) + 1
        self._runs[dag_id, run_id] = number
        moment = at or self.start
        self._add(
            "dag_run",
            id=number,
            dag_id=dag_id,
            run_id=run_id,
            state=state,
            run_type="manual",
            run_after=moment,
            logical_date=None,
            start_date=moment,
            queued_at=moment,
            span_status="ended",
        )

    def task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        xcoms: Mapping[str, Any],
        *,
        map_index: int = -1,
        state: str | None = "success",
        try_number: int = 1,
        operator: str = "KlingGenerateOperator",
        at: datetime | None = None,
        xcoms_at: datetime | None = None,
        conn_id: str | None = None,
    ) -> uuid.UUID:
        """Add a task instance with its XComs; returns its id."""
        if (dag_id, run_id) not in self._runs:
            self.run(dag_id, run_id, at=at)
        moment = at or self.start
        attempt = uuid.uuid4()
        place = (
            {"map_index": map_index}
            if not _by_attempt()
            else {"region_index": map_index, "working_set": True}
        )
        self._add(
            "task_instance",
            id=attempt,
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            **place,
            try_number=try_number,
            max_tries=3,
            state=state,
            operator=operator,
            custom_operator_name="",
            pool="default_pool",
            pool_slots=1,
            queued_dttm=moment,
            start_date=moment,
            end_date=moment + timedelta(minutes=3) if state in ("success", "failed") else None,
            dag_version_id=self._dags[dag_id],
            rendered_map_index=f"clip {map_index}" if map_index >= 0 else None,
        )
        for key, value in xcoms.items():
            self.xcom(dag_id, run_id, task_id, attempt, key, value, map_index, xcoms_at or moment)
        if conn_id is not None:
            self._rendered(dag_id, run_id, task_id, attempt, map_index, {"kling_conn_id": conn_id})
        return attempt

    def xcom(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        attempt: uuid.UUID,
        key: str,
        value: Any,
        map_index: int,
        at: datetime,
    ) -> None:
        """Add an XCom."""
        if _by_attempt():
            self._add(
                "xcom_v2", id=uuid6.uuid7(), task_instance_id=attempt, key=key, value=value, timestamp=at
            )
            return
        self._add(
            "xcom",
            dag_run_id=self._runs[dag_id, run_id],
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=map_index,
            key=key,
            value=value,
            timestamp=at,
        )

    def earlier_attempt(
        self, dag_id: str, run_id: str, task_id: str, *, map_index: int = -1, try_number: int = 1
    ) -> None:
        """Add an attempt that failed before the last one."""
        if _by_attempt():
            self.task(dag_id, run_id, task_id, {}, map_index=map_index, state="failed", try_number=try_number)
            self._rows["task_instance"][-1]["working_set"] = None
            return
        self._add(
            "task_instance_history",
            task_instance_id=uuid.uuid4(),
            dag_id=dag_id,
            run_id=run_id,
            task_id=task_id,
            map_index=map_index,
            try_number=try_number,
            state="failed",
            operator="KlingGenerateOperator",
            pool="default_pool",
            pool_slots=1,
            start_date=self.start,
            end_date=self.start + timedelta(seconds=20),
        )

    def question(self, attempt: uuid.UUID, options: Iterable[str]) -> None:
        """Add what a human-in-the-loop task asks."""
        self._add(
            "hitl_detail",
            ti_id=attempt,
            options=list(options),
            subject="Which one?",
            body=None,
            defaults=None,
            multiple=False,
            params={},
            assignees=None,
            params_input={},
        )

    def _dag(self, dag_id: str) -> None:
        version = uuid.uuid4()
        self._dags[dag_id] = version
        self._add(
            "dag",
            dag_id=dag_id,
            bundle_name=_BUNDLE,
            is_paused=False,
            is_stale=False,
            max_active_tasks=16,
            max_consecutive_failed_dag_runs=0,
            has_import_errors=False,
            has_task_concurrency_limits=False,
        )
        self._add("dag_version", id=version, version_number=1, dag_id=dag_id, bundle_name=_BUNDLE)

    def _rendered(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        attempt: uuid.UUID,
        map_index: int,
        fields: dict[str, Any],
    ) -> None:
        if _by_attempt():
            self._add("rtif_v2", id=uuid.uuid4(), task_instance_id=attempt, rendered_fields=fields)
            return
        where = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
        self._add("rendered_task_instance_fields", **where, rendered_fields=fields)

    def _add(self, table: str, **values: Any) -> None:
        self._rows.setdefault(table, []).append(values)

    def _write(self) -> None:
        from airflow.models.base import Base

        with settings.engine.begin() as connection:
            for name, rows in self._rows.items():
                table = Base.metadata.tables[name]
                known = [
                    {key: _typed(table.c[key], value) for key, value in row.items() if key in table.c}
                    for row in rows
                ]
                connection.execute(insert(table), known)
        self._rows.clear()


def _by_attempt() -> bool:
    from airflow.models.base import Base

    return "xcom_v2" in Base.metadata.tables


def _typed(column: Any, value: Any) -> Any:
    """A value as its column takes it: ids were text before Airflow 3.2."""
    text = isinstance(value, uuid.UUID) and (
        isinstance(column.type, String) or getattr(column.type, "as_uuid", True) is False
    )
    return str(value) if text else value


def request(
    prompt: str = "Steam rises from the mug.",
    *,
    model: str = MODEL,
    submitted_at: float | None = None,
    client_request_id: str = "kling:shop:generate:0:abc",
    **parameters: Any,
) -> dict[str, Any]:
    """What a task pushes of its request."""
    return {
        "model": model,
        "parameters": {"prompt": prompt, "duration": 5, **parameters},
        "client_request_id": client_request_id,
        "submitted_at": NOW.timestamp() if submitted_at is None else submitted_at,
    }


def video(path: Path | str, generation_id: str, *, size: int = 1000) -> dict[str, Any]:
    """What a task pushes of its saved video."""
    return {
        "generation_id": generation_id,
        "path": str(path),
        "size": size,
        "sha256": "0" * 64,
        "duration": 5.04,
        "width": 320,
        "height": 180,
    }


def generated(
    generation_id: str, *, path: Path | str | None = None, usd: float = 0.3, **asked: Any
) -> dict[str, Any]:
    """All XComs of a generation that was completed, and saved where a path is given."""
    found = {
        "generation_id": generation_id,
        "client_request_id": "kling:shop:generate:0:abc",
        "request": request(**asked),
        "video_url": "https://cdn.example/video.mp4?ksSecret=never-shown",
        "generation": {
            "id": generation_id,
            "status": "completed",
            "duration": 5.0,
            "video_url": "https://cdn.example/video.mp4?ksSecret=never-shown",
        },
        "cost": {"credits": usd * 1000, "usd": usd, "source": "usage", "usd_source": "ledger"},
    }
    if path is not None:
        found |= {"path": str(path), "video": video(path, generation_id)}
    return found

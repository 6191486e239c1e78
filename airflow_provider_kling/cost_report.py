"""KlingCostReport sums what generations cost, by dag, task and model, from the vendor's own logs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.billing.usage import accepted_rows, aligned_text, csv_text
from airflow_provider_kling.api.calls import LONGEST_LOG_WINDOW
from airflow_provider_kling.api.durable.identity import place_in
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.retry import CLOCK_SKEW
from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.task.xcom import GENERATION_ID

if TYPE_CHECKING:
    from airflow_provider_kling.api.client import KlingClient
    from airflow_provider_kling.api.transport.response_parsing import LogRow
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)

UNKNOWN: Final = "?"
"""Stands for a dag, task or model that the vendor's row does not name."""


@dataclass(slots=True)
class CostRow:
    """The generations of one model by one task, or by one pass of a loop.

    :param generations: requests that the vendor accepted.
    :param failed: those of them that ended in an error, which is not charged.
    :param credits: charged so far.
    :param usd: the same in USD, by the vendor.
    :param loop_pass: index of the loop's pass; None where the task is in none.
    """

    dag: str
    task: str
    model: str
    generations: int = 0
    failed: int = 0
    credits: float = 0.0
    usd: float = 0.0
    loop_pass: int | None = None


@dataclass(frozen=True, slots=True)
class CostTable:
    """What generations cost.

    :param title: what is summed.
    :param rows: by dag, task, model and pass of a loop, the most expensive first.
    :param missing: generation ids that the vendor's logs do not list yet; they can lag.
    """

    title: str
    rows: tuple[CostRow, ...]
    missing: tuple[str, ...] = field(default=())

    @property
    def usd(self) -> float:
        """The sum in USD."""
        return round(sum(row.usd for row in self.rows), 6)

    @property
    def credits(self) -> float:
        """The sum in credits."""
        return sum(row.credits for row in self.rows)

    def text(self) -> str:
        """As a table to read, with a line for the sum; the pass has a column where a task is in a loop."""
        total = CostRow("total", "", "", credits=self.credits, usd=self.usd)
        total.generations = sum(row.generations for row in self.rows)
        total.failed = sum(row.failed for row in self.rows)
        in_loops = any(row.loop_pass is not None for row in self.rows)
        columns = _COLUMNS if in_loops else tuple(name for name in _COLUMNS if name != _LOOP_PASS)
        shown = [[_shown(name, getattr(row, name)) for name in columns] for row in (*self.rows, total)]
        lines = [self.title, aligned_text(columns, shown, [name not in _TEXTS for name in columns])]
        if self.missing:
            lines.append(f"Not in the vendor's logs yet, and not summed: {', '.join(self.missing)}")
        return "\n".join(lines)

    def csv(self) -> str:
        """As CSV, a line for each row and none for the sum."""
        return csv_text(_COLUMNS, ([getattr(row, name) for name in _COLUMNS] for row in self.rows))


_COLUMNS: Final = tuple(each.name for each in fields(CostRow))
_TEXTS: Final = ("dag", "task", "model")
_LOOP_PASS: Final = "loop_pass"


class KlingCostReport:
    """Sums generations by what the vendor's request logs say of them; free.

    The logs come from an analytics pipeline: the latest generations can be missing, or be listed
    without their charge, which is booked after they complete.

    :param kling_conn_id: the account.
    """

    def __init__(self, kling_conn_id: str = DEFAULT_CONNECTION_ID) -> None:
        self.kling_conn_id = kling_conn_id

    def of_run(self, context: Context, task_ids: Sequence[str] | None = None) -> CostTable:
        """The generations of the dag run that this is called in.

        Each task's XCom tells which they are, so dag and task have their full names. A generation of a
        previous attempt that a later one did not re-attach to is not among them. They are searched for
        back to when the run began for the first time, 90 days at most.

        :param context: Airflow's, of a task downstream of those that generate.
        :param task_ids: of the tasks to sum; None for all of the dag.
        :raises KlingError: the vendor did not tell.
        """
        ti: Any = context["ti"]
        run: Any = context["dag_run"]
        task_of: dict[str, str] = {}
        for task_id in task_ids if task_ids is not None else context["dag"].task_ids:
            pulled = ti.xcom_pull(task_ids=[task_id], key=GENERATION_ID)
            task_of |= dict.fromkeys(_texts(pulled), task_id)
        client = self._client()
        since = max(_began(run) - CLOCK_SKEW, client.calls.now() + CLOCK_SKEW - LONGEST_LOG_WINDOW)
        calls = client.calls
        rows = client.run(
            accepted_rows(calls, since, math.inf, lambda row: row.inference_id in task_of, most=len(task_of))
        )
        missing = task_of.keys() - {row.inference_id for row in rows}
        return CostTable(
            f"What the run {run.run_id} of {ti.dag_id} cost:",
            _summed((ti.dag_id, task_of[row.inference_id or ""], row) for row in rows),
            tuple(sorted(missing)),
        )

    def of_day(self, day: date | None = None) -> CostTable:
        """All generations of the account that were submitted on a day, UTC.

        Dag and task come from the client request id that each submit carries. They are cut to 32
        characters there: two whose names begin alike are summed as one. What other programs
        submitted has ``?`` in their place.

        :param day: None for today.
        :raises KlingError: the vendor did not tell.
        """
        first = datetime.combine(day or datetime.now(UTC).date(), time(), UTC)
        return self.between(first, first + timedelta(days=1), f"What {first:%Y-%m-%d} (UTC) cost:")

    def between(self, start: datetime, end: datetime, title: str | None = None) -> CostTable:
        """All generations of the account that were submitted in a time span; see :meth:`of_day`.

        :param start: the first moment of the span; UTC where it names no time zone.
        :param end: the first moment after it; UTC likewise.
        :param title: of the table.
        :raises KlingError: the vendor did not tell.
        :raises ValueError: the span ends before it begins.
        """
        start, end = (each if each.tzinfo else each.replace(tzinfo=UTC) for each in (start, end))
        if end < start:
            raise ValueError(
                f"The time span ends at {end.isoformat()}, before it begins ({start.isoformat()})."
            )
        begins, ends = start.timestamp(), end.timestamp()

        def fits(row: LogRow) -> bool:
            return row.created is None or begins <= row.created < ends

        client = self._client()
        rows = client.run(accepted_rows(client.calls, begins, ends, fits))
        return CostTable(
            title or f"What {start.isoformat()} to {end.isoformat()} cost:",
            _summed((*_place(row), row) for row in rows),
        )

    def tell(self, table: CostTable, csv_path: str | None = None) -> None:
        """Log a table, and write it as CSV.

        :param csv_path: a local path, or the URI of an object in storage; None writes none. What is
            there is replaced.
        """
        log.info("%s", table.text())
        if csv_path is not None:
            from airflow_provider_kling.hooks.object_storage import write_text

            write_text(csv_path, table.csv())
            log.info("As CSV: %s", csv_path)

    def _client(self) -> KlingClient:
        from airflow_provider_kling.hooks.kling import KlingHook

        return KlingHook(self.kling_conn_id).get_conn()


def _began(run: Any) -> float:
    """Epoch seconds of when a dag run began for the first time, or some time before.

    A clear resets ``queued_at`` and ``start_date``. What it leaves alone, ``run_after`` (Airflow 3)
    and ``logical_date``, is long ago in a backfill, so it only counts where there was a clear.
    """
    names = ["queued_at", "start_date"]
    if getattr(run, "clear_number", None) != 0:
        names += ["run_after", "logical_date"]
    moments = [getattr(run, name, None) for name in names]
    return min((each.timestamp() for each in moments if isinstance(each, datetime)), default=-math.inf)


def _summed(placed: Iterable[tuple[str, str, LogRow]]) -> tuple[CostRow, ...]:
    sums: dict[tuple[str, str, str, int | None], CostRow] = {}
    for dag, task, row in placed:
        model = row.model or UNKNOWN
        place = place_in(row.client_request_id or "")
        loop_pass = place.loop_index if place else None
        summed = sums.setdefault(
            (dag, task, model, loop_pass), CostRow(dag, task, model, loop_pass=loop_pass)
        )
        summed.generations += 1
        summed.failed += row.failed
        summed.credits += row.credits or 0.0
        summed.usd = round(summed.usd + (row.usd or 0.0), 6)
    return tuple(
        sorted(
            sums.values(),
            key=lambda each: (-each.usd, each.dag, each.task, each.model, each.loop_pass or 0),
        )
    )


def _place(row: LogRow) -> tuple[str, str]:
    place = place_in(row.client_request_id or "")
    return (place.dag, place.task) if place else (UNKNOWN, UNKNOWN)


def _texts(value: Any) -> list[str]:
    """The texts in what XCom gave: one, none, or nested sequences of them."""
    if isinstance(value, str):
        return [value]
    if value is None or not isinstance(value, Iterable):
        return []
    return [text for each in value for text in _texts(each)]


def _shown(column: str, value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if column == "usd" else _plain(value)


def _plain(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value)

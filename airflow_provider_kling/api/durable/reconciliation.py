"""What this provider submitted, by the vendor's request logs, and what of it was paid and never saved."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias, get_args

from airflow_provider_kling.api.billing.usage import accepted_rows, aligned_text, csv_text
from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.durable.identity import place_in, readable
from airflow_provider_kling.api.exceptions import NotFoundError
from airflow_provider_kling.api.generation import GenerationStatus
from airflow_provider_kling.api.transport.endpoints import LogRow
from airflow_provider_kling.api.transport.messages import Flow

MOST_LINES: Final = 100
"""Orphans that the table in the log names; the CSV has all."""


State: TypeAlias = Literal["completed", "working", "failed", "unknown"]
"""How a generation stands at the vendor."""


@dataclass(slots=True)
class ReconciledRow:
    """One generation that this provider submitted.

    :param created: ISO 8601, UTC; empty where the vendor does not say.
    :param dag: as the client request id names it: cut to 32 characters; so is the task.
    :param position: index of a mapped task, of a loop's pass, or both; see :class:`.Place`.
    :param saved: whether its video is where it should be.
    :param path: where its video should be; empty where nobody said.
    :param problem: why that could not be looked up, or why the video could not be saved.
    """

    created: str
    dag: str
    task: str
    position: str
    model: str
    generation_id: str
    client_request_id: str
    state: State
    usd: float | None
    credits: float | None
    saved: Literal["yes", "no", "unknown"] = "unknown"
    path: str = ""
    problem: str = ""

    @property
    def is_orphan(self) -> bool:
        """Whether it was paid and its video was never saved."""
        return self.state == "completed" and self.saved == "no"


COLUMNS: Final = tuple(each.name for each in fields(ReconciledRow))
_SHOWN: Final = ("created", "dag", "task", "position", "model", "generation_id", "usd", "path")


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The generations of a span of time.

    :param rows: newest first.
    """

    rows: list[ReconciledRow]

    @property
    def orphans(self) -> list[ReconciledRow]:
        """What was paid and never saved."""
        return [row for row in self.rows if row.is_orphan]

    def summary(self) -> dict[str, Any]:
        """Counts, for a log, an XCom or a metric."""
        counted = {state: sum(row.state == state for row in self.rows) for state in get_args(State)}
        orphans = self.orphans
        return {
            "generations": len(self.rows),
            **counted,
            "saved": sum(row.saved == "yes" for row in self.rows),
            "orphans": len(orphans),
            "orphans_usd": round(sum(row.usd or 0.0 for row in orphans), 6),
            "problems": sum(bool(row.problem) for row in self.rows),
        }

    def text(self) -> str:
        """The orphans as a table to read; the first :data:`MOST_LINES` of them."""
        orphans = self.orphans
        if not orphans and any(row.problem for row in self.rows):
            return "Nothing that was paid is missing, as far as could be looked up."
        if not orphans:
            return "Nothing that was paid is missing."
        shown = [
            [f"{row.usd:.2f}" if name == "usd" and row.usd is not None else str(getattr(row, name) or "")
             for name in _SHOWN]
            for row in orphans[:MOST_LINES]
        ]  # fmt: skip
        table = aligned_text(_SHOWN, shown, [name == "usd" for name in _SHOWN])
        more = len(orphans) - MOST_LINES
        return table if more <= 0 else f"{table}\n... and {more} more"

    def csv(self) -> str:
        """All rows as CSV."""
        return csv_text(COLUMNS, ([getattr(row, name) for name in COLUMNS] for row in self.rows))


def submitted_rows(
    calls: VendorCalls,
    since: float,
    until: float,
    dags: Collection[str] = (),
    key_prefix: str | None = None,
) -> Flow[list[ReconciledRow]]:
    """What this provider submitted in a span of time: its client request ids are known; free.

    :param since: epoch seconds.
    :param until: epoch seconds; a row created then is not part of it.
    :param dags: ids of the DAGs; none for all. Ids that begin with the same 32 characters are not told apart.
    :param key_prefix: see :meth:`.Endpoints.logs`.
    :raises KlingError: the logs could not be read.
    """
    names = {readable(dag) for dag in dags}

    def fits(row: LogRow) -> bool:
        place = place_in(row.client_request_id or "")
        timely = row.created is None or since <= row.created < until
        return timely and place is not None and (not names or place.dag in names)

    rows = yield from accepted_rows(calls, since, until, fits, key_prefix=key_prefix)
    return [_row(row) for row in sorted(rows, key=lambda each: -(each.created or 0.0))]


def _row(row: LogRow) -> ReconciledRow:
    assert row.client_request_id is not None
    assert row.inference_id is not None
    place = place_in(row.client_request_id)
    assert place is not None
    charged = (row.usd or 0.0) > 0 or (row.credits or 0.0) > 0
    created = (
        "" if row.created is None else datetime.fromtimestamp(row.created, UTC).isoformat("T", "seconds")
    )
    return ReconciledRow(
        created=created,
        dag=place.dag,
        task=place.task,
        position=place.position,
        model=row.model or "",
        generation_id=row.inference_id,
        client_request_id=row.client_request_id,
        state="failed" if row.failed else "completed" if charged else "unknown",
        usd=row.usd,
        credits=row.credits,
    )


def current_state(calls: VendorCalls, generation_id: str) -> Flow[State]:
    """How a generation stands that the logs list as accepted and not as charged yet; free.

    :raises KlingError: the vendor could not be asked.
    """
    try:
        generation = yield from calls.get_generation(generation_id)
    except NotFoundError:
        return "unknown"
    if generation.status is GenerationStatus.COMPLETED:
        return "completed"
    return "failed" if generation.status is GenerationStatus.ERROR else "working"

"""What the vendor's request logs say of an account's generations, and how a table of them is written."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from airflow_provider_kling.api.calls import LONGEST_LOG_WINDOW, VendorCalls
from airflow_provider_kling.api.retry import CLOCK_SKEW
from airflow_provider_kling.api.transport.endpoints import LogRow
from airflow_provider_kling.api.transport.messages import Flow

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""With what a text begins that a spreadsheet takes for a formula."""


def accepted_rows(
    calls: VendorCalls,
    since: float,
    until: float,
    fits: Callable[[LogRow], bool],
    most: float = math.inf,
    key_prefix: str | None = None,
) -> Flow[list[LogRow]]:
    """Rows of accepted submits, each generation once, in as many queries as the vendor's window takes; free.

    :param since: epoch seconds.
    :param until: epoch seconds.
    :param most: how many generations there are at most; once they are found it ends.
    :param key_prefix: see :meth:`.Endpoints.logs`.
    :raises KlingError: the logs could not be read.
    """
    found: dict[str, LogRow] = {}

    def collect(row: LogRow) -> bool:
        if row.inference_id is not None and fits(row):
            known = found.get(row.inference_id)
            if known is None or (known.usd or 0.0) < (row.usd or 0.0):
                found[row.inference_id] = row
        return len(found) >= most

    until = min(until, calls.now() + CLOCK_SKEW)
    while until > since and len(found) < most:
        begins = max(since, until - LONGEST_LOG_WINDOW)
        yield from calls.find_row(collect, since=begins, until=until, key_prefix=key_prefix)
        until = begins
    return list(found.values())


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV. A text that a spreadsheet would take for a formula is marked as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_plain_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _plain_cell(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    marked = f"'{cell}" if cell.startswith(_FORMULA) or cell.lstrip().startswith(_FORMULA) else cell
    return marked.replace("\r", " ").replace("\n", " ")


def aligned_text(columns: Sequence[str], rows: Sequence[Sequence[str]], to_the_right: Sequence[bool]) -> str:
    """A table to read."""
    cells = [list(columns), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, to_the_right, strict=True)
        )
        for line in cells
    ]
    return "\n".join(line.rstrip() for line in lines)

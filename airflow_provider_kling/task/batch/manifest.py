"""The manifest of a batch: a line of JSON for each row, and the sums over them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from airflow_provider_kling.task.batch.state import REUSED, SAVED, STATUSES

FIELDS: Final = (
    "generation_id",
    "client_request_id",
    "path",
    "request",
    "video",
    "cost",
    "submitted_at",
    "saved_at",
    "reused",
    "error",
)


class Manifest:
    """Makes the lines, and sums up while they are read.

    :param path: where they are written.
    """

    def __init__(self, path: str) -> None:
        self.counts: Counter[str] = Counter()
        self._path = path
        self._usd = 0.0
        self._seconds = 0.0

    def lines(self, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
        """A line for each row, one by one.

        :param rows: the key of each with its record.
        """
        for key, record in rows:
            status = record["status"]
            self.counts[status] += 1
            if status == SAVED:
                self._usd += (record.get("cost") or {}).get("usd") or 0.0
            self._seconds += (record.get("video") or {}).get("duration") or 0.0
            known = {name: record[name] for name in FIELDS if record.get(name) is not None}
            if status in (SAVED, REUSED):
                known.pop("error", None)
            yield json.dumps({"key": key, "status": status, **known}, ensure_ascii=False) + "\n"

    def summary(self) -> dict[str, Any]:
        """Counts by status, cost in USD, seconds of video, and where the manifest is."""
        return {
            "total": self.counts.total(),
            **{name: self.counts[name] for name in STATUSES},
            "cost_usd": round(self._usd, 6),
            "video_seconds": round(self._seconds, 3),
            "manifest": self._path,
        }

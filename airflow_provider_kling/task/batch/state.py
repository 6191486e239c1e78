"""What a batch knows of its rows between two steps; small, whatever the rows hold."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from airflow_provider_kling.task.batch.rows import Row

IN_FLIGHT: Final = "submitted"
SAVED: Final = "saved"
REUSED: Final = "reused"
FAILED: Final = "failed"
UNCERTAIN: Final = "uncertain"
"""The vendor may have accepted it; its request log tells later."""
INVALID: Final = "invalid"
PENDING: Final = "pending"
"""Not submitted yet."""
DONE: Final = (SAVED, REUSED)


class InFlight(NamedTuple):
    """A generation that was submitted and has not ended yet."""

    number: int
    key: str
    submitted_at: float
    model: str
    estimate_usd: float

    @property
    def row(self) -> Row:
        """The row without its arguments."""
        return Row(self.number, self.key)


@dataclass(slots=True)
class BatchState:
    """What the run keeps between two rows; small, whatever the rows hold.

    :param attempt: the number of the attempt that it is of.
    :param total: rows of the batch.
    :param todo: numbers of the rows that are to be submitted, in their order.
    :param uncertain: numbers of the rows of which only the vendor's request log can tell.
    :param counts: status -> rows.
    :param in_flight: by generation id.
    :param spent_usd: of completed rows.
    :param retryable: whether another attempt may mend a failed row.
    :param errors: of the first rows that failed.
    """

    attempt: int
    total: int = 0
    todo: deque[int] = field(default_factory=deque)
    uncertain: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    in_flight: dict[str, InFlight] = field(default_factory=dict)
    spent_usd: float = 0.0
    retryable: bool = False
    errors: list[str] = field(default_factory=list)

    @property
    def committed_usd(self) -> float:
        """What was spent, and what is in flight by the price list."""
        return self.spent_usd + sum(each.estimate_usd for each in self.in_flight.values())

    def encode(self) -> dict[str, Any]:
        """As plain JSON."""
        said = {name: getattr(self, name) for name in self.__slots__}
        in_flight = {generation_id: list(each) for generation_id, each in self.in_flight.items()}
        return {**said, "todo": list(self.todo), "counts": dict(self.counts), "in_flight": in_flight}

    @classmethod
    def decode(cls, said: Mapping[str, Any] | None, attempt: int) -> BatchState | None:
        """From plain JSON; None where it is of another attempt, or none."""
        if said is None or said.get("attempt") != attempt:
            return None
        known = {name: said[name] for name in cls.__slots__ if name in said}
        known["todo"] = deque(known["todo"])
        known["counts"] = Counter(known["counts"])
        known["in_flight"] = {name: InFlight(*each) for name, each in known["in_flight"].items()}
        return cls(**known)

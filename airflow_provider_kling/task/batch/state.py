"""What a batch knows of its rows between two parts of its task; small, whatever the rows hold."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

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
STATUSES: Final = (SAVED, REUSED, FAILED, INVALID, IN_FLIGHT, UNCERTAIN, PENDING)


class InFlight(NamedTuple):
    """A generation that was submitted and has not ended yet.

    :param number: of its row.
    :param name: of its row's record.
    :param submitted_at: epoch seconds.
    :param model: empty where it is not known.
    :param estimate_usd: by the price list.
    :param polled_at: epoch seconds of the last poll; None where there was none.
    """

    number: int
    name: str
    submitted_at: float
    model: str
    estimate_usd: float
    polled_at: float | None = None


@dataclass(slots=True)
class BatchState:
    """What the run keeps between two rows.

    :param attempt: the number of the attempt that it is of.
    :param source: see :func:`.source_mark`.
    :param begun_at: epoch seconds of the begin of the attempt.
    :param done_before: rows that had ended by then.
    :param total: rows of the batch.
    :param todo: numbers of the rows that are to be submitted.
    :param uncertain: by the name of its record, the number of each row of which only the vendor's request
        log can tell.
    :param counts: status -> rows.
    :param in_flight: by generation id.
    :param spent_usd: of completed rows.
    :param retryable: whether another attempt may succeed with a failed row.
    :param errors: of the first rows that failed.
    """

    attempt: int
    source: str = ""
    begun_at: float = 0.0
    done_before: int = 0
    total: int = 0
    todo: set[int] = field(default_factory=set)
    uncertain: dict[str, int] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    in_flight: dict[str, InFlight] = field(default_factory=dict)
    spent_usd: float = 0.0
    retryable: bool = False
    errors: list[str] = field(default_factory=list)

    @property
    def committed_usd(self) -> float:
        """What was spent, and what is in flight by the price list."""
        return self.spent_usd + sum(each.estimate_usd for each in self.in_flight.values())

    @property
    def ended(self) -> int:
        """Rows of which nothing more is to come."""
        return sum(self.counts[status] for status in (*DONE, FAILED, INVALID))

    @property
    def active(self) -> int:
        """Rows that the vendor works on, or may."""
        return len(self.in_flight) + len(self.uncertain)

    def move(self, before: str, after: str) -> None:
        """Count a row under another status."""
        self.counts[before] -= 1
        self.counts[after] += 1

    def encode(self) -> dict[str, Any]:
        """As plain JSON."""
        said = {name: getattr(self, name) for name in self.__slots__}
        in_flight: dict[str, list[list[Any]]] = {}  # by model, whose name would be the longest part of each
        for generation_id, each in self.in_flight.items():
            times = [None if at is None else round(at, 1) for at in (each.submitted_at, each.polled_at)]
            facts = [generation_id, each.number, each.name, each.estimate_usd, *times]
            in_flight.setdefault(each.model, []).append(facts)
        return {**said, "todo": _encode(self.todo), "counts": dict(self.counts), "in_flight": in_flight}

    @classmethod
    def decode(cls, said: Mapping[str, Any] | None, attempt: int) -> BatchState | None:
        """From plain JSON; None where it is of another attempt, or cannot be read."""
        if said is None or said.get("attempt") != attempt:
            return None
        known = {name: said[name] for name in cls.__slots__ if name in said}
        try:
            known["todo"] = _decode(known["todo"])
            known["counts"] = Counter(known["counts"])
            known["in_flight"] = {
                generation_id: InFlight(number, name, submitted_at, model, usd, polled_at)
                for model, each in known["in_flight"].items()
                for generation_id, number, name, usd, submitted_at, polled_at in each
            }
            return cls(**known)
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error):
            return None


def _encode(numbers: Iterable[int]) -> str:
    """Numbers as text, one bit each: of 10,000 rows at most 1.7 kB, whichever are among them."""
    bits = bytearray()
    for number in numbers:
        place, bit = divmod(number, 8)
        if place >= len(bits):
            bits.extend(bytes(place + 1 - len(bits)))
        bits[place] |= 1 << bit
    return base64.b64encode(zlib.compress(bytes(bits))).decode()


def _decode(text: str) -> set[int]:
    bits = zlib.decompress(base64.b64decode(text, validate=True))
    return {8 * place + bit for place, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1}

"""One attempt of one task instance: whose work it is, why it runs, and when previous attempts ran."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

AttemptKind: TypeAlias = Literal["first", "retry", "clear"]
"""Why a task runs: for the first time, as Airflow retries it, or as a person cleared it."""

_BEFORE_RENUMBERING: Final = 20


@dataclass(frozen=True, slots=True)
class TaskAttempt:
    """One attempt of one task instance, as the scheduler tells of it.

    :param map_index: -1 where the task is not mapped.
    :param variant: which of several generations of the task instance: a number, or the key of a batch's row;
        None where it makes one.
    :param loop_index: which pass of a loop it is; None where the task is in none.
    :param number: how many attempts the task instance has had, this one included.
    :param first_number: the number of the first attempt since a person last cleared the task.
    :param previous_since: epoch seconds; previous attempts submitted after then. Only needed where
        there is no record.
    :param previous_until: epoch seconds; previous attempts submitted before then; likewise.
    :param renumbered: whether its first attempt may follow others: clearing a run gives the later passes
        of a loop new task instances.
    :param replaced: whether its task instance may have taken the place of another one that ran long ago:
        Airflow 3.4 replaces mapped tasks of older versions when they are cleared. A first attempt then
        searches for its submits, and where there are none nothing was sent.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    variant: int | str | None = None
    loop_index: int | None = None
    number: int = 1
    first_number: int = 1
    previous_since: float = 0.0
    previous_until: float = 0.0
    renumbered: bool = False
    replaced: bool = False

    @property
    def identity(self) -> str:
        """Names the work in its record: the same for all attempts, and two works never share it."""
        return digest(self.place)

    @property
    def place(self) -> list[Any]:
        """All that tells the work from other work, as plain JSON."""
        more = {"variant": self.variant, "loop": self.loop_index}
        given = {name: value for name, value in more.items() if value is not None}
        place = [self.dag_id, self.run_id, self.task_id, self.map_index]
        return [*place, given] if given else place

    @property
    def most_attempts(self) -> int:
        """How many attempts there can have been, this one included; an estimate where they are renumbered."""
        return self.number + (_BEFORE_RENUMBERING if self.renumbered or self.replaced else 0)

    @property
    def kind(self) -> AttemptKind:
        """Why the task runs, as far as the numbers tell."""
        if self.number <= 1:
            return "clear" if self.renumbered else "first"
        return "clear" if self.number <= self.first_number else "retry"


def digest(value: Any) -> str:
    """SHA-256 of a value's JSON, hexadecimal.

    :raises TypeError: a value that JSON does not have; ValueError and RecursionError likewise.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

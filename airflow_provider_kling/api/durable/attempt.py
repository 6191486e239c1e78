"""One attempt of one task instance: whose work it is, why it runs, and when previous attempts ran."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from airflow_provider_kling.api.durable.identity import TaskIdentity

_BEFORE_RENUMBERING: Final = 20


class AttemptKind(enum.Enum):
    """Why the task runs."""

    FIRST = "first attempt"
    RETRY = "automatic retry"
    CLEAR = "cleared by a person"


@dataclass(frozen=True, slots=True)
class TaskAttempt:
    """One attempt of one task instance, as the scheduler tells of it.

    :param identity: the task instance, whatever the number of its attempts.
    :param number: how many attempts it has had, this one included.
    :param first_number: the number of the first attempt since a person last cleared the task.
    :param previous_since: epoch seconds; previous attempts submitted after then. Only needed where
        there is no record.
    :param previous_until: epoch seconds; previous attempts submitted before then; likewise.
    :param renumbered: whether its first attempt may follow others: clearing a run gives the later passes
        of a loop new task instances.
    """

    identity: TaskIdentity
    number: int = 1
    first_number: int = 1
    previous_since: float = 0.0
    previous_until: float = 0.0
    renumbered: bool = False

    @property
    def most_attempts(self) -> int:
        """How many attempts there can have been, this one included; an estimate where they are renumbered."""
        return self.number + (_BEFORE_RENUMBERING if self.renumbered else 0)

    @property
    def kind(self) -> AttemptKind:
        """Why the task runs, as far as the numbers tell."""
        if self.number <= 1:
            return AttemptKind.CLEAR if self.renumbered else AttemptKind.FIRST
        return AttemptKind.CLEAR if self.number <= self.first_number else AttemptKind.RETRY

"""What a limiter says of itself: the line in the log for each change of its pace."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Pace(enum.Enum):
    """What a limiter is doing."""

    FREE = "free"
    HELD_BACK = "held back by the configured rate"
    SLOWED = "slowed"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class PaceChange:
    """A change worth one line in the log; ``str`` is that line.

    :param pace: what the limiter does from now on.
    :param status: the HTTP status that led to it; None where none did.
    :param pause: seconds without any request; 0 unless paused.
    :param per_minute: requests a minute that are allowed next; None where there is no limit.
    """

    pace: Pace
    status: int | None
    pause: float
    per_minute: float | None

    def __str__(self) -> str:
        rate = "without a limit" if self.per_minute is None else f"at {self.per_minute:.0f} a minute"
        match self.pace:
            case Pace.PAUSED:
                return (
                    f"The vendor answered {self.status}: all requests of this connection pause for "
                    f"{self.pause:.0f} s, then go on {rate} and speed up again."
                )
            case Pace.SLOWED:
                return (
                    f"The vendor answers {self.status} again and again: requests of this "
                    f"connection go on {rate} and speed up again."
                )
            case Pace.HELD_BACK:
                return (
                    "The connection's configured rate holds requests back: they go on "
                    f"{rate}. Nothing is lost; videos are noticed later."
                )
            case Pace.FREE:
                return f"Requests of this connection are back to normal, {rate}."

"""When to ask again: the polling schedule.

A poll too many costs a request; a poll too late keeps a finished video waiting. Who sees only
"not yet" does best to poll at the rate ``sqrt(hazard / (2 * price))``: often where completion
is likely, rarely where it is not. The hazard is that of a log-normal duration, which fits what
the vendor publishes about its models.

Everything depends on the seconds since the submit, never on the process, so that a restarted
triggerer continues where the old one stopped. Nothing here reads a clock or draws a random number.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from airflow_provider_kling.api.bounds import within
from airflow_provider_kling.api.redaction import shown
from airflow_provider_kling.api.retry import Random

USUAL_SECONDS: Final = 194.0
"""Median of the durations that the vendor publishes over all its Kling models (documented)."""
USUAL_SPREAD: Final = 0.5
"""Their standard deviation, of the natural logarithm (documented)."""
POLL_PRICE: Final = 0.5
"""Seconds of waiting that one poll is worth: the exchange rate between polls and lag."""
EARLY_LOOK: Final = 8.0
"""Seconds after the submit for one early poll: what moderation refuses fails within seconds."""
EARLY_ENOUGH: Final = 5.0
"""A poll from this many seconds on has already been the early one."""
FIRST_POLL: Final = 1.15
"""The first poll after the early one waits until this many are due: where the hazard rises
steeply a whole one comes a little early (measured against dynamic programming)."""
SHORTEST_WAIT: Final = 2.0
"""Seconds; the adaptive schedule never polls faster."""
LONGEST_WAIT: Final = 300.0
"""Seconds; the adaptive schedule never waits longer."""
SHORTEST_INTERVAL: Final = 1.0
"""Seconds; the least that a fixed schedule accepts."""
LONGEST_INTERVAL: Final = 3600.0
"""Seconds; the most that a fixed schedule accepts."""
LONGEST_USUAL: Final = 86400.0
"""Seconds; the longest usual duration that makes sense."""
JITTER: Final = 0.1
"""Share of a wait by which it is moved at random, so that waiters do not march in step."""

NARROWEST_SPREAD: Final = 0.2
"""Below, one slow day at the vendor would look impossible."""
WIDEST_SPREAD: Final = 0.8
"""Above, nothing would be known at all."""

# The log-normal in units of z = log(t / usual) / spread. Before the first z nothing happens. After
# the last (92 % are done) the log-normal is no longer believed: a generation that old is of a kind
# that has not been measured, and its hazard is taken to fall like 1 / t, so that waits grow.
_FIRST_Z: Final = -6.0
_LAST_Z: Final = 1.4
_STEPS: Final = 148
_LATEST: Final = 1e9
"""Seconds, far beyond where the waits have become the longest; infinity has no next moment."""
_STEP: Final = (_LAST_Z - _FIRST_Z) / _STEPS


Learner = Callable[[float, float], None]
"""Called with a completed generation: seconds from the submit to the poll that saw it completed, and to
the last poll that did not (0 where there was none)."""


def jittered(wait: float, random: Random) -> float:
    """Move a wait by at most :data:`JITTER` of itself, either way.

    :param wait: seconds.
    :param random: numbers in [0, 1); a seeded source makes a run repeatable.
    """
    return wait * (1.0 + JITTER * (2.0 * random() - 1.0))


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to wait between polls of one generation. Immutable; plain JSON by ``as_dict``.

    Use :meth:`adaptive` or :meth:`fixed`.

    :param interval: seconds between polls, 1 to 3600; None for the adaptive schedule.
    :param usual_seconds: the model's median seconds from submit to completed, up to 86400.
    :param spread: standard deviation of the natural logarithm of that duration, 0.2 to 0.8.
    :raises ValueError: a number is outside of what is allowed; the message names it.
    """

    interval: float | None = None
    usual_seconds: float = USUAL_SECONDS
    spread: float = USUAL_SPREAD

    def __post_init__(self) -> None:
        if self.interval is not None:
            _require("poll interval", self.interval, SHORTEST_INTERVAL, LONGEST_INTERVAL, "seconds")
        _require("usual duration", self.usual_seconds, SHORTEST_INTERVAL, LONGEST_USUAL, "seconds")
        _require(
            "spread of the usual duration",
            self.spread,
            NARROWEST_SPREAD,
            WIDEST_SPREAD,
            "(log scale)",
        )

    @classmethod
    def adaptive(cls, usual_seconds: float | None = None) -> Schedule:
        """Poll where completion is likely.

        :param usual_seconds: the model's usual seconds from submit to completed; None for a model
            that is unknown, which then counts as the vendor's others.
        :raises ValueError: it is not between 1 and 86400.
        """
        return cls(usual_seconds=USUAL_SECONDS if usual_seconds is None else usual_seconds)

    @classmethod
    def fixed(cls, interval: float) -> Schedule:
        """Poll at a fixed interval.

        :param interval: seconds, 1 to 3600.
        :raises ValueError: it is anything else.
        """
        return cls(
            interval=_require("poll interval", interval, SHORTEST_INTERVAL, LONGEST_INTERVAL, "seconds")
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schedule:
        """Read what :meth:`as_dict` wrote.

        Names that are missing take their defaults and unknown ones are ignored, so that a wait
        survives an upgrade and a downgrade of the provider.

        :raises ValueError: a value is not one that :meth:`as_dict` writes.
        """
        if data.get("interval") is not None:
            return cls.fixed(data["interval"])
        return cls(
            usual_seconds=data.get("usual_seconds", USUAL_SECONDS),
            spread=data.get("spread", USUAL_SPREAD),
        )

    def as_dict(self) -> dict[str, float]:
        """The plain JSON form, for the arguments of a trigger."""
        if self.interval is not None:
            return {"interval": self.interval}
        return {"usual_seconds": self.usual_seconds, "spread": self.spread}

    def next_wait(self, elapsed: float) -> float:
        """Seconds from now until the next poll; apply :func:`jittered` to it.

        :param elapsed: seconds since the submit. Negative ones, from clocks that disagree, count
            as none.
        """
        if self.interval is not None:
            return self.interval
        elapsed = min(max(0.0, elapsed), _LATEST)
        due = self._moment(max(self._polls_until(elapsed) + 1.0, FIRST_POLL))
        if elapsed < EARLY_ENOUGH:
            due = min(due, EARLY_LOOK)
        return min(max(due - elapsed, SHORTEST_WAIT), LONGEST_WAIT)

    def _polls_until(self, t: float) -> float:
        """How many polls are due by ``t``: the integral of sqrt(hazard / (2 * price))."""
        if t <= 0.0:
            return 0.0
        shape = _shape(self.spread)
        polls_a_unit = math.sqrt(self.spread * self.usual_seconds / (2.0 * POLL_PRICE))
        z = (math.log(t) - math.log(self.usual_seconds)) / self.spread
        position = (z - _FIRST_Z) / _STEP
        if position <= 0.0:
            return 0.0
        if position >= _STEPS:
            past = math.sqrt(t) - math.sqrt(self.usual_seconds) * shape.root_of_tail
            return polls_a_unit * shape.units[-1] + shape.tail * past
        step = int(position)
        low, high = shape.units[step], shape.units[step + 1]
        return polls_a_unit * (low + (position - step) * (high - low))

    def _moment(self, polls: float) -> float:
        """The time at which so many polls are due: the inverse of :meth:`_polls_until`."""
        shape = _shape(self.spread)
        polls_a_unit = math.sqrt(self.spread * self.usual_seconds / (2.0 * POLL_PRICE))
        units = polls / polls_a_unit
        if units >= shape.units[-1]:
            past = (polls - polls_a_unit * shape.units[-1]) / shape.tail
            return (math.sqrt(self.usual_seconds) * shape.root_of_tail + past) ** 2
        step = bisect_right(shape.units, units) - 1
        low, high = shape.units[step], shape.units[step + 1]
        z = _FIRST_Z + _STEP * (step + (units - low) / (high - low))
        return self.usual_seconds * math.exp(self.spread * z)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What depends on the spread alone: computed once, in units free of the usual duration.

    :param units: the integral of the polling rate over z, at each step.
    :param root_of_tail: square root of where the tail begins, in usual durations.
    :param tail: polls for each square root of a second in the tail.
    """

    units: tuple[float, ...]
    root_of_tail: float
    tail: float


@lru_cache(maxsize=128)
def _shape(spread: float) -> _Shape:
    def rate(z: float) -> float:
        return math.exp(spread * z / 2.0) * math.sqrt(_normal_hazard(z))

    units = [0.0]
    for step in range(_STEPS):
        middle = _FIRST_Z + (step + 0.5) * _STEP
        units.append(units[-1] + rate(middle) * _STEP)
    return _Shape(
        units=tuple(units),
        root_of_tail=math.exp(spread * _LAST_Z / 2.0),
        tail=2.0 * math.sqrt(_normal_hazard(_LAST_Z) / spread / (2.0 * POLL_PRICE)),
    )


def _normal_hazard(z: float) -> float:
    """Density over survival of the standard normal distribution."""
    return math.sqrt(2.0 / math.pi) * math.exp(-z * z / 2.0) / math.erfc(z / math.sqrt(2.0))


def _require(what: str, value: Any, least: float, most: float, unit: str) -> float:
    if not within(value, least, most):
        raise ValueError(
            f"The {what} is {shown(value)}; it must be a number from {least:g} to {most:g} {unit}."
        )
    return float(value)

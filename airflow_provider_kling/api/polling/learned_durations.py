"""What the durations seen in this process teach about a model, to sharpen its polling schedule."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from airflow_provider_kling.api.polling.schedule import (
    LONGEST_USUAL,
    NARROWEST_SPREAD,
    SHORTEST_INTERVAL,
    WIDEST_SPREAD,
    Schedule,
)

_AT_ONCE: Final = 1e-3
"""Seconds that stand for none, which has no logarithm."""
_NOTHING_NEW: Final = 1e-3
"""What counts less than this many completions is not kept."""


class DurationStats:
    """What one process has seen of how long each model takes. Not for several threads.

    The catalogue's figure counts as :data:`PRIOR_WEIGHT` durations, and only the last
    :data:`MEMORY` or so are remembered, so that it follows a vendor that gets faster or slower.

    :param models_kept: how many models are remembered; the one not seen for longest is forgotten.
    """

    PRIOR_WEIGHT: Final = 2.0
    PRIOR_WEIGHT_OF_SPREAD: Final = 8.0
    MEMORY: Final = 64.0
    PRIORS_KEPT: Final = 16

    def __init__(self, *, models_kept: int = 256) -> None:
        self._models_kept = models_kept
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._live: OrderedDict[str, Schedule] = OrderedDict()

    def believe(self, model: str, live: Schedule) -> None:
        """Take a model's live figures for the catalogue's; what is seen here still sharpens them.

        :param model: the vendor's model id.
        :param live: an adaptive schedule with the live median and spread.
        """
        self._live[model] = live
        while len(self._live) > self._models_kept:
            self._live.popitem(last=False)

    def observe(self, model: str, seconds: float, *, not_yet_at: float = 0.0, prior: Schedule) -> None:
        """Learn from a generation that completed; a failed one teaches nothing about durations.

        Between the last poll that said "not yet" and this one nothing is known, so its duration is
        taken to be what the belief so far makes of any duration in between. It counts the less, the
        surer it was to lie there: what was not observed, during an outage or from one slow fixed poll
        to the next, neither counts as a slow generation nor confirms what was believed before.

        :param model: the vendor's model id.
        :param seconds: from the submit to the poll that saw it completed. Values that only a
            clock that was set can produce (negative, zero, NaN) are ignored.
        :param not_yet_at: from the submit to the last poll that did not; 0 where there was none.
        :param prior: the schedule of this generation before :meth:`sharpen`.
        """
        if not (0.0 < seconds < math.inf and 0.0 <= not_yet_at <= seconds):
            return
        belief = self.sharpen(model, prior)
        expected = math.log(belief.usual_seconds)
        low, high = (
            (math.log(min(max(moment, least), LONGEST_USUAL)) - expected) / belief.spread
            for moment, least in ((not_yet_at, _AT_ONCE), (seconds, SHORTEST_INTERVAL))
        )
        sure, z = _between(min(low, high), high)
        weight = (1.0 - sure) ** 2
        if weight < _NOTHING_NEW:
            return
        seen = self._seen.setdefault(model, _Seen())
        self._seen.move_to_end(model)
        seen.add(expected + belief.spread * z, weight, self.MEMORY)
        while len(self._seen) > self._models_kept:
            self._seen.popitem(last=False)

    def sharpen(self, model: str | None, schedule: Schedule) -> Schedule:
        """The same schedule with what was learned about the model.

        :param model: the vendor's model id; None where it is not known.
        :param schedule: as the user's DAG built it. A fixed one keeps its interval.
        """
        if model is None:
            return schedule
        if schedule.interval is None:
            schedule = self._live.get(model, schedule)
        seen = self._seen.get(model)
        if seen is None:
            return schedule
        known = seen.answers.get(schedule)
        if known is None:
            # A normal-inverse-gamma belief about the mean and the spread of log durations.
            mean, weight = math.log(schedule.usual_seconds), self.PRIOR_WEIGHT
            total = weight + seen.weight
            off = seen.mean - mean
            squares = self.PRIOR_WEIGHT_OF_SPREAD * schedule.spread**2 + seen.squares
            squares += weight * seen.weight / total * off * off
            spread = math.sqrt(squares / (self.PRIOR_WEIGHT_OF_SPREAD + seen.weight))
            known = Schedule(
                interval=schedule.interval,
                usual_seconds=min(
                    max(math.exp(mean + off * seen.weight / total), SHORTEST_INTERVAL), LONGEST_USUAL
                ),
                spread=round(min(max(spread, NARROWEST_SPREAD), WIDEST_SPREAD), 2),  # few shapes to compute
            )
            if len(seen.answers) >= self.PRIORS_KEPT:
                seen.answers.clear()
            seen.answers[schedule] = known
        return known


class LearningSchedule:
    """The timetable of one wait, which gets sharper while others of its model complete.

    :param durations: what the process has seen.
    :param model: the vendor's model id; None where it is not known, which teaches nothing.
    :param schedule: as the user's DAG built it.
    """

    __slots__ = ("_durations", "_model", "_schedule", "asked_at", "shortest_wait")

    def __init__(self, durations: DurationStats, model: str | None, schedule: Schedule) -> None:
        self._durations = durations
        self._model = model
        self._schedule = schedule
        self.asked_at: float | None = None
        """Seconds after the submit at which the next wait was asked for last, which is right after a poll."""
        self.shortest_wait = 0.0
        """Seconds; many waits on one account keep their polls below its rate by it."""

    def next_wait(self, elapsed: float) -> float:
        """See :meth:`.Schedule.next_wait`."""
        self.asked_at = elapsed
        wait = self._durations.sharpen(self._model, self._schedule).next_wait(elapsed)
        return max(wait, self.shortest_wait)

    def learn(self, seconds: float, not_yet_at: float) -> None:
        """See :data:`.Learner`."""
        if self._model is not None:
            self._durations.observe(self._model, seconds, not_yet_at=not_yet_at, prior=self._schedule)


class _Seen:
    """Running mean and sum of squared deviations of log durations, forgetting the old ones."""

    __slots__ = ("answers", "mean", "squares", "weight")

    def __init__(self) -> None:
        self.weight = 0.0
        self.mean = 0.0
        self.squares = 0.0
        self.answers: dict[Schedule, Schedule] = {}

    def add(self, value: float, weight: float, memory: float) -> None:
        keep = 1.0 - weight / memory if self.weight >= memory else 1.0
        self.weight = self.weight * keep + weight
        delta = value - self.mean
        self.mean += delta * weight / self.weight
        self.squares = self.squares * keep + weight * delta * (value - self.mean)
        self.answers.clear()


def _between(low: float, high: float) -> tuple[float, float]:
    """The probability that a standard normal number lies between two, and its mean if it does."""
    if low > -high:  # the mirror image: small probabilities are exact in the lower tail
        sure, mean = _between(-high, -low)
        return sure, -mean
    sure = (math.erfc(-high / math.sqrt(2.0)) - math.erfc(-low / math.sqrt(2.0))) / 2.0
    if sure <= 0.0:
        return 0.0, high
    mean = (math.exp(-low * low / 2.0) - math.exp(-high * high / 2.0)) / math.sqrt(2.0 * math.pi) / sure
    return sure, min(max(mean, low), high)

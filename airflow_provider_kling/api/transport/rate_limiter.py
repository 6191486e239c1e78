"""How fast a connection may be used: one restraint for all who share it.

No I/O and no sleeping: callers ask :meth:`Limiter.acquire` before a request and tell
:meth:`Limiter.on_reply` what came back. The shared poller and the blocking client use the same
class, each in its own process; the vendor counts over all of them.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from airflow_provider_kling.api.retry import Random
from airflow_provider_kling.api.settings import checked_rate

LONGEST_PAUSE: Final = 120.0
"""Seconds; a longer ``Retry-After`` is not believed: the next 429 says it again."""

# After a 429 without Retry-After: seconds, doubled by each further one without a success between.
_FIRST_PAUSE: Final = 1.0
_LONGEST_UNASKED_PAUSE: Final = 60.0
_PAUSE_JITTER: Final = 0.1  # upwards only: never earlier than the vendor asked

# Multiplicative decrease, and what counts as trouble: about three 5xx in a row, not one of many.
_CUT_BY_429: Final = 0.5
_CUT_BY_5XX: Final = 0.8
_SECONDS_BETWEEN_CUTS_BY_5XX: Final = 1.0
_LEAST_SHARE_AFTER_5XX: Final = 0.05  # of the goal: what still works at the vendor continues
_WEIGHT_OF_A_REPLY: Final = 0.1
_TROUBLE: Final = 0.25
_NO_TROUBLE: Final = 1e-3

# Additive increase: the rate that was too much is reached again after half a minute; beyond it
# nothing is known, and the increase grows with the rate. Steps count ten seconds at most, because
# a rate that was not used proves nothing.
_SECONDS_TO_REGAIN: Final = 60.0
_SECONDS_TO_GOAL: Final = 600.0
_LONGEST_STEP: Final = 10.0
_LEAST_RATE: Final = 0.2  # requests a second: restraint never stops a connection
_LEAST_GOAL: Final = 1.0  # requests a second

_MEASURED_OVER: Final = 10.0  # seconds over which the rate of requests is measured
_HELD_BACK_NEWS_EVERY: Final = 600.0  # seconds
_ROUNDING: Final = 1e-9


class Limiter:
    """The common restraint of one connection in one process. Safe for threads.

    A configured rate is a promise: in no 60 seconds do more requests go, bursts of one second's
    worth included. Beyond it, the vendor's answers restrain: a 429 pauses everything for what
    ``Retry-After`` says and halves the rate at which requests went; a series of 5xx takes a fifth
    of it; then the rate grows steadily until it is free again.

    :param per_minute: see :meth:`configure`.
    :param clock: monotonic seconds. If it jumps, backwards or far ahead, the limiter neither
        stalls nor lets a burst go.
    :param random: numbers in [0, 1) for the jitter.
    :raises ValueError: the rate is not allowed.
    """

    def __init__(
        self,
        per_minute: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Random = random.random,
    ) -> None:
        self._burst, self._ceiling = _bucket(per_minute)
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        self._read = clock()  # what the clock said last
        self._now = 0.0  # our own time, which only ever goes forward
        self._rate = self._ceiling  # requests a second; None: no limit
        self._goal: float | None = None  # the rate at which restraint ends; None: not restrained
        self._too_much = 0.0  # requests a second at the last cut
        self._tokens = self._burst
        self._resume = 0.0  # our own time until which everything pauses
        self._unasked = 0  # pauses without Retry-After since the last success
        self._went = 0.0  # requests let go, each fading over _MEASURED_OVER
        self._age = 0.0  # seconds of use, faded in the same way
        self._trouble = 0.0  # share of 5xx among the replies, the latest counting most
        self._last_cut = -math.inf
        self._held_back_told = -math.inf
        self._news: RateChange | None = None

    def configure(self, per_minute: float | None) -> None:
        """Take another configured rate from now on; what restrains beside it stays.

        :param per_minute: requests a minute, 1 to 60000, of which a fraction is cut off: it would
            let one more go in some minutes; None for no limit.
        :raises ValueError: the rate is not allowed.
        """
        burst, ceiling = _bucket(per_minute)
        with self._lock:
            if (burst, ceiling) == (self._burst, self._ceiling):
                return
            self._advance()
            self._burst, self._ceiling = burst, ceiling
            if self._goal is None or self._rate is None:
                self._rate = ceiling
            elif ceiling is not None:
                self._rate, self._goal = min(self._rate, ceiling), ceiling
            self._tokens = min(self._tokens, self._capacity())

    @property
    def per_minute(self) -> float | None:
        """Requests a minute allowed now; None where there is no limit."""
        with self._lock:
            self._advance()
            return None if self._rate is None else self._rate * 60.0

    def acquire(self) -> float:
        """Ask to send one request.

        :return: 0.0 to send it now, and it is counted; otherwise seconds after which to ask again.
        """
        with self._lock:
            self._advance()
            if pause := self._pause_left():
                return pause
            if self._rate is not None:
                if self._tokens < 1.0 - _ROUNDING:
                    self._note_held_back()
                    return (1.0 - self._tokens) / self._rate
                self._tokens -= 1.0
            self._went += 1.0
            return 0.0

    def on_reply(self, status: int, retry_after: float | None = None) -> RateChange | None:
        """Tell what the vendor answered.

        A 429 about the balance is not about the rate: do not report it.

        :param status: HTTP status.
        :param retry_after: seconds that the vendor asked to wait; None where it named none.
        :return: a change to log, each once; None where there is nothing new.
        """
        calm = self._goal is None and self._news is None and not self._unasked
        if calm and status < 400 and self._trouble < _NO_TROUBLE:
            return None  # nothing to forget, as nearly always
        asked = retry_after is not None and 0.0 <= retry_after < math.inf
        with self._lock:
            self._advance()
            if status == 429 or (status == 503 and asked):
                self._pause(status, retry_after if asked else None)
            elif 500 <= status <= 599:
                self._trouble += _WEIGHT_OF_A_REPLY * (1.0 - self._trouble)
                self._slow_down(status)
            else:
                self._trouble -= _WEIGHT_OF_A_REPLY * self._trouble
                if not self._pause_left():
                    self._unasked = 0
            news, self._news = self._news, None
            return news

    def _pause(self, status: int, retry_after: float | None) -> None:
        if retry_after is None:
            seconds = min(_FIRST_PAUSE * 2.0**self._unasked, _LONGEST_UNASKED_PAUSE)
        else:
            seconds = min(max(retry_after, _FIRST_PAUSE), LONGEST_PAUSE)
        seconds *= 1.0 + _PAUSE_JITTER * self._random()
        if self._pause_left():  # sent before the pause began: the same trouble, already answered
            if retry_after is not None:
                self._resume = max(self._resume, self._now + seconds)
            return
        if retry_after is None:
            self._unasked = min(self._unasked + 1, 16)
        # One request tries the air when the pause ends, if the rate before would have let it go.
        withheld = math.inf if self._rate is None else self._rate * seconds
        self._tokens = min(1.0, self._tokens + withheld)
        self._cut(_CUT_BY_429 if status == 429 else _CUT_BY_5XX)
        self._resume = self._now + seconds
        self._tell("paused", status, seconds)

    def _slow_down(self, status: int) -> None:
        recent = self._now - self._last_cut < _SECONDS_BETWEEN_CUTS_BY_5XX
        if self._trouble < _TROUBLE or recent or self._pause_left():
            return
        was_restrained = self._goal is not None
        self._cut(_CUT_BY_5XX)
        if not was_restrained:
            self._tell("slowed", status)

    def _cut(self, factor: float) -> None:
        """Multiply the rate that was too much."""
        measured = self._measured()
        self._too_much = measured if self._rate is None else min(self._rate, measured)
        if self._goal is None:
            self._goal = self._ceiling or max(2.0 * measured, _LEAST_GOAL)
        least = _LEAST_RATE if self._ceiling is None else min(_LEAST_RATE, self._ceiling)
        if factor == _CUT_BY_5XX:
            least = max(least, self._goal * _LEAST_SHARE_AFTER_5XX)
        cut = max(self._too_much * factor, least)
        self._rate = cut if self._rate is None else min(self._rate, cut)
        self._tokens = min(self._tokens, self._capacity())
        self._last_cut = self._now

    def _measured(self) -> float:
        """Recent requests a second."""
        return self._went / max(self._age, 1.0)

    def _advance(self) -> None:
        """Bring the state up to the clock: refill, grow, end the restraint."""
        read = self._clock()
        step = max(0.0, read - self._read)
        self._read = read
        before, self._now = self._now, self._now + step
        active = self._now - max(before, self._resume)
        if active <= 0.0:
            return
        fade = math.exp(-active / _MEASURED_OVER)
        self._went *= fade
        self._age = self._age * fade + _MEASURED_OVER * (1.0 - fade)
        if self._rate is None:
            return
        self._tokens = min(self._tokens + self._rate * active, self._capacity())
        if self._goal is None:
            return
        growth = max(self._too_much / _SECONDS_TO_REGAIN, self._goal / _SECONDS_TO_GOAL)
        if self._rate > self._too_much:
            growth = max(growth, self._rate / _SECONDS_TO_REGAIN)
        self._rate += growth * min(active, _LONGEST_STEP)
        # Without a configured rate: free when the restraint has long ceased to hold anything back.
        enough = self._ceiling or max(self._goal, 2.0 * self._measured())
        if self._rate >= enough:
            self._rate, self._goal = self._ceiling, None
            self._tell("free", None)

    def _capacity(self) -> float:
        """How many requests may go at once: a second's worth."""
        if self._rate is None or self._goal is None:
            return self._burst
        most = math.inf if self._ceiling is None else self._burst
        return min(max(1.0, self._rate), most)

    def _pause_left(self) -> float:
        left = self._resume - self._now
        return left if left > _ROUNDING else 0.0

    def _note_held_back(self) -> None:
        restrained = self._goal is not None
        if not restrained and self._now - self._held_back_told >= _HELD_BACK_NEWS_EVERY:
            self._held_back_told = self._now
            self._tell("held back", None)

    def _tell(self, state: RateState, status: int | None, pause: float = 0.0) -> None:
        self._news = RateChange(state, status, pause, None if self._rate is None else self._rate * 60.0)


def _bucket(per_minute: float | None) -> tuple[float, float | None]:
    """How many requests may go at once, and how many a second may follow."""
    configured = checked_rate(per_minute)
    if configured is None:
        return 1.0, None
    whole = float(math.floor(configured))
    burst = max(1.0, whole / 60.0)
    # Less than the configured rate by what a burst can add to a minute.
    return burst, (whole - burst + 1.0) / 60.0


RateState: TypeAlias = Literal["free", "held back", "slowed", "paused"]
"""What a limiter does: nothing, keep to the configured rate, send more slowly, or send nothing."""


@dataclass(frozen=True, slots=True)
class RateChange:
    """A change worth one line in the log; ``str`` is that line.

    :param state: what the limiter does from now on.
    :param status: the HTTP status that led to it; None where none did.
    :param pause: seconds without any request; 0 unless paused.
    :param per_minute: requests a minute that are allowed next; None where there is no limit.
    """

    state: RateState
    status: int | None
    pause: float
    per_minute: float | None

    def __str__(self) -> str:
        rate = "without a limit" if self.per_minute is None else f"at {self.per_minute:.0f} a minute"
        match self.state:
            case "paused":
                return (
                    f"The vendor answered {self.status}: pausing all requests of this connection for "
                    f"{self.pause:.0f} s, then continuing {rate} and speeding up again."
                )
            case "slowed":
                return (
                    f"The vendor keeps answering {self.status}: slowing the requests of this connection "
                    f"down; they continue {rate} and speed up again."
                )
            case "held back":
                return (
                    f"requests_per_minute of the connection is limiting requests: they are sent {rate}. "
                    "No poll is lost; completions are noticed later."
                )
            case "free":
                return f"Requests of this connection are back to normal, {rate}."

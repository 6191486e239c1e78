"""Pure decisions on time and repetition: no clock, no randomness, no I/O of their own."""

from __future__ import annotations

import email.utils
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from airflow_provider_kling.api.bounds import within
from airflow_provider_kling.api.redaction import shown

Clock = Callable[[], float]
"""Returns epoch seconds."""
Random = Callable[[], float]
"""Returns a number in [0, 1)."""

FATAL_POLLS: Final = 3
"""How many permanent refusals in a row (wrong key, unknown generation) are believed. One alone may be
a hiccup of a load balancer, and behind it stands a video that is paid for."""

FATAL_SECONDS: Final = 60.0
"""And over how long at least they end a wait: a gateway that is being deployed may refuse everybody
for a while, however often it is asked."""

REFUSED_PAUSE: Final = 3.0
"""Seconds at least between refusals, where one asks without waiting for anything."""

TROUBLE_TOLD: Final = 300.0
"""Seconds after which a wait that still meets trouble, or meets it again, says so again."""

FINAL_LOOKS: Final = 3
"""How many polls after ``completed`` may lack the video's URL before the wait ends as unreadable."""

CLOCK_SKEW: Final = 900.0
"""Seconds by which our clock and the vendor's may differ; searches of its logs reach so much further."""

LONGEST_SPAN: Final = 7 * 86_400.0
"""Seconds; the longest that anything may be waited for."""


def checked_span(name: str, value: float, least: float = 0.0) -> float:
    """A time span in seconds.

    :param name: of the parameter, for the message.
    :raises ValueError: it is not a number from ``least`` to a week.
    """
    if not within(value, least, LONGEST_SPAN):
        raise ValueError(f"{name}={shown(value)} is not allowed: give {least:g} to {LONGEST_SPAN:g} seconds")
    return float(value)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How one call is repeated: exponential backoff with full jitter.

    :param attempts: how many times a call is made at most.
    :param base: seconds, upper bound of the first wait; doubles with each repeat.
    :param cap: seconds, upper bound of any wait that we choose.
    :param longest_retry_after: seconds, upper bound of a wait that the vendor asked for.
    """

    attempts: int = 5
    base: float = 1.0
    cap: float = 30.0
    longest_retry_after: float = 120.0

    def delay(self, attempt: int, random: Random, retry_after: float | None = None) -> float:
        """Seconds to wait after a failed attempt.

        :param attempt: 1 after the first attempt.
        :param random: a number in [0, 1) for the jitter.
        :param retry_after: what the vendor asked for, in seconds; waited at least (up to the cap),
            plus a tenth at most, so that many waiters do not come back in one burst.
        """
        if retry_after is not None:
            return min(retry_after, self.longest_retry_after) * (1 + 0.1 * random())
        return min(self.cap, self.base * 2.0 ** min(attempt - 1, 30)) * random()


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Read a ``Retry-After`` header: seconds, or an HTTP date.

    :param value: the header; None where it was not sent.
    :param now: epoch seconds.
    :return: seconds from now, never negative; None where absent or unreadable.
    """
    if not value:
        return None
    text = value.strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(text)
            # An HTTP date is in GMT, also one that says "-0000" for it.
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None

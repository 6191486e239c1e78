"""The emulator's clock: it runs by itself, and tests can advance or stop it."""

from __future__ import annotations

import datetime as dt
import math
import threading
import time

_LAST_MOMENT = dt.datetime(9000, 1, 1, tzinfo=dt.UTC).timestamp()


class Clock:
    """Seconds since the epoch, as the emulated vendor sees them.

    All of the emulator's states, expiries and limits are functions of this clock, so that a test
    can complete a generation of several minutes without waiting.

    :param frozen: True stops the clock; then only :meth:`advance` moves it.
    :param start: epoch seconds at the start; None for the machine's time.
    """

    def __init__(self, *, frozen: bool = False, start: float | None = None) -> None:
        self._offset = time.time() if start is None else start
        # The monotonic clock drives it: a corrected system time moves no generation.
        self._began = None if frozen else time.monotonic()
        self._lock = threading.Lock()

    def now(self) -> float:
        """Epoch seconds."""
        began = self._began
        return self._offset if began is None else self._offset + time.monotonic() - began

    def advance(self, seconds: float) -> None:
        """Move the clock forward; callable from any thread.

        :param seconds: how far; not negative.
        :raises ValueError: negative, not finite, or beyond the year 9000.
        """
        if not math.isfinite(seconds):
            raise ValueError("the emulator's clock moves by a finite number of seconds")
        if seconds < 0:
            raise ValueError(f"the emulator's clock cannot go back by {-seconds} s")
        with self._lock:
            if self.now() + seconds > _LAST_MOMENT:
                raise ValueError("the emulator's clock ends with the year 9000")
            self._offset += seconds


def iso(moment: float) -> str:
    """Epoch seconds as the vendor writes a time: UTC, milliseconds, ``Z``."""
    text = dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")

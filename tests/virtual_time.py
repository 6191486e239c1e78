"""An event loop whose time passes only when nothing else is left to do, and then at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Instead of sleeping, moves the time on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 5000.0
        self.wake_ups = 0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if timeout is None and not ready:
            raise AssertionError("nobody is left to wake up those who wait")
        if timeout and not ready:
            self.wake_ups += 1
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Use with ``asyncio.Runner(loop_factory=VirtualLoop)``, or :func:`run`."""

    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now

    @property
    def wake_ups(self) -> int:
        """How often the loop would have slept."""
        return self.selector.wake_ups

    @property
    def timers(self) -> int:
        """How many timers are set."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def this_loop() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop

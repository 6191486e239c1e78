"""The waiting room: one poller for all who wait on the same account.

A wait is a flow (:mod:`~airflow_provider_kling.api.calls`), and the room drives thousands of them:
pauses become entries of one heap, due requests are released in ticks, a few workers send them over
one session. Who waits only awaits a future. All decisions stay in the flows, all restraint in the
limiter; here is only when and by whom the next step is done.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from airflow_provider_kling.api.transport.messages import (
    ConnectionLost,
    Flow,
    HttpRequest,
    HttpResponse,
    Send,
    Sleep,
    T,
)
from airflow_provider_kling.api.transport.rate_limiter import Limiter
from airflow_provider_kling.api.transport.shared_rate_limiter import report

log = logging.getLogger(__name__)

TICK: Final = 0.25
"""Seconds: polls that fall due within the same tick go together. At low rates much of the cost of a
poll is the event loop waking up for it: at 200 a second one costs a fifth less than with 0.1
(measured), and no video is waited for to the tenth."""
MOST_WORKERS: Final = 16
"""Requests under way at once, and so connections at most."""
OVERDUE_CHECK: Final = 60.0
"""Seconds between two looks for waiters who are overdue."""
_FEWEST_TO_SWEEP: Final = 64


class OverdueError(Exception):
    """A waiter's flow did not end by itself: requests are held back or hang, or its clock was set."""


class Sender(Protocol):
    """What a room sends with: an :class:`~airflow_provider_kling.api.async_client.AsyncKlingClient`."""

    async def open(self) -> object: ...

    async def send(self, request: HttpRequest) -> HttpResponse | ConnectionLost: ...

    async def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class PendingWait:
    """One wait.

    :param future: what to await: the flow's result.
    :param context: of who waits: what its flow logs is logged there, under the name of its trigger.
    :param overdue_at: the event loop's time from which it waits no more.
    :param request: the one to send next.
    """

    flow: Flow[Any]
    future: asyncio.Future[Any]
    overdue_at: float
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    request: HttpRequest | None = None

    @property
    def is_over(self) -> bool:
        return self.future.done()


class SharedPoller:
    """Drives the flows of all who wait on one account, in one event loop.

    It opens with the first waiter and closes with the last; another one opens it again. Should its
    event loop end first, it closes with that. What befalls one waiter touches no other.

    :param connect: makes what it sends with; called each time it opens.
    :param limiter: how fast the account may be used.
    :param workers: requests under way at once.
    """

    def __init__(
        self, connect: Callable[[], Sender], limiter: Limiter, *, workers: int = MOST_WORKERS
    ) -> None:
        self._connect = connect
        self._limiter = limiter
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        # Nothing of the room belongs to the trigger that happens to come first.
        self._context = contextvars.Context()
        self._waiters: set[PendingWait] = set()
        self._order = itertools.count()
        self._later: list[tuple[float, int, PendingWait]] = []
        self._gone = 0
        self._due: asyncio.Queue[PendingWait] = asyncio.Queue()
        self._timer: asyncio.TimerHandle | None = None
        self._host: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._held_back = 0
        self._head = asyncio.Lock()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiters)

    @property
    def is_open(self) -> bool:
        """Whether it has a session."""
        return self._host is not None

    async def wait(self, flow: Flow[T], *, at_most: float = math.inf) -> T:
        """Wait until a flow ends; cancelling this ends it.

        :param flow: not yet started; polls and pauses only.
        :param at_most: seconds after which it is given up, should it not have ended by itself: a
            flow keeps its own deadline, but only when it gets its turn.
        :return: the flow's result.
        :raises OverdueError: it was given up, :data:`OVERDUE_CHECK` seconds later at most.
        :raises Exception: what the flow raises, and what sending for it raised.
        """
        waiter = self.enter(flow, at_most=at_most)
        try:
            result: T = await waiter.future
            return result
        finally:
            await self.leave(waiter)

    def enter(self, flow: Flow[Any], *, at_most: float = math.inf) -> PendingWait:
        """Begin a wait; who does must :meth:`leave`. See :meth:`wait`, which does both."""
        waiter = PendingWait(flow, self._loop.create_future(), self._loop.time() + at_most)
        self._waiters.add(waiter)
        if self._host is None:
            self._host = self._loop.create_task(self._open(), context=self._context)
            self._host.add_done_callback(self._ended)
        self._step(waiter, None)
        return waiter

    async def leave(self, waiter: PendingWait) -> None:
        """End a wait, over or not; the last one closes the room."""
        waiter.future.cancel()  # nothing, where it is done
        waiter.flow.close()
        self._waiters.discard(waiter)
        self._gone += 1
        if self._gone > max(len(self._waiters), _FEWEST_TO_SWEEP):
            self._sweep()
        if self._waiters or self._host is None:
            return
        host, self._host = self._host, None
        self._sweep()
        if host not in self._closing and not host.cancelling():
            host.cancel()
        await asyncio.wait({host})

    def _sweep(self) -> None:
        """Forget those who left before they were due again."""
        self._gone = 0
        self._later = [entry for entry in self._later if not entry[2].is_over]
        heapq.heapify(self._later)
        self._set_timer()

    async def _open(self) -> None:
        """The room's own task: from the first waiter to the last."""
        sender = self._connect()
        crew: list[asyncio.Task[None]] = []
        try:
            await sender.open()
            tasks = self._give_up_overdue(), *(self._work(sender) for _ in range(self._workers))
            crew += map(self._loop.create_task, tasks)
            await asyncio.gather(*crew)
        finally:
            host = asyncio.current_task()
            assert host is not None
            self._closing.add(host)
            for each in crew:
                each.cancel()
            try:
                await sender.close()
            except Exception as error:
                log.warning("A session could not be closed properly: %r", error)

    def _ended(self, host: asyncio.Task[None]) -> None:
        """Whatever ended the room's task: who still waits is told, and the next one opens it again."""
        self._closing.discard(host)
        failure = None if host.cancelled() else host.exception()
        if self._host is not host:
            return  # all had left
        self._host = None
        for waiter in tuple(self._waiters):
            self._fail(waiter, failure or RuntimeError("The session of the wait was ended from outside."))

    async def _give_up_overdue(self) -> None:
        """One timer for all: a timer for each would cost as much memory as the rest of its wait."""
        while True:
            await asyncio.sleep(OVERDUE_CHECK)
            now = self._loop.time()
            for waiter in [each for each in self._waiters if each.overdue_at <= now]:
                self._fail(waiter, OverdueError())

    async def _work(self, sender: Sender) -> None:
        """Send what is due, one request after the other."""
        while True:
            waiter = await self._due.get()
            if not waiter.is_over and (self._held_back or self._limiter.acquire()):
                await self._turn_of(waiter)
            request, waiter.request = waiter.request, None
            if waiter.is_over or request is None:
                continue
            try:
                reply = await sender.send(request)
                report(self._limiter, request, reply)
            except Exception as error:
                self._fail(waiter, error)
            else:
                self._step(waiter, reply)

    async def _turn_of(self, waiter: PendingWait) -> None:
        """Wait until the limiter lets somebody go: first come, first served."""
        self._held_back += 1
        try:
            async with self._head:  # a fair lock
                while not waiter.is_over and (pause := self._limiter.acquire()):
                    await asyncio.sleep(pause)
        finally:
            self._held_back -= 1

    def _step(self, waiter: PendingWait, reply: HttpResponse | ConnectionLost | None) -> None:
        """Hand a flow its reply, and do what it says next."""
        if waiter.is_over:
            return
        try:
            effect = waiter.context.run(waiter.flow.send, reply)
        except StopIteration as end:
            waiter.future.set_result(end.value)
        except Exception as error:
            self._fail(waiter, error)
        else:
            if isinstance(effect, Send):
                waiter.request = effect.request
                self._due.put_nowait(waiter)
            elif isinstance(effect, Sleep):
                due = self._loop.time() + max(0.0, effect.seconds)
                heapq.heappush(self._later, (due, next(self._order), waiter))
                self._set_timer()
            else:
                self._fail(waiter, TypeError(f"a waiting room cannot do {type(effect).__name__}"))

    def _fail(self, waiter: PendingWait, error: BaseException) -> None:
        if not waiter.is_over:
            waiter.future.set_exception(error)

    def _set_timer(self) -> None:
        """Wake up at the first tick at which somebody is due; not at all while nobody is."""
        if not self._later:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        at = math.ceil((self._later[0][0] - TICK / 2) / TICK) * TICK
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._tick, context=self._context)

    def _tick(self) -> None:
        """Step everybody to whose time this tick is the nearest, the longest due first."""
        self._timer = None
        until = self._loop.time() + TICK / 2
        while self._later and self._later[0][0] <= until:
            self._step(heapq.heappop(self._later)[2], None)
        self._set_timer()

"""The shared poller: one for all waits on the same account.

A wait is a flow (:mod:`~airflow_provider_kling.api.calls`), and the poller drives thousands of them:
pauses become entries of one heap, due requests are released in ticks, a few workers send them over
one session. Who waits only awaits a future. All decisions stay in the flows, all restraint in the
limiter; here is only when and by whom the next step is done.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import functools
import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.transport.messages import (
    ConnectionLost,
    FailureReason,
    Flow,
    HttpRequest,
    HttpResponse,
    Send,
    Sleep,
    T,
)
from airflow_provider_kling.api.transport.rate_limiter import Limiter
from airflow_provider_kling.api.transport.shared_rate_limiter import report

log = logger(__name__)

TICK: Final = 0.25
"""Seconds: polls that fall due within the same tick go together. At low rates much of the cost of a
poll is the event loop waking up for it: at 200 a second one costs a fifth less than with 0.1
(measured), and no video is waited for to the tenth."""
MOST_WORKERS: Final = 16
"""Requests under way at once that get their answers as they should."""
MOST_STUCK: Final = 128
"""Requests under way beside them that get none, so that they take no place from those that do."""
MOST_UNDER_WAY: Final = MOST_WORKERS + MOST_STUCK
"""Requests under way at once, and so connections at most."""
STUCK_AFTER: Final = 2.0
"""Seconds without a whole answer after which a request counts as stuck; most have theirs in a tenth."""
STUCK_TOLD: Final = 300.0
"""Seconds after which the log says again that requests are stuck."""
OVERDUE_CHECK: Final = 60.0
"""Seconds between two checks for overdue waits."""
_FEWEST_TO_SWEEP: Final = 64
_UNANSWERED: Final = (FailureReason.CONNECT_TIMEOUT, FailureReason.READ_TIMEOUT, FailureReason.SLOW)
HELD_BACK: Final = (
    "the final status check never ran: requests on this connection were rate limited or unanswered, or the "
    "system clock moved back"
)


class OverdueError(Exception):
    """The time of a wait is over before its flow has ended; ``str`` says why.

    Requests are held back or hang, its clock was set, or its connection could not be read.
    """


class Sender(Protocol):
    """What a poller sends with: an :class:`~airflow_provider_kling.api.async_client.AsyncKlingClient`."""

    async def open(self) -> object: ...

    async def send(
        self, request: HttpRequest, at_most: float | None = None
    ) -> HttpResponse | ConnectionLost: ...

    async def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class PendingWait:
    """One wait.

    :param future: what to await: the flow's result.
    :param context: of who waits: what its flow logs is logged there, under the name of its trigger.
    :param overdue_at: the event loop's time from which it waits no more.
    :param request: the one to send next, or the one under way.
    :param at_most: seconds that it may take; None for the sender's own limit.
    :param worker: who sends it.
    :param suspect: its last request got no answer in time: the next one takes no place of others.
    """

    flow: Flow[Any]
    future: asyncio.Future[Any]
    overdue_at: float
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    request: HttpRequest | None = None
    at_most: float | None = None
    worker: asyncio.Task[None] | None = None
    suspect: bool = False

    @property
    def is_over(self) -> bool:
        return self.future.done()


class SharedPoller:
    """Drives the flows of all who wait on one account, in one event loop.

    It opens with the first waiter and closes with the last; another one opens it again. Should its
    event loop ends first, it closes with that. One wait's failure never affects the others: a request
    that is not answered in :data:`STUCK_AFTER` seconds frees its place for another, and continues beside
    them until its own deadline.

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
        # Nothing of the poller belongs to the trigger that happens to come first.
        self._context = contextvars.Context()
        self._pending: set[PendingWait] = set()
        self._order = itertools.count()
        self._later: list[tuple[float, int, PendingWait]] = []
        self._gone = 0
        self._due: asyncio.Queue[PendingWait] = asyncio.Queue()
        self._suspects: collections.deque[PendingWait] = collections.deque()
        self._crew: set[asyncio.Task[None]] = set()
        self._busy: dict[asyncio.Task[None], float] = {}
        self._stuck: set[asyncio.Task[None]] = set()
        self._stuck_told = -math.inf
        self._stuck_timer: asyncio.TimerHandle | None = None
        self._failure: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._host: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._held_back = 0
        self._head = asyncio.Lock()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._pending)

    @property
    def is_open(self) -> bool:
        """Whether it has a session."""
        return self._host is not None

    async def wait(self, flow: Flow[T], *, at_most: float = math.inf) -> T:
        """Wait until a flow ends; cancelling this ends it.

        :param flow: not yet started; polls and pauses only.
        :param at_most: seconds after which it is given up if it has not ended by itself: a
            flow keeps its own deadline, but only when it gets its turn.
        :return: the flow's result.
        :raises OverdueError: it was given up, :data:`OVERDUE_CHECK` seconds later at most.
        :raises Exception: what the flow raises, and what sending for it raised.
        """
        pending = self.enter(flow, at_most=at_most)
        try:
            result: T = await pending.future
            return result
        finally:
            await self.leave(pending)

    def enter(self, flow: Flow[Any], *, at_most: float = math.inf) -> PendingWait:
        """Begin a wait; who does must :meth:`leave`. See :meth:`wait`, which does both."""
        pending = PendingWait(flow, self._loop.create_future(), self._loop.time() + at_most)
        self._pending.add(pending)
        if self._host is None:
            self._host = self._loop.create_task(self._open(), context=self._context)
            self._host.add_done_callback(self._ended)
        self._step(pending, None)
        return pending

    async def leave(self, pending: PendingWait) -> None:
        """End a wait, over or not; the last one closes the poller."""
        pending.future.cancel()  # nothing, where it is done
        pending.flow.close()
        self._pending.discard(pending)
        if pending.worker is not None:  # its request leaves with it
            pending.worker.cancel()
        self._gone += 1
        if self._gone > max(len(self._pending), _FEWEST_TO_SWEEP):
            self._sweep()
        if self._pending or self._host is None:
            return
        host, self._host = self._host, None
        self._sweep()
        # At once: who enters before the session's task has ended must find none of its workers.
        self._dismiss()
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
        """The poller's own task: from the first wait to the last."""
        sender = self._connect()
        overdue: asyncio.Task[None] | None = None
        failure = self._failure = self._loop.create_future()
        try:
            await sender.open()
            overdue = self._loop.create_task(self._give_up_overdue())
            overdue.add_done_callback(self._over)
            for _ in range(self._workers):
                self._hire(sender)
            await failure
        finally:
            host = asyncio.current_task()
            assert host is not None
            self._closing.add(host)
            failure.cancel()
            if overdue is not None:
                overdue.cancel()
            if self._failure is failure:  # not yet dismissed by the last who left
                self._dismiss()
            try:
                await sender.close()
            except Exception as error:
                log.warning("Could not close an HTTP session properly: %r", error)

    def _dismiss(self) -> None:
        """End the workers of the session, and leave nothing of it to the next one."""
        for worker in self._crew:
            worker.cancel()
        self._crew.clear()
        self._stuck.clear()
        self._busy.clear()
        self._set_stuck_timer(None)
        self._suspects.clear()
        self._due = asyncio.Queue()
        self._failure = None

    def _hire(self, sender: Sender, suspect: PendingWait | None = None) -> None:
        """Start another worker: one that keeps running, or one for a single wait that is suspect."""
        work = self._work(sender) if suspect is None else self._look_at(suspect, sender)
        worker = self._loop.create_task(work, context=self._context)
        self._crew.add(worker)
        if suspect is not None:
            self._stuck.add(worker)
        worker.add_done_callback(functools.partial(self._left, sender=sender))

    def _left(self, worker: asyncio.Task[None], *, sender: Sender) -> None:
        """A worker ended: its only waiter is served, it was replaced, or its waiter left in the midst."""
        if worker not in self._crew:
            return  # the poller is closed
        self._crew.discard(worker)
        self._busy.pop(worker, None)
        if worker not in self._stuck:
            self._hire(sender)
        self._stuck.discard(worker)
        self._over(worker)
        self._serve_suspects(sender)

    def _over(self, task: asyncio.Task[None]) -> None:
        """Close the poller if one of its own tasks failed, so that no wait hangs silently."""
        if not task.cancelled() and (failed := task.exception()) is not None:
            self._end(failed)

    def _end(self, failure: BaseException) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(failure)

    async def _give_up_overdue(self) -> None:
        """One timer for all: a timer for each would cost as much memory as the rest of its wait."""
        while True:
            await asyncio.sleep(OVERDUE_CHECK)
            now = self._loop.time()
            for pending in [each for each in self._pending if each.overdue_at <= now]:
                self._fail(pending, OverdueError(HELD_BACK))

    def _set_stuck_timer(self, sender: Sender | None, after: float = STUCK_AFTER) -> None:
        """Check for stuck requests, while requests are under way; None for not at all."""
        if self._stuck_timer is not None:
            self._stuck_timer.cancel()
            self._stuck_timer = None
        if sender is not None:
            self._stuck_timer = self._loop.call_later(
                after, self._replace_stuck, sender, context=self._context
            )

    def _replace_stuck(self, sender: Sender) -> None:
        """Give the places of requests that get no answer to others."""
        self._stuck_timer = None
        now = self._loop.time()
        late = [
            worker
            for worker, since in self._busy.items()
            if now - since >= STUCK_AFTER and worker not in self._stuck
        ]
        for worker in late[: max(0, MOST_STUCK - len(self._stuck))]:
            self._stuck.add(worker)
            self._hire(sender)
        if late and now - self._stuck_told >= STUCK_TOLD:
            self._stuck_told = now
            log.warning(
                "%d requests have had no complete answer for %.0f s. They keep waiting until their read "
                "time-out; polls of other generations of this connection continue.",
                len(late),
                STUCK_AFTER,
            )
        if self._busy:
            self._set_stuck_timer(sender, STUCK_AFTER / 2)

    def _serve_suspects(self, sender: Sender) -> None:
        while self._suspects and len(self._stuck) < MOST_STUCK:
            if not (pending := self._suspects.popleft()).is_over:
                self._hire(sender, pending)

    def _ended(self, host: asyncio.Task[None]) -> None:
        """The poller's task ended: fail the remaining waits; the next wait starts it again."""
        self._closing.discard(host)
        failure = None if host.cancelled() else host.exception()
        if self._host is not host:
            return  # all had left
        self._host = None
        for pending in tuple(self._pending):
            self._fail(pending, failure or RuntimeError("The session of the wait was ended from outside."))

    async def _work(self, sender: Sender) -> None:
        """Send what is due, one request after the other."""
        worker = asyncio.current_task()
        assert worker is not None
        while worker not in self._stuck:
            pending = await self._due.get()
            if pending.suspect:
                self._suspects.append(pending)
                self._serve_suspects(sender)
            else:
                await self._serve(pending, sender, worker)

    async def _look_at(self, pending: PendingWait, sender: Sender) -> None:
        """Send one request of a waiter whose last one got no answer."""
        worker = asyncio.current_task()
        assert worker is not None
        await self._serve(pending, sender, worker)

    async def _serve(self, pending: PendingWait, sender: Sender, worker: asyncio.Task[None]) -> None:
        if not pending.is_over and (self._held_back or self._limiter.acquire()):
            await self._turn_of(pending)
        request, pending.request = pending.request, None
        if pending.is_over or request is None:
            return
        pending.worker = worker
        if self._stuck_timer is None:
            self._set_stuck_timer(sender)
        self._busy[worker] = self._loop.time()
        try:
            reply = await sender.send(request, pending.at_most)
            report(self._limiter, request, reply)
        except asyncio.CancelledError:
            if not pending.is_over and worker in self._crew:  # neither it left nor the poller is closing
                self._end(RuntimeError("The session of the wait was ended from outside."))
            raise
        except Exception as error:
            pending.worker = None
            self._fail(pending, error)
        else:
            pending.worker = None
            pending.suspect = isinstance(reply, ConnectionLost) and reply.why in _UNANSWERED
            self._step(pending, reply)
        finally:
            self._busy.pop(worker, None)
            if not self._busy:
                self._set_stuck_timer(None)

    async def _turn_of(self, pending: PendingWait) -> None:
        """Wait until the limiter permits a request: first come, first served."""
        self._held_back += 1
        try:
            async with self._head:  # a fair lock
                while not pending.is_over and (pause := self._limiter.acquire()):
                    await asyncio.sleep(pause)
        finally:
            self._held_back -= 1

    def _step(self, pending: PendingWait, reply: HttpResponse | ConnectionLost | None) -> None:
        """Hand a flow its reply, and do what it says next."""
        if pending.is_over:
            return
        try:
            effect = pending.context.run(pending.flow.send, reply)
        except StopIteration as end:
            pending.future.set_result(end.value)
        except Exception as error:
            self._fail(pending, error)
        else:
            if isinstance(effect, Send):
                pending.request, pending.at_most = effect.request, effect.at_most
                self._due.put_nowait(pending)
            elif isinstance(effect, Sleep):
                due = self._loop.time() + max(0.0, effect.seconds)
                heapq.heappush(self._later, (due, next(self._order), pending))
                self._set_timer()
            else:
                self._fail(pending, TypeError(f"a shared poller cannot do {type(effect).__name__}"))

    def _fail(self, pending: PendingWait, error: BaseException) -> None:
        if not pending.is_over:
            pending.future.set_exception(error)

    def _set_timer(self) -> None:
        """Wake up at the first tick at which a wait is due; not at all while none is."""
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

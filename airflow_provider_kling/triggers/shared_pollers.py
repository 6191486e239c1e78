"""Which shared poller serves which connection: one for each, in each event loop.

A connection that was changed (a rotated key, another host) gets a poller of its own; the waits in
the old one moves over when its next poll is due.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final
from weakref import WeakKeyDictionary

from airflow_provider_kling.api.async_client import AsyncKlingClient
from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.exceptions import (
    ConfigurationError,
    GenerationFailedError,
    KlingError,
    Recovery,
)
from airflow_provider_kling.api.polling.learned_durations import DurationStats, LearningSchedule
from airflow_provider_kling.api.polling.live_durations import live_schedule
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.polling.shared_poller import (
    MOST_UNDER_WAY,
    OverdueError,
    PendingWait,
    SharedPoller,
)
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.messages import (
    Call,
    ConnectionLost,
    Flow,
    HttpRequest,
    HttpResponse,
)
from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for
from airflow_provider_kling.triggers.connection_cache import READING_TIMEOUT, ConnectionCache

log = logger(__name__)

FRESH_ENOUGH: Final = 60.0
"""Seconds for which a connection that was read serves those who come to wait."""
FRESH_AFTER_A_REFUSAL: Final = 5.0
"""Seconds; who is refused wants to know what the connection is now, once for all of them."""
FRESH_IN_TROUBLE: Final = 180.0
"""Seconds; while requests get lost or meet errors, the host may have been changed for that reason."""
METRICS_TIMEOUT: Final = 30.0
"""Seconds after which the live figures are not needed any more."""
_PASSING: Final = (408, 429)


class ConnectionChangedError(Exception):
    """The connection is not what it was when the wait began."""


class _Client(AsyncKlingClient):
    """A client that notices when its connection was changed, and checks when it has reason to."""

    def __init__(self, cache: ConnectionCache, conn_id: str, settings: Settings) -> None:
        super().__init__(settings, connections=MOST_UNDER_WAY)
        self._cache = cache
        self._conn_id = conn_id

    async def send(self, request: HttpRequest, at_most: float | None = None) -> HttpResponse | ConnectionLost:
        """See :meth:`.AsyncKlingClient.send`.

        :raises ConnectionChangedError: it was read again, and is another by now.
        """
        latest = self._cache.latest(self._conn_id)
        if latest is not self.settings and latest not in (None, self.settings):
            raise ConnectionChangedError
        reply = await super().send(request, at_most)
        if isinstance(reply, ConnectionLost) or reply.status >= 300:
            self._doubt(request, reply)
        return reply

    def _doubt(self, request: HttpRequest, reply: HttpResponse | ConnectionLost) -> None:
        """Have the connection read again beside the polls, where such a reply gives reason to."""
        if request.call not in (Call.POLL, Call.LOGS):
            return
        if isinstance(reply, ConnectionLost):
            refused = not reply.why.passing
        else:
            refused = reply.status < 500 and reply.status not in _PASSING
        fresh = FRESH_AFTER_A_REFUSAL if refused else FRESH_IN_TROUBLE
        self._cache.look_again(self._conn_id, fresh=fresh)


class _ConnectionPoller(SharedPoller):
    """The poller of one connection as it was read, and the decisions for its waits."""

    def __init__(self, cache: ConnectionCache, conn_id: str, settings: Settings) -> None:
        super().__init__(lambda: _Client(cache, conn_id, settings), limiter_for(settings))
        self.conn_id = conn_id
        self.settings = settings
        self.calls = VendorCalls(Endpoints(settings, time.time))


class SharedPollers:
    """The shared pollers of one event loop, and the durations they have learned."""

    def __init__(self) -> None:
        self.durations: defaultdict[str, DurationStats] = defaultdict(DurationStats)
        """What was seen, for each base URL: an emulator teaches nothing about the vendor."""
        self._pollers: dict[tuple[str, Settings], _ConnectionPoller] = {}
        self._poller_of: dict[PendingWait, _ConnectionPoller] = {}
        self._cache = ConnectionCache()
        self._asked: set[tuple[str, str]] = set()
        self._asking: set[asyncio.Task[None]] = set()

    @classmethod
    def of_this_loop(cls) -> SharedPollers:
        """The pollers of the running event loop; a session never leaves the loop it was opened in."""
        loop = asyncio.get_running_loop()
        if loop not in _POLLERS:
            _POLLERS[loop] = cls()
        return _POLLERS[loop]

    async def enter(
        self,
        conn_id: str,
        begin: Callable[[VendorCalls, LearningSchedule], Flow[Any]],
        *,
        model: str | None,
        schedule: Schedule,
        at_most: float,
    ) -> PendingWait:
        """Begin a wait in the poller of a connection.

        :param begin: makes the flow.
        :param model: what is waited for, where it is known; its live figures sharpen the schedule.
        :param schedule: as the user's DAG built it.
        :param at_most: seconds, the reading of the connection included; see
            :meth:`.SharedPoller.wait`.
        :return: await its future, catch :class:`ConnectionChangedError` to enter again, and leave.
        :raises ConfigurationError: the connection cannot be used, or is not there.
        :raises OverdueError: it could not be read in all that time.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + at_most
        try:
            settings = await self._cache.get(conn_id, fresh=FRESH_ENOUGH, at_most=at_most)
            poller = self._room(conn_id, settings)
            if model is not None and schedule.interval is None:
                self._ask_live(poller, model, schedule)
            timetable = LearningSchedule(self.durations[settings.base_url], model, schedule)
            flow = begin(poller.calls, timetable)
            pending = poller.enter(flow, at_most=until - loop.time())
            self._poller_of[pending] = poller
            return pending
        except BaseException:
            self._tidy()
            raise

    async def leave(self, pending: PendingWait) -> None:
        """End a wait, over or not."""
        try:
            if (poller := self._poller_of.pop(pending, None)) is not None:
                await poller.leave(pending)
        finally:
            self._tidy()

    async def is_outdated(self, pending: PendingWait, error: KlingError, *, at_most: float) -> bool:
        """Whether a wait met an error because its connection is another by now: reads it again.

        :param pending: a wait that has not left yet.
        :param at_most: seconds to wait for that; at least one reading gets its time. Where it cannot
            be read until then, the error stands.
        """
        if error.recovery is not Recovery.GIVE_UP or isinstance(error, GenerationFailedError):
            return False
        poller = self._poller_of[pending]
        try:
            latest = await self._cache.get(
                poller.conn_id, fresh=FRESH_AFTER_A_REFUSAL, at_most=max(at_most, READING_TIMEOUT)
            )
        except (ConfigurationError, OverdueError):
            return False
        return latest != poller.settings

    def _room(self, conn_id: str, settings: Settings) -> _ConnectionPoller:
        key = conn_id, settings
        if key not in self._pollers:
            self._pollers[key] = _ConnectionPoller(self._cache, conn_id, settings)
        return self._pollers[key]

    def _ask_live(self, poller: _ConnectionPoller, model: str, known: Schedule) -> None:
        """Ask, once and beside the polls, how long the model takes at the moment."""
        account = poller.settings.base_url
        if (account, model) in self._asked:
            return
        self._asked.add((account, model))

        async def ask() -> None:
            live = None
            try:
                async with asyncio.timeout(METRICS_TIMEOUT):
                    live = await poller.wait(live_schedule(poller.settings, model, known))
            except Exception as error:
                log.info("Could not fetch the current duration of model %s: %r", model, error)
            finally:
                self._tidy()
            if live is not None:
                self.durations[account].believe(model, live)

        task = asyncio.get_running_loop().create_task(ask(), context=Context())
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _tidy(self) -> None:
        """Forget the pollers without waits."""
        for key in [key for key, poller in self._pollers.items() if not len(poller)]:
            del self._pollers[key]
        self._cache.forget_all_but({conn_id for conn_id, _ in self._pollers})


_POLLERS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, SharedPollers]] = WeakKeyDictionary()

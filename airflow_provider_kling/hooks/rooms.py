"""Which waiting room serves which connection: one for each, in each event loop.

Connections are read without blocking, once for all who wait on them. One that was changed (a
rotated key, another host) gets a room of its own; who meets a 401 in the old one moves over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from airflow_provider_kling.api.aio import AsyncKlingClient
from airflow_provider_kling.api.durations import Durations, Sharpened
from airflow_provider_kling.api.flow import Flows
from airflow_provider_kling.api.metrics import live_schedule
from airflow_provider_kling.api.poller import Waiter, WaitingRoom
from airflow_provider_kling.api.protocol import Protocol
from airflow_provider_kling.api.restraint import limiter_for
from airflow_provider_kling.api.schedule import Schedule
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.wire import ConnectionLost, Flow, HttpRequest, HttpResponse
from airflow_provider_kling.hooks.connection import read_settings

log = logging.getLogger(__name__)

FRESH_ENOUGH: Final = 60.0
"""Seconds for which a connection that was read serves those who come to wait."""
FRESH_AFTER_A_401: Final = 5.0
"""Seconds; who is refused wants to know what the connection is now, once for all of them."""
METRICS_TIMEOUT: Final = 30.0
"""Seconds after which nobody is interested in the live figures any more."""
_UNAUTHORIZED: Final = 401


class ConnectionChangedError(Exception):
    """The connection is not what it was when the wait began."""


class _Client(AsyncKlingClient):
    """A client that looks at its connection again when the vendor refuses the key."""

    def __init__(self, rooms: Rooms, conn_id: str, settings: Settings) -> None:
        super().__init__(settings)
        self._rooms = rooms
        self._conn_id = conn_id

    async def send(self, request: HttpRequest) -> HttpResponse | ConnectionLost:
        """See :meth:`.AsyncKlingClient.send`.

        :raises ConnectionChangedError: the key was refused, and the connection has another by now.
        """
        reply = await super().send(request)
        refused = isinstance(reply, HttpResponse) and reply.status == _UNAUTHORIZED
        if refused and await self._rooms.has_changed(self._conn_id, self.settings):
            raise ConnectionChangedError
        return reply


class _Reading:
    """A connection being read, or read, for all who ask."""

    def __init__(self, conn_id: str) -> None:
        loop = asyncio.get_running_loop()
        self.begun = loop.time()
        self.task = loop.create_task(read_settings(conn_id))
        # Taken note of here, should all who asked be gone by then.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    @property
    def failed(self) -> bool:
        return self.task.done() and (self.task.cancelled() or self.task.exception() is not None)


class _Room(WaitingRoom):
    """The room of one connection as it was read, and the decisions for its waits."""

    def __init__(self, rooms: Rooms, conn_id: str, settings: Settings) -> None:
        super().__init__(lambda: _Client(rooms, conn_id, settings), limiter_for(settings))
        self.settings = settings
        self.flows = Flows(Protocol(settings, time.time))


class Seat(NamedTuple):
    """Somebody's place in a room."""

    room: WaitingRoom
    waiter: Waiter


class Rooms:
    """The waiting rooms of one event loop, and what its waits have taught."""

    def __init__(self) -> None:
        self.durations = Durations()
        self._rooms: dict[tuple[str, Settings], _Room] = {}
        self._readings: dict[str, _Reading] = {}
        self._asked: set[str] = set()
        self._asking: set[asyncio.Task[None]] = set()

    @classmethod
    def of_this_loop(cls) -> Rooms:
        """The rooms of the running event loop; a session never leaves the loop it was opened in."""
        loop = asyncio.get_running_loop()
        if loop not in _ROOMS:
            _ROOMS[loop] = cls()
        return _ROOMS[loop]

    async def enter(
        self,
        conn_id: str,
        begin: Callable[[Flows, Sharpened], Flow[Any]],
        *,
        model: str | None,
        schedule: Schedule,
        at_most: float,
    ) -> Seat:
        """Begin a wait in the room of a connection.

        :param begin: makes the flow.
        :param model: what is waited for, where it is known; its live figures sharpen the schedule.
        :param schedule: as the user's DAG built it.
        :param at_most: see :meth:`.WaitingRoom.wait`.
        :return: await its future, catch :class:`ConnectionChangedError` to enter anew, and leave.
        :raises ConfigurationError: the connection cannot be used.
        """
        room = self._room(conn_id, await self._settings(conn_id, FRESH_ENOUGH))
        if model is not None and schedule.interval is None and model not in self._asked:
            self._asked.add(model)
            self._ask_live(room, model, schedule)
        timetable = Sharpened(self.durations, model, schedule)
        return Seat(room, room.enter(begin(room.flows, timetable), at_most=at_most))

    async def leave(self, seat: Seat) -> None:
        """End a wait, over or not."""
        await seat.room.leave(seat.waiter)
        self._tidy()

    async def has_changed(self, conn_id: str, settings: Settings) -> bool:
        """Whether a connection, read again, has other settings by now."""
        try:
            return await self._settings(conn_id, FRESH_AFTER_A_401) != settings
        except Exception as error:
            log.warning("A 401 came, and the connection %r could not be read again: %s", conn_id, error)
            return False

    async def _settings(self, conn_id: str, fresh: float) -> Settings:
        reading = self._readings.get(conn_id)
        now = asyncio.get_running_loop().time()
        if reading is None or reading.failed or now - reading.begun > fresh:
            reading = self._readings[conn_id] = _Reading(conn_id)
        # Who is cancelled while it is read takes it from nobody else.
        return await asyncio.shield(reading.task)

    def _room(self, conn_id: str, settings: Settings) -> _Room:
        key = conn_id, settings
        if key not in self._rooms:
            self._rooms[key] = _Room(self, conn_id, settings)
        return self._rooms[key]

    def _ask_live(self, room: _Room, model: str, known: Schedule) -> None:
        """Ask, beside the polls, how long the model takes at the moment."""

        async def ask() -> None:
            live = None
            try:
                async with asyncio.timeout(METRICS_TIMEOUT):
                    live = await room.wait(live_schedule(room.settings, model, known))
            except Exception as error:
                log.info("How long %s takes at the moment could not be asked: %r", model, error)
            finally:
                self._tidy()
            if live is not None:
                self.durations.believe(model, live)

        task = asyncio.get_running_loop().create_task(ask(), context=Context())
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _tidy(self) -> None:
        """Forget the rooms that nobody is in."""
        for key in [key for key, room in self._rooms.items() if not len(room)]:
            del self._rooms[key]
        inhabited = {conn_id for conn_id, _ in self._rooms}
        for name in [name for name, each in self._readings.items() if each.task.done()]:
            if name not in inhabited:
                del self._readings[name]


_ROOMS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Rooms]] = WeakKeyDictionary()

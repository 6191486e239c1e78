"""What the emulator's routes share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web

from airflow_provider_kling.emulator.clock import Clock
from airflow_provider_kling.emulator.faults.rules import FaultRule, Faults
from airflow_provider_kling.emulator.journal import Journal, JournalEntry
from airflow_provider_kling.emulator.listener import ClientConnection, OpenConnections
from airflow_provider_kling.emulator.options import EmulatorOptions
from airflow_provider_kling.emulator.rendering.media import PictureStore
from airflow_provider_kling.emulator.rendering.video_store import VideoStore
from airflow_provider_kling.emulator.state import ApiKey, VendorState
from airflow_provider_kling.emulator.vendor import unauthorized

_BEARER = "bearer "


@dataclass(slots=True)
class Emulated:
    """Everything that one emulated vendor consists of.

    :param folder: for pictures and videos; its owner removes it.

    Its server sets ``cdn_port``, the port of the CDN where that is another one, and ``stop_listening``,
    which refuses connections for so many seconds.
    """

    options: EmulatorOptions
    clock: Clock
    folder: Path
    state: VendorState = field(init=False)
    faults: Faults = field(init=False)
    prompt_faults: dict[str, list[FaultRule]] = field(init=False, default_factory=dict)
    journal: Journal = field(init=False)
    pictures: PictureStore = field(init=False)
    videos: VideoStore = field(init=False)
    closing: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    connections: int = field(init=False, default=0)
    open_connections: OpenConnections = field(init=False, default_factory=dict)
    cdn_port: int | None = field(init=False, default=None)
    stop_listening: Callable[[float], None] = field(init=False, default=lambda seconds: None)
    signing_key: bytes = field(init=False, default=b"")
    _session: aiohttp.ClientSession | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        options = self.options
        self.state = VendorState(options, self.clock)
        self.faults = Faults(self.clock.now)
        for text in options.faults:
            self.faults.enforce(FaultRule.parse(text))
        self.journal = Journal(options.journal_size)
        self.pictures = PictureStore(
            self.folder, offline=options.offline_pictures, timeout=options.picture_timeout
        )
        self.videos = VideoStore(self.folder, self.pictures, pad_to=options.video_bytes)
        # Derived from the seed, so that a repeated run signs alike.
        self.signing_key = f"emulator/{options.seed}/{options.keys[0]}".encode()

    def connection(self, request: web.BaseRequest) -> ClientConnection | None:
        """The connection that a request came on, with its number; None for one already gone."""
        transport = request.transport
        connection = None if transport is None else self.open_connections.get(transport)
        if connection is not None and connection.number == 0:
            self.connections += 1
            connection.number = self.connections
        return connection

    async def abort_connections(self) -> None:
        """Abort connections that are still open, for example those that wait for the end of TLS."""
        for transport in list(self.open_connections):
            if isinstance(transport, asyncio.WriteTransport):
                transport.abort()
        # The event loop tells its transports in the next round that they are closed.
        await asyncio.sleep(0)

    def caller(self, request: web.BaseRequest) -> ApiKey:
        """The key that a request was made with.

        :raises Refusal: no key, a wrong one, or one that was revoked.
        """
        header = request.headers.get("Authorization", "")
        if header[: len(_BEARER)].lower() != _BEARER:
            raise unauthorized()
        key = self.state.keys.get(header[len(_BEARER) :].strip())
        if key is None or key.revoked:
            raise unauthorized()
        return key

    def session(self) -> aiohttp.ClientSession:
        """The HTTP session that fetches pictures; opened at first use."""
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    async def close(self) -> None:
        """Stop background tasks."""
        self.closing.set()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.videos.close()
        if self._session is not None:
            await self._session.close()

    def reset(self) -> None:
        """Reset: no generations, only the fault rules of the options, an empty journal."""
        for task in self.tasks:
            task.cancel()
        self.state.reset()
        self.journal.clear()
        self.faults.clear()
        self.prompt_faults.clear()
        for text in self.options.faults:
            self.faults.enforce(FaultRule.parse(text))


EMULATED = web.AppKey("emulated", Emulated)


@dataclass(slots=True)
class Exchange:
    """What is known of one request while it is served.

    :param entry: its line in the journal.
    :param client_request_id: the ``X-Client-Request-Id`` that it sent; None where it was not
        valid: the vendor ignores such an id silently.
    :param answer_id: the ``x-inference-id`` of its answer; None for an answer without one.
    :param fault: the fault to apply to its answer; only the CDN reads it.
    """

    entry: JournalEntry
    client_request_id: str | None = None
    answer_id: str | None = None
    fault: FaultRule | None = None


# aiohttp serves each connection in a task of its own, one request after the other. (Its own
# per-request storage has changed its kind of key between versions.)
_current: ContextVar[Exchange | None] = ContextVar("kling_emulator_exchange", default=None)


def begin_exchange(exchange: Exchange | None) -> None:
    """Make this the exchange of the request that is served now; None for the emulator's own."""
    _current.set(exchange)


def current_exchange() -> Exchange | None:
    """The exchange of the request that is served now; None on the emulator's own routes."""
    return _current.get()


def vendor_exchange() -> Exchange:
    """The exchange of the request that is served now, on one of the vendor's routes."""
    exchange = _current.get()
    if exchange is None:
        raise RuntimeError("a route of the vendor was served outside of an exchange")
    return exchange

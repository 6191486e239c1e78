"""The emulator's listening socket, and the deadline for a request on each of its connections."""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol

from aiohttp import web

_BACKLOG = 1024
_HANDSHAKE_SECONDS = 10.0
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 36\r\n\r\nThe request did not come to an end.\n"
)


class ClientConnection(asyncio.Protocol):
    """One connection: aiohttp's protocol behind a deadline for the head of each request.

    aiohttp waits for a head without limit, so a client that sends one byte at a time could hold its
    connection for ever.

    :param inner: aiohttp's protocol, which does everything else.
    :param seconds: from the connection, and from the first byte of each further request, to the end
        of the head.
    :param open_ones: where it is kept while it is open.
    """

    def __init__(self, inner: asyncio.Protocol, seconds: float, open_ones: OpenConnections) -> None:
        self._inner = inner
        self._seconds = seconds
        self._open_ones = open_ones
        self._transport: asyncio.BaseTransport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._serving = False
        self.number = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._open_ones[transport] = self
        self._inner.connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        if not self._serving and self._deadline is None:
            self._start()
        self._inner.data_received(data)

    def request_begins(self) -> None:
        """The head has come."""
        self._serving = True
        self._stop()

    def request_ends(self) -> None:
        """The answer was sent: the next bytes are another request."""
        self._serving = False

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop()
        if self._transport is not None:
            self._open_ones.pop(self._transport, None)
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _start(self) -> None:
        self._deadline = asyncio.get_running_loop().call_later(self._seconds, self._too_slow)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(_TOO_SLOW)
            self._transport.close()


OpenConnections = dict[asyncio.BaseTransport, ClientConnection]
"""The open connections by their transports, which are what a request knows of its connection."""


class ProtocolFactory(Protocol):
    """aiohttp's server: makes a protocol for each connection."""

    def __call__(self) -> asyncio.Protocol: ...


class Listener:
    """A port that can be closed for a while and opened again, as when the vendor is down.

    :param runner: aiohttp's runner, already set up.
    :param host: address to listen on.
    :param port: 0 takes a free one, and keeps it from then on.
    :param open_ones: where the connections are kept while they are open.
    :param seconds: for the head of a request.
    :param context: to speak TLS.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        host: str,
        port: int,
        *,
        open_ones: OpenConnections,
        seconds: float,
        context: ssl.SSLContext | None,
    ) -> None:
        if runner.server is None:
            raise RuntimeError("the runner is not set up")
        self._factory: ProtocolFactory = runner.server
        self._host = host
        self.port = port
        self._open_ones = open_ones
        self._seconds = seconds
        self._context = context
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen.

        :raises OSError: the port is taken.
        """
        self._server = await asyncio.get_running_loop().create_server(
            lambda: ClientConnection(self._factory(), self._seconds, self._open_ones),
            self._host,
            self.port,
            ssl=self._context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._context else None,
            backlog=_BACKLOG,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        """The numeric address that it listens on."""
        if self._server is None:
            raise RuntimeError("nobody listens")
        return str(self._server.sockets[0].getsockname()[0])

    def close(self) -> None:
        """Listen no more: whoever comes now is refused by the operating system."""
        server, self._server = self._server, None
        if server is not None:
            server.close()

"""The async client's connections: what a server may send is bounded before anything is parsed.

aiohttp parses whatever comes. A server that sends informational answers, trailers or chunk
extensions without end would keep the event loop of a whole triggerer busy with that.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from airflow_provider_kling.api.transport.messages import MOST_INFORMATIONAL, MOST_RECEIVED

LONGEST_HEAD: Final = 256 * 1024
"""Bytes until the head of the answer is complete, those of informational answers included."""
MOST_LINES: Final = 100_000
"""Lines of an answer, trailers included: aiohttp before 3.14 keeps one of six bytes in some 70."""
_PIECE: Final = 16 * 1024
"""Bytes that are parsed at a time, so that what is too much is noticed after little work."""
_LOOK_UPS: Final = 2


class BoundedResponseHandler(ResponseHandler):
    """Gives up an answer that has more bytes than an answer can have, and what comes unasked.

    What comes while a connection is kept, aiohttp would take for the answer to the next request, which is
    about another generation.
    """

    _asked = False
    _received = 0
    _lines = 0
    _informational = 0
    _answered = False

    def set_response_params(self, **params: Any) -> None:
        """Called for each request, before it is sent."""
        self._received = self._lines = self._informational = 0
        self._asked, self._answered = True, False
        # Nothing is decoded: for the answer of a proxy to CONNECT the session's own setting does not count.
        super().set_response_params(**{**params, "auto_decompress": False})

    def data_received(self, data: bytes) -> None:
        is_answered = self._answered and self._payload is not None and self._payload.is_eof()
        if data and (is_answered or not self._asked):  # aiohttp itself hands on an empty piece
            if self.transport is not None:
                self.transport.abort()
            return
        if len(data) <= _PIECE:
            self._take(data)
            return
        for start in range(0, len(data), _PIECE):
            if self.transport is None or self.transport.is_closing():
                return
            self._take(data[start : start + _PIECE])

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Called with each head that was parsed."""
        if 100 <= data[0].code < 200:
            self._informational += 1
        else:
            self._answered = True
        super().feed_data(data, size)

    def _take(self, data: bytes) -> None:
        self._received += len(data)
        self._lines += data.count(b"\n")
        super().data_received(data)
        if (
            self._received > MOST_RECEIVED
            or self._lines > MOST_LINES
            or (not self._answered and self._received > LONGEST_HEAD)
            or self._informational > MOST_INFORMATIONAL
        ):
            self._refuse()

    def _refuse(self) -> None:
        error = aiohttp.ClientPayloadError("the answer has more bytes than an answer can have")
        if self._payload is not None:
            self._payload.set_exception(error)
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


class OwnThreadsResolver(AbstractResolver):
    """Resolves names in threads of its own: a name that hangs does not delay others.

    :param seconds: after which a resolution is given up.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="kling-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of a host.

        :raises OSError: there are none, or not in time.
        """
        loop = asyncio.get_running_loop()
        look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM, family=family)
        try:
            async with asyncio.timeout(self._seconds):
                found = await loop.run_in_executor(self._threads, look_up)
        except TimeoutError:
            raise OSError(None, f"{host} was not resolved in {self._seconds:g} s") from None
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class BoundedConnector(aiohttp.TCPConnector):
    """A connector whose answers are bounded.

    :param connecting: seconds that resolving a name may take.
    """

    def __init__(self, *, connecting: float, **options: Any) -> None:
        # Its threads end with it.
        super().__init__(resolver=OwnThreadsResolver(connecting), **options)
        made = functools.partial(BoundedResponseHandler, loop=self._loop)
        self._factory = cast("functools.partial[ResponseHandler]", made)

    async def connect(self, req: Any, *args: Any, **kwargs: Any) -> Any:
        """A connection for a request, through a proxy's tunnel where it needs one.

        :raises aiohttp.ClientConnectorError: also where a proxy breaks off while it makes the tunnel. aiohttp
            reports that like an answer that breaks off, and for a submit it is the difference between
            free and perhaps billed.
        """
        try:
            return await super().connect(req, *args, **kwargs)
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.InvalidURL, TimeoutError):
            raise
        except (aiohttp.ClientError, OSError) as error:
            why = OSError(None, f"it broke off: {type(error).__name__}")
            raise aiohttp.ClientConnectorError(req.connection_key, why) from error

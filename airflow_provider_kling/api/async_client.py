"""The async client, on aiohttp: for Airflow's triggerer, and for any program with an event loop."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from yarl import URL

from airflow_provider_kling.api.calls import VendorCalls, Watcher
from airflow_provider_kling.api.exceptions import ConfigurationError
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.aiohttp_connections import BoundedConnector
from airflow_provider_kling.api.transport.body import JsonBody
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.messages import (
    ConnectionLost,
    FailureReason,
    Flow,
    HttpRequest,
    HttpResponse,
    Memory,
    Reply,
    SaveRecord,
    Sleep,
    T,
    body_encoding,
    forget,
    has_readable_length,
    sending_seconds,
)
from airflow_provider_kling.api.transport.rate_limiter import Limiter
from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for, report
from airflow_provider_kling.api.transport.tls_and_proxy import (
    FileState,
    behind_proxy,
    proxy_url,
    tls_reason,
    trusted_now,
    unusable_proxy,
)

MOST_CONNECTIONS: Final = 16
"""TCP connections one client keeps at most: polls are short, and a burst must not open hundreds."""
KEEP_ALIVE: Final = 60.0
"""Seconds for which an idle connection is kept: longer than most polls are apart."""
_CHUNK: Final = 64 * 1024


class AsyncKlingClient:
    """Talks to the vendor with aiohttp; never blocks the event loop.

    A client belongs to one event loop. Close it, or use it as an async context manager.

    :param settings: address, key, time-outs.
    :param calls: the calls and their retries; None for the usual ones. Tests pass a clock in.
    :param sleep: how to wait a number of seconds.
    :param limiter: how fast the account may be used, best :func:`.limiter_for`'s; None only keeps
        the settings' own rate.
    :param connections: TCP connections at most.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        calls: VendorCalls | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        limiter: Limiter | None = None,
        connections: int = MOST_CONNECTIONS,
    ) -> None:
        self.settings = settings
        self._limiter = limiter
        if limiter is None and settings.requests_per_minute is not None:
            self._limiter = limiter_for(settings)
        self.calls = calls or VendorCalls(Endpoints(settings, time.time))
        self._sleep = sleep
        self._longest = settings.connect_timeout + settings.read_timeout
        self._turns = asyncio.Semaphore(connections)
        self._proxies: dict[tuple[str, str], str | None] = {}
        self._session: aiohttp.ClientSession | None = None
        self._retired: list[aiohttp.ClientSession] = []
        self._trusts: FileState = None

    async def submit(self, request: GenerationRequest, client_request_id: str | None = None) -> Generation:
        """Ask for a generation, once; see :meth:`.VendorCalls.submit`."""
        return await self.run(self.calls.submit(request, client_request_id))

    async def get_generation(self, generation_id: str) -> Generation:
        """Ask how a generation stands; see :meth:`.VendorCalls.get_generation`."""
        return await self.run(self.calls.get_generation(generation_id))

    async def wait(
        self,
        generation_id: str,
        *,
        timeout: float,
        schedule: Schedule | None = None,
        submitted_at: float | None = None,
        watch: Watcher | None = None,
    ) -> Generation:
        """Wait at most ``timeout`` seconds until the video is there; see :meth:`.VendorCalls.wait`.

        :raises ValueError: ``timeout`` is not a number from 0 to a week.
        """
        flow = self.calls.wait(
            generation_id, timeout=timeout, schedule=schedule, submitted_at=submitted_at, watch=watch
        )
        return await self.run(flow)

    async def get_balance(self) -> float:
        """The account's balance in USD; see :meth:`.VendorCalls.get_balance`."""
        return await self.run(self.calls.get_balance())

    async def run(self, flow: Flow[T], remember: Memory = forget) -> T:
        """Drive a flow to its end and return its result.

        :param remember: stores a record where it survives a crash.
        """
        reply: Reply = None
        try:
            while True:
                effect = flow.send(reply)
                if isinstance(effect, Sleep):
                    await self._sleep(effect.seconds)
                    reply = None
                elif isinstance(effect, SaveRecord):
                    remember(effect.record)
                    reply = None
                else:
                    reply = await self._send_in_turn(effect.request, effect.at_most)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            flow.close()

    async def _send_in_turn(
        self, request: HttpRequest, at_most: float | None
    ) -> HttpResponse | ConnectionLost:
        """Make one request as soon as the account's restraint lets it go."""
        if self._limiter is None:
            return await self.send(request, at_most)
        while pause := self._limiter.acquire():
            await self._sleep(pause)
        reply = await self.send(request, at_most)
        report(self._limiter, request, reply)
        return reply

    async def send(self, request: HttpRequest, at_most: float | None = None) -> HttpResponse | ConnectionLost:
        """Make one request, at once; what went wrong comes back as a value, for the flows to judge.

        :param at_most: seconds for the whole exchange, where it has less than the settings give it.
        """
        session = self._session or await self.open()
        reply = await self._send_over(session, request, at_most)
        untrusted = isinstance(reply, ConnectionLost) and reply.why is FailureReason.CERTIFICATE
        if untrusted and (anew := await self._opened_anew(session)):
            reply = await self._send_over(anew, request, at_most)
        return reply

    async def _send_over(
        self, session: aiohttp.ClientSession, request: HttpRequest, at_most: float | None
    ) -> HttpResponse | ConnectionLost:
        scheme, host, *_ = urlsplit(request.url)
        # Reading the environment costs as much as a poll.
        if (scheme, host) not in self._proxies:
            if (barred := unusable_proxy(self.settings, request.url)) is not None:
                return barred
            self._proxies[scheme, host] = proxy_url(self.settings, request.url)
        proxy = self._proxies[scheme, host]
        headers: Mapping[str, str] = request.headers
        body: object = request.body
        if isinstance(request.body, JsonBody):
            headers = {**headers, "Content-Length": str(len(request.body))}
            body = _pieces(request.body)
        seconds = self._longest + (sending_seconds(request) if body else 0.0)
        opened = False
        try:
            address = _address(request)
        except ValueError:
            return ConnectionLost(FailureReason.UNSENDABLE, host)
        try:
            # Turns are taken here and not in the connector, where who waits for one would spend the
            # time in which a connection has to be made.
            async with (
                self._turns,
                asyncio.timeout(seconds if at_most is None else min(seconds, at_most)),
                session.request(
                    request.method,
                    address,
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    proxy=proxy,
                ) as response,
            ):
                opened = True
                # aiohttp's headers are found in whatever case they are asked for.
                if not has_readable_length(response.headers):
                    return ConnectionLost(FailureReason.BROKEN, host, "it names an impossible length")
                if encoding := body_encoding(response.headers):
                    response.close()
                    return HttpResponse(response.status, response.headers, encoding=encoding)
                if response.content.is_eof():  # a poll's answer comes in one piece with its head
                    answer = response.content.read_nowait()
                else:
                    # aiohttp's own time-out restarts with each byte.
                    async with asyncio.timeout(self.settings.read_timeout):
                        answer = await _read(response, request.longest_reply)
                longest = request.longest_reply
                cut = len(answer) > longest
                return HttpResponse(response.status, response.headers, answer[:longest], cut)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return behind_proxy(_loss(error, opened, host), proxy)

    async def open(self) -> aiohttp.ClientSession:
        """Prepare for sending; :meth:`send` does it if it was not called.

        Certificates are read in a thread, as that takes tens of milliseconds.
        """
        trust: ssl.SSLContext | bool = True
        secure = urlsplit(self.settings.base_url).scheme == "https"
        if secure and (read := await asyncio.to_thread(trusted_now, self.settings)):
            self._trusts, trust = read
        if self._session is None:
            self._session = self._new_session(trust)
        return self._session

    async def _opened_anew(self, refusing: aiohttp.ClientSession) -> aiohttp.ClientSession | None:
        """Another session, where a certificate was refused and the file of authorities has changed.

        :param refusing: the session that refused it.
        :return: None where there is nothing new to trust.
        """
        if self._session is refusing:
            try:
                new = await asyncio.to_thread(trusted_now, self.settings, unless=self._trusts)
            except ConfigurationError:  # it is being written just now
                new = None
            if new is not None and self._session is refusing:  # no other request was quicker
                self._retired.append(refusing)  # requests may still use it
                self._trusts, self._session = new[0], self._new_session(new[1])
        return None if self._session is refusing else self._session

    async def close(self) -> None:
        """Close all connections."""
        while self._retired:
            await self._retired.pop().close()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> AsyncKlingClient:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _new_session(self, trust: ssl.SSLContext | bool) -> aiohttp.ClientSession:
        tunnelled = proxy_url(self.settings, self.settings.base_url) is not None
        return aiohttp.ClientSession(
            connector=BoundedConnector(
                connecting=self.settings.connect_timeout,
                limit=0,
                ssl=trust,
                keepalive_timeout=KEEP_ALIVE,
            ),
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=self.settings.connect_timeout,  # TCP and TLS
                # The name and a proxy's tunnel too; it costs a timer for each request.
                connect=self.settings.connect_timeout if tunnelled else None,
                sock_read=self.settings.read_timeout,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # what is encoded is not read at all
        )


def _address(request: HttpRequest) -> URL:
    """The URL with its query, encoded once and for all."""
    if not request.kept:
        query = f"?{urlencode(request.params, quote_via=quote)}" if request.params else ""
        request.kept.append(URL(request.url + query, encoded=bool(query)))
    address: URL = request.kept[0]
    return address


async def _pieces(body: JsonBody) -> AsyncIterator[bytes]:
    """As aiohttp takes a body in pieces; they are short, and read from the disk's cache."""
    for piece in body:
        yield piece


async def _read(response: aiohttp.ClientResponse, longest: int) -> bytes:
    """The body, cut a little above the limit."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > longest:
            break
    return bytes(body)


def _loss(error: Exception, opened: bool, host: str) -> ConnectionLost:
    """Where on its way a request was lost. In doubt it was sent.

    :param opened: whether the head of an answer had come.
    """
    if opened:
        return ConnectionLost(
            FailureReason.SLOW if isinstance(error, TimeoutError) else FailureReason.BROKEN, host
        )
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ConnectionLost(FailureReason.CERTIFICATE, host, tls_reason(error.certificate_error))
    if isinstance(error, aiohttp.ClientSSLError):
        return ConnectionLost(FailureReason.TLS, host, tls_reason(error.os_error))
    return ConnectionLost(_where(error), host)


def _where(error: Exception) -> FailureReason:
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return FailureReason.CONNECT_TIMEOUT
    if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
        return FailureReason.PROXY
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return FailureReason.DNS
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return FailureReason.REFUSED if refused else FailureReason.UNREACHABLE
    if isinstance(error, aiohttp.InvalidURL | UnicodeError):  # of a host that none can be
        return FailureReason.UNSENDABLE
    return FailureReason.READ_TIMEOUT if isinstance(error, TimeoutError) else FailureReason.BROKEN

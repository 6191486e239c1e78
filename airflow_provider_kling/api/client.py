"""The blocking client, on requests: for Airflow's workers, and for any program without an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions

from airflow_provider_kling.api.calls import VendorCalls, Watcher
from airflow_provider_kling.api.exceptions import (
    ConfigurationError,
    ConnectionLostError,
    DownloadError,
    Money,
    Recovery,
)
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.redaction import hide_secrets_in_logs_of
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.addresses import refusal_of_name
from airflow_provider_kling.api.transport.endpoints import USER_AGENT, Endpoints
from airflow_provider_kling.api.transport.messages import (
    MOST_RECEIVED,
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
    behind_proxy,
    proxy_url,
    trusted,
    unusable_proxy,
)
from airflow_provider_kling.api.transport.urllib3_connections import TimedAdapter
from airflow_provider_kling.api.transport.urllib3_errors import loss, loss_of_reading

SLOWEST_DOWNLOAD: Final = 256 * 1024
"""Bytes that a download brings in each ``read_timeout`` at least; one that brings less is given up."""
_CHUNK: Final = 64 * 1024
_MOST_REDIRECTS: Final = 5
_Trouble = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class KlingClient:
    """Talks to the vendor with requests; blocks while it waits.

    A client belongs to one thread. Close it, or use it as a context manager.

    :param settings: address, key, time-outs.
    :param calls: the calls and their retries; None for the usual ones. Tests pass a clock in.
    :param sleep: how to wait a number of seconds.
    :param limiter: how fast the account may be used, best :func:`.limiter_for`'s; None only keeps
        the settings' own rate.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        calls: VendorCalls | None = None,
        sleep: Callable[[float], None] = time.sleep,
        limiter: Limiter | None = None,
    ) -> None:
        hide_secrets_in_logs_of("urllib3.connectionpool")  # which writes each URL at DEBUG
        self.settings = settings
        self._limiter = limiter
        if limiter is None and settings.requests_per_minute is not None:
            self._limiter = limiter_for(settings)
        self.calls = calls or VendorCalls(Endpoints(settings, time.time))
        self._sleep = sleep
        self._verify, _ = trusted(settings)
        self._api = TimedAdapter()
        self._cdn = TimedAdapter(settings)

    def submit(self, request: GenerationRequest, client_request_id: str | None = None) -> Generation:
        """Ask for a generation, once; see :meth:`.VendorCalls.submit`."""
        return self.run(self.calls.submit(request, client_request_id))

    def get_generation(self, generation_id: str) -> Generation:
        """Ask how a generation stands; see :meth:`.VendorCalls.get_generation`."""
        return self.run(self.calls.get_generation(generation_id))

    def wait(
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
        return self.run(flow)

    def get_balance(self) -> float:
        """The account's balance in USD; see :meth:`.VendorCalls.get_balance`."""
        return self.run(self.calls.get_balance())

    def run(self, flow: Flow[T], remember: Memory = forget) -> T:
        """Drive a flow to its end and return its result.

        :param remember: stores a record where it survives a crash.
        """
        reply: Reply = None
        try:
            while True:
                effect = flow.send(reply)
                if isinstance(effect, Sleep):
                    self._sleep(effect.seconds)
                    reply = None
                elif isinstance(effect, SaveRecord):
                    remember(effect.record)
                    reply = None
                else:
                    reply = self._send_in_turn(effect.request, effect.at_most)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            flow.close()

    @contextmanager
    def fetch(self, url: str, headers: Mapping[str, str]) -> Iterator[Stream]:
        """Open a video's URL. The API key never goes there, nor to where it redirects.

        Redirects are followed, but not for ever: the last one is given as it is.

        :param url: the signed URL.
        :param headers: further ones, for example a ``Range``.
        :raises ConnectionLostError: no answer, or an address that must not be connected to; also while
            its chunks are read.
        :raises DownloadError: it is no URL, or not encrypted.
        """
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        url = self._video_url(url)
        for left in reversed(range(_MOST_REDIRECTS + 1)):
            host = urlsplit(url).netloc
            if (barred := self._barred(url)) is not None:
                raise _download_lost(barred)
            self._cdn.exchange.begin(self.settings.connect_timeout, *[self.settings.read_timeout] * 2)
            try:
                response = self._open(self._cdn, "GET", url, headers=headers)
            except _Trouble as error:
                raise _download_lost(self._lost(error, url)) from None
            with response:
                if not (left and response.is_redirect):
                    yield Stream(response, self._cdn, self.settings.read_timeout, host)
                    return
                url = self._video_url(response.headers["location"], url)

    def close(self) -> None:
        """Close all connections."""
        self._api.close()
        self._cdn.close()

    def __enter__(self) -> KlingClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _send_in_turn(self, request: HttpRequest, at_most: float | None) -> HttpResponse | ConnectionLost:
        """Make one request, when the limiter lets it go."""
        if self._limiter is None:
            return self._send(request, at_most)
        while pause := self._limiter.acquire():
            self._sleep(pause)
        reply = self._send(request, at_most)
        report(self._limiter, request, reply)
        return reply

    def _send(self, request: HttpRequest, at_most: float | None) -> HttpResponse | ConnectionLost:
        host = urlsplit(request.url).netloc
        if (barred := unusable_proxy(self.settings, request.url)) is not None:
            return barred
        answering = self.settings.read_timeout
        self._api.exchange.begin(
            self.settings.connect_timeout,
            answering + sending_seconds(request),
            answering,
            at_most=at_most,
            most_bytes=MOST_RECEIVED,
        )
        try:
            response = self._open(
                self._api,
                request.method,
                request.url,
                params=request.params,
                headers=request.headers,
                data=request.body,
            )
        except _Trouble as error:
            return self._lost(error, request.url)
        headers = {name.lower(): value for name, value in response.headers.items()}
        with response:
            if not has_readable_length(headers):
                return ConnectionLost(FailureReason.BROKEN, host, "it names an impossible length")
            if encoding := body_encoding(headers):
                return HttpResponse(response.status_code, headers, encoding=encoding)
            try:
                body = self._read(response, request.longest_reply)
            except _Trouble as error:
                return loss_of_reading(error, host)
        longest = request.longest_reply
        return HttpResponse(response.status_code, headers, body[:longest], len(body) > longest)

    def _open(self, adapter: TimedAdapter, method: str, url: str, **what: Any) -> requests.Response:
        """Make one request, once.

        Past requests' Session, which would add cookies and what ``~/.netrc`` says, and would read
        a redirect whole to see where it leads.
        """
        proxy = proxy_url(self.settings, url)
        return adapter.send(
            requests.Request(method, url, **what).prepare(),
            stream=True,
            verify=self._verify,
            proxies={"http": proxy, "https": proxy} if proxy else None,
            # Each call of a socket is given less: what is left of its exchange.
            timeout=(self.settings.connect_timeout, self.settings.read_timeout),
        )

    def _lost(self, error: Exception, url: str) -> ConnectionLost:
        host = urlsplit(url).netloc
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            return ConnectionLost(FailureReason.UNSENDABLE, host)
        return behind_proxy(loss(error, host), proxy_url(self.settings, url))

    def _barred(self, url: str) -> ConnectionLost | None:
        """Why a video's URL must not be opened, as far as that is seen before its host is resolved."""
        parts = urlsplit(url)
        if (unusable := unusable_proxy(self.settings, url)) is not None:
            return unusable
        # A proxy resolves names itself.
        refusal = refusal_of_name(self.settings, parts.hostname or "")
        return ConnectionLost(FailureReason.FORBIDDEN_ADDRESS, parts.netloc, refusal) if refusal else None

    def _video_url(self, url: str, base: str = "") -> str:
        """Where to fetch a video from: what is a URL, and encrypted."""
        try:
            url = urljoin(base, url)
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise DownloadError("The vendor names no usable URL of the video.")
        try:
            self.settings.check_scheme(url)
        except ConfigurationError as error:
            raise DownloadError(
                f"The video was not fetched: {error.what}", advice=error.advice, recovery=error.recovery
            ) from None
        return url

    def _read(self, response: requests.Response, longest: int) -> bytes:
        """The body, cut a little above the limit."""
        body = bytearray()
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            body += chunk
            if len(body) > longest:
                break
        return bytes(body)


class Stream:
    """An open download.

    :param response: requests' response, not yet read.
    :param adapter: what it came through.
    :param span: seconds in each of which :data:`SLOWEST_DOWNLOAD` bytes come at least.
    :param host: host (and port) that it comes from.
    """

    def __init__(self, response: requests.Response, adapter: TimedAdapter, span: float, host: str) -> None:
        self._response = response
        self._exchange = adapter.exchange
        self._span = span
        self._host = host
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def chunks(self, size: int) -> Iterator[bytes]:
        """The body in pieces of at most ``size`` bytes, as it came: nothing is decoded.

        :raises ConnectionLostError: the connection broke, or brings less than :data:`SLOWEST_DOWNLOAD`.
        """
        piece = bytearray()
        fresh = 0
        self._exchange.enter(self._span)
        try:
            while chunk := self._response.raw.read1(size - len(piece), decode_content=False):
                piece += chunk
                fresh += len(chunk)
                if len(piece) == size:
                    yield bytes(piece)
                    piece.clear()
                if fresh >= SLOWEST_DOWNLOAD:
                    fresh = 0
                    self._exchange.enter(self._span)
        except _Trouble as error:
            raise _download_lost(loss_of_reading(error, self._host)) from None
        if piece:
            yield bytes(piece)


def _download_lost(lost: ConnectionLost) -> ConnectionLostError:
    return ConnectionLostError(
        f"The download stopped: {lost.reason}.",
        maybe_sent=lost.why.maybe_sent,
        money=Money.ALREADY_PAID,
        recovery=None if lost.why.passing else Recovery.GIVE_UP,
    )

"""The blocking client, on requests: for Airflow's workers, and for any program without an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from airflow_provider_kling.api.calls import VendorCalls, Watcher
from airflow_provider_kling.api.exceptions import ConnectionLostError, DownloadError, Money, Recovery
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import USER_AGENT, Endpoints
from airflow_provider_kling.api.transport.messages import (
    LONGEST_REPLY,
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
    forget,
)
from airflow_provider_kling.api.transport.rate_limiter import Limiter
from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for, report
from airflow_provider_kling.api.transport.tls_and_proxy import behind_proxy, proxy_url, trusted
from airflow_provider_kling.api.transport.urllib3_errors import TlsConnection, silence, silence_of_reading

_CHUNK: Final = 64 * 1024
_MOST_REDIRECTS: Final = 5
_Trouble = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class KlingClient:
    """Talks to the vendor with requests; blocks while it waits.

    A client belongs to one thread. Close it, or use it as a context manager.

    :param settings: address, key, time-outs.
    :param flows: the decisions; None for the usual ones. Tests pass a clock and a random source in.
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
        self.settings = settings
        self._limiter = limiter
        if limiter is None and settings.requests_per_minute is not None:
            self._limiter = limiter_for(settings)
        self.calls = calls or VendorCalls(Endpoints(settings, time.time))
        self._sleep = sleep
        self._verify, _ = trusted(settings)
        self._api = _Adapter()
        self._cdn = _Adapter()

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
        """Wait at most ``timeout`` seconds until the video is there; see :meth:`.wait_until_complete`.

        :raises ValueError: ``timeout`` is not a number from 0 to a week.
        """
        return self.run(
            self.calls.wait_until_complete(
                generation_id,
                schedule=schedule or Schedule.adaptive(None),
                deadline=self.calls.deadline(timeout),
                submitted_at=submitted_at,
                watch=watch,
            )
        )

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
                    reply = self._send_in_turn(effect.request)
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
        :raises ConnectionLostError: no answer; also while its chunks are read.
        :raises DownloadError: it is no URL.
        :raises ConfigurationError: the URL is not encrypted.
        """
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        url = self._video_url(url)
        for left in reversed(range(_MOST_REDIRECTS + 1)):
            try:
                response = self._open(self._cdn, "GET", url, headers=headers)
            except _Trouble as error:
                raise _download_lost(self._silence(error, url), url) from None
            with response:
                if not (left and response.is_redirect):
                    yield Stream(response)
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

    def _send_in_turn(self, request: HttpRequest) -> HttpResponse | ConnectionLost:
        """Make one request, when the limiter lets it go."""
        if self._limiter is None:
            return self._send(request)
        while pause := self._limiter.acquire():
            self._sleep(pause)
        reply = self._send(request)
        report(self._limiter, request, reply)
        return reply

    def _send(self, request: HttpRequest) -> HttpResponse | ConnectionLost:
        host = urlsplit(request.url).netloc
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
            return ConnectionLost(self._silence(error, request.url), host)
        with response:
            try:
                body = self._read(response)
            except _Trouble as error:
                return ConnectionLost(silence_of_reading(error), host)
        if body is None:
            return ConnectionLost(FailureReason.SLOW, host)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return HttpResponse(response.status_code, headers, body[:LONGEST_REPLY], len(body) > LONGEST_REPLY)

    def _open(self, adapter: HTTPAdapter, method: str, url: str, **what: Any) -> requests.Response:
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
            timeout=(self.settings.connect_timeout, self.settings.read_timeout),
        )

    def _silence(self, error: Exception, url: str) -> FailureReason:
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
            return FailureReason.UNSENDABLE
        return behind_proxy(silence(error), proxy_url(self.settings, url))

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
        self.settings.check_scheme(url)
        return url

    def _read(self, response: requests.Response) -> bytes | None:
        """The body, cut a little above the limit; None when it drips in too slowly.

        requests' own time-out starts anew with each byte, so the whole is bounded here.
        """
        latest = time.monotonic() + self.settings.read_timeout
        body = bytearray()
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            body += chunk
            if len(body) > LONGEST_REPLY:
                break
            if time.monotonic() > latest:
                return None
        return bytes(body)


class Stream:
    """An open download.

    :param response: requests' response, not yet read.
    """

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def chunks(self, size: int) -> Iterator[bytes]:
        """The body in pieces of at most ``size`` bytes.

        :raises ConnectionLostError: the connection broke.
        """
        try:
            yield from self._response.iter_content(size)
        except _Trouble as error:
            raise _download_lost(silence_of_reading(error), self._response.url) from None


class _Adapter(HTTPAdapter):
    """requests' own connection pools, with our connections in them."""

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        if isinstance(pool, urllib3.HTTPSConnectionPool):
            pool.ConnectionCls = TlsConnection
        return pool


def _download_lost(why: FailureReason, url: str) -> ConnectionLostError:
    error = ConnectionLostError(
        f"The download stopped: {why.sentence} ({urlsplit(url).netloc}).",
        sent=why.sent,
        money=Money.ALREADY_PAID,
    )
    if not why.passing:
        error.recovery = Recovery.GIVE_UP
    return error

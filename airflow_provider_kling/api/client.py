"""The blocking client, on requests: for Airflow's workers, and for any program without an event loop."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
import urllib3.exceptions

from airflow_provider_kling.api.errors import ConnectionLostError, DownloadError, Money
from airflow_provider_kling.api.flow import Flows, Watcher
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.network import ca_file, proxy_for
from airflow_provider_kling.api.protocol import USER_AGENT, Protocol
from airflow_provider_kling.api.schedule import Schedule
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.wire import (
    LONGEST_REPLY,
    ConnectionLost,
    Flow,
    HttpRequest,
    HttpResponse,
    Memory,
    Pause,
    Remember,
    Reply,
    Silence,
    T,
    forget,
)

_CHUNK: Final = 64 * 1024
_MOST_REDIRECTS: Final = 5
_Trouble = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


class KlingClient:
    """Talks to the vendor with requests; blocks while it waits.

    A client belongs to one thread. Close it, or use it as a context manager.

    :param settings: address, key, time-outs.
    :param flows: the decisions; None for the usual ones. Tests pass a clock and a random source in.
    :param sleep: how to wait a number of seconds.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        flows: Flows | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.flows = flows or Flows(Protocol(settings, time.time))
        self._sleep = sleep
        self._verify = ca_file(settings)
        self._api = _session()
        self._cdn = _session()

    def submit(self, request: GenerationRequest, client_request_id: str | None = None) -> Generation:
        """Ask for a generation, once; see :meth:`.Flows.submit`."""
        return self.run(self.flows.submit(request, client_request_id))

    def get_generation(self, generation_id: str) -> Generation:
        """Ask how a generation stands; see :meth:`.Flows.get_generation`."""
        return self.run(self.flows.get_generation(generation_id))

    def wait(
        self,
        generation_id: str,
        *,
        timeout: float,
        schedule: Schedule | None = None,
        submitted_at: float | None = None,
        watch: Watcher | None = None,
    ) -> Generation:
        """Wait at most ``timeout`` seconds until the video is there; see :meth:`.Flows.settle`."""
        return self.run(
            self.flows.settle(
                generation_id,
                schedule=schedule or Schedule.adaptive(None),
                deadline=self.flows.now() + timeout,
                submitted_at=submitted_at,
                watch=watch,
            )
        )

    def get_balance(self) -> float:
        """The account's balance in USD; see :meth:`.Flows.get_balance`."""
        return self.run(self.flows.get_balance())

    def run(self, flow: Flow[T], remember: Memory = forget) -> T:
        """Drive a flow to its end and return its result.

        :param remember: stores a record where it survives a crash.
        """
        reply: Reply = None
        try:
            while True:
                effect = flow.send(reply)
                if isinstance(effect, Pause):
                    self._sleep(effect.seconds)
                    reply = None
                elif isinstance(effect, Remember):
                    remember(effect.record)
                    reply = None
                else:
                    reply = self._send(effect.request)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            flow.close()

    @contextmanager
    def fetch(self, url: str, headers: Mapping[str, str]) -> Iterator[Stream]:
        """Open a video's URL. The API key never goes there, nor to where it redirects.

        :param url: the signed URL.
        :param headers: further ones, for example a ``Range``.
        :raises ConnectionLostError: no answer; also while its chunks are read.
        :raises DownloadError: the URL redirects without end.
        :raises ConfigurationError: the URL is not encrypted.
        """
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        for _ in range(_MOST_REDIRECTS):
            self.settings.check_scheme(url)
            try:
                response = self._open(self._cdn, "GET", url, headers=headers)
            except _Trouble as error:
                raise _download_lost(error, url) from None
            with response:
                if not response.is_redirect:
                    yield Stream(response)
                    return
                url = urljoin(url, response.headers["location"])
        raise DownloadError(f"The URL of the video redirects more than {_MOST_REDIRECTS} times.")

    def close(self) -> None:
        """Close all connections."""
        self._api.close()
        self._cdn.close()

    def __enter__(self) -> KlingClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

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
            return ConnectionLost(_silence(error), host)
        with response:
            try:
                body = self._read(response)
            except _Trouble as error:
                why = Silence.READ_TIMEOUT if _is_timeout(error) else Silence.BROKEN
                return ConnectionLost(why, host)
        if body is None:
            return ConnectionLost(Silence.SLOW, host)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return HttpResponse(response.status_code, headers, body[:LONGEST_REPLY], len(body) > LONGEST_REPLY)

    def _open(self, session: requests.Session, method: str, url: str, **what: Any) -> requests.Response:
        proxy = proxy_for(self.settings, url)
        return session.request(
            method,
            url,
            allow_redirects=False,
            stream=True,
            verify=self._verify,
            proxies={"http": proxy, "https": proxy} if proxy else None,
            timeout=(self.settings.connect_timeout, self.settings.read_timeout),
            **what,
        )

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
            raise _download_lost(error, self._response.url, reading=True) from None


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # or an entry in ~/.netrc would replace the Authorization header
    return session


def _download_lost(error: Exception, url: str, reading: bool = False) -> ConnectionLostError:
    why = _silence(error)
    if reading and not _is_timeout(error):
        why = Silence.BROKEN
    return ConnectionLostError(
        f"The download stopped: {why.sentence} ({urlsplit(url).netloc}).",
        sent=why.sent,
        money=Money.ALREADY_PAID,
    )


def _silence(error: Exception) -> Silence:
    """Where on its way a request was lost. In doubt it was sent."""
    chain = tuple(_causes(error))

    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if met(ssl.SSLCertVerificationError):
        return Silence.CERTIFICATE
    if any(isinstance(link, ssl.SSLError) and link.reason in _HANDSHAKE for link in chain):
        return Silence.TLS
    if met(urllib3.exceptions.ProxyError, requests.exceptions.ProxyError):
        return Silence.PROXY
    if met(urllib3.exceptions.NameResolutionError):
        return Silence.DNS
    if met(urllib3.exceptions.ConnectTimeoutError, requests.ConnectTimeout) and not met(
        urllib3.exceptions.NewConnectionError
    ):
        return Silence.CONNECT_TIMEOUT
    if met(urllib3.exceptions.NewConnectionError):
        return Silence.REFUSED if met(ConnectionRefusedError) else Silence.UNREACHABLE
    if _is_timeout(error):
        return Silence.READ_TIMEOUT
    if met(requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader):
        return Silence.UNSENDABLE
    return Silence.BROKEN


_HANDSHAKE: Final = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "HTTP_REQUEST",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "NO_PROTOCOLS_AVAILABLE",
    }
    | {"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "TLSV1_UNRECOGNIZED_NAME"}
)
"""OpenSSL's reasons that can only come before a request is sent."""


def _is_timeout(error: Exception) -> bool:
    return any(
        isinstance(link, urllib3.exceptions.ReadTimeoutError | requests.ReadTimeout | TimeoutError)
        for link in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what is wrapped in it: requests and urllib3 nest in ``args``, ``reason`` and causes."""
    pending: list[Any] = [error]
    seen: set[int] = set()
    while pending:
        link = pending.pop()
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        pending += [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]

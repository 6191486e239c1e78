"""The blocking client's connections: each phase of an exchange has one deadline, down to the socket.

The time-outs of requests and urllib3 are for one read: a server that sends a byte now and then
restarts them with each. Here every read and write of a socket is given only what is left of the
phase that is under way.
"""

from __future__ import annotations

import functools
import http.client
import ipaddress
import math
import queue
import socket
import ssl
import threading
import time
from typing import Any, Final

import urllib3
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import create_urllib3_context
from urllib3.util.connection import create_connection

from airflow_provider_kling.api.redaction import shown
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.addresses import refusal
from airflow_provider_kling.api.transport.messages import MOST_INFORMATIONAL

_LONGEST: Final = 86_400.0
"""Seconds; a socket takes no infinite time-out."""


class ForbiddenAddressError(urllib3.exceptions.HTTPError):
    """A host has an address that the connection does not allow; nothing was sent."""


class NoTlsError(urllib3.exceptions.SSLError):
    """The TLS handshake failed."""


class Exchange:
    """What the exchange that is under way may still take. A client belongs to one thread, so it has one.

    :param connecting: seconds for name, TCP, a proxy's tunnel and TLS together.
    """

    def __init__(self) -> None:
        self.connecting = self.sending = self.answering = math.inf
        self._latest = self._until = math.inf
        self._bytes_left = math.inf

    def begin(
        self,
        connecting: float,
        sending: float,
        answering: float,
        *,
        at_most: float | None = None,
        most_bytes: float = math.inf,
    ) -> None:
        """Begin an exchange; the first three are seconds that a phase may take.

        :param connecting: for name, TCP, a proxy's tunnel and TLS together.
        :param sending: for the request.
        :param answering: for the whole answer, from its first byte to its last.
        :param at_most: seconds for all of it.
        :param most_bytes: that may be received, headers and framing included.
        """
        self.connecting, self.sending, self.answering = connecting, sending, answering
        self._latest = math.inf if at_most is None else time.monotonic() + at_most
        self._bytes_left = most_bytes
        self.enter(connecting)

    def enter(self, seconds: float) -> None:
        """Begin a phase."""
        self._until = min(time.monotonic() + seconds, self._latest)

    def left(self) -> float:
        """Seconds left of the phase.

        :raises TimeoutError: none.
        """
        left = min(self._until - time.monotonic(), _LONGEST)
        if left <= 0:
            raise TimeoutError("the time for this phase of the exchange is over")
        return left

    def received(self, count: int) -> int:
        """Count bytes that came.

        :raises OSError: too many.
        """
        self._bytes_left -= count
        if self._bytes_left < 0:
            raise OSError("the answer has more bytes than an answer can have")
        return count


class TimedSocket(socket.socket):
    """A socket whose every call is given what is left of the exchange's phase."""

    exchange = Exchange()
    """Without limits; each connection sets its own. The TLS handshake comes before that: it is one call, for
    which the time-out of the TCP socket holds."""

    def recv_into(self, *args: Any) -> int:
        self.settimeout(self.exchange.left())
        return self.exchange.received(super().recv_into(*args))

    def recv(self, *args: Any) -> bytes:
        self.settimeout(self.exchange.left())
        data = super().recv(*args)
        self.exchange.received(len(data))
        return data

    def send(self, *args: Any) -> int:
        self.settimeout(self.exchange.left())
        return super().send(*args)

    def sendall(self, *args: Any) -> None:
        self.settimeout(self.exchange.left())
        super().sendall(*args)


class TimedTlsSocket(TimedSocket, ssl.SSLSocket):
    """The same, with TLS."""


class FinalResponse(http.client.HTTPResponse):
    """Passes over informational answers, all of them and not only 100, but not without end.

    The standard library takes a ``103 Early Hints`` for the answer.
    """

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MOST_INFORMATIONAL):
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 100 <= found[1] < 200 or found[1] == http.client.SWITCHING_PROTOCOLS:
                return found
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException(f"more than {MOST_INFORMATIONAL} informational answers")


class TimedConnection(HTTPConnection):
    """An HTTP connection of one client.

    :param exchange: the client's.
    :param settings: of the connection, which say what addresses it may connect to; None for all.
    """

    response_class = FinalResponse

    def __init__(self, *args: Any, exchange: Exchange, settings: Settings | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._exchange = exchange
        self._settings = settings

    def connect(self) -> None:
        super().connect()
        self._take_time()
        self._exchange.enter(self._exchange.sending)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self._exchange.enter(self._exchange.sending)
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:
        self._exchange.enter(self._exchange.answering)
        return super().getresponse()

    def _new_conn(self) -> socket.socket:
        self._exchange.enter(self._exchange.connecting)
        addresses = self._addresses()
        trouble: urllib3.exceptions.HTTPError | None = None
        for position, address in enumerate(addresses):
            try:
                made = create_connection(
                    (address, self.port),
                    self._exchange.left() / (len(addresses) - position),
                    source_address=self.source_address,
                    socket_options=self.socket_options,
                )
            except TimeoutError as error:
                trouble = urllib3.exceptions.ConnectTimeoutError(
                    self, f"no connection to {self.host} in time"
                )
                trouble.__cause__ = error
            except OSError as error:
                trouble = urllib3.exceptions.NewConnectionError(
                    self, f"no connection to {self.host}: {error}"
                )
                trouble.__cause__ = error
            else:
                sock = TimedSocket(made.family, made.type, made.proto, fileno=made.detach())
                sock.exchange = self._exchange
                sock.settimeout(self._exchange.left())
                return sock
        raise trouble or urllib3.exceptions.NewConnectionError(self, f"{self.host} has no address")

    def _addresses(self) -> list[str]:
        """Where to connect to: resolved once, and checked."""
        host = self._dns_host.strip("[]")
        try:
            host.encode("idna")
        except UnicodeError:
            raise urllib3.exceptions.LocationParseError(f"{shown(host)}, label empty or too long") from None
        try:
            addresses = resolve(host, self.port, self._exchange.left())
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, f"no address of {host} in time") from error
        except OSError as error:  # socket.gaierror is one
            raise urllib3.exceptions.NameResolutionError(host, self, error) from error  # type: ignore[arg-type]
        settings = None if self.proxy else self._settings
        if settings is not None and (refused := refusal(settings, self.host, addresses)):
            raise ForbiddenAddressError(refused)
        return addresses

    def _tunnel(self) -> None:
        self._take_time()
        super()._tunnel()

    def _take_time(self) -> None:
        """Hand the exchange to the sockets; with TLS within a proxy's TLS there are two."""
        sock: Any = self.sock
        while sock is not None:
            if isinstance(sock, TimedSocket):
                sock.exchange = self._exchange
            sock = getattr(sock, "socket", None)


class TimedTlsConnection(TimedConnection, HTTPSConnection):
    """The same with TLS; tells trouble of connecting, when nothing was sent yet, from all that comes later.

    urllib3 reports a TLS handshake or a proxy's tunnel that stalls or breaks like an answer that
    does, and for a submit that is the difference between free and perhaps billed.
    """

    def connect(self) -> None:
        if self.ssl_context is None:
            self.ssl_context = _context()
        if self.proxy_config is not None and self.proxy_config.ssl_context is None:
            context = _context()
            context.load_verify_locations(self.ca_certs, self.ca_cert_dir)
            self.proxy_config = self.proxy_config._replace(ssl_context=context)
        try:
            super().connect()
        except TimeoutError as error:
            raise urllib3.exceptions.ConnectTimeoutError(self, "no TLS in time") from error
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            raise urllib3.exceptions.NewConnectionError(self, "no TLS") from error
        except ssl.SSLError as error:
            raise NoTlsError(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise urllib3.exceptions.NewConnectionError(self, "no TLS") from error


class TimedAdapter(HTTPAdapter):
    """requests' connection pools, with our connections in them.

    :param settings: of the connection, which say what addresses they may connect to; None for all.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.exchange = Exchange()
        self._settings = settings
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        kind = TimedTlsConnection if isinstance(pool, urllib3.HTTPSConnectionPool) else TimedConnection
        pool.ConnectionCls = functools.partial(kind, exchange=self.exchange, settings=self._settings)
        return pool


def resolve(host: str, port: int, seconds: float) -> list[str]:
    """The addresses of a host, each once.

    :param seconds: after which the resolution is abandoned: the system's resolver has no time-out.
    :raises TimeoutError: it took longer.
    :raises socket.gaierror: there are none.
    """
    try:
        return [str(ipaddress.ip_address(host.partition("%")[0])) and host]
    except ValueError:
        pass
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            answers.put(error)

    threading.Thread(target=look_up, name="kling-dns", daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"{host} was not resolved in time") from None
    if isinstance(found, OSError):
        raise found
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _context() -> ssl.SSLContext:
    context = create_urllib3_context()
    context.sslsocket_class = TimedTlsSocket
    return context

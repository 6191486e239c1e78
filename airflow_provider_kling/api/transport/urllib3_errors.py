"""How the blocking client connects, and what it makes of urllib3's errors."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator
from typing import Any

import urllib3.exceptions
from urllib3.connection import HTTPSConnection

from airflow_provider_kling.api.transport.messages import FailureReason


class NoTlsError(urllib3.exceptions.SSLError):
    """The TLS handshake failed."""


class TlsConnection(HTTPSConnection):
    """Tells the trouble of connecting, when nothing was sent yet, from all that comes later.

    urllib3 reports a TLS handshake or a proxy's tunnel that stalls or breaks like an answer that
    does, and for a submit that is the difference between free and perhaps billed.
    """

    def connect(self) -> None:
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


def silence(error: Exception) -> FailureReason:
    """Where on its way a request was lost. In doubt it was sent.

    A ``ProxyError`` says nothing: urllib3 also raises it for an answer that broke off behind a proxy.
    """
    chain = tuple(_causes(error))

    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if met(ssl.SSLCertVerificationError):
        return FailureReason.CERTIFICATE
    if met(NoTlsError):
        return FailureReason.TLS
    if met(urllib3.exceptions.NameResolutionError):
        return FailureReason.DNS
    if met(urllib3.exceptions.NewConnectionError):
        return FailureReason.REFUSED if met(ConnectionRefusedError) else FailureReason.UNREACHABLE
    if met(urllib3.exceptions.ConnectTimeoutError):
        return FailureReason.CONNECT_TIMEOUT
    if met(urllib3.exceptions.LocationValueError):
        return FailureReason.UNSENDABLE
    return silence_of_reading(error)


def silence_of_reading(error: Exception) -> FailureReason:
    """How an answer was lost once the request was sent."""
    late = (urllib3.exceptions.ReadTimeoutError, TimeoutError)
    return (
        FailureReason.READ_TIMEOUT
        if any(isinstance(e, late) for e in _causes(error))
        else FailureReason.BROKEN
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

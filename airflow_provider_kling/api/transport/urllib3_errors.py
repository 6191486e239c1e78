"""Where on its way a request of the blocking client was lost, read from urllib3's errors."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import urllib3.exceptions

from airflow_provider_kling.api.transport.messages import ConnectionLost, FailureReason
from airflow_provider_kling.api.transport.tls_and_proxy import tls_reason
from airflow_provider_kling.api.transport.urllib3_connections import ForbiddenAddressError, NoTlsError


def loss(error: Exception, host: str) -> ConnectionLost:
    """What is known of a request that got no answer. In doubt it was sent.

    A ``ProxyError`` says nothing: urllib3 also raises it for an answer that broke off behind a proxy.
    """
    chain = tuple(_causes(error))
    for link in chain:
        if isinstance(link, ForbiddenAddressError):
            return ConnectionLost(FailureReason.FORBIDDEN_ADDRESS, host, str(link))
        if isinstance(link, ssl.SSLCertVerificationError):
            return ConnectionLost(FailureReason.CERTIFICATE, host, tls_reason(link))
    if any(isinstance(link, NoTlsError) for link in chain):
        return ConnectionLost(FailureReason.TLS, host, next(filter(None, map(tls_reason, chain)), ""))
    return ConnectionLost(_where(chain), host)


def _where(chain: tuple[BaseException, ...]) -> FailureReason:
    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    if met(urllib3.exceptions.NameResolutionError):
        return FailureReason.DNS
    if met(urllib3.exceptions.NewConnectionError):
        return FailureReason.REFUSED if met(ConnectionRefusedError) else FailureReason.UNREACHABLE
    if met(urllib3.exceptions.ConnectTimeoutError):
        return FailureReason.CONNECT_TIMEOUT
    if met(urllib3.exceptions.LocationValueError):
        return FailureReason.UNSENDABLE
    late = met(urllib3.exceptions.ReadTimeoutError, TimeoutError)
    return FailureReason.READ_TIMEOUT if late else FailureReason.BROKEN


def loss_of_reading(error: Exception, host: str) -> ConnectionLost:
    """How an answer was lost whose head had come."""
    late = (urllib3.exceptions.ReadTimeoutError, TimeoutError)
    slow = any(isinstance(link, late) for link in _causes(error))
    return ConnectionLost(FailureReason.SLOW if slow else FailureReason.BROKEN, host)


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

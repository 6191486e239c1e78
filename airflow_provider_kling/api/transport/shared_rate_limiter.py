"""One limiter for each account in a process, and what is reported to it."""

from __future__ import annotations

import logging
import time
from typing import Final
from urllib.parse import urlsplit

from airflow_provider_kling.api.exceptions import RateLimitError, ServiceUnavailableError
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.retry import parse_retry_after
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.error_mapping import error_from_response
from airflow_provider_kling.api.transport.messages import Call, ConnectionLost, HttpRequest, HttpResponse
from airflow_provider_kling.api.transport.rate_limiter import Limiter

log = logger(__name__)

_FIRST_ERROR = 400
_PUBLIC: Final = (Call.METRICS, Call.PRICES)
"""Asked without the key, so that what is answered is not about the account."""
_LIMITERS: Final[dict[tuple[str, str], Limiter]] = {}


def limiter_for(settings: Settings) -> Limiter:
    """The limiter that all clients of an account share in this process, for as long as it lives.

    Host and key make the account, as what the vendor says to one of its clients holds for all. Each
    call sets the configured rate: where connections of one account name several, the one that was
    read last counts.
    """
    account = settings.base_url, settings.api_key
    # setdefault, so that of two threads that come first both get the same one.
    limiter = _LIMITERS.get(account) or _LIMITERS.setdefault(account, Limiter())
    limiter.configure(settings.requests_per_minute)
    return limiter


def report(limiter: Limiter, request: HttpRequest, reply: HttpResponse | ConnectionLost) -> None:
    """Tell a limiter what was answered, and log, once, what it makes of that.

    Not reported: what is not about the account's rate, such as a 429 that speaks of the balance or an
    answer of the public metrics and prices.
    """
    if isinstance(reply, ConnectionLost) or request.call in _PUBLIC:
        return
    retry_after = None
    if reply.status >= _FIRST_ERROR:
        retry_after = parse_retry_after(reply.headers.get("retry-after"), time.time())
        error = error_from_response(reply, request.call, retry_after=retry_after)
        if reply.status == 429 and not isinstance(error, RateLimitError):
            return
        if not isinstance(error, RateLimitError | ServiceUnavailableError):
            retry_after = None
    if change := limiter.on_reply(reply.status, retry_after):
        level = logging.INFO if change.state == "free" else logging.WARNING
        log.log(level, "%s: %s", urlsplit(request.url).netloc, change)

"""Which requests are accepted: from which hosts, up to which size, and how fast they must arrive."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from aiohttp import web

from airflow_provider_kling.api.settings import is_loopback
from airflow_provider_kling.emulator.options import EmulatorOptions
from airflow_provider_kling.emulator.vendor import Refusal

MAX_BODY = 256 * 1024 * 1024
"""Bytes; four pictures of the largest allowed size, as base64, are not much more."""


def check_sender(request: web.BaseRequest, options: EmulatorOptions) -> None:
    """Refuse requests of web pages: DNS rebinding, and requests from other origins.

    :raises Refusal: the ``Host`` is not this machine, or the ``Origin`` is a page of another host.
    """
    if options.allow_remote:
        return
    host, origin = request.headers.get("Host"), request.headers.get("Origin")
    if host is not None and not _is_own(host, options):
        raise Refusal(421, "This emulator answers to loopback host names only; --allow-remote lifts that.")
    if origin is not None and origin.lower().partition("://")[2] != (host or "").lower():
        raise Refusal(403, "This emulator takes no requests of web pages; --allow-remote lifts that.")


async def read_body(request: web.Request, options: EmulatorOptions) -> None:
    """Read the body; the request keeps it.

    :raises Refusal: it is too long, takes too long, or cannot be decoded.
    """
    if not request.can_read_body:
        return
    too_long = Refusal(413, f"The body has more than {MAX_BODY} bytes.")
    if (request.content_length or 0) > MAX_BODY:
        raise too_long
    try:
        async with asyncio.timeout(options.request_seconds):
            await request.read()
    except TimeoutError as error:
        raise Refusal(408, "The request's body did not come to an end.") from error
    except web.HTTPRequestEntityTooLarge:
        raise too_long from None
    except web.RequestPayloadError as error:
        raise Refusal(400, "The request's body cannot be decoded.") from error


def _is_own(host: str, options: EmulatorOptions) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    advertised = urlsplit(f"//{options.advertise}").hostname if options.advertise else None
    return is_loopback(name) or name == advertised

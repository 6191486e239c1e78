"""Fault injection: refuse a request, break its connection, or corrupt its answer."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

from aiohttp import web

from airflow_provider_kling.emulator.context import EMULATED, vendor_exchange
from airflow_provider_kling.emulator.faults.gateway_pages import cloudflare_page, firewall_page, gateway_page
from airflow_provider_kling.emulator.faults.rules import FaultKind, FaultRule
from airflow_provider_kling.emulator.journal import CallKind
from airflow_provider_kling.emulator.vendor import (
    Refusal,
    free_tier_limit,
    key_limit_reached,
    out_of_credits,
    scope_missing,
    too_many_at_once,
    unauthorized,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_GENERATION_KEYS = ("id", "status", "video", "error", "duration", "meta")
_HUGE = 32 * 1024 * 1024
_MESSAGES = {
    400: "Body validation error",
    403: "The key is not allowed to do this.",
    404: "Not found",
    429: "Too many requests, slow down.",
    500: "Internal server error",
    502: "The model's provider did not answer.",
    503: "The service is temporarily unavailable.",
    504: "The model's provider took too long.",
}
_NAMED_MESSAGES: dict[str, Callable[[], Refusal]] = {
    "balance": out_of_credits,
    "concurrency": lambda: too_many_at_once(1),
    "free-tier": free_tier_limit,
    "key-limit": key_limit_reached,
    "scope": scope_missing,
}
_DRIP_SECONDS = 30.0
_DELAY_SECONDS = 5.0
_NO_ID_LEFT = frozenset(
    {
        FaultKind.TRUNCATED_JSON,
        FaultKind.EMPTY_BODY,
        FaultKind.WRONG_TYPES,
        FaultKind.MISSING_ID,
        FaultKind.HUGE_BODY,
    }
)


async def trouble(
    rule: FaultRule, request: web.Request, call: CallKind, handler: Handler
) -> web.StreamResponse:
    """Apply a fault rule to a request.

    :param handler: what would serve it.
    :raises Refusal: where the rule is an error answer.
    """
    kind = rule.kind
    # Whatever happens now happens after the client has sent all: otherwise it is chance what it
    # notices first.
    await request.read()
    if kind.refuses:
        if rule.accepted:
            await handler(request)
        return await _refuse(rule, request)
    if kind is FaultKind.DELAY:
        await asyncio.sleep(_DELAY_SECONDS if rule.seconds is None else rule.seconds)
        return await handler(request)
    if call is CallKind.CDN:
        vendor_exchange().fault = rule
        return await handler(request)
    if kind is FaultKind.DROP_CLIENT_REQUEST_ID:
        vendor_exchange().client_request_id = None
        return await handler(request)
    response = await handler(request)
    if kind is FaultKind.RESET_AFTER:
        reset_connection(request)
        return response
    if kind is FaultKind.STALL_AFTER:
        await hang(request)
        return response
    if not isinstance(response, web.Response):
        return response
    return await _spoil(rule, request, response)


def reset_connection(request: web.BaseRequest) -> None:
    """Break the connection with a TCP RST, as a crashed peer or a firewall does."""
    transport = request.transport
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # Linger for no time: close() sends RST instead of FIN and drops what was not sent.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def hang(request: web.Request) -> None:
    """Send no answer until the client disconnects or the emulator stops."""
    await request.app[EMULATED].closing.wait()
    if request.transport is not None:
        request.transport.abort()


async def _refuse(rule: FaultRule, request: web.Request) -> web.StreamResponse:
    kind = rule.kind
    if kind is FaultKind.RESET_BEFORE:
        reset_connection(request)
        return web.Response()
    if kind is FaultKind.STALL_BEFORE:
        await hang(request)
        return web.Response()
    headers = _retry_after(rule)
    if kind is FaultKind.HTML or kind is FaultKind.FIREWALL or kind.from_cloudflare:
        vendor_exchange().answer_id = None
    if kind is FaultKind.HTML:
        return gateway_page(rule.status or 502, headers)
    if kind is FaultKind.FIREWALL:
        return firewall_page(rule.status or 403, rule.message, headers)
    if kind.from_cloudflare:
        return cloudflare_page(int(kind), request, headers)
    if kind is FaultKind.REDIRECT:
        return web.Response(status=rule.status or 307, headers={"Location": _elsewhere(rule, request)})
    raise _refusal(rule, int(kind))


def _refusal(rule: FaultRule, status: int) -> Refusal:
    if rule.message in _NAMED_MESSAGES:
        message = _NAMED_MESSAGES[rule.message]().message
    elif rule.message is None and status == 401:
        message = unauthorized().message
    else:
        message = rule.message or _MESSAGES[status]
    return Refusal(status, message, headers=_retry_after(rule), shape=rule.shape)


def _retry_after(rule: FaultRule) -> dict[str, str]:
    if rule.retry_after is None:
        return {}
    head, _, seconds = rule.retry_after.rpartition(":")
    # The date is the machine's: that is what a client compares it with.
    ahead = formatdate(time.time() + float(seconds), usegmt=True)
    return {"Retry-After": ahead if head else seconds}


def _elsewhere(rule: FaultRule, request: web.Request) -> str:
    if rule.url is not None:
        return rule.url
    # The same server under another name: its journal shows whether a key came along.
    host = "localhost" if request.url.host != "localhost" else "127.0.0.1"
    return str(request.url.with_host(host))


async def _spoil(rule: FaultRule, request: web.Request, response: web.Response) -> web.StreamResponse:
    kind = rule.kind
    body = response.body if isinstance(response.body, bytes) else b""
    if kind in _NO_ID_LEFT:
        vendor_exchange().answer_id = None
    if kind is FaultKind.TRUNCATED_JSON:
        response.body = body[: len(body) // 2]
    elif kind is FaultKind.EMPTY_BODY:
        response.body = b""
    elif kind is FaultKind.UNREADABLE_BODY:
        response.body = b"\x00\xff{unreadable"
    elif kind is FaultKind.SLOW_DRIP:
        return await _drip(rule, request, response, body)
    elif kind is FaultKind.HUGE_BODY:
        return await _swell(rule, request, response, body)
    else:
        response.body = json.dumps(_distorted(rule, json.loads(body))).encode()
    return response


def _distorted(rule: FaultRule, answer: Any) -> Any:
    kind = rule.kind
    if not isinstance(answer, dict):
        return answer
    if kind is FaultKind.MISSING_ID:
        return {name: value for name, value in answer.items() if name != "id"}
    if kind is FaultKind.UNKNOWN_STATUS:
        return {**answer, "status": rule.word}
    if kind in (FaultKind.NULL_KEYS, FaultKind.ABSENT_KEYS):
        for name in rule.names or [name for name in _GENERATION_KEYS if name not in ("id", "status")]:
            _lose(answer, name, absent=kind is FaultKind.ABSENT_KEYS)
        return answer
    return {name: _wrong(value) for name, value in answer.items()}


def _lose(answer: dict[str, Any], path: str, *, absent: bool) -> None:
    """Make a key null or leave it out; a path such as ``video.url`` reaches into objects."""
    *outer, last = path.split(".")
    place: Any = answer
    for name in outer:
        place = place.get(name) if isinstance(place, dict) else None
    if isinstance(place, dict):
        if absent:
            place.pop(last, None)
        else:
            place[last] = None


def _wrong(value: Any) -> Any:
    """Something of another type."""
    if isinstance(value, str):
        return 7
    if isinstance(value, dict | list):
        return "something else"
    return {"value": value}


async def _drip(
    rule: FaultRule, request: web.Request, response: web.Response, body: bytes
) -> web.StreamResponse:
    stream = _stream(response, len(body))
    await stream.prepare(request)
    for number in range(len(body)):
        await stream.write(body[number : number + 1])
        await asyncio.sleep((_DRIP_SECONDS if rule.seconds is None else rule.seconds) / len(body))
    return stream


async def _swell(
    rule: FaultRule, request: web.Request, response: web.Response, body: bytes
) -> web.StreamResponse:
    size = rule.size or _HUGE
    head = body[:-1] + b',"padding":"'
    stream = _stream(response, len(head) + size + 2)
    await stream.prepare(request)
    await stream.write(head)
    piece = b"x" * 65536
    for start in range(0, size, len(piece)):
        await stream.write(piece[: size - start])
    await stream.write(b'"}')
    return stream


def _stream(response: web.Response, length: int) -> web.StreamResponse:
    headers = {name: value for name, value in response.headers.items() if name != "Content-Length"}
    stream = web.StreamResponse(status=response.status, headers=headers)
    stream.content_length = length
    return stream

"""The CDN: signed URLs that expire, range requests, no API key."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import quote

from aiohttp import web
from yarl import URL

from airflow_provider_kling.emulator.context import EMULATED, Emulated, vendor_exchange
from airflow_provider_kling.emulator.faults.gateway_pages import gateway_page
from airflow_provider_kling.emulator.faults.injection import hang, reset_connection
from airflow_provider_kling.emulator.faults.rules import FaultKind, FaultRule
from airflow_provider_kling.emulator.rendering.video import EncoderMissing
from airflow_provider_kling.emulator.rendering.video_store import VideoFile
from airflow_provider_kling.emulator.state import Stage, StoredGeneration
from airflow_provider_kling.emulator.vendor import Refusal

PREFIX = "/cdn/"
_CHUNK = 1 << 18
_OTHER_NAMES = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}
_EXPIRED_SECONDS_AGO = 60
_FLUSH_SECONDS = 0.02
_SLOW_BYTES_A_SECOND = 64 * 1024
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_RANGES = re.compile(r"bytes=[0-9]*-[0-9]*(\s*,\s*[0-9]*-[0-9]*)+")


def signed_url(request: web.Request, generation: StoredGeneration, now: float) -> str:
    """A freshly signed URL of a finished video; valid for the options' ``url_lifetime``."""
    emulated = request.app[EMULATED]
    lifetime = emulated.options.url_lifetime
    expiry = now - _EXPIRED_SECONDS_AGO if generation.directives.expired_url else now + lifetime
    time, nonce = f"{int(expiry):x}", secrets.token_hex(8)
    path = f"{PREFIX}{quote(generation.id, safe='')}.mp4"
    signature = _signature(emulated, generation.id, nonce, time)
    return f"{origin(request.url, emulated)}{path}?cacheKey={nonce}&ksSecret={signature}&ksTime={time}"


def origin(url: URL, emulated: Emulated) -> str:
    """Scheme, host and port of the CDN, for a client that reaches the API by this URL.

    Like the vendor's, the CDN has another host name than the API.
    """
    name, port = url.raw_host or "", emulated.cdn_port or url.explicit_port
    if emulated.options.cdn_host is not None:
        name, _, own_port = emulated.options.cdn_host.partition(":")
        port = int(own_port) if own_port else port
    elif url.scheme == "http":
        # A certificate may be for one name alone.
        name = _OTHER_NAMES.get(name, name)
    if ":" in name:
        name = f"[{name}]"
    return f"{url.scheme}://{name}" if port is None else f"{url.scheme}://{name}:{port}"


def generation_id_of(path: str) -> str | None:
    """The generation whose video a (decoded) path names."""
    if not path.startswith(PREFIX) or not path.endswith(".mp4"):
        return None
    return path[len(PREFIX) : -len(".mp4")]


async def video(request: web.Request) -> web.StreamResponse:
    """``GET`` and ``HEAD`` on a signed URL."""
    emulated = request.app[EMULATED]
    fault = vendor_exchange().fault
    kind = fault.kind if fault else None
    generation_id = generation_id_of(request.path) or ""
    if kind is FaultKind.EXPIRED or not _valid(request, emulated, generation_id):
        return web.Response(status=403, text="403 Forbidden: the signature is wrong or expired\n")
    generation = emulated.state.generations.get(generation_id)
    if (
        generation is None
        or generation.brief is None
        or generation.stage(emulated.clock.now()) is not Stage.COMPLETED
    ):
        return web.Response(status=404, text="404 Not Found\n")
    if kind is FaultKind.NOT_A_VIDEO:
        return gateway_page(200)
    try:
        file = await emulated.videos.get(generation.brief)
    except EncoderMissing as error:
        return web.Response(status=501, text=f"501 Not Implemented: {error}\n")
    etag = f'"{secrets.token_hex(16)}"' if kind is FaultKind.CHANGED_ETAG else file.etag
    modified = formatdate(generation.final_at(), usegmt=True)
    headers = {
        "ETag": etag,
        "Last-Modified": modified,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=0",
    }
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    span = _span(request, file.size, validators=(etag, modified))
    if span is None or kind is FaultKind.S416:
        headers["Content-Range"] = f"bytes */{file.size}"
        return web.Response(status=416, headers=headers)
    return await _send(request, file, span, headers, fault)


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    stop: int
    partial: bool


def _span(request: web.Request, size: int, *, validators: tuple[str, str]) -> _Span | None:
    """The requested range; None where the file has no such bytes."""
    whole = _Span(0, size, False)
    asked = request.headers.get("Range", "").strip()
    match = _RANGE.fullmatch(asked)
    if match is None and asked.startswith("bytes=") and not _RANGES.fullmatch(asked):
        raise Refusal(400, "Range is bytes=FIRST-LAST")
    if match is None or request.headers.get("If-Range", validators[0]) not in validators:
        return whole
    first, last = match.groups()
    if first:
        start, stop = int(first), min(size, int(last) + 1 if last else size)
        if last and int(last) < start:
            return whole
    elif last:
        start, stop = max(0, size - int(last)), size
    else:
        return whole
    return _Span(start, stop, True) if start < stop else None


async def _send(
    request: web.Request,
    file: VideoFile,
    span: _Span,
    headers: dict[str, str],
    fault: FaultRule | None,
) -> web.StreamResponse:
    kind = fault.kind if fault else None
    response = web.StreamResponse(status=206 if span.partial else 200, headers=headers)
    response.content_type = "video/mp4"
    length = span.stop - span.start
    if span.partial:
        response.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{file.size}"
    announced = length // 2 if kind is FaultKind.WRONG_LENGTH else length
    response.content_length = announced
    cut = length
    if fault and kind in (FaultKind.SHORT_BODY, FaultKind.STALL_AFTER, FaultKind.WRONG_LENGTH):
        cut = length // 2
    elif fault and kind is FaultKind.RESET_AT:
        cut = min(length, max(0, fault.at - span.start))
    elif kind is FaultKind.RESET_AFTER:
        cut = 0
    pace = None
    if fault and kind is FaultKind.SLOW:
        pace = fault.size or _SLOW_BYTES_A_SECOND
    elif fault and kind is FaultKind.SLOW_DRIP:
        pace = max(1, int(length / max(30.0 if fault.seconds is None else fault.seconds, 0.001)))
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    rest = await _write(request, response, file, span.start, cut, length, pace)
    transport = request.transport
    if transport is None:
        return response
    if kind in (FaultKind.RESET_AT, FaultKind.RESET_AFTER):
        # What was written has to leave first: a reset throws away what has not.
        await asyncio.sleep(_FLUSH_SECONDS)
        reset_connection(request)
    elif kind is FaultKind.STALL_AFTER:
        await hang(request)
    elif kind is FaultKind.SHORT_BODY:
        transport.close()
    elif kind is FaultKind.WRONG_LENGTH:
        # Past aiohttp, which would hold it to the length it announced.
        if isinstance(transport, asyncio.WriteTransport):
            transport.write(rest)
        transport.close()
    return response


async def _write(
    request: web.Request,
    response: web.StreamResponse,
    file: VideoFile,
    start: int,
    count: int,
    length: int,
    pace: int | None,
) -> bytes:
    """Send ``count`` bytes from ``start``; returns how many of ``length`` are left where it is cut."""
    chunk_size = _CHUNK if pace is None else max(1, pace // 10)
    with file.path.open("rb") as source:
        source.seek(start)
        left = count
        while left > 0:
            chunk = source.read(min(chunk_size, left))
            if not chunk:
                break
            await response.write(chunk)
            left -= len(chunk)
            if pace is not None:
                await asyncio.sleep(len(chunk) / pace)
        return source.read(min(_CHUNK, length - count)) if count < length else b""


def _signature(emulated: Emulated, generation_id: str, nonce: str, time: str) -> str:
    text = f"{generation_id}\n{nonce}\n{time}".encode("utf-8", "replace")
    return hmac.new(emulated.signing_key, text, hashlib.sha256).hexdigest()[:32]


def _valid(request: web.Request, emulated: Emulated, generation_id: str) -> bool:
    query = request.query
    time = query.get("ksTime", "")
    expected = _signature(emulated, generation_id, query.get("cacheKey", ""), time)
    # As bytes: what is sent may be no ASCII.
    if not hmac.compare_digest(expected.encode(), query.get("ksSecret", "").encode("utf-8", "replace")):
        return False
    return int(time, 16) >= emulated.clock.now()

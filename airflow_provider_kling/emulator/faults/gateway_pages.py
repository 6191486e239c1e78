"""Answers of the systems between a client and the vendor: gateways, Cloudflare, a company's firewall."""

from __future__ import annotations

import html
import secrets
from collections.abc import Mapping

from aiohttp import web

_PAGE = """<html>\r
<head><title>{title}</title></head>\r
<body>\r
<center><h1>{title}</h1></center>\r
<hr><center>{foot}</center>\r
</body>\r
</html>\r
"""
_REASONS = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
_CLOUDFLARE_REASONS = {
    520: "Web server is returning an unknown error",
    521: "Web server is down",
    522: "Connection timed out",
    523: "Origin is unreachable",
    524: "A timeout occurred",
    525: "SSL handshake failed",
    526: "Invalid SSL certificate",
}
_CHALLENGES = {
    401: ("WWW-Authenticate", 'Basic realm="company network"'),
    407: ("Proxy-Authenticate", 'Basic realm="company proxy"'),
}


def gateway_page(status: int = 502, headers: Mapping[str, str] | None = None) -> web.Response:
    """The answer of a gateway that gets none from the vendor."""
    title = f"{status} {_REASONS.get(status, 'Error')}"
    return _page(status, title, "emulated gateway", headers or {})


def cloudflare_page(
    status: int, request: web.BaseRequest, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Cloudflare's answers 520 to 526: a page for a browser, a line of text for other clients."""
    ray = secrets.token_hex(8)
    marks = {"Server": "cloudflare", "CF-RAY": f"{ray}-FRA", **(headers or {})}
    if "text/html" not in request.headers.get("Accept", ""):
        return web.Response(
            status=status, body=f"error code: {status}".encode(), content_type="text/plain", headers=marks
        )
    title = f"api.aimlapi.com | {status}: {_CLOUDFLARE_REASONS[status]}"
    return _page(status, title, f"Cloudflare Ray ID: {ray}", marks)


def firewall_page(
    status: int, message: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The answer of a company's firewall or proxy in place of the vendor's.

    :param message: its title; None for a usual one.
    """
    marks = dict(headers or {})
    if status in _CHALLENGES:
        name, challenge = _CHALLENGES[status]
        marks[name] = challenge
    title = message or "Access to this site is blocked by your organization"
    return _page(status, title, "emulated web filter", marks)


def _page(status: int, title: str, foot: str, headers: Mapping[str, str]) -> web.Response:
    page = _PAGE.format(title=html.escape(title), foot=foot)
    return web.Response(
        status=status,
        body=page.encode("utf-8", "replace"),
        content_type="text/html",
        charset="utf-8",
        headers=headers,
    )

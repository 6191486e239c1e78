"""The plugin's FastAPI app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles

from airflow_provider_kling import __version__
from airflow_provider_kling.ui.routes import STATIC, router

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
"""What the page may load and run: this app's files alone, nothing written into the page."""
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
}


@cache
def app() -> FastAPI:
    """The app; one for the life of the process. Its own documentation is not served, being unguarded."""
    made = FastAPI(
        title="Kling",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    made.middleware("http")(_with_headers)
    made.include_router(router)
    made.mount("/static", StaticFiles(directory=STATIC), name="static")
    return made


async def _with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response

"""The vendor's words: paths, headers, errors.

They are stated here anew and not imported from the client on purpose: a stand-in that shared the
client's constants would agree with the client's mistakes.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from airflow_provider_kling.emulator.clock import iso

GENERATION_PATHS = ("/v2/generate/video/kling/generation", "/v2/video/generations")

CLIENT_REQUEST_ID = "X-Client-Request-Id"
CLIENT_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._:-]{1,128}")
INFERENCE_ID = "x-inference-id"
CREDITS_USED = "x-aimlapi-credits-used"
USD_SPENT = "x-aimlapi-usd-spent"
CREDITS_PER_USD = 2_000_000

# An id that the vendor could have issued: its short form, a UUID, a UUID with the model behind it.
GENERATION_ID_FORM = re.compile(r"[A-Za-z0-9_-]{8,64}(:[A-Za-z0-9._/-]{1,128})?")


class Refusal(Exception):
    """An error answer of the vendor.

    :param status: HTTP status.
    :param message: a sentence, or an object or array with details.
    :param headers: further headers, ``Retry-After`` for one.
    """

    def __init__(
        self,
        status: int,
        message: Any,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    def response(self, path: str, now: float) -> web.Response:
        """The answer, in the vendor's error body.

        :param path: of the request, without its query.
        :param now: epoch seconds.
        """
        body = {
            "message": self.message,
            "path": path,
            "requestId": str(uuid.uuid4()),
            "statusCode": self.status,
            "timestamp": iso(now),
        }
        return json_response(body, status=self.status, headers=self.headers)


def json_response(
    body: Any,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    usd: float = 0.0,
    credits_used: int = 0,
) -> web.Response:
    """A JSON answer with the cost headers that the vendor puts on each.

    :param usd: price in USD of the call that is answered; polls and reads are free.
    :param credits_used: the same in credits.
    """
    return web.Response(
        body=json.dumps(body, separators=(",", ":")).encode(),
        status=status,
        content_type="application/json",
        charset="utf-8",
        headers={
            CREDITS_USED: str(credits_used),
            USD_SPENT: f"{usd:.9f}",
            **(headers or {}),
        },
    )


def unauthorized() -> Refusal:
    """No key, or a wrong one."""
    return Refusal(401, "A valid API key is required. Keys are made on the dashboard's key page.")


def out_of_credits() -> Refusal:
    """The account cannot pay for what it asks."""
    return Refusal(403, "The account has run out of credits. Top up its balance to go on.")


def bad_body(problems: list[str]) -> Refusal:
    """The request's body is not what the model takes."""
    return Refusal(400, ["Body validation error", *({"message": text} for text in problems)])


def bad_query(problem: str) -> Refusal:
    """The request's query is not what the endpoint takes."""
    return Refusal(400, ["Query validation error", {"message": problem}])


def no_such_endpoint(method: str, path: str) -> Refusal:
    """Neither this path nor this method on it."""
    return Refusal(404, f"Cannot {method} {path}")

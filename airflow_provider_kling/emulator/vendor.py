"""The vendor's paths, headers, id formats and errors.

They are deliberately not imported from the client: an emulator that shared the client's constants would
share its mistakes.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from airflow_provider_kling.emulator.clock import iso
from airflow_provider_kling.emulator.options import ErrorShape, IdStyle

GENERATION_PATHS = ("/v2/generate/video/kling/generation", "/v2/video/generations")

CLIENT_REQUEST_ID = "X-Client-Request-Id"
CLIENT_REQUEST_ID_FORM = re.compile(r"[A-Za-z0-9._:-]{1,128}")
INFERENCE_ID = "x-inference-id"
CREDITS_USED = "x-aimlapi-credits-used"
USD_SPENT = "x-aimlapi-usd-spent"
CREDITS_PER_USD = 2_000_000
VIDEO_SCOPE = "model:video"

# An id that the vendor could have issued: its short form, a UUID, a UUID with the model behind it.
GENERATION_ID_FORM = re.compile(r"[A-Za-z0-9_-]{8,64}(:[A-Za-z0-9._/-]{1,128})?")

# From the vendor's published answers, model by model: models that run elsewhere have an id of a UUID and
# a name of the model, which is not always the one that was sent.
_RUN_ELSEWHERE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"klingai/kling-video-v1\.6-(pro|standard)-effects"), r"kling-video/v1.6/\1/effects"),
    (re.compile(r"klingai/(v2(?:\.1)?)-master-((?:image|text)-to-video)"), r"kling-video/\1/master/\2"),
    (re.compile(r"klingai/v2\.5-turbo/.+"), r"\g<0>"),
    (re.compile(r"klingai/(avatar-|video-o1-).+"), r"\g<0>"),
    (re.compile(r"klingai/video-v2-6-pro-(image|text)-to-video"), r"\g<0>"),
)
_FILE_FACTS = re.compile(r"klingai/(kling-video-v1\.6-.+-effects|v2(\.1)?-master-.+|v2\.5-turbo/.+)")
_DIGITS = re.compile(r"kling-video/v2\.1/(standard|pro)/.+")


def name_elsewhere(model_id: str) -> str | None:
    """The part after the colon in the published ids of a model; None for ids of another form."""
    for form, name in _RUN_ELSEWHERE:
        if match := form.fullmatch(model_id):
            return match.expand(name)
    return None


def published_id_style(model_id: str) -> IdStyle:
    """The form in which the vendor publishes ids of a model; the short one where it published none."""
    if name_elsewhere(model_id) is not None:
        return IdStyle.UUID_MODEL
    return IdStyle.DIGITS if _DIGITS.fullmatch(model_id) else IdStyle.NANO


def tells_file_facts(model_id: str) -> bool:
    """Whether the published ``video`` of a model has ``content_type``, ``file_name`` and ``file_size``."""
    return _FILE_FACTS.fullmatch(model_id) is not None


def alias_of(model_id: str) -> str:
    """Another "source/alias" of a model, as a row of the request log may carry."""
    source, _, alias = model_id.partition("/")
    if source == "klingai":
        return f"kling-video/{alias}"
    return f"klingai/{alias.replace('/', '-')}"


class Refusal(Exception):
    """An error answer from the vendor.

    :param status: HTTP status.
    :param message: a sentence, or an object or array with details.
    :param headers: further headers, ``Retry-After`` for one.
    :param shape: how the body is written; None as the emulator's options say.
    """

    def __init__(
        self,
        status: int,
        message: Any,
        *,
        headers: Mapping[str, str] | None = None,
        shape: ErrorShape | None = None,
    ) -> None:
        super().__init__(status, message)
        self.shape = shape
        self.status = status
        self.message = message
        self.headers = dict(headers or {})

    def response(self, path: str, now: float, shape: ErrorShape | None = None) -> web.Response:
        """The answer, in the vendor's error body.

        :param path: of the request, without its query.
        :param now: epoch seconds.
        :param shape: how the body is written, where the refusal itself does not say.
        """
        body = {
            "message": self.message,
            "path": path,
            "requestId": str(uuid.uuid4()),
            "statusCode": self.status,
            "timestamp": iso(now),
        }
        shape = self.shape or shape or ErrorShape.DOCUMENTED
        parts = self.message if isinstance(self.message, list) else [self.message]
        texts = [part.get("message", part) if isinstance(part, dict) else part for part in parts]
        details = [_detail(["body"], str(text), f"http_{self.status}", None) for text in texts]
        return json_response(
            _shaped(shape, body, details, self.status), status=self.status, headers=self.headers
        )


def failure_body(shape: ErrorShape, name: str, message: str, parameter: str, value: Any) -> Any:
    """The ``error`` of a generation that failed.

    :param name: the kind of failure, as ``ModerationError``.
    :param parameter: what the failure is about.
    :param value: what was sent for it.
    """
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    detail = _detail(["body", parameter], message, kind, value)
    return _shaped(shape, {"name": name, "message": message}, [detail], kind)


def _detail(loc: list[str], message: str, kind: str, value: Any) -> dict[str, Any]:
    return {"loc": loc, "msg": message, "type": kind, "input": value}


def _shaped(
    shape: ErrorShape, documented: dict[str, Any], details: list[dict[str, Any]], code: int | str
) -> Any:
    text = "; ".join(detail["msg"] for detail in details)
    shapes: dict[ErrorShape, Any] = {
        ErrorShape.DOCUMENTED: documented,
        ErrorShape.DETAIL: {"detail": details},
        ErrorShape.NESTED: {"error": documented},
        ErrorShape.LIST: details,
        ErrorShape.TEXT: text,
        ErrorShape.ERROR_MSG: {"error_code": code, "error_msg": text},
        ErrorShape.REASON: {"code": code, "reason": text},
    }
    return shapes[shape]


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
    """The account's balance is too low for the request."""
    return Refusal(403, "The account has run out of credits. Top up its balance to continue.")


def too_many_at_once(limit: int) -> Refusal:
    """The account already has as many running generations as allowed."""
    return Refusal(429, f"Too many concurrent requests: at most {limit} generations can run at once.")


def free_tier_limit() -> Refusal:
    """The hourly limit of a free account, in the vendor's documented words."""
    return Refusal(
        429,
        "Free-tier limit: You've reached your free limit for the hour. "
        "Get AI/ML Subscription to use API, visit https://aimlapi.com/app/billing/ !",
    )


def key_limit_reached() -> Refusal:
    """The key's own spending limit allows no further generation."""
    return Refusal(403, "The spending limit of this API key is reached.")


def scope_missing() -> Refusal:
    """The key lacks the scope for this request."""
    return Refusal(403, "This API key does not have the scope that the request needs.")


def bad_body(problems: list[str]) -> Refusal:
    """The request's body is not valid for the model."""
    return Refusal(400, ["Body validation error", *({"message": text} for text in problems)])


def bad_query(problem: str) -> Refusal:
    """The request's query is not valid for the endpoint."""
    return Refusal(400, ["Query validation error", {"message": problem}])


def no_such_endpoint(method: str, path: str) -> Refusal:
    """No such path, or no such method on it."""
    return Refusal(404, f"Cannot {method} {path}")

"""The vendor's HTTP protocol: one builder a request, one reader a reply.

Knows paths, headers, bodies and their variants, and nothing of sockets, time or repetition.
Facts: the vendor's documentation as of August 2026, and shapes met in the wild on the same API.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_kling import __version__
from airflow_provider_kling.api.errors import MalformedReplyError
from airflow_provider_kling.api.faults import (
    clean,
    error_from_response,
    error_from_silence,
    error_text,
    excerpt,
)
from airflow_provider_kling.api.generation import (
    Failure,
    Generation,
    GenerationRequest,
    GenerationStatus,
)
from airflow_provider_kling.api.policy import Clock, parse_retry_after
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.wire import Call, ConnectionLost, HttpRequest, HttpResponse, Reply

USER_AGENT: Final = f"airflow-provider-kling/{__version__}"
CLIENT_REQUEST_ID_HEADER: Final = "X-Client-Request-Id"
INFERENCE_ID_HEADER: Final = "x-inference-id"
BALANCE_PATH: Final = "/v2/billing"
LOGS_PATH: Final = "/v2/logs"
LOG_PAGE: Final = 100
"""Rows a page of the logs; the vendor's maximum."""


@dataclass(frozen=True, slots=True)
class LogRow:
    """What of a row of the vendor's request logs tells a submit apart."""

    client_request_id: str | None
    inference_id: str | None


@dataclass(frozen=True, slots=True)
class LogPage:
    """A page of the vendor's request logs, newest first."""

    rows: tuple[LogRow, ...]
    has_more: bool


class Protocol:
    """Requests and replies for one account.

    :param settings: address and key.
    :param now: epoch seconds; needed to read a ``Retry-After`` that is a date.
    """

    def __init__(self, settings: Settings, now: Clock) -> None:
        self.settings = settings
        self._now = now

    # Requests

    def submit(self, request: GenerationRequest, client_request_id: str | None = None) -> HttpRequest:
        """Ask for a generation. The one request that costs money.

        :param client_request_id: 1 to 128 characters of ``A-Z a-z 0-9 . _ : -``; the vendor keeps
            it with the generation and gives it back in its logs.
        """
        headers = {**self._headers(), "Content-Type": "application/json"}
        if client_request_id is not None:
            headers[CLIENT_REQUEST_ID_HEADER] = client_request_id
        body = json.dumps(request.body(), separators=(",", ":"), allow_nan=False).encode()
        return HttpRequest(Call.SUBMIT, "POST", self._url(self.settings.generation_path), (), headers, body)

    def poll(self, generation_id: str) -> HttpRequest:
        """Ask how a generation stands; free."""
        return self._get(Call.POLL, self.settings.generation_path, (("generation_id", generation_id),))

    def balance(self) -> HttpRequest:
        """Ask for the account's balance; free."""
        return self._get(Call.BALANCE, BALANCE_PATH)

    def logs(self, *, model: str, start: float, end: float, offset: int = 0) -> HttpRequest:
        """Ask for a page of the request logs, newest first; free, at most 200 times in 60 s.

        :param start: epoch seconds.
        :param end: epoch seconds; the window is at most 92 days.
        """
        params = {
            "start": _iso(start),
            "end": _iso(end),
            "model": model,
            "limit": str(LOG_PAGE),
            "offset": str(offset),
        }
        return self._get(Call.LOGS, LOGS_PATH, tuple(params.items()))

    # Replies

    def read_submit(self, reply: Reply) -> Generation:
        """What the vendor made of a submit.

        :raises MalformedReplyError: a success without a readable generation id.
        :raises ApiError: the vendor refused, or has trouble.
        :raises ConnectionLostError: no answer.
        """
        response = self._success(reply, Call.SUBMIT)
        try:
            return read_generation(self._object(response, Call.SUBMIT))
        except MalformedReplyError:
            # The vendor documents that this header of a submit's answer is the generation id.
            if header_id := response.headers.get(INFERENCE_ID_HEADER):
                return Generation(header_id, GenerationStatus.UNKNOWN, "")
            raise

    def read_poll(self, reply: Reply, generation_id: str) -> Generation:
        """How a generation stands.

        :raises MalformedReplyError: an answer that cannot be read.
        :raises ApiError: the vendor refused, or has trouble.
        :raises ConnectionLostError: no answer.
        """
        response = self._success(reply, Call.POLL, generation_id)
        return read_generation(self._object(response, Call.POLL, generation_id), generation_id)

    def read_balance(self, reply: Reply) -> float:
        """The account's balance in USD.

        :raises KlingError: as :meth:`read_poll`.
        """
        body = self._object(self._success(reply, Call.BALANCE), Call.BALANCE)
        balance = _number(body.get("current_balance"))
        if balance is None:
            raise MalformedReplyError("The balance answer names no current_balance.")
        return balance

    def read_logs(self, reply: Reply) -> LogPage:
        """A page of the request logs.

        :raises KlingError: as :meth:`read_poll`.
        """
        body = self._object(self._success(reply, Call.LOGS), Call.LOGS)
        # The documentation names the rows' keys and the pagination's, but not the list's own name.
        rows = next((value for value in body.values() if isinstance(value, list)), None)
        if rows is None:
            raise MalformedReplyError(f"The logs answer has no rows; it has {_names(body)}.")
        return LogPage(
            tuple(
                LogRow(_text(row.get("client_request_id")), _text(row.get("inference_id")))
                for row in rows
                if isinstance(row, dict)
            ),
            _mapping(body.get("pagination")).get("has_more") is True,
        )

    # How

    def _url(self, path: str) -> str:
        return self.settings.base_url + path

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.settings.api_key}",
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
        }

    def _get(self, call: Call, path: str, params: tuple[tuple[str, str], ...] = ()) -> HttpRequest:
        return HttpRequest(call, "GET", self._url(path), params, self._headers())

    def _success(self, reply: Reply, call: Call, generation_id: str | None = None) -> HttpResponse:
        """The answer where it is a success; otherwise its error is raised."""
        if isinstance(reply, ConnectionLost):
            raise error_from_silence(reply, call, generation_id)
        if not isinstance(reply, HttpResponse):
            raise TypeError(f"a {call} request needs a reply, not {reply!r}")
        if 200 <= reply.status < 300:
            return reply
        raise error_from_response(
            reply,
            call,
            generation_id=generation_id,
            retry_after=parse_retry_after(reply.headers.get("retry-after"), self._now()),
            key=self.settings.api_key,
        )

    def _object(
        self, response: HttpResponse, call: Call, generation_id: str | None = None
    ) -> Mapping[str, Any]:
        """The JSON object in an answer."""
        about = f" about generation {generation_id}" if generation_id else ""
        if response.truncated:
            raise MalformedReplyError(
                f"The {call} answer{about} is longer than {len(response.body)} bytes; nothing of it was "
                "used.",
                generation_id=generation_id,
            )
        try:
            body = json.loads(response.body)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise MalformedReplyError(
                f"The {call} answer{about} (status {response.status}) is not a JSON object: "
                f"{excerpt(response.body, self.settings.api_key)}.",
                generation_id=generation_id,
            )
        return body


def read_generation(body: Mapping[str, Any], asked_id: str | None = None) -> Generation:
    """Read the vendor's generation object; every key but the documented required ones may be absent or null.

    :param body: the JSON object.
    :param asked_id: the id that was asked for; it stands for the answer's own, as the answer is
        about what was asked. None for a submit, whose answer must name one.
    :raises MalformedReplyError: no id, or no status.
    """
    raw_id, raw_status = body.get("id"), body.get("status")
    generation_id = asked_id or (raw_id if isinstance(raw_id, str) else None)
    if not generation_id:
        raise MalformedReplyError(f"The answer names no generation id; it has {_names(body)}.")
    if not isinstance(raw_status, str) or not raw_status.strip():
        if asked_id is not None:
            raise MalformedReplyError(
                f"The answer about generation {asked_id} names no status; it has {_names(body)}.",
                generation_id=asked_id,
            )
        raw_status = ""  # a submit that names its id was accepted, whatever else it says
    status = GenerationStatus.parse(raw_status)
    video = _mapping(body.get("video"))
    url = video.get("url")
    usage = {**_mapping(body.get("meta")), **_mapping(_mapping(body.get("meta")).get("usage"))}
    credits = _number(usage.get("credits_used"))
    return Generation(
        id=generation_id,
        status=status,
        raw_status=raw_status,
        video_url=url if isinstance(url, str) and url else None,
        duration=_first(_number(video.get("duration")), _number(body.get("duration"))),
        failure=_failure(body.get("error")) if status is GenerationStatus.ERROR else None,
        credits_used=_first(credits, _number(usage.get("tokens_used"))),
    )


def _failure(error: Any) -> Failure:
    name = error.get("name") if isinstance(error, dict) else None
    return Failure(clean(str(name or "")), clean(error_text(error)) or "no message")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _iso(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _number(value: Any) -> float | None:
    """A finite number, also where the vendor sent it as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _names(body: Mapping[str, Any]) -> str:
    return clean(", ".join(map(str, body))) or "no keys"

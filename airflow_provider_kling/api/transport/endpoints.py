"""The vendor's HTTP protocol: one builder a request, one reader a reply.

Knows paths, headers, bodies and their variants, and nothing of sockets, time or repetition.
Facts: the vendor's documentation as of August 2026, and shapes met in the wild on the same API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_kling import __version__
from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError, MalformedReplyError, Money
from airflow_provider_kling.api.generation import Generation, GenerationRequest, GenerationStatus
from airflow_provider_kling.api.redaction import clean
from airflow_provider_kling.api.retry import Clock, parse_retry_after
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.body import encoded
from airflow_provider_kling.api.transport.error_mapping import (
    error_from_no_response,
    error_from_response,
    unreadable,
)
from airflow_provider_kling.api.transport.messages import (
    Call,
    ConnectionLost,
    HttpRequest,
    HttpResponse,
    Reply,
)
from airflow_provider_kling.api.transport.response_parsing import (
    Charge,
    identifier,
    number,
    read_generation,
    read_ledger,
    read_log_page,
)
from airflow_provider_kling.api.transport.response_parsing import LogRow as LogRow

LONGEST_CLIENT_REQUEST_ID: Final = 128
CLIENT_REQUEST_ID: Final = re.compile(rf"[A-Za-z0-9._:-]{{1,{LONGEST_CLIENT_REQUEST_ID}}}")
"""What the vendor keeps; anything else it silently drops (documented)."""

USER_AGENT: Final = f"airflow-provider-kling/{__version__}"
CLIENT_REQUEST_ID_HEADER: Final = "X-Client-Request-Id"
INFERENCE_ID_HEADER: Final = "x-inference-id"
BALANCE_PATH: Final = "/v2/billing"
LEDGER_PATH: Final = "/v2/billing/transactions"
LOGS_PATH: Final = "/v2/logs"
PRICES_PATH: Final = "/v1/models"
LOG_PAGE: Final = 100
"""Rows a page of the logs, and of the ledger; the vendor's maximum."""
NOT_MODIFIED: Final = 304


class Endpoints:
    """Requests and replies for one account.

    :param settings: address and key.
    :param now: epoch seconds; needed to read a ``Retry-After`` that is a date.
    """

    def __init__(self, settings: Settings, now: Clock) -> None:
        self.settings = settings
        self._now = now
        # One for all who wait.
        self._reading = self._headers()
        self._poll_url = self._url(settings.generation_path)

    # Requests

    def submit(self, request: GenerationRequest, client_request_id: str | None = None) -> HttpRequest:
        """Ask for a generation. The one request that costs money.

        :param client_request_id: 1 to 128 characters of ``A-Z a-z 0-9 . _ : -``; the vendor keeps
            it with the generation and gives it back in its logs.
        :raises InvalidRequestError: a client request id that the vendor would silently drop.
        """
        headers = {**self._headers(), "Content-Type": "application/json"}
        if client_request_id is not None:
            if not CLIENT_REQUEST_ID.fullmatch(client_request_id):
                raise InvalidRequestError(
                    f"The vendor would drop the client request id {clean(client_request_id)!r}.",
                    advice=f"Give 1 to {LONGEST_CLIENT_REQUEST_ID} characters of A-Z a-z 0-9 . _ : -",
                )
            headers[CLIENT_REQUEST_ID_HEADER] = client_request_id
        url = self._url(self.settings.generation_path)
        return HttpRequest(Call.SUBMIT, "POST", url, (), headers, encoded(request.body()))

    def poll(self, generation_id: str) -> HttpRequest:
        """Ask how a generation stands; free."""
        params = (("generation_id", generation_id),)
        return HttpRequest(Call.POLL, "GET", self._poll_url, params, self._reading)

    def balance(self) -> HttpRequest:
        """Ask for the account's balance; free."""
        return self._get(Call.BALANCE, BALANCE_PATH)

    def logs(
        self,
        *,
        models: Sequence[str] = (),
        start: float,
        end: float,
        offset: int = 0,
        key_prefix: str | None = None,
    ) -> HttpRequest:
        """Ask for a page of the request logs, newest first; free, at most 200 times in 60 s.

        The rows are those of the key that asks; the vendor compares a model exactly with the name in the
        row, which need not be the one that was sent.

        :param models: of the rows; none for all models.
        :param start: epoch seconds.
        :param end: epoch seconds; the window is at most 92 days.
        :param key_prefix: the first 8 characters of another key of the account, whose rows are listed
            instead; needs a management key.
        """
        params = (
            ("start", _iso(start)),
            ("end", _iso(end)),
            *(("model", model) for model in models),
            ("limit", str(LOG_PAGE)),
            ("offset", str(offset)),
            *([("key_prefix", key_prefix)] if key_prefix else []),
        )
        return self._get(Call.LOGS, LOGS_PATH, params)

    def ledger(self, *, start: float, cursor: str | None = None) -> HttpRequest:
        """Ask for a page of the account's ledger, newest first; free.

        :param start: epoch seconds; older entries are not asked for.
        :param cursor: where the page before ended.
        """
        params = {"from": _iso(start), "limit": str(LOG_PAGE), **({"cursor": cursor} if cursor else {})}
        return self._get(Call.LEDGER, LEDGER_PATH, tuple(params.items()))

    def prices(self, model: str, etag: str | None = None) -> HttpRequest:
        """Ask what a model costs; public, so that no key goes with it.

        :param etag: of the answer that is known already.
        """
        headers = {name: value for name, value in self._headers().items() if name != "Authorization"}
        if etag is not None:
            headers["If-None-Match"] = etag
        params = (("id", model), ("include", "pricing"))
        return HttpRequest(Call.PRICES, "GET", self._url(PRICES_PATH), params, headers)

    # Replies

    def read_submit(self, reply: Reply) -> Generation:
        """What the vendor made of a submit.

        :raises MalformedReplyError: a success without a readable generation id.
        :raises ApiError: the vendor refused, or has trouble.
        :raises ConnectionLostError: no answer.
        """
        response = self._success(reply, Call.SUBMIT)
        try:
            return read_generation(self._object(response, Call.SUBMIT), key=self.settings.api_key)
        except MalformedReplyError:
            # The vendor documents that this header of a submit's answer is the generation id.
            if header_id := identifier(response.headers.get(INFERENCE_ID_HEADER, "").strip()):
                return Generation(header_id, GenerationStatus.UNKNOWN, "")
            raise

    def keeps(self, reply: Reply, client_request_id: str) -> bool:
        """Whether the answer to a submit echoes its client request id; otherwise the vendor dropped it."""
        return (
            isinstance(reply, HttpResponse)
            and reply.headers.get(CLIENT_REQUEST_ID_HEADER.lower(), "").strip() == client_request_id
        )

    def read_poll(self, reply: Reply, generation_id: str) -> Generation:
        """How a generation stands.

        :raises MalformedReplyError: an answer that cannot be read.
        :raises ApiError: the vendor refused, or has trouble.
        :raises ConnectionLostError: no answer.
        """
        try:
            response = self._success(reply, Call.POLL, generation_id)
            body = self._object(response, Call.POLL, generation_id)
            return read_generation(body, generation_id, key=self.settings.api_key)
        except KlingError as error:
            # whether it works, is done, or was saved in part
            raise error.with_money(Money.ONCE) from error.__cause__

    def read_balance(self, reply: Reply) -> float:
        """The account's balance in USD.

        :raises KlingError: as :meth:`read_poll`.
        """
        body = self._object(self._success(reply, Call.BALANCE), Call.BALANCE)
        balance = number(body.get("current_balance"))
        if balance is None:
            raise MalformedReplyError("The balance answer names no current_balance.")
        return balance

    def read_logs(self, reply: Reply) -> tuple[list[LogRow], bool]:
        """A page of the request logs, newest first, and whether there are more.

        :raises KlingError: as :meth:`read_poll`.
        """
        return read_log_page(
            self._object(self._success(reply, Call.LOGS), Call.LOGS), LOG_PAGE, self.settings.api_key
        )

    def read_ledger(self, reply: Reply) -> tuple[list[Charge], str | None]:
        """A page of the account's ledger, newest first, and where the next one begins; None for the last one.

        :raises KlingError: as :meth:`read_poll`.
        """
        return read_ledger(
            self._object(self._success(reply, Call.LEDGER), Call.LEDGER), self.settings.api_key
        )

    def read_prices(self, reply: Reply, model: str) -> tuple[str | None, Any] | None:
        """ETag and ``pricing`` object of a model; None where what is known is still right.

        The object is as the vendor sent it, and None for a model without a price.

        :raises KlingError: as :meth:`read_poll`.
        """
        if isinstance(reply, HttpResponse) and reply.status == NOT_MODIFIED:
            return None
        response = self._success(reply, Call.PRICES)
        listed = self._object(response, Call.PRICES).get("data")
        if not isinstance(listed, list):
            raise MalformedReplyError("The answer about prices has no list of models.")
        models = [each for each in listed if isinstance(each, dict)]
        named = [each for each in models if model == each.get("id") or model in (each.get("aliases") or ())]
        return response.headers.get("etag"), named[0].get("pricing") if named else None

    # How

    def _url(self, path: str) -> str:
        return self.settings.base_url + path

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self.settings.api_key}",
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }

    def _get(self, call: Call, path: str, params: tuple[tuple[str, str], ...] = ()) -> HttpRequest:
        return HttpRequest(call, "GET", self._url(path), params, self._reading)

    def _success(self, reply: Reply, call: Call, generation_id: str | None = None) -> HttpResponse:
        """The answer where it is a success; otherwise its error is raised."""
        if isinstance(reply, ConnectionLost):
            raise error_from_no_response(reply, call, generation_id)
        if not isinstance(reply, HttpResponse):
            raise TypeError(f"a {call} request needs a reply, not a {type(reply).__name__}")
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
                f"{unreadable(response, self.settings.api_key)}.",
                generation_id=generation_id,
            )
        return body


def _iso(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

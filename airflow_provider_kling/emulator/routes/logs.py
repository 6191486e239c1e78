"""The request log: one row for each request of the key."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from airflow_provider_kling.emulator.clock import iso
from airflow_provider_kling.emulator.context import EMULATED
from airflow_provider_kling.emulator.routes.query import read_integer, read_moment, read_word
from airflow_provider_kling.emulator.state import Account, ApiKey, LogRow, Stage, VendorState
from airflow_provider_kling.emulator.vendor import Refusal, bad_query, json_response

_CALLS = 200
_CALLS_SECONDS = 60.0
_LONGEST_WINDOW = 92 * 86400.0
_MOST_MODELS = 50
_PERIOD = re.compile(r"([1-9][0-9]{0,8})([hd])")
_SECONDS = {"h": 3600.0, "d": 86400.0}


async def logs(request: web.Request) -> web.Response:
    """``GET /v2/logs``: one row for each request, newest first."""
    key = request.app[EMULATED].caller(request)
    state = request.app[EMULATED].state
    now = state.clock.now()
    state.settle(now)
    _count_call(key.account, now)
    query = request.query
    start, end = _window(request, now)
    models = query.getall("model", [])
    if len(models) > _MOST_MODELS:
        raise bad_query(f"at most {_MOST_MODELS} models can be named")
    statuses = query.getall("status", [])
    for status in statuses:
        read_word(status, "status", frozenset({"succeeded", "failed"}))
    asked_for = _key_asked_for(key, query.get("key_prefix"), state)
    limit = read_integer(query.get("limit"), "limit", 50, 1, 100)
    offset = read_integer(query.get("offset"), "offset", 0, 0, None)
    rows = [
        row
        for row in reversed(asked_for.log)
        if start <= row.created <= end
        and _is_listed(row, state, now)
        and (not models or row.model in models)
        and (not statuses or _status(row, now) in statuses)
    ]
    page = [_row(row, now) for row in rows[offset : offset + limit]]
    more = len(rows) > offset + limit
    pagination = {"limit": limit, "offset": offset, "total": len(rows), "has_more": more}
    return json_response({"data": page, "pagination": pagination})


def _key_asked_for(key: ApiKey, prefix: str | None, state: VendorState) -> ApiKey:
    """The key whose rows are listed: that of the request, or for a management key the one it names."""
    if prefix is None or prefix == key.prefix:
        return key
    if not key.management:
        raise Refusal(403, "Reading another key's requests needs a management key.")
    for other in state.keys.values():
        if other.account is key.account and other.prefix == prefix:
            return other
    raise Refusal(404, "No key of this account has that prefix.")


def _count_call(account: Account, now: float) -> None:
    recent = [call for call in account.log_calls if call > now - _CALLS_SECONDS]
    if len(recent) >= _CALLS:
        account.log_calls = recent
        # Measured on the vendor: no Retry-After comes with it.
        raise Refusal(429, f"At most {_CALLS} requests in {_CALLS_SECONDS:.0f} seconds.")
    account.log_calls = [*recent, now]


def _window(request: web.Request, now: float) -> tuple[float, float]:
    query = request.query
    period = query.get("period")
    absolute = "start" in query or "end" in query
    if (period is None) != absolute:
        raise bad_query("either period, or both start and end, has to be given")
    if period is not None:
        match = _PERIOD.fullmatch(period)
        if match is None:
            raise bad_query("period is a positive integer followed by h or d, as in 24h")
        start, end = now - int(match[1]) * _SECONDS[match[2]], now
    else:
        if "start" not in query or "end" not in query:
            raise bad_query("start and end have to be given together")
        start, end = read_moment(query["start"], "start"), read_moment(query["end"], "end")
    if end < start:
        raise bad_query("end must not be earlier than start")
    if end - start > _LONGEST_WINDOW:
        raise bad_query("the window must not exceed 92 days")
    return start, end


def _is_listed(row: LogRow, state: VendorState, now: float) -> bool:
    """Whether a request is visible in the log yet, which lags behind."""
    options = state.options
    seen_from = row.created
    if row.generation is not None:
        final = row.generation.final_at()
        in_flight = options.log_in_flight_after
        moments = [final] if final is not None else []
        moments += [row.created + in_flight] if in_flight is not None else []
        if not moments:
            return False
        seen_from = min(moments)
    return now >= seen_from + options.log_lag


def _status(row: LogRow, now: float) -> str:
    generation = row.generation
    failed = generation is None or generation.stage(now) is Stage.ERROR
    return "failed" if failed else "succeeded"


def _row(row: LogRow, now: float) -> dict[str, Any]:
    generation = row.generation
    charged = generation is not None and generation.charged_at is not None
    price = generation.price if generation is not None and charged else None
    return {
        "created": iso(row.created),
        "status": _status(row, now),
        "origin": "api",
        "model": row.model,
        "cost": {"usd": price.usd if price else 0, "credits": price.credits if price else 0},
        "tokens": {"input": 0, "output": 0, "total": 0},
        "request_id": row.request_id,
        "inference_id": row.inference_id,
        "client_request_id": row.client_request_id,
    }

"""Balance, key, ledger and request log: what an account can read about itself."""

from __future__ import annotations

import base64
import datetime as dt
import re
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from airflow_provider_kling.emulator.clock import iso
from airflow_provider_kling.emulator.context import EMULATED
from airflow_provider_kling.emulator.state import Account, Charge, LogRow, Stage, VendorState
from airflow_provider_kling.emulator.vendor import CREDITS_PER_USD, Refusal, bad_query, json_response

T = TypeVar("T")

_LOG_CALLS = 200
_LOG_CALLS_SECONDS = 60.0
_LONGEST_WINDOW = 92 * 86400.0
_MOST_MODELS = 50
_PERIOD = re.compile(r"([1-9][0-9]*)([hd])")
_SECONDS = {"h": 3600.0, "d": 86400.0}
_DIRECTIONS = frozenset({"TOPUP", "CHARGE"})
_INITIAL, _USAGE = "INIT", "MODEL_USAGE"
_LEDGER_TYPES = frozenset({"PAYMENT", "BONUS", "REFUND", "ADJUSTMENT", _USAGE, "CREDITS_EXPIRED", _INITIAL})


async def balance(request: web.Request) -> web.Response:
    """``GET /v2/billing``."""
    account, _ = _account(request)
    return json_response({"current_balance": account.balance, "currency": "USD"})


async def balance_v1(request: web.Request) -> web.Response:
    """``GET /v1/billing/balance``: the older answer, in credits."""
    account, now = _account(request)
    threshold = 10_000
    credit = round(account.balance * CREDITS_PER_USD)
    return json_response(
        {
            "balance": credit,
            "lowBalance": credit < threshold,
            "lowBalanceThreshold": threshold,
            "lastUpdated": iso(now),
            "autoDebitStatus": "disabled",
            "status": "current",
            "statusExplanation": "The balance is up to date.",
        }
    )


async def key(request: web.Request) -> web.Response:
    """``GET /v1/key``."""
    account, _ = _account(request)
    return json_response(
        {
            "data": {
                "name": "emulator",
                "disabled": False,
                "prefix": account.prefix,
                "scopes": ["model:video"],
                "limit": None,
                "created_at": iso(account.created),
                "updated_at": iso(account.created),
                "monthly_usage": round(sum(charge.price.usd for charge in account.charges), 6),
            }
        }
    )


async def transactions(request: web.Request) -> web.Response:
    """``GET /v2/billing/transactions``: the ledger, newest first, paged by a cursor."""
    account, _ = _account(request)
    query = request.query
    limit = _integer(query.get("limit"), "limit", 50, 1, 100)
    start = _moment(query["from"], "from") if "from" in query else None
    end = _moment(query["to"], "to") if "to" in query else None
    if start is not None and end is not None and end <= start:
        raise bad_query("to has to be later than from")
    direction = _one_of(query.get("direction"), "direction", _DIRECTIONS)
    kind = _one_of(query.get("type"), "type", _LEDGER_TYPES)
    offset = _cursor(query.get("cursor"))
    entries = [
        entry
        for moment, entry in _ledger(account)
        if (start is None or moment >= start)
        and (end is None or moment < end)
        and direction in (None, entry["direction"])
        and kind in (None, entry["type"])
    ]
    page = entries[offset : offset + limit]
    more = len(entries) > offset + limit
    position = base64.urlsafe_b64encode(f"v1:{offset + limit}".encode()).decode()
    pagination = {"next_cursor": position if more else None, "has_more": more}
    return json_response({"data": page, "pagination": pagination})


async def logs(request: web.Request) -> web.Response:
    """``GET /v2/logs``: a row a request, newest first."""
    account, now = _account(request)
    _count_log_call(account, now)
    query = request.query
    start, end = _window(request, now)
    models = query.getall("model", [])
    if len(models) > _MOST_MODELS:
        raise bad_query(f"at most {_MOST_MODELS} models can be named")
    statuses = query.getall("status", [])
    for status in statuses:
        _one_of(status, "status", frozenset({"succeeded", "failed"}))
    prefix = query.get("key_prefix")
    if prefix not in (None, account.prefix):
        raise Refusal(403, "Reading another key's requests needs a management key.")
    limit = _integer(query.get("limit"), "limit", 50, 1, 100)
    offset = _integer(query.get("offset"), "offset", 0, 0, None)
    state = request.app[EMULATED].state
    rows = [
        row
        for row in reversed(account.log)
        if start <= row.created <= end
        and _is_listed(row, state, now)
        and (not models or row.model in models or row.model.partition("/")[2] in models)
        and (not statuses or _log_status(row, now) in statuses)
    ]
    page = [_log_row(row, now) for row in rows[offset : offset + limit]]
    more = len(rows) > offset + limit
    pagination = {"limit": limit, "offset": offset, "total": len(rows), "has_more": more}
    return json_response({"data": page, "pagination": pagination})


def _account(request: web.Request) -> tuple[Account, float]:
    emulated = request.app[EMULATED]
    account = emulated.account(request)
    now = emulated.clock.now()
    emulated.state.settle(now)
    return account, now


def _count_log_call(account: Account, now: float) -> None:
    recent = [call for call in account.log_calls if call > now - _LOG_CALLS_SECONDS]
    if len(recent) >= _LOG_CALLS:
        account.log_calls = recent
        # Measured on the vendor: no Retry-After comes with it.
        raise Refusal(429, f"At most {_LOG_CALLS} requests in {_LOG_CALLS_SECONDS:.0f} seconds.")
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
        start, end = _moment(query["start"], "start"), _moment(query["end"], "end")
    if end < start:
        raise bad_query("end must not be earlier than start")
    if end - start > _LONGEST_WINDOW:
        raise bad_query("the window must not exceed 92 days")
    return start, end


def _is_listed(row: LogRow, state: VendorState, now: float) -> bool:
    """Whether the analytics pipeline has caught up with a request."""
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


def _log_status(row: LogRow, now: float) -> str:
    generation = row.generation
    failed = generation is None or generation.stage(now) is Stage.ERROR
    return "failed" if failed else "succeeded"


def _log_row(row: LogRow, now: float) -> dict[str, Any]:
    generation = row.generation
    charged = generation is not None and generation.charged_at is not None
    price = generation.price if generation is not None and charged else None
    return {
        "created": iso(row.created),
        "status": _log_status(row, now),
        "origin": "api",
        "model": row.model,
        "cost": {"usd": price.usd if price else 0, "credits": price.credits if price else 0},
        "tokens": {"input": 0, "output": 0, "total": 0},
        "request_id": row.request_id,
        "inference_id": row.inference_id,
        "client_request_id": row.client_request_id,
    }


def _ledger(account: Account) -> list[tuple[float, dict[str, Any]]]:
    entries = [(account.created, _entry(account.created, "TOPUP", _INITIAL, account.initial, None))]
    entries += [
        (charge.time, _entry(charge.time, "CHARGE", _USAGE, charge.price.usd, charge))
        for charge in account.charges
    ]
    return sorted(entries, key=lambda pair: pair[0], reverse=True)


def _entry(moment: float, direction: str, kind: str, usd: float, charge: Charge | None) -> dict[str, Any]:
    return {
        "created_at": iso(moment),
        "direction": direction,
        "type": kind,
        "amount": {"usd": usd, "credits": round(usd * CREDITS_PER_USD)},
        "model": charge.model if charge else None,
        "reference_id": charge.reference_id if charge else None,
    }


def _moment(text: str, name: str) -> float:
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise bad_query(f"{name} is not an ISO 8601 time: {text[:40]!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def _integer(text: str | None, name: str, default: int, least: int, most: int | None) -> int:
    if text is None:
        return default
    value = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
    if value < least or (most is not None and value > most):
        most_text = "or more" if most is None else f"to {most}"
        raise bad_query(f"{name} is an integer, {least} {most_text}")
    return value


def _one_of(text: str | None, name: str, allowed: frozenset[str]) -> str | None:
    if text is not None and text not in allowed:
        raise bad_query(f"{name} is one of {', '.join(sorted(allowed))}")
    return text


def _cursor(text: str | None) -> int:
    if text is None:
        return 0
    return _decoded(text, lambda plain: int(plain.removeprefix("v1:")))


def _decoded(text: str, read: Callable[[str], T]) -> T:
    try:
        return read(base64.urlsafe_b64decode(text.encode()).decode())
    except ValueError:
        raise bad_query("cursor was not issued by this endpoint") from None

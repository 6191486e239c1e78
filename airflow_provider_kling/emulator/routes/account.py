"""The account's balance, keys and ledger."""

from __future__ import annotations

import base64
import re
from typing import Any

from aiohttp import web

from airflow_provider_kling.emulator.clock import iso
from airflow_provider_kling.emulator.context import EMULATED
from airflow_provider_kling.emulator.routes.query import read_integer, read_moment, read_word
from airflow_provider_kling.emulator.state import Account, Charge
from airflow_provider_kling.emulator.vendor import CREDITS_PER_USD, bad_query, json_response

_DIRECTIONS = frozenset({"TOPUP", "CHARGE"})
_CURSOR = re.compile(r"v1:([0-9]{1,9})")
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
    asking = request.app[EMULATED].caller(request)
    account, _ = _account(request)
    limit = asking.limit_usd
    return json_response(
        {
            "data": {
                "name": "emulator",
                "disabled": False,
                "prefix": asking.prefix,
                "scopes": list(asking.scopes),
                "limit": None if limit is None else {"retention": "no_reset", "threshold": limit},
                "created_at": iso(asking.created),
                "updated_at": iso(asking.created),
                "monthly_usage": round(sum(charge.price.usd for charge in account.charges), 6),
            }
        }
    )


async def transactions(request: web.Request) -> web.Response:
    """``GET /v2/billing/transactions``: the ledger, newest first, paged by a cursor."""
    account, _ = _account(request)
    query = request.query
    limit = read_integer(query.get("limit"), "limit", 50, 1, 100)
    start = read_moment(query["from"], "from") if "from" in query else None
    end = read_moment(query["to"], "to") if "to" in query else None
    if start is not None and end is not None and end <= start:
        raise bad_query("to has to be later than from")
    direction = read_word(query.get("direction"), "direction", _DIRECTIONS)
    kind = read_word(query.get("type"), "type", _LEDGER_TYPES)
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


def _account(request: web.Request) -> tuple[Account, float]:
    emulated = request.app[EMULATED]
    account = emulated.caller(request).account
    now = emulated.clock.now()
    emulated.state.settle(now)
    return account, now


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


def _cursor(text: str | None) -> int:
    if text is None:
        return 0
    try:
        plain = base64.urlsafe_b64decode(text.encode()).decode()
    except ValueError:
        plain = ""
    match = _CURSOR.fullmatch(plain)
    if match is None:
        raise bad_query("cursor was not issued by this endpoint")
    return int(match[1])

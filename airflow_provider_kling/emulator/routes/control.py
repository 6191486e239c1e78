"""The control plane: the emulator's own routes under ``/_emulator``, for tests in other processes."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from airflow_provider_kling.emulator.context import EMULATED, Emulated
from airflow_provider_kling.emulator.faults.rules import FaultRule
from airflow_provider_kling.emulator.options import read_option
from airflow_provider_kling.emulator.state import ApiKey, StoredGeneration
from airflow_provider_kling.emulator.vendor import Refusal

PREFIX = "/_emulator"
_LONGEST_OUTAGE = 86400


def routes() -> list[web.RouteDef]:
    """The control plane."""
    return [
        web.get(f"{PREFIX}/faults", _list_faults),
        web.post(f"{PREFIX}/faults", _add_faults),
        web.delete(f"{PREFIX}/faults", _clear_faults),
        web.get(f"{PREFIX}/requests", _requests),
        web.get(f"{PREFIX}/generations", _generations),
        web.get(f"{PREFIX}/stats", _stats),
        web.get(f"{PREFIX}/keys", _keys),
        web.post(f"{PREFIX}/keys", _set_key),
        web.post(f"{PREFIX}/clock", _advance),
        web.post(f"{PREFIX}/outage", _outage),
        web.post(f"{PREFIX}/reset", _reset),
    ]


def generation_facts(emulated: Emulated, generation: StoredGeneration) -> dict[str, Any]:
    """One generation for the control plane, without key and pictures."""
    return {
        "id": generation.id,
        "account": generation.account.number,
        "key_prefix": generation.key.prefix,
        "model": generation.model,
        "parameters": generation.parameters,
        "client_request_id": generation.client_request_id,
        "accepted_at": generation.accepted_at,
        "status": str(generation.stage(emulated.clock.now())),
        "charged": generation.charged_at is not None,
        "usd": generation.price.usd,
        "credits": generation.price.credits,
        "seconds": generation.seconds,
    }


def key_facts(key: ApiKey) -> dict[str, Any]:
    """One key for the control plane, by its prefix."""
    return {
        "prefix": key.prefix,
        "account": key.account.number,
        "management": key.management,
        "scopes": list(key.scopes),
        "limit_usd": key.limit_usd,
        "spent": round(key.spent, 6),
        "revoked": key.revoked,
        "rows": len(key.log),
    }


def all_generations(emulated: Emulated) -> list[dict[str, Any]]:
    """Every accepted generation, oldest first."""
    emulated.state.settle(emulated.clock.now())
    return [generation_facts(emulated, each) for each in emulated.state.generations.values()]


def stats(emulated: Emulated) -> dict[str, Any]:
    """Counts since the start or the last reset; connections since the start."""
    emulated.state.settle(emulated.clock.now())
    return {
        "accepted": len(emulated.state.generations),
        "charges": emulated.state.charges,
        "calls": {str(call): count for call, count in emulated.journal.calls.items() if count},
        "connections": emulated.connections,
        "rendered": emulated.videos.rendered,
        "now": emulated.clock.now(),
    }


async def _list_faults(request: web.Request) -> web.Response:
    return web.json_response([rule.as_dict() for rule in request.app[EMULATED].faults.rules()])


async def _add_faults(request: web.Request) -> web.Response:
    """One rule or a list of them: objects, or texts as on the command line."""
    body = await _json(request)
    try:
        rules = [
            FaultRule.parse(each) if isinstance(each, str) else FaultRule.build(**each)
            for each in (body if isinstance(body, list) else [body])
        ]
    except (TypeError, ValueError, OverflowError) as error:
        raise Refusal(400, f"not a fault rule: {error}") from error
    emulated = request.app[EMULATED]
    return web.json_response([emulated.faults.enforce(rule).as_dict() for rule in rules])


async def _clear_faults(request: web.Request) -> web.Response:
    emulated = request.app[EMULATED]
    emulated.faults.clear()
    return web.json_response([])


async def _requests(request: web.Request) -> web.Response:
    return web.json_response([each.as_dict() for each in request.app[EMULATED].journal.entries()])


async def _generations(request: web.Request) -> web.Response:
    return web.json_response(all_generations(request.app[EMULATED]))


async def _stats(request: web.Request) -> web.Response:
    return web.json_response(stats(request.app[EMULATED]))


async def _keys(request: web.Request) -> web.Response:
    state = request.app[EMULATED].state
    return web.json_response([key_facts(key) for key in state.keys.values()])


async def _set_key(request: web.Request) -> web.Response:
    """Add a key, change one, or with ``rotate`` replace one, which is refused from then on."""
    body = await _json(request)
    state = request.app[EMULATED].state
    try:
        texts = {name: body.pop(name) for name in ("key", "rotate", "account_of") if name in body}
        if not all(isinstance(text, str) for text in texts.values()) or "key" not in texts:
            raise ValueError('expected {"key": KEY, ...}; rotate and account_of are keys as well')
        if "rotate" in texts:
            state.rotate_key(texts["rotate"], texts["key"])
        key = state.set_key(texts["key"], texts.get("account_of"), **body)
    except (AttributeError, TypeError, ValueError) as error:
        raise Refusal(400, f"not a key: {error}") from error
    return web.json_response(key_facts(key))


async def _advance(request: web.Request) -> web.Response:
    """``{"advance": seconds}`` moves the emulator's clock forward."""
    body = await _json(request)
    clock = request.app[EMULATED].clock
    try:
        clock.advance(float(body["advance"]))
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise Refusal(400, 'expected {"advance": SECONDS}, finite and not negative') from error
    return web.json_response({"now": clock.now()})


async def _outage(request: web.Request) -> web.Response:
    """``{"seconds": SECONDS}`` refuses all connections for so long, also to the control plane."""
    body = await _json(request)
    try:
        seconds = read_option(body["seconds"], float)
    except (TypeError, KeyError, ValueError) as error:
        raise Refusal(400, 'expected {"seconds": SECONDS}') from error
    if not 0 <= seconds <= _LONGEST_OUTAGE:
        raise Refusal(400, f"seconds is 0 to {_LONGEST_OUTAGE}")
    request.app[EMULATED].stop_listening(seconds)
    return web.json_response({"seconds": seconds})


async def _reset(request: web.Request) -> web.Response:
    emulated = request.app[EMULATED]
    emulated.reset()
    return web.json_response(stats(emulated))


async def _json(request: web.Request) -> Any:
    try:
        return await request.json()
    except (ValueError, RecursionError, LookupError) as error:  # LookupError: an unknown charset
        raise Refusal(400, "the body is not JSON") from error

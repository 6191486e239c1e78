"""The OpenAPI document of the emulated part of the vendor's API, for tools that test against one."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from airflow_provider_kling.api.catalog.models import MODELS
from airflow_provider_kling.emulator.vendor import CLIENT_REQUEST_ID, GENERATION_PATHS

PATH = "/openapi.json"

_TEXT: dict[str, Any] = {"type": "string"}
_OPTIONAL_TEXT: dict[str, Any] = {"type": ["string", "null"]}
_NUMBER: dict[str, Any] = {"type": "number"}
_INTEGER: dict[str, Any] = {"type": "integer"}
_MOMENT: dict[str, Any] = {"type": "string", "format": "date-time"}
# An error of an older or of an elsewhere-run model can be any JSON; a status can be another word.
_GENERATION: dict[str, Any] = {
    "type": "object",
    "required": ["id", "status"],
    "properties": {
        "id": _TEXT,
        "status": _TEXT,
        "video": {
            "type": ["object", "null"],
            "required": ["url"],
            "properties": {
                "url": {"type": "string", "format": "uri"},
                "duration": {"type": ["number", "null"]},
                "content_type": _TEXT,
                "file_name": _TEXT,
                "file_size": _INTEGER,
            },
        },
        "error": {},
        "meta": {"type": ["object", "null"]},
    },
}
_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["message", "path", "requestId", "statusCode", "timestamp"],
    "properties": {
        "message": {},
        "path": _TEXT,
        "requestId": _TEXT,
        "statusCode": _INTEGER,
        "timestamp": _MOMENT,
    },
}
_LOG_ROW: dict[str, Any] = {
    "type": "object",
    "required": ["created", "status", "model", "cost", "request_id", "inference_id", "client_request_id"],
    "properties": {
        "created": _MOMENT,
        "status": {"enum": ["succeeded", "failed"]},
        "origin": _TEXT,
        "model": _TEXT,
        "cost": {"type": "object", "properties": {"usd": _NUMBER, "credits": _INTEGER}},
        "tokens": {"type": "object"},
        "request_id": _TEXT,
        "inference_id": _TEXT,
        "client_request_id": _OPTIONAL_TEXT,
    },
}


async def document(request: web.Request) -> web.Response:
    """``GET /openapi.json``."""
    return web.json_response(build_document(f"{request.scheme}://{request.host}"))


def build_document(server: str) -> dict[str, Any]:
    """The document.

    :param server: the URL that its paths are below.
    """
    generations = {
        path: {
            "post": _operation(f"submit{number}", "Submit a generation", _GENERATION, status="201")
            | {"parameters": [_header(CLIENT_REQUEST_ID)], "requestBody": _submit_body()},
            "get": _operation(f"poll{number}", "Poll a generation", _GENERATION)
            | {"parameters": [_query("generation_id", _TEXT, required=True)]},
        }
        for number, path in enumerate(GENERATION_PATHS, 1)
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Emulated AI/ML API, Kling video models", "version": "2026-08"},
        "servers": [{"url": server}],
        "security": [{"key": []}],
        "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "paths": {
            **generations,
            "/v2/logs": {"get": _logs()},
            "/v2/billing": {
                "get": _operation(
                    "balance",
                    "The balance in USD",
                    _object(current_balance=_NUMBER, currency={"const": "USD"}),
                )
            },
            "/v2/billing/transactions": {"get": _transactions()},
            "/v1/billing/balance": {
                "get": _operation("balanceInCredits", "The balance in credits", _object(balance=_INTEGER))
            },
            "/v1/key": {"get": _operation("key", "The key that asks", _object(data={"type": "object"}))},
            "/v1/models": {
                "get": _operation("models", "The models, with prices on request", _object(data=_list()))
                | {
                    "security": [],
                    "parameters": [_query("id", _TEXT), _query("include", {"enum": ["pricing", "all"]})],
                }
            },
            "/models/metrics": {
                "get": _operation("metrics", "How long the models take", _object(models=_list()))
                | {"security": [], "parameters": [_query("aliases", {"enum": sorted(MODELS)})]}
            },
        },
    }


def _logs() -> dict[str, Any]:
    answer = _object(data=_list(_LOG_ROW), pagination={"type": "object"})
    return _operation("logs", "The request log", answer) | {
        "parameters": [
            _query("period", {"type": "string", "pattern": "^[1-9][0-9]{0,3}[hd]$"}),
            _query("start", _MOMENT),
            _query("end", _MOMENT),
            _query("model", _TEXT),
            _query("status", {"enum": ["succeeded", "failed"]}),
            _query("key_prefix", _TEXT),
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
            _query("offset", {"type": "integer", "minimum": 0}),
        ]
    }


def _transactions() -> dict[str, Any]:
    answer = _object(data=_list(), pagination={"type": "object"})
    return _operation("transactions", "The ledger", answer) | {
        "parameters": [
            _query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
            _query("cursor", _TEXT),
            _query("from", _MOMENT),
            _query("to", _MOMENT),
            _query("direction", {"enum": ["TOPUP", "CHARGE"]}),
        ]
    }


def _submit_body() -> dict[str, Any]:
    schema = {
        "type": "object",
        "required": ["model"],
        "properties": {
            "model": {"type": "string", "examples": sorted(MODELS)[:1]},
            "prompt": _TEXT,
            "duration": {"type": ["integer", "string"]},
        },
    }
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _operation(name: str, summary: str, answer: dict[str, Any], status: str = "200") -> dict[str, Any]:
    answers = {status: _answer("As asked", answer)}
    if status == "201":
        answers["200"] = answers["201"]  # the vendor uses both
    refusals = {
        "400": "Not what the endpoint takes",
        "401": "No valid key",
        "403": "Not allowed, or not paid for",
        "404": "Not there",
        "408": "Too slow",
        "413": "Too long",
        "421": "Another host name",
        "429": "Too much at once",
    }
    answers |= {code: _answer(text, _ERROR) for code, text in refusals.items()}
    answers["304"] = {"description": "Not modified"}
    return {"operationId": name, "summary": summary, "responses": answers}


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "array", "items": items or {"type": "object"}}


def _query(name: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _header(name: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": _TEXT}

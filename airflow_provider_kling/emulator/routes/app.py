"""The application: all routes, and the middleware that every request passes."""

from __future__ import annotations

import hashlib
import logging
import uuid

from aiohttp import web

from airflow_provider_kling.emulator.context import (
    EMULATED,
    Emulated,
    Exchange,
    begin_exchange,
    current_exchange,
)
from airflow_provider_kling.emulator.faults.directives import MARK, submit_faults
from airflow_provider_kling.emulator.faults.injection import Handler, trouble
from airflow_provider_kling.emulator.faults.rules import FaultRule
from airflow_provider_kling.emulator.journal import CallKind
from airflow_provider_kling.emulator.routes import (
    account,
    catalog,
    cdn,
    control,
    generations,
    logs,
    openapi,
)
from airflow_provider_kling.emulator.routes.access import MAX_BODY, check_sender, read_body
from airflow_provider_kling.emulator.vendor import (
    CLIENT_REQUEST_ID,
    CLIENT_REQUEST_ID_FORM,
    GENERATION_ID_FORM,
    GENERATION_PATHS,
    INFERENCE_ID,
    Refusal,
    no_such_endpoint,
)

_CALLS = {
    **{("POST", path): CallKind.SUBMIT for path in GENERATION_PATHS},
    **{("GET", path): CallKind.POLL for path in GENERATION_PATHS},
    ("GET", "/v2/logs"): CallKind.LOGS,
    ("GET", "/v2/billing"): CallKind.BILLING,
    ("GET", "/v2/billing/transactions"): CallKind.BILLING,
    ("GET", "/v1/billing/balance"): CallKind.BILLING,
    ("GET", "/v1/key"): CallKind.BILLING,
    ("GET", "/v1/models"): CallKind.MODELS,
    ("GET", "/models/metrics"): CallKind.METRICS,
}
_log = logging.getLogger(__name__)


def build_app(emulated: Emulated) -> web.Application:
    """The emulated vendor as an aiohttp application."""
    app = web.Application(middlewares=[_gate, _conversation], client_max_size=MAX_BODY)
    app[EMULATED] = emulated
    for path in GENERATION_PATHS:
        app.router.add_post(path, generations.submit)
        app.router.add_get(path, generations.poll, allow_head=False)
    app.router.add_routes(
        [
            web.get("/v2/logs", logs.logs),
            web.get("/v2/billing", account.balance),
            web.get("/v2/billing/transactions", account.transactions),
            web.get("/v1/billing/balance", account.balance_v1),
            web.get("/v1/key", account.key),
            web.get("/v1/models", catalog.models),
            web.get("/models/metrics", catalog.metrics),
            web.get(cdn.PREFIX + "{name:.+}", cdn.video),
            web.get(openapi.PATH, openapi.document),
            *control.routes(),
        ]
    )
    app.on_response_prepare.append(_add_headers)
    return app


@web.middleware
async def _gate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Accept a request that is complete and comes from an allowed host."""
    emulated = request.app[EMULATED]
    connection = emulated.connection(request)
    if connection is not None:
        connection.request_begins()
    begin_exchange(None)
    try:
        check_sender(request, emulated.options)
        await read_body(request, emulated.options)
    except Refusal as refusal:
        response = refusal.response(request.path, emulated.clock.now())
        response.force_close()
        return response
    try:
        return await handler(request)
    finally:
        if connection is not None:
            connection.request_ends()


@web.middleware
async def _conversation(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Record the request, apply a fault or serve it, and record its answer."""
    emulated = request.app[EMULATED]
    path = request.path
    if path.startswith(control.PREFIX) or path == openapi.PATH:
        return await _served(request, handler, emulated)
    connection = emulated.connection(request)
    call = CallKind.CDN if path.startswith(cdn.PREFIX) else _CALLS.get((request.method, path))
    call = call or CallKind.UNKNOWN
    sent_id = request.headers.get(CLIENT_REQUEST_ID)
    entry = emulated.journal.open(
        time=emulated.clock.now(),
        method=request.method,
        path=path,
        call=call,
        query=list(request.query.items()),
        authorization="Authorization" in request.headers,
        connection=connection.number if connection is not None else 0,
        client_request_id=sent_id,
    )
    exchange = Exchange(entry)
    begin_exchange(exchange)
    if sent_id is not None and CLIENT_REQUEST_ID_FORM.fullmatch(sent_id):
        exchange.client_request_id = sent_id
    if call is CallKind.POLL:
        entry.generation_id = request.query.get("generation_id")
        # The vendor leaves the header out where the id is none it could have issued.
        if entry.generation_id and GENERATION_ID_FORM.fullmatch(entry.generation_id):
            exchange.answer_id = entry.generation_id
    elif call is CallKind.CDN:
        entry.generation_id = cdn.generation_id_of(path)
    else:
        exchange.answer_id = str(uuid.uuid4())
    rule = emulated.faults.strike(call, entry.generation_id)
    if rule is None and call is CallKind.SUBMIT:
        rule = await _fault_in_prompt(request, emulated)
    if rule is None:
        response = await _served(request, handler, emulated)
    else:
        entry.fault = str(rule.kind)

        async def serve(request: web.Request) -> web.StreamResponse:
            return await _served(request, handler, emulated)

        try:
            response = await trouble(rule, request, call, serve)
        except Refusal as refusal:
            response = refusal.response(path, emulated.clock.now(), emulated.options.errors)
    return response


async def _served(request: web.Request, handler: Handler, emulated: Emulated) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refusal as refusal:
        answer = refusal
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        answer = no_such_endpoint(request.method, request.path)
    except web.HTTPException as error:
        answer = Refusal(error.status, error.reason)
    except Exception:
        _log.exception("The emulator failed to serve %s %s", request.method, request.path)
        answer = Refusal(500, "The emulator itself failed; its log says how.")
    return answer.response(request.path, emulated.clock.now(), emulated.options.errors)


async def _fault_in_prompt(request: web.Request, emulated: Emulated) -> FaultRule | None:
    """The fault rule in a submit's own prompt, counted over repetitions of the same body."""
    raw = await request.read()
    if MARK not in raw:
        return None
    digest = hashlib.sha256(raw).hexdigest()
    if digest not in emulated.prompt_faults:
        emulated.prompt_faults[digest] = submit_faults(raw)
    return next((rule for rule in emulated.prompt_faults[digest] if rule.strikes()), None)


async def _add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    exchange = current_exchange()
    if exchange is None:
        return
    if request.transport is not None and not request.transport.is_closing():
        exchange.entry.status = response.status
    if exchange.answer_id is not None:
        response.headers[INFERENCE_ID] = exchange.answer_id
    if exchange.client_request_id is not None:
        response.headers[CLIENT_REQUEST_ID.lower()] = exchange.client_request_id

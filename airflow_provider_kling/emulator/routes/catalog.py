"""The public catalogue: models, prices and durations. No key needed."""

from __future__ import annotations

import hashlib
import json
import math

from aiohttp import web

from airflow_provider_kling.api.catalog.models import MODELS
from airflow_provider_kling.emulator.clock import iso
from airflow_provider_kling.emulator.context import EMULATED
from airflow_provider_kling.emulator.prices import catalogue
from airflow_provider_kling.emulator.vendor import GENERATION_PATHS, bad_query, json_response

_METRICS_WINDOW = 300
_MOST_ALIASES = 100
# Quantiles of the standard normal: the vendor's durations fit a log-normal of sigma 0.5.
_SIGMA = 0.5
_QUANTILES = {"p50": 0.0, "p75": 0.6745, "p90": 1.2816, "p99": 2.3263}


async def models(request: web.Request) -> web.Response:
    """``GET /v1/models``: filtered by id, with prices on request, and an ETag."""
    query = request.query
    wanted = {name.lower() for text in query.getall("id", []) for name in text.split(",")}
    sections = {name for text in query.getall("include", []) for name in text.split(",")}
    with_pricing = bool(sections & {"pricing", "all"}) or query.get("details") == "true"
    data = [
        {name: value for name, value in model.items() if name != "pricing" or with_pricing}
        for model in catalogue()
        if not wanted or model["id"].lower() in wanted
    ]
    body = {"object": "list", "data": data}
    text = json.dumps(body, sort_keys=True).encode()
    etag = f'W/"{len(text):x}-{hashlib.sha256(text).hexdigest()[:27]}"'
    if etag in [tag.strip() for tag in request.headers.get("If-None-Match", "").split(",")]:
        return web.Response(status=304, headers={"ETag": etag})
    return json_response(body, headers={"ETag": etag})


async def metrics(request: web.Request) -> web.Response:
    """``GET /models/metrics``: percentiles of the duration, as if the models were in use."""
    emulated = request.app[EMULATED]
    if set(request.query) - {"aliases"}:
        raise bad_query("only aliases can be given")
    aliases = request.query.getall("aliases", [])
    if len(aliases) > _MOST_ALIASES:
        raise bad_query(f"at most {_MOST_ALIASES} aliases can be given")
    options = emulated.options
    entries = []
    for model in MODELS.values():
        if aliases and model.id not in aliases:
            continue
        if options.realistic:
            usual, sigma = model.usual_seconds, options.spread or _SIGMA
        else:
            usual, sigma = options.queued_seconds + options.generating_seconds, options.spread
        duration = {
            name: round(1000 * usual * math.exp(sigma * quantile)) for name, quantile in _QUANTILES.items()
        }
        endpoint = GENERATION_PATHS[1]
        entries.append({"alias": model.id, "endpoint": endpoint, "metrics": {"duration_ms": duration}})
    return json_response(
        {
            "window_seconds": _METRICS_WINDOW,
            "generated_at": iso(emulated.clock.now()),
            "models": entries,
        }
    )

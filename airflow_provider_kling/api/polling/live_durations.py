"""How long a model takes at the moment: the vendor's public metrics, asked without a key.

They can be absent, empty or about something else than the whole generation (the vendor says only
"duration of the last minutes"), so a figure far from what is known of the model is not believed.
"""

from __future__ import annotations

import json
import math
from typing import Any, Final

from airflow_provider_kling.api.polling.schedule import NARROWEST_SPREAD, WIDEST_SPREAD, Schedule
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import USER_AGENT
from airflow_provider_kling.api.transport.messages import Call, Flow, HttpRequest, HttpResponse, Reply, Send

METRICS_PATH: Final = "/models/metrics"
BELIEVED: Final = 4.0
"""A live median is believed up to this many times the known one, and down to its inverse."""
_NINTH_DECILE: Final = 1.2816
"""The standard normal's, to read a spread off p50 and p90."""


def live_schedule(settings: Settings, model: str, known: Schedule) -> Flow[Schedule | None]:
    """Ask once how long a model takes now; never raises.

    :param known: the model's schedule as the catalogue has it.
    :return: the same, adaptive, with the live median and spread; None where they cannot be used.
    """
    return read_metrics((yield Send(ask_metrics(settings, model))), model, known)


def ask_metrics(settings: Settings, model: str) -> HttpRequest:
    """The request; public, so that no key goes with it."""
    headers = {"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"}
    return HttpRequest(Call.METRICS, "GET", settings.base_url + METRICS_PATH, (("aliases", model),), headers)


def read_metrics(reply: Reply, model: str, known: Schedule) -> Schedule | None:
    """The answer; see :func:`live_schedule`."""
    if not isinstance(reply, HttpResponse) or reply.status != 200 or reply.truncated:
        return None
    try:
        body = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    entry = next((each for each in _objects(body) if each.get("alias") == model), {})
    metrics = entry.get("metrics")
    duration = metrics.get("duration_ms") if isinstance(metrics, dict) else None
    if not isinstance(duration, dict):
        return None
    median = _seconds(duration.get("p50"))
    if median is None or not 1 / BELIEVED <= median / known.usual_seconds <= BELIEVED:
        return None
    slow = _seconds(duration.get("p90"))
    spread = known.spread if slow is None or slow <= median else math.log(slow / median) / _NINTH_DECILE
    return Schedule(usual_seconds=median, spread=min(max(spread, NARROWEST_SPREAD), WIDEST_SPREAD))


def _objects(body: Any) -> list[dict[str, Any]]:
    models = body.get("models") if isinstance(body, dict) else None
    return [each for each in models if isinstance(each, dict)] if isinstance(models, list) else []


def _seconds(milliseconds: Any) -> float | None:
    number = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    return milliseconds / 1000 if number and 0 < milliseconds < math.inf else None

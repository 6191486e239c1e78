"""Drives a flow without a socket or a sleep: a list of replies, and a clock that pauses move on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.exceptions import KlingError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.messages import (
    Call,
    ConnectionLost,
    Effect,
    FailureReason,
    Flow,
    HttpRequest,
    HttpResponse,
    Reply,
    SaveRecord,
    Send,
    Sleep,
)

KEY = "sk-9c1f5e7d3b2a4860-do-not-show"
HOST = "api.aimlapi.com"
START = 1_790_000_000.0
MODEL = "kling-video/v1.6/standard/image-to-video"
REQUEST = GenerationRequest(MODEL, {"prompt": "she smiles", "image_url": "https://example.com/a.png"})

Answerer = Callable[[HttpRequest], Reply]


class Clock:
    """Epoch seconds that only move when told to."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def middle() -> float:
    """A random source without chance: jitter in the middle of its range."""
    return 0.5


def endpoints(clock: Clock | None = None, key: str = KEY) -> Endpoints:
    return Endpoints(Settings(key), clock or Clock())


def calls(clock: Clock, rng: Callable[[], float] = middle, key: str = KEY) -> VendorCalls:
    return VendorCalls(endpoints(clock, key), now=clock, rng=rng)


def answer(body: Any = None, status: int = 200, **headers: str) -> HttpResponse:
    """A reply; bodies other than bytes are sent as JSON, and underscores in header names as hyphens."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return HttpResponse(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw)


def refusal(status: int, message: Any = "no", **headers: str) -> HttpResponse:
    """An error as the vendor itself sends it."""
    body = {"message": message, "path": "/v2/x", "requestId": "req-1", "statusCode": status}
    return answer(body, status, **headers)


def lost(why: FailureReason = FailureReason.BROKEN) -> ConnectionLost:
    return ConnectionLost(why, HOST)


def standing(status: str, **more: Any) -> HttpResponse:
    """The answer to a poll."""
    return answer({"id": "g1", "status": status, **more})


DONE = standing("completed", video={"url": "https://cdn.example.com/v.mp4?ksSecret=s"})


@dataclass
class Driven:
    """What a flow did.

    :param effects: in order.
    :param times: when each effect was asked for.
    """

    effects: list[Effect] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    result: Any = None
    error: KlingError | None = None
    unused: int = 0

    @property
    def sent(self) -> list[HttpRequest]:
        return [effect.request for effect in self.effects if isinstance(effect, Send)]

    @property
    def calls(self) -> list[Call]:
        return [request.call for request in self.sent]

    @property
    def pauses(self) -> list[float]:
        return [effect.seconds for effect in self.effects if isinstance(effect, Sleep)]

    @property
    def remembered(self) -> list[dict[str, Any]]:
        return [dict(effect.record) for effect in self.effects if isinstance(effect, SaveRecord)]

    @property
    def story(self) -> list[str]:
        """The effects as words: the call, ``pause`` or ``remember``."""
        return [
            str(effect.request.call) if isinstance(effect, Send) else type(effect).__name__.lower()
            for effect in self.effects
        ]


def drive(
    flow: Flow[Any],
    replies: Iterable[Reply | Answerer] | Answerer,
    clock: Clock,
    call_takes: float = 0.0,
) -> Driven:
    """Drive a flow to its end; its error, if a KlingError, is kept.

    :param replies: one for each request, in order, or a function that answers each.
    :param call_takes: seconds that each request takes.
    """
    pending: Iterator[Reply | Answerer] | None = None if callable(replies) else iter(replies)
    driven = Driven()
    reply: Reply = None
    try:
        while True:
            effect = flow.send(reply)
            driven.effects.append(effect)
            driven.times.append(clock.now)
            if isinstance(effect, Send):
                clock.now += call_takes
                if pending is None:
                    assert callable(replies)
                    reply = replies(effect.request)
                else:
                    given = next(pending, None)
                    assert given is not None, f"nobody answers the {effect.request.call} request"
                    reply = given(effect.request) if callable(given) else given
            else:
                reply = None
                if isinstance(effect, Sleep):
                    assert effect.seconds >= 0
                    clock.now += effect.seconds
    except StopIteration as end:
        driven.result = end.value
    except KlingError as error:
        driven.error = error
    if pending is not None:
        driven.unused = sum(1 for _ in pending)
    return driven

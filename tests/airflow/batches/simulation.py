"""A batch of thousands of rows in simulated time: worker, triggerer and vendor share one clock in one process.

The worker runs the operator's code with the blocking client, the triggerer runs the trigger with the shared
poller; only the exchange of a request for its reply is played. Each part of the worker gets a limiter of
its own, as a new process has, and a video is a few bytes.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_kling.api.async_client import AsyncKlingClient
from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.download.save_video import SavedVideo
from airflow_provider_kling.api.polling.schedule import USUAL_SPREAD
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport import shared_rate_limiter
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.messages import Call, HttpRequest, HttpResponse
from airflow_provider_kling.api.transport.rate_limiter import Limiter
from airflow_provider_kling.emulator.prices import pricing
from airflow_provider_kling.hooks.kling import KlingHook
from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator
from airflow_provider_kling.triggers import connection_cache, shared_pollers
from airflow_provider_kling.triggers.batch import KlingBatchTrigger, read_batch_event
from tests.virtual_time import VirtualLoop

START = 1_800_000_000.0
MODEL_SECONDS = 194.0


class Time:
    """One clock for all."""

    def __init__(self) -> None:
        self.now = 5000.0

    def epoch(self) -> float:
        return START + self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)


class SimulatedVendor:
    """Answers requests at once; generations take what the vendor's published durations say.

    :param latency: seconds that an answer takes.
    """

    def __init__(self, clock: Time, *, latency: float = 0.15, seed: int = 1) -> None:
        self.charged_usd: float | None = None
        """What the ledger says that each generation cost; None for an empty ledger."""
        self.latency = latency
        self.calls: Counter[str] = Counter()
        self.sent_at: list[float] = []
        self.last_submit_at = 0.0
        self.done_at: dict[str, float] = {}
        self._clock = clock
        self._dice = random.Random(seed)

    def answer(self, request: HttpRequest) -> HttpResponse:
        self.calls[request.call.name] += 1
        if request.call not in (Call.PRICES, Call.METRICS):
            self.sent_at.append(self._clock.now)
        match request.call:
            case Call.SUBMIT:
                generation_id = f"{len(self.done_at):08}-aaaa-bbbb-cccc-1234567890ab"
                seconds = MODEL_SECONDS * math.exp(USUAL_SPREAD * self._dice.gauss(0.0, 1.0))
                self.done_at[generation_id] = self._clock.now + seconds
                self.last_submit_at = self._clock.now
                echoed = {
                    name.lower(): value
                    for name, value in request.headers.items()
                    if name.lower() == "x-client-request-id"
                }
                return _json(201, {"id": generation_id, "status": "queued"}, **echoed)
            case Call.POLL:
                generation_id = dict(request.params)["generation_id"]
                if self._clock.now < self.done_at[generation_id]:
                    return _json(200, {"id": generation_id, "status": "generating"})
                video = {"url": f"https://cdn.example.com/{generation_id}.mp4"}
                return _json(200, {"id": generation_id, "status": "completed", "video": video})
            case Call.LEDGER:
                done = [each for each, at in self.done_at.items() if at <= self._clock.now]
                charges = [
                    {"reference_id": each, "amount": {"usd": self.charged_usd}}
                    for each in reversed(done)
                    if self.charged_usd is not None
                ]
                return _json(200, {"data": charges, "pagination": {"has_more": False}})
            case Call.PRICES:
                model = dict(request.params)["id"]
                return _json(200, {"data": [{"id": model, "pricing": pricing(model)}]})
            case _:
                return _json(404, {"message": "not here"})

    @property
    def requests(self) -> int:
        return len(self.sent_at)


def _json(status: int, body: Any, **headers: str) -> HttpResponse:
    return HttpResponse(status, headers, json.dumps(body).encode())


class _Loop(VirtualLoop):
    """A virtual event loop on the common clock."""

    def __init__(self, clock: Time) -> None:
        super().__init__()
        selector = self.selector
        type(selector).now = property(  # type: ignore[assignment]
            lambda _: clock.now, lambda _, value: setattr(clock, "now", value)
        )


@dataclass
class Simulation:
    """A batch, played from its first submit to its end.

    :param worker_seconds: that a part of the task takes before its first request.
    """

    arguments: dict[str, Any]
    folder: Path
    per_minute: float | None = 200.0
    worker_seconds: float = 3.0
    clock: Time = field(default_factory=Time)
    parts: int = 0
    xcom: dict[str, Any] = field(default_factory=dict)
    largest: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.vendor = SimulatedVendor(self.clock)
        self.settings = Settings("key", "http://127.0.0.1:9", requests_per_minute=self.per_minute)

    def run(self, beside: Any = None) -> dict[str, Any]:
        """Play it; ``beside`` is a coroutine function that runs in the triggerer's loop meanwhile."""
        begun = self.clock.now
        with self._played() as loop:
            other = loop.create_task(beside(self)) if beside else None
            event: Any = None
            while True:
                trigger = self._part(event)
                if trigger is None:
                    break
                event = loop.run_until_complete(self._wait(trigger))
            if other is not None:
                loop.run_until_complete(other)
        return {**self.xcom["batch"], "seconds": self.clock.now - begun}

    async def _wait(self, arguments: dict[str, Any]) -> Any:
        trigger = KlingBatchTrigger(**arguments)
        trigger.task_instance = None  # type: ignore[assignment]
        payloads = [event.payload async for event in trigger.run()]
        self._weigh("event", payloads[0])
        return json.loads(json.dumps(payloads[0]))

    def _part(self, event: Any) -> dict[str, Any] | None:
        """A part of the task on a worker; the trigger that it waits for, if it does."""
        self.parts += 1
        self.clock.sleep(self.worker_seconds)
        shared_rate_limiter._LIMITERS.clear()
        operator = KlingGenerateBatchOperator(task_id="batch", **self.arguments)
        operator.__dict__["hook"] = _Hook(self)
        run = operator._start_run(self._context(operator))
        run._wait._defer = _defer
        try:
            run.begin() if event is None else run.resume(read_batch_event(event))
            run.run()
            run.report()
        except _DeferredError as deferred:
            self._weigh("trigger", deferred.arguments)
            return deferred.arguments
        finally:
            shared_rate_limiter._LIMITERS.clear()
        return None

    def _weigh(self, what: str, value: Any) -> None:
        self.largest[what] = max(self.largest[what], len(json.dumps(value).encode()))

    def _push(self, key: str, value: Any) -> None:
        self._weigh("xcom", value)
        self.xcom[key] = value

    def _context(self, operator: Any) -> Any:
        begun = datetime.fromtimestamp(self.clock.epoch(), UTC)
        ti = SimpleNamespace(
            dag_id="dag",
            run_id="run",
            task_id="batch",
            map_index=-1,
            try_number=1,
            max_tries=0,
            xcom_push=self._push,
            xcom_pull=lambda **_: None,
        )
        run = SimpleNamespace(run_after=begun, logical_date=None, queued_at=None, start_date=None)
        return {"ti": ti, "task": operator, "dag_run": run, "outlet_events": {}}

    @contextmanager
    def _played(self) -> Iterator[asyncio.AbstractEventLoop]:
        patch = pytest.MonkeyPatch()
        clock, vendor = self.clock, self.vendor

        async def read_settings(conn_id: str) -> Settings:
            return self.settings

        async def send_over(
            client: Any, session: Any, request: HttpRequest, at_most: float | None
        ) -> HttpResponse:
            await asyncio.sleep(vendor.latency)
            return vendor.answer(request)

        async def nothing(*_: Any) -> None:
            return None

        triggerer_limiter = Limiter(self.per_minute, clock=clock.monotonic)
        patch.setattr(time, "time", clock.epoch)
        patch.setattr(time, "monotonic", clock.monotonic)
        patch.setattr(connection_cache, "read_settings", read_settings)
        patch.setattr(shared_pollers, "limiter_for", lambda _: triggerer_limiter)
        patch.setattr(shared_rate_limiter, "limiter_for", partial(_limiter, clock=clock))
        patch.setattr(AsyncKlingClient, "_send_over", send_over)
        patch.setattr(AsyncKlingClient, "_opened_anew", nothing)
        patch.setattr(AsyncKlingClient, "open", nothing)
        patch.setattr(AsyncKlingClient, "close", nothing)
        loop = _Loop(clock)
        asyncio.set_event_loop(loop)
        try:
            yield loop
        finally:
            patch.undo()
            asyncio.set_event_loop(None)
            loop.close()


_WORKER: dict[tuple[str, str], Limiter] = shared_rate_limiter._LIMITERS


def _limiter(settings: Settings, clock: Time) -> Limiter:
    account = settings.base_url, settings.api_key
    if account not in _WORKER:
        _WORKER[account] = Limiter(settings.requests_per_minute, clock=clock.monotonic)
    return _WORKER[account]


class _Client(KlingClient):
    def __init__(self, simulation: Simulation) -> None:
        clock = simulation.clock
        calls = VendorCalls(
            Endpoints(simulation.settings, clock.epoch), now=clock.epoch, rng=random.Random(1).random
        )
        limiter = _limiter(simulation.settings, clock)
        super().__init__(simulation.settings, calls=calls, sleep=clock.sleep, limiter=limiter)
        self._simulation = simulation

    def _send(self, request: HttpRequest, at_most: float | None) -> HttpResponse:
        self._simulation.clock.sleep(self._simulation.vendor.latency)
        return self._simulation.vendor.answer(request)


class _Hook(KlingHook):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__("kling_default")
        self.__dict__["settings"] = simulation.settings
        self.__dict__["_client"] = _Client(simulation)
        self._simulation = simulation

    def download(self, generation_id: str, path: Any, **_: Any) -> SavedVideo:
        content = generation_id.encode()
        Path(path).write_bytes(content)
        self._simulation.clock.sleep(0.3)
        return SavedVideo(str(path), len(content), "0" * 64, 5.0, 1, 1, skipped=False)


class _DeferredError(BaseException):
    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.arguments = arguments


def _defer(*, trigger: Any, method_name: str, timeout: timedelta) -> None:
    raise _DeferredError(json.loads(json.dumps(trigger.serialize()[1])))

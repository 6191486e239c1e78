"""Tasks whose submits a gateway answers with 502 for ten minutes: workers held, log requests, what is paid.

Run with ``python -m benchmarks outage``; no network, the same figures each time. It takes half a minute.

The provider's own code decides, submits, searches and limits its rate, on a simulated clock. Simulated are
the vendor, and of Airflow that a task needs a worker, a deferral, and a retry after its delay: what Airflow
itself takes of a worker is not in the figures.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import logging
import math
import random
import statistics
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.durable.search import SearchQueue, SubmitSearch
from airflow_provider_kling.api.durable.submit import (
    DurableSubmit,
    PendingSearch,
    SubmitResult,
)
from airflow_provider_kling.api.exceptions import KlingError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.polling.schedule import USUAL_SECONDS, USUAL_SPREAD
from airflow_provider_kling.api.redaction import key_mark
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.messages import (
    Call,
    Effect,
    HttpRequest,
    HttpResponse,
    SaveRecord,
    Send,
)
from airflow_provider_kling.api.transport.rate_limiter import Limiter
from airflow_provider_kling.api.transport.shared_rate_limiter import report

MODEL: Final = "kling-video/v1.6/standard/text-to-video"
KEY: Final = "sk-of-the-benchmark"
TASKS: Final = 200
OUTAGE: Final = 600.0
"""Seconds for which the gateway answers submits."""
ACCEPTED_SHARE: Final = 0.1
"""Of the submits that it answers, those that the vendor accepts all the same: an assumption."""
LISTED_AFTER: Final = 30.0
"""Seconds from a generation's end until the logs list it, and none before: the worst that is known."""
LOG_REQUESTS_A_MINUTE: Final = 200
ROUND_TRIP: Final = 0.2
DEFERRAL: Final = 5.0
"""Seconds that the triggerer and the scheduler take for each way."""
RETRIES: Final = 5
RETRY_DELAY: Final = 300.0
STARTING: Final = 60.0
"""Seconds over which the tasks begin."""


class World:
    """A clock that jumps from one event to the next."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def epoch(self) -> float:
        return 1_790_000_000.0 + self.now

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def run(self) -> None:
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()


@dataclass
class Generation:
    id: str
    name: str
    at: float
    done_at: float


class Vendor:
    """Behind its gateway it accepts some submits, and lists each generation when it is done."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = random.Random(seed)  # the same figures each time
        self.accepted: list[Generation] = []
        self.log_requests = 0
        self.refused_log_requests = 0
        self._listed: list[float] = []

    def answer(self, request: HttpRequest) -> HttpResponse:
        if request.call is Call.SUBMIT:
            return self._submit(request)
        if request.call is Call.LOGS:
            return self._logs(request)
        done = {"status": "completed", "video": {"url": "https://cdn.example.com/v.mp4"}}
        return _json({"id": dict(request.params)["generation_id"], **done})

    def _submit(self, request: HttpRequest) -> HttpResponse:
        world = self._world
        out = world.now < OUTAGE
        if out and self._random.random() >= ACCEPTED_SHARE:
            return HttpResponse(502, {"content-type": "text/html"}, b"<html><h1>502 Bad Gateway</h1></html>")
        takes = USUAL_SECONDS * math.exp(self._random.gauss(0.0, USUAL_SPREAD))
        name = request.headers["X-Client-Request-Id"]
        made = Generation(f"g{len(self.accepted)}", name, world.now, world.now + takes)
        self.accepted.append(made)
        if out:
            return HttpResponse(502, {"content-type": "text/html"}, b"<html><h1>502 Bad Gateway</h1></html>")
        return _json({"id": made.id, "status": "queued"}, 201)

    def _logs(self, request: HttpRequest) -> HttpResponse:
        now = self._world.now
        self.log_requests += 1
        self._listed = [at for at in self._listed if at > now - 60]
        if len(self._listed) >= LOG_REQUESTS_A_MINUTE:
            self.refused_log_requests += 1
            return _json({"message": "Too many requests", "statusCode": 429}, 429)
        self._listed.append(now)
        asked = dict(request.params)
        offset, limit = int(asked["offset"]), int(asked["limit"])
        listed = [each for each in reversed(self.accepted) if each.done_at + LISTED_AFTER <= self._world.now]
        rows = [
            {
                "created": datetime.fromtimestamp(
                    self._world.epoch() - self._world.now + each.at, UTC
                ).isoformat(),
                "status": "succeeded",
                "model": MODEL,
                "inference_id": each.id,
                "client_request_id": each.name,
            }
            for each in listed[offset : offset + limit]
        ]
        return _json({"data": rows, "pagination": {"has_more": len(listed) > offset + limit}})


def _json(body: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(status, {"content-type": "application/json"}, json.dumps(body).encode())


class Driver:
    """Drives flows, many at a time."""

    def __init__(self, world: World, vendor: Vendor) -> None:
        self._world = world
        self._vendor = vendor

    def run(
        self,
        flow: Generator[Effect, Any, Any],
        ended: Callable[[Any, KlingError | None], None],
        *,
        save: Callable[[Any], None] = lambda record: None,
        limiter: Limiter | None = None,
    ) -> None:
        """Drive a flow from now on.

        :param ended: is told its result, or its error.
        """

        def step(reply: HttpResponse | None) -> None:
            try:
                effect = flow.send(reply)
            except StopIteration as end:
                ended(end.value, None)
            except KlingError as error:
                ended(None, error)
            else:
                if isinstance(effect, Send):
                    send(effect.request)
                elif isinstance(effect, SaveRecord):
                    save(dict(effect.record))
                    step(None)
                else:
                    self._world.after(effect.seconds, lambda: step(None))

        def send(request: HttpRequest) -> None:
            if limiter is not None and (pause := limiter.acquire()):
                self._world.after(pause, lambda: send(request))
                return

            def arrive() -> None:
                reply = self._vendor.answer(request)
                if limiter is not None:
                    report(limiter, request, reply)
                step(reply)

            self._world.after(ROUND_TRIP, arrive)

        step(None)


@dataclass
class Figures:
    """What an outage cost.

    :param worker_seconds: for which workers were held, submits included.
    :param most_workers: held at once.
    """

    worker_seconds: float = 0.0
    most_workers: int = 0
    log_requests: int = 0
    refused_log_requests: int = 0
    paid: int = 0
    twice: int = 0
    failed: int = 0
    attempts: int = 0
    over_after: float = 0.0


class Triggerer:
    """One search for all, as the provider's trigger has it."""

    def __init__(self, world: World, driver: Driver) -> None:
        self._world = world
        self._driver = driver
        self._waiting: dict[SubmitSearch, Callable[[Any], None]] = {}
        self._queue = SearchQueue(self._found, self._failed)
        self._limiter = limiter_of(world)
        self._busy = False

    def search(self, search: SubmitSearch, told: Callable[[Any], None]) -> None:
        self._waiting[search] = told
        self._queue.add(search)
        if not self._busy:
            self._busy = True
            calls = calls_of(self._world)
            self._driver.run(self._queue.run(calls), self._ended, limiter=self._limiter)

    def _found(self, search: SubmitSearch, row: Any) -> None:
        self._waiting.pop(search)(row)

    def _failed(self, search: SubmitSearch, error: BaseException) -> None:
        raise AssertionError(f"{search}: {error}")

    def _ended(self, result: Any, error: KlingError | None) -> None:
        assert error is None, error
        self._busy = False


def limiter_of(world: World) -> Limiter:
    """What restrains one process."""
    return Limiter(clock=lambda: world.now, random=random.Random(1).random)


def calls_of(world: World) -> VendorCalls:
    return VendorCalls(Endpoints(Settings(KEY), world.epoch), now=world.epoch, rng=random.Random(1).random)


@dataclass
class Task:
    """One task instance, through its attempts."""

    number: int
    world: World
    driver: Driver
    triggerer: Triggerer | None
    figures: Figures
    busy: list[int]
    store: Any = None
    attempt: int = 0
    generation_id: str | None = None
    _began: float = field(default=0.0, init=False)

    def begin(self) -> None:
        """Begin an attempt."""
        self.attempt += 1
        self.figures.attempts += 1
        if self.store is None:
            self.store = {"schema": 1, "nothing": True}
        self._segment(None)

    def _segment(self, answer: PendingSearch | None) -> None:
        body = {"prompt": f"boat {self.number}"}
        request = GenerationRequest(MODEL, body, fingerprint={"model": MODEL, **body})
        now = self.world.epoch()
        attempt = TaskAttempt(
            "outage",
            "run",
            "generate",
            self.number,
            number=self.attempt,
            previous_since=now - 3600,
            previous_until=now,
        )
        submit = DurableSubmit(calls_of(self.world), request, attempt)
        flow = submit.submit_or_reattach(self.store, elsewhere=self.triggerer is not None, answer=answer)
        self._began = self.world.now
        self.busy[0] += 1
        self.figures.most_workers = max(self.figures.most_workers, self.busy[0])
        self.driver.run(flow, self._ended, save=self._save, limiter=limiter_of(self.world))

    def _save(self, record: Any) -> None:
        self.store = record

    def _ended(self, result: SubmitResult | PendingSearch | None, error: KlingError | None) -> None:
        self.busy[0] -= 1
        self.figures.worker_seconds += self.world.now - self._began
        if isinstance(result, PendingSearch):
            pending, triggerer = result, self.triggerer
            assert triggerer is not None

            def told(row: Any) -> None:
                answer = replace(pending, row=row, key_mark=key_mark(KEY, pending.salt))
                self.world.after(DEFERRAL, lambda: self._segment(answer))

            self.world.after(DEFERRAL, lambda: triggerer.search(pending.search, told))
        elif result is not None:
            self.generation_id = result.generation_id
            self.figures.over_after = max(self.figures.over_after, self.world.now)
        elif self.attempt <= RETRIES:
            self.world.after(RETRY_DELAY, self.begin)
        else:
            self.figures.failed += 1


def measure(*, deferrable: bool, tasks: int = TASKS, seed: int = 1) -> Figures:
    """An outage, until every task has its generation or has failed for good."""
    world, figures, busy = World(), Figures(), [0]
    vendor = Vendor(world, seed)
    driver = Driver(world, vendor)
    triggerer = Triggerer(world, driver) if deferrable else None
    each = [Task(number, world, driver, triggerer, figures, busy) for number in range(tasks)]
    for task in each:
        world.after(STARTING * task.number / tasks, task.begin)
    world.run()
    figures.log_requests, figures.refused_log_requests = vendor.log_requests, vendor.refused_log_requests
    figures.paid = len(vendor.accepted)
    used = {task.generation_id for task in each}
    figures.twice = sum(made.id not in used for made in vendor.accepted)
    return figures


COLUMNS: Final = {
    "worker_seconds": "worker s",
    "most_workers": "most workers",
    "log_requests": "log requests",
    "refused_log_requests": "of them 429",
    "paid": "paid",
    "twice": "twice",
    "failed": "failed",
    "attempts": "attempts",
    "over_after": "over after s",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="?", type=int, default=TASKS)
    parser.add_argument("--outages", type=int, default=20, help="means of so many, each with other chances")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(
        f"{options.tasks} tasks, submits answered with 502 for {OUTAGE:.0f} s, {ACCEPTED_SHARE:.0%} of them "
        f"accepted all the same; means of {options.outages} outages\n{'':17}{'  '.join(COLUMNS.values())}"
    )
    for deferrable in (True, False):
        all_found = [
            measure(deferrable=deferrable, tasks=options.tasks, seed=seed) for seed in range(options.outages)
        ]
        means = {name: statistics.mean(getattr(found, name) for found in all_found) for name in COLUMNS}
        values = [
            f"{means[name]:{len(title)}.{0 if means[name] >= 10 else 1}f}" for name, title in COLUMNS.items()
        ]
        print(f"deferrable={deferrable!s:6}{'  '.join(values)}")


if __name__ == "__main__":
    main()

"""The two clients behind one face, so that a scenario is written once and run through both."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, Protocol

from airflow_provider_kling.api.async_client import AsyncKlingClient
from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.messages import Call, Flow, Memory, Send, T, forget

JITTER = 0.5
"""Every random number that a driven client draws."""


class Time(Protocol):
    """A clock that moves when it is pushed; the emulator's is one."""

    def now(self) -> float: ...

    def advance(self, seconds: float) -> None: ...


class Driver:
    """A client whose pauses push a clock instead of passing.

    :param settings: for the client.
    :param time: the clock, usually that of the emulator it talks to.
    """

    name = ""

    def __init__(self, settings: Settings, time: Time) -> None:
        self.time = time
        self.calls = VendorCalls(Endpoints(settings, time.now), now=time.now, rng=lambda: JITTER)
        self.slept: list[float] = []
        self.asked: Counter[Call] = Counter()

    def run(self, flow: Flow[T], remember: Memory = forget) -> T:
        """Drive a flow to its end with the client, counting what it asks for."""
        return self._run(self._counted(flow), remember)

    def close(self) -> None:
        raise NotImplementedError

    def _run(self, flow: Flow[T], remember: Memory) -> T:
        raise NotImplementedError

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time.advance(seconds)

    def _counted(self, flow: Flow[T]) -> Flow[T]:
        reply: Any = None
        while True:
            try:
                effect = flow.send(reply)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(effect, Send):
                self.asked[effect.request.call] += 1
            reply = yield effect


class Blocking(Driver):
    """``KlingClient``, on requests."""

    name = "requests"

    def __init__(self, settings: Settings, time: Time) -> None:
        super().__init__(settings, time)
        self.client = KlingClient(settings, calls=self.calls, sleep=self._sleep)

    def _run(self, flow: Flow[T], remember: Memory) -> T:
        return self.client.run(flow, remember)

    def close(self) -> None:
        self.client.close()


class Async(Driver):
    """``AsyncKlingClient``, on aiohttp, in an event loop of its own."""

    name = "aiohttp"

    def __init__(self, settings: Settings, time: Time) -> None:
        super().__init__(settings, time)

        async def sleep(seconds: float) -> None:
            self._sleep(seconds)

        self._runner = asyncio.Runner()
        self.client = AsyncKlingClient(settings, calls=self.calls, sleep=sleep)

    def _run(self, flow: Flow[T], remember: Memory) -> T:
        return self._runner.run(self.client.run(flow, remember))

    def close(self) -> None:
        self._runner.run(self.client.close())
        self._runner.close()


DRIVERS: tuple[type[Driver], ...] = (Blocking, Async)

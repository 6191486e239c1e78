"""Who waits: each contender starts N waits that poll at an interval, in one event loop.

All but the floor are consumed by Airflow's own ``TriggerRunner.run_trigger``, as in a triggerer.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

Waits = list[asyncio.Task[Any]]
Contender = Callable[[str, int, float], Coroutine[Any, Any, Waits]]
"""From the vendor's URL, how many waits, and the seconds between two polls of each."""


async def floor(url: str, n: int, interval: float) -> Waits:
    """One aiohttp session that all share, no Airflow: the least that polling by asyncio costs."""
    import aiohttp

    session = aiohttp.ClientSession()

    async def wait(generation_id: str) -> None:
        try:
            while True:
                await asyncio.sleep(interval)
                async with session.get(
                    url + "/v2/generate/video/kling/generation", params={"generation_id": generation_id}
                ) as response:
                    assert (await response.json())["status"] == "generating"
        finally:
            await session.close()

    return await _spread(n, interval, lambda i: wait(f"generation-{i:015}"))


async def bare(url: str, n: int, interval: float) -> Waits:
    """Nothing: an event loop in a process that has loaded what a triggerer has."""
    import airflow.jobs.triggerer_job_runner  # noqa: F401

    return []


async def asleep(url: str, n: int, interval: float) -> Waits:
    """Airflow's own share: a trigger that does nothing but wait."""
    from airflow.triggers.base import BaseTrigger

    class Asleep(BaseTrigger):
        def serialize(self) -> tuple[str, dict[str, Any]]:
            return "", {}

        async def run(self) -> AsyncIterator[Any]:
            await asyncio.get_running_loop().create_future()
            yield None

    return await _triggers(n, interval, lambda _: Asleep())


async def kling(url: str, n: int, interval: float) -> Waits:
    """The trigger of this package."""
    from airflow_provider_kling.triggers.kling import KlingGenerationTrigger

    _connect("KLING_DEFAULT", conn_type="kling", host=url, password="the-key-of-the-benchmark")
    return await _triggers(
        n,
        interval,
        lambda i: KlingGenerationTrigger(
            generation_id=f"generation-{i:015}",
            deadline=time.time() + 3600,
            schedule={"interval": interval},
            submitted_at=time.time(),
        ),
    )


async def dbt_cloud(url: str, n: int, interval: float) -> Waits:
    """``DbtCloudRunJobTrigger``; it knows only https, so for the plain runs that one word is changed."""
    from airflow.providers.dbt.cloud.hooks.dbt import DbtCloudHook
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    if url.startswith("http:"):
        encrypted = DbtCloudHook.get_request_url_params

        def plain(*args: Any, **kwargs: Any) -> tuple[str, dict[str, Any]]:
            address, params = encrypted(*args, **kwargs)
            return address.replace("https:", "http:"), params

        DbtCloudHook.get_request_url_params = staticmethod(plain)
    _connect("DBT", conn_type="dbt_cloud", host=urlsplit(url).netloc, password="a-token", login="1")
    return await _triggers(
        n,
        interval,
        lambda i: DbtCloudRunJobTrigger(
            conn_id="dbt", run_id=i, end_time=time.time() + 3600, poll_interval=interval, account_id=1
        ),
    )


async def http_sensor(url: str, n: int, interval: float) -> Waits:
    """``HttpSensorTrigger``, which waits while the answer is 404."""
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    _connect("HTTP", conn_type="http", host=url)
    return await _triggers(
        n,
        interval,
        lambda i: HttpSensorTrigger(endpoint=f"sensor/{i}", http_conn_id="http", poke_interval=interval),
    )


CONTENDERS: dict[str, Contender] = {
    "floor": floor,
    "bare": bare,
    "asleep": asleep,
    "kling": kling,
    "dbt.cloud": dbt_cloud,
    "http": http_sensor,
}


def _connect(name: str, **connection: Any) -> None:
    os.environ[f"AIRFLOW_CONN_{name}"] = json.dumps(connection)


async def _triggers(n: int, interval: float, make: Callable[[int], Any]) -> Waits:
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    runner = TriggerRunner()

    def run(i: int) -> Coroutine[Any, Any, None]:
        trigger = make(i)
        trigger.task_instance = None
        runner.triggers[i] = {"name": f"trigger {i}", "events": 0}  # type: ignore[typeddict-item]  # no task
        return runner.run_trigger(i, trigger)

    return await _spread(n, interval, run)


async def _spread(n: int, interval: float, start: Callable[[int], Coroutine[Any, Any, None]]) -> Waits:
    """Start them at random moments of one interval (of two seconds at most)."""
    rng = random.Random(1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    waits: Waits = []
    for at in sorted(rng.random() * min(interval, 2.0) for _ in range(n)):
        await asyncio.sleep(max(0.0, begun + at - loop.time()))
        waits.append(loop.create_task(start(len(waits))))
    return waits

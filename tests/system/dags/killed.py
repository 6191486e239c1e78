"""Workers that are killed with SIGKILL at a named point, and what their retries make of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import psutil
from airflow.sdk import DAG, Context

from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.transport.messages import (
    Call,
    ConnectionLost,
    Flow,
    HttpRequest,
    HttpResponse,
    Memory,
    T,
    forget,
)
from airflow_provider_kling.hooks.kling import KlingHook
from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator

OUTPUT = os.environ["KLING_OUTPUT"]
GRACE = 35.0
"""Seconds: more than the logs lag, and than those of ``kling_late`` list a generation after its submit."""
ACCEPTED = "accepted, the answer not read"
ACCEPTED_WHOLE = f"{ACCEPTED}, the whole worker"
ASKED = "asked for the status"
CASES = {
    # name -> the connection, and the points at which the worker is killed, one after the other
    "before_intent": ("kling_late", ["before the intent"]),
    "before_submit": ("kling_late", ["before the submit is sent"]),
    "accepted": ("kling_late", [ACCEPTED]),
    "answered": ("kling_early", ["answered, not recorded"]),
    "recorded": ("kling_early", ["recorded", ASKED]),
    "whole_worker": ("kling_late", [ACCEPTED_WHOLE]),
    "landing": ("kling_late", ["part of the video is there"]),
}
IN_DEFERRED_MODE = {
    "deferring": ("kling_early", ["deferring"]),
    "resuming": ("kling_late", ["resuming", ASKED]),
}
IN_BLOCKING_MODE = {"waiting": ("kling_early", [ASKED, ASKED])}


class Kills:
    """When a task is killed. Counts on disk, as Airflow itself can lose a try of a busy machine.

    :param points: where, one after the other.
    """

    def __init__(self, task_id: str, points: list[str]) -> None:
        self._points = points
        self._done = Path(OUTPUT, "kills", task_id)

    def at(self, point: str) -> None:
        """Say that the task is at a point, which may be its last."""
        done = self._done.read_text().splitlines() if self._done.exists() else []
        if self._points[len(done) :][:1] != [point]:
            return
        self._done.parent.mkdir(exist_ok=True)
        self._done.write_text("\n".join([*done, point]))
        if point == ACCEPTED_WHOLE:
            worker = psutil.Process(os.getppid())
            assert "LocalExecutor" in " ".join(worker.cmdline()), worker
            worker.kill()
        os.kill(os.getpid(), signal.SIGKILL)


class KilledClient(KlingClient):
    """Dies at a point; what it does until then is the real client's."""

    kills: Kills
    submitting = False

    def at(self, point: str) -> None:
        self.kills.at(point)

    def run(self, flow: Flow[T], remember: Memory = forget) -> T:
        def remembering(record: Mapping[str, Any]) -> None:
            known = record.get("generation_id") is not None
            self.at("answered, not recorded" if known else "before the intent")
            remember(record)
            if known:
                self.at("recorded")

        return super().run(flow, remembering)

    def _send(self, request: HttpRequest, at_most: float | None) -> HttpResponse | ConnectionLost:
        self.submitting = request.call is Call.SUBMIT
        if self.submitting:
            self.at("before the submit is sent")
        reply = super()._send(request, at_most)
        if request.call is Call.POLL:
            self.at(ASKED)
        return reply

    @contextmanager
    def fetch(self, url: str, headers: Mapping[str, str]) -> Iterator[Any]:
        with super().fetch(url, headers) as stream:
            whole = stream.chunks

            def chunks(size: int) -> Iterator[bytes]:
                for chunk in whole(1024):
                    yield chunk
                    self.at("part of the video is there")

            stream.chunks = chunks  # type: ignore[method-assign]
            yield stream

    def _read(self, response: Any, longest: int) -> bytes:
        if self.submitting:
            self.at(ACCEPTED_WHOLE)
            self.at(ACCEPTED)
        return super()._read(response, longest)


class KilledHook(KlingHook):
    kills: Kills

    @cached_property
    def _client(self) -> KilledClient:
        client = KilledClient(self.settings)
        client.kills = self.kills
        return client


class KilledGenerate(KlingGenerateOperator):
    """Is killed on its way."""

    def __init__(self, *, kills: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kills = kills

    @cached_property
    def hook(self) -> KilledHook:
        hook = KilledHook(self.kling_conn_id)
        hook.kills = Kills(self.task_id, self.kills)
        return hook

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        self.hook.kills.at("resuming")
        return super().execute_complete(context, event)

    def defer(self, **kwargs: Any) -> NoReturn:
        self.hook.kills.at("deferring")
        super().defer(**kwargs)


with DAG("killed", schedule=None, catchup=False):
    for mode, cases in (
        ("deferred", CASES | IN_DEFERRED_MODE),
        ("blocking", CASES | IN_BLOCKING_MODE),
    ):
        for name, (connection, kills) in cases.items():
            generate = KilledGenerate(
                task_id=f"generate_{name}_{mode}",
                model="klingai/video-v3-standard-text-to-video",
                prompt="A paper boat.",
                duration=3,
                kling_conn_id=connection,
                wait_for_completion=True,
                deferrable=mode == "deferred",
                poke_interval=2,
                uncertain_grace=GRACE,
                path=f"{OUTPUT}/all_in_one/{name}_{mode}.mp4" if name == "landing" else None,
                kills=kills,
                retries=5,
                retry_delay=timedelta(seconds=1),
            )
            KlingDownloadOperator(
                task_id=f"download_{name}_{mode}",
                generation_id=generate.output,
                kling_conn_id=connection,
                path=f"{OUTPUT}/{name}_{mode}.mp4",
                retries=5,
                retry_delay=timedelta(seconds=1),
            )

"""The life of a batch task without Airflow's processes: each part of it in a forked process that can be killed.

The code that runs is the operator's own, against an emulator over HTTP; its clock is the emulator's, which
moves when somebody sleeps. A kill is a SIGKILL, so that no ``finally`` runs. Airflow's part is played: it
starts an attempt, a part after a deferral, and the trigger, and loses what a killed process held.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import signal
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_kling.api import client as client_module
from airflow_provider_kling.api.calls import VendorCalls, is_ready
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.download import targets
from airflow_provider_kling.api.durable.search import search_logs
from airflow_provider_kling.api.durable.submit import PendingSearch
from airflow_provider_kling.api.exceptions import GenerationFailedError, KlingError
from airflow_provider_kling.api.redaction import key_mark
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.emulator import EmulatorThread
from airflow_provider_kling.emulator.rendering.video_store import VideoBrief, VideoFile, VideoStore
from airflow_provider_kling.hooks import object_storage
from airflow_provider_kling.hooks.kling import KlingHook
from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator
from airflow_provider_kling.triggers.batch import KlingBatchTrigger, read_batch_event
from airflow_provider_kling.triggers.kling import EVENT_SCHEMA
from tests.media_samples import mp4

TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"
RETRIES = 1000
MOST_PARTS = 400


def quick_videos(patch: pytest.MonkeyPatch) -> None:
    """Have the emulator serve small videos that differ in a box that players skip, instead of rendering."""
    film = mp4(5, size=(64, 36), noise=1)

    def draw(store: VideoStore, brief: VideoBrief) -> VideoFile:
        label = brief.key.encode()
        path = store._folder / f"{brief.key}.mp4"
        path.write_bytes(film + (8 + len(label)).to_bytes(4, "big") + b"free" + label)
        return VideoFile(path, path.stat().st_size, f'"{brief.key[:32]}"')

    patch.setattr(VideoStore, "_draw", draw)


class VendorClock:
    """The emulator's time, for a process that sleeps by moving it."""

    def __init__(self, vendor: EmulatorThread) -> None:
        self._url = f"{vendor.url}/_emulator/clock"
        self._now = vendor.clock.now()

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        body = json.dumps({"advance": max(0.0, seconds)}).encode()
        request = urllib.request.Request(self._url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            assert reply.status == 200
        self._now += max(0.0, seconds)


class TimedHook(KlingHook):
    """A hook whose client lives in the emulator's time."""

    def __init__(self, settings: Settings, clock: VendorClock) -> None:
        super().__init__("kling_default")
        self.__dict__["settings"] = settings
        calls = VendorCalls(Endpoints(settings, clock.now), now=clock.now, rng=random.Random(1).random)
        self.__dict__["_client"] = KlingClient(settings, calls=calls, sleep=clock.sleep)


@dataclass
class BatchLife:
    """One task instance, from its first attempt to its end.

    :param vendor: with a frozen clock.
    :param arguments: of the operator.
    :param has_store: whether Airflow has a task state store, which a batch must not need.
    """

    vendor: EmulatorThread
    arguments: Mapping[str, Any]
    has_store: bool = True
    run_id: str = "run"
    number: int = 0
    cleared_at: int = 1
    xcom: dict[str, Any] = field(default_factory=dict)
    triggers: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    outcome: str = ""
    error: str = ""
    boundaries: int = 0
    _deferred: dict[str, Any] | None = None

    def attempt(self, *, kill_at: int | None = None, cleared: bool = False) -> str:
        """Begin another attempt; returns what :meth:`go_on` does."""
        self.number += 1
        if cleared:
            self.cleared_at = self.number
        self._deferred = None
        return self.go_on(kill_at=kill_at)

    def go_on(self, event: Any = None, *, kill_at: int | None = None) -> str:
        """Run a part: ``deferred``, ``success``, ``failed``, ``retry``, or ``killed``.

        :param kill_at: the number of the boundary at which it is killed: before or after a request or a file.
        """
        receive, send = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(receive)
            status = 1
            try:
                with os.fdopen(send, "wb") as pipe:
                    pickle.dump(self._part(event, kill_at), pipe)
                status = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        os.close(send)
        with os.fdopen(receive, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            self.outcome = "killed"
            return self.outcome
        assert os.WEXITSTATUS(status) == 0, "the part broke, see above"
        part = pickle.loads(said)
        self.xcom |= part["xcom"]
        self.log += part["log"]
        self.outcome, self.error, self._deferred = part["outcome"], part["error"], part["deferred"]
        self.boundaries = part["boundaries"]
        if self._deferred is not None:
            self.triggers.append(self._deferred)
        return self.outcome

    def wait(self, step: float = 5.0) -> dict[str, Any]:
        """Play the triggerer until the trigger fires; its event. Keeps nothing: it can be played again."""
        assert self._deferred is not None
        trigger = KlingBatchTrigger(**json.loads(json.dumps(self._deferred)))
        waits, ended = [each.generation_id for each in trigger.waits()], list[str]()
        with played(self.vendor) as (hook, clock):
            client = hook.get_conn()
            answers = []
            for each in trigger.searches:
                pending = PendingSearch.from_dict(each)
                row = client.run(search_logs(client.calls, pending.search))
                mark = key_mark(self.vendor.api_key, pending.salt)
                plain = PendingSearch(
                    pending.search, pending.record, pending.kind, pending.complete, pending.submits, row, mark
                ).as_dict()
                answers.append({"variant": each["variant"], **plain})
            while (
                waits and len(ended) + len(answers) < trigger.enough and clock.now() < (trigger.deadline or 0)
            ):
                clock.sleep(step)
                ended = [each for each in waits if self._has_ended(hook, each)]
        return {"schema": EVENT_SCHEMA, "ended": ended, "answers": answers, "deadline": trigger.deadline}

    def to_the_end(self) -> str:
        """Run without further kills until the task is over."""
        for _ in range(MOST_PARTS):
            if self.outcome in ("", "killed", "retry"):
                self.attempt()
            elif self.outcome == "deferred":
                self.go_on(self.wait())
            else:
                return self.outcome
        raise AssertionError(f"it never ends: {self.outcome} {self.error}")

    def _has_ended(self, hook: KlingHook, generation_id: str) -> bool:
        try:
            return is_ready(hook.get_generation(generation_id))
        except GenerationFailedError:
            return True

    def _part(self, event: Any, kill_at: int | None) -> dict[str, Any]:
        """What runs in the forked process."""
        log = _Log()
        logging.getLogger("airflow_provider_kling").addHandler(log)
        with played(self.vendor) as (hook, _), boundaries(kill_at) as passed:
            operator = KlingGenerateBatchOperator(task_id="batch", retries=RETRIES, **self.arguments)
            operator.__dict__["hook"] = hook
            part: dict[str, Any] = {"xcom": {}, "outcome": "success", "error": "", "deferred": None}
            run = operator._start_run(self._context(operator, part["xcom"]))
            run._wait._defer = _defer
            try:
                run.begin() if event is None else run.resume(read_batch_event(event))
                run.run()
                run.report()
            except _DeferredError as deferred:
                part |= {"outcome": "deferred", "deferred": deferred.trigger}
            except KlingError as error:
                part |= {
                    "outcome": "retry" if error.recovery.name != "GIVE_UP" else "failed",
                    "error": str(error),
                }
            return {**part, "boundaries": passed[0], "log": log.lines}

    def _context(self, operator: Any, pushed: dict[str, Any]) -> Any:
        begun = datetime.fromtimestamp(self.vendor.clock.now() - 60.0, UTC)
        ti = SimpleNamespace(
            dag_id="dag",
            run_id=self.run_id,
            task_id="batch",
            map_index=-1,
            try_number=self.number,
            max_tries=self.cleared_at + RETRIES - 1,
            xcom_push=lambda key, value: pushed.__setitem__(key, value),
            xcom_pull=lambda **_: None,
        )
        run = SimpleNamespace(run_after=begun, logical_date=None, queued_at=None, start_date=None)
        context = {"ti": ti, "task": operator, "dag_run": run, "outlet_events": {}}
        if self.has_store:
            context["task_state_store"] = SimpleNamespace(get=lambda *_: None, set=lambda *_, **__: None)
        return context


class _Log(logging.Handler):
    """Keeps the provider's warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class _DeferredError(BaseException):
    def __init__(self, trigger: dict[str, Any]) -> None:
        super().__init__()
        self.trigger = trigger


def _defer(*, trigger: Any, method_name: str, timeout: timedelta) -> None:
    path, arguments = trigger.serialize()
    assert (path.rpartition(".")[2], method_name) == ("KlingBatchTrigger", "execute_complete")
    assert timeout > timedelta(0)
    raise _DeferredError(json.loads(json.dumps(arguments)))


@contextmanager
def played(vendor: EmulatorThread) -> Iterator[tuple[TimedHook, VendorClock]]:
    """A hook and a clock in the emulator's time, which all code of this process reads meanwhile."""
    clock, real = VendorClock(vendor), time.time
    settings = Settings(vendor.api_key, vendor.url)
    time.time = clock.now
    try:
        yield TimedHook(settings, clock), clock
    finally:
        time.time = real


@contextmanager
def boundaries(kill_at: int | None) -> Iterator[list[int]]:
    """Count what a part does to the world, and kill the process at one of these points."""
    passed = [0]

    def boundary() -> None:
        passed[0] += 1
        if passed[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(owner: Any, name: str) -> Callable[[], None]:
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            boundary()
            result = original(*args, **kwargs)
            boundary()
            return result

        setattr(owner, name, wrapped)
        return lambda: setattr(owner, name, original)

    undo = [
        around(client_module.KlingClient, "_send"),
        around(object_storage, "write_lines"),
        around(Path, "replace"),
        around(targets.LocalTarget, "place"),
    ]
    try:
        yield passed
    finally:
        for each in undo:
            each()


def arguments(folder: Path, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Arguments of the operator: three at once, into a folder."""
    given = {"requests": rows, "path": f"{folder}/", "model": TEXT_MODEL, "max_active": 3, "duration": 5}
    return {**given, **more}


def rows(count: int) -> list[dict[str, Any]]:
    """Rows of a batch."""
    return [{"key": f"clip {n}", "prompt": f"Clip {n}."} for n in range(count)]


def manifest(life: BatchLife) -> list[dict[str, Any]]:
    """The lines of the manifest."""
    return [json.loads(line) for line in Path(life.xcom["batch"]["manifest"]).read_text().splitlines()]

"""Each fault against each call, run for real: what the user sees, how often it is asked, what is paid.

The faults are in ``fault_table.py``. :func:`measure` runs them through both clients; ``fault_page.py`` writes
what came of it as ``docs/faults.md``.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from airflow_provider_kling.api.client import Stream
from airflow_provider_kling.api.download.save_video import save_video
from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.durable.identity import fingerprint
from airflow_provider_kling.api.durable.submit import DurableSubmit, SubmitResult
from airflow_provider_kling.api.exceptions import KlingError, Money, Recovery
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.transport.messages import Call
from tests.contract.drivers import DRIVERS, JITTER, Blocking, Driver
from tests.contract.faults.table import CALLS, FAULTS, Fault
from tests.contract.faults.world import REQUEST, World

WANTED: Final = replace(REQUEST, fingerprint=fingerprint(REQUEST.body(), "kling_default"))
FIRST_ATTEMPT: Final = TaskAttempt("dag", "run", "task")
POLL_INTERVAL, POLL_TIMEOUT = 60.0, 180.0


@dataclass(frozen=True)
class Run:
    """What one fault did to one call.

    :param sees: the result, or the error's class and message.
    :param asked: how often the client made the call.
    :param arrived: how many requests for it reached the vendor.
    :param accepted: how many generations there were in the end.
    :param paid: how many of them were charged.
    :param money: what the error says of money.
    :param recovery: what the error says can help.
    :param keys_at_cdn: requests to the CDN that carried the key.
    :param struck: how often the emulator did the fault.
    :param files: how many files were left.
    """

    sees: str
    asked: int
    arrived: int
    accepted: int
    paid: int
    money: Money | None
    recovery: Recovery | None
    keys_at_cdn: int
    struck: int
    files: int


@dataclass(frozen=True)
class Cell:
    """A fault that lasts, and one that happens once; None where only the first can be tried."""

    lasting: Run
    once: Run | None


@dataclass
class Measured:
    """One client's cells of one call, by fault; a text stands for one that makes no sense.

    :param words: every message and every log line.
    :param strayed: requests that followed a redirect to the other host.
    """

    cells: dict[str, Cell | str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    strayed: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)


# One function for each call: sets the scene, and returns what is done and how it is counted.

Scene = tuple[Callable[[], str], Callable[[], int]]


def submit(world: World, fault: Fault, lasting: bool) -> Scene:
    """A task's first try."""
    driver = world.failing(fault)
    world.begin(fault, "submit", lasting)

    def act() -> str:
        submitted = driver.run(DurableSubmit(driver.calls, WANTED, FIRST_ATTEMPT).submit_or_reattach())
        assert isinstance(submitted, SubmitResult)
        return "the generation, found in the vendor's logs" if submitted.reattached else "the generation"

    return act, lambda: driver.asked[Call.SUBMIT]


def poll(world: World, fault: Fault, lasting: bool) -> Scene:
    """A wait for a generation."""
    generation_id = world.submitted().id
    driver = world.failing(fault)
    world.begin(fault, "poll", lasting)

    def act() -> str:
        deadline = driver.calls.now() + POLL_TIMEOUT
        schedule = Schedule.fixed(POLL_INTERVAL)
        driver.run(driver.calls.wait_until_complete(generation_id, schedule=schedule, deadline=deadline))
        return "the video"

    return act, lambda: driver.asked[Call.POLL]


def logs(world: World, fault: Fault, lasting: bool) -> Scene:
    """A retry after a worker was killed between its submit and the answer."""
    driver = world.failing(fault)
    intent = DurableSubmit(driver.calls, WANTED, FIRST_ATTEMPT).intent()
    world.submitted(intent.client_request_id)
    world.vendor.clock.advance(60)
    world.begin(fault, "logs", lasting)

    def act() -> str:
        retry = DurableSubmit(driver.calls, WANTED, replace(FIRST_ATTEMPT, number=2))
        driver.run(retry.submit_or_reattach(intent.encode()))
        return "the generation, found in the vendor's logs"

    return act, lambda: driver.asked[Call.LOGS]


def download(world: World, fault: Fault, lasting: bool) -> Scene:
    """A download of a finished video."""
    generation_id = world.submitted().id
    world.vendor.clock.advance(60)
    driver, fetching = world.driver(), world.failing(fault)
    assert isinstance(fetching, Blocking)
    world.begin(fault, "download", lasting)
    opened: list[str] = []

    def fetch(url: str, headers: Mapping[str, str]) -> AbstractContextManager[Stream]:
        opened.append(url)
        return fetching.client.fetch(url, headers)

    def ask_vendor() -> Generation:
        generation = driver.run(driver.calls.get_generation(generation_id))
        assert generation.video_url is not None
        url, base = generation.video_url, fetching.client.settings.base_url
        if base != world.vendor.url:
            # Where the address fails, that of the CDN does.
            url = url.replace(world.vendor.cdn_url, f"{base}/cdn")
        return replace(generation, video_url=url)

    def act() -> str:
        save_video(
            fetch,
            ask_vendor,
            world.target / "video.mp4",
            generation_id=generation_id,
            pause=world.vendor.clock.advance,
            random=lambda: JITTER,
            now=world.vendor.clock.now,
        )
        return "the video"

    return act, lambda: len(opened)


SCENES: Final = {"submit": submit, "poll": poll, "logs": logs, "download": download}


def measure() -> dict[tuple[type[Driver], str], Measured]:
    """Run every fault against every call of every client.

    Most of the time goes by in time-outs that run out, so all columns are run at once.
    """
    columns = [
        (connect, call) for connect in DRIVERS for call in CALLS if call != "download" or connect is Blocking
    ]
    with ExitStack() as stack:
        worlds = [World(connect, stack) for connect, _ in columns]
        for world, (_, call) in zip(worlds, columns, strict=True):
            if call == "download":  # nothing else is under way while the video is rendered
                download(world, Fault("none"), False)[0]()
                world.files()
        with ThreadPoolExecutor(len(columns)) as pool:
            measured = pool.map(_column, worlds, [call for _, call in columns])
            return dict(zip(columns, measured, strict=True))


def _column(world: World, call: str) -> Measured:
    measured = Measured()
    with _overheard(measured.words):
        for fault in FAULTS:
            if call in fault.not_for:
                measured.cells[fault.name] = fault.not_for[call]
            else:
                measured.cells[fault.name] = _cell(world, fault, call, measured)
    measured.strayed = world.other.requests
    return measured


def _cell(world: World, fault: Fault, call: str, measured: Measured) -> Cell:
    lasting = _run(world, fault, call, measured, lasting=True)
    once = None if fault.address else _run(world, fault, call, measured, lasting=False)
    return Cell(lasting, once)


def _run(world: World, fault: Fault, call: str, measured: Measured, *, lasting: bool) -> Run:
    world.vendor.reset()
    act, asked = SCENES[call](world, fault, lasting)
    error = None
    try:
        sees = act()
    except KlingError as caught:
        error, sees = caught, f"`{type(caught).__name__}`: {_plain(world, caught.what)}"
        measured.words.append(str(caught))
    arrived, keys_at_cdn = world.arrived(call)
    accepted, paid = world.spent()
    return Run(
        sees=sees,
        asked=asked(),
        arrived=arrived,
        accepted=accepted,
        paid=paid,
        money=error.money if error else None,
        recovery=error.recovery if error else None,
        keys_at_cdn=keys_at_cdn,
        struck=sum(rule.hits for rule in world.vendor.faults.rules()),
        files=world.files(),
    )


_VARYING: Final = (
    (r"127\.0\.0\.1(:\d+)?|localhost(:\d+)?", "*host*"),
    (r"\(request id [0-9a-f-]{36}\)", "(request id …)"),
    (r"\d{4}-\d\d-\d\dT[0-9:.]+Z", "*time*"),
    (
        r"\d+ of \d+ samples: the next ones end at byte [\d,]+, and it has [\d,]+",
        "*n* of *m* samples: the next ones end at byte *b*, and it has *c*",
    ),
)


def _plain(world: World, text: str) -> str:
    """A message without what differs from run to run."""
    for generation in world.vendor.generations:
        text = text.replace(generation["id"], "*ID*")
    for pattern, name in _VARYING:
        text = re.sub(pattern, name, text)
    return text


@contextmanager
def _overheard(words: list[str]) -> Iterator[None]:
    """Take down what this thread logs."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                words.append(record.getMessage())

    thread, ear = threading.get_ident(), Ear(logging.DEBUG)
    logger = logging.getLogger("airflow_provider_kling")
    level = logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(ear)
        logger.setLevel(level)

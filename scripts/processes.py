"""Processes that the demo and the web UI start: each in its own group, so none is left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DAGS = ROOT / "dags"
OUTPUT = ROOT / "output"
QUICKLY = ("--queued-seconds", "1", "--generating-seconds", "2.5")
"""Done by the trigger's first look, 5 s after the submit: the next comes when the real model, which
takes minutes, is likely to be done."""
STARTING = 60.0
"""Seconds in which the emulator must listen."""
STOPPING = 15.0
"""Seconds that a group has to end after SIGTERM, before SIGKILL."""


class Trouble(Exception):
    """What a person should read instead of a traceback."""


class Emulator(NamedTuple):
    url: str
    api_key: str


@contextlib.contextmanager
def group(
    command: Sequence[str], *, env: Mapping[str, str], stdout: IO[bytes] | int
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in its own session, and end all of its processes at the end of the block."""
    process = subprocess.Popen(
        command,
        env=env,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    # A Ctrl-C from here on must not leave half of the group running.
    with _signals_ignored(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            if wait_until(lambda: _is_over(process), STOPPING):
                return


def _is_over(process: subprocess.Popen[bytes]) -> bool:
    process.poll()  # reaps the leader, which would count as alive until then
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # macOS says so of a group that holds only zombies
        return True
    return False


@contextlib.contextmanager
def _signals_ignored(*numbers: signal.Signals) -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
    """Say whether a condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(every)
    return True


def clean_up_on_signals() -> None:
    """Make SIGTERM and SIGHUP end this process as Ctrl-C does, so that it cleans up.

    Ctrl-C itself too: a shell starts its background jobs with SIGINT ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


@contextlib.contextmanager
def emulator(home: Path) -> Iterator[Emulator]:
    """Run the emulator on a free port; its log goes to ``home``."""
    told, log = home / "emulator.json", home / "emulator.log"
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "airflow_provider_kling.emulator", *QUICKLY]
    command += ["--port", "0", "--port-file", str(told)]
    with (
        log.open("wb") as stdout,
        group(command, env=os.environ, stdout=stdout) as process,
    ):
        listens = wait_until(lambda: told.exists() or process.poll() is not None, STARTING)
        if not (listens and told.exists()):
            raise Trouble(f"The emulator did not start; see {shown(log)}.")
        yield Emulator(**json.loads(told.read_text()))


def connection(vendor: Emulator) -> dict[str, str]:
    """Describe the Airflow connection to the emulator."""
    return {"conn_type": "kling", "host": vendor.url, "password": vendor.api_key}


def airflow_environment(home: Path) -> dict[str, str]:
    """Build the environment of an Airflow of our own, whatever else is set up on this machine."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    loopback = ",".join(filter(None, [os.environ.get("no_proxy"), "127.0.0.1", "localhost"]))
    return env | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "KLING_OUTPUT": str(OUTPUT),
        "NO_PROXY": loopback,
        "no_proxy": loopback,
    }


def shown(path: Path) -> str:
    """Name a path the way a person in the checkout would."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)

"""From a picture to a video file: ``make demo``.

Starts the emulator, runs ``dags/kling_quickstart.py`` in a real Airflow of its own, prints each
step as it happens, looks at the file that arrived, and stops all that it started.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import av
from processes import (
    DAGS,
    OUTPUT,
    ROOT,
    Trouble,
    airflow_environment,
    clean_up_on_signals,
    connection,
    emulator,
    group,
    shown,
)

DAG_ID = "kling_quickstart"
DOWNLOAD = "download"
HOME = ROOT / ".airflow" / "demo"
LOG = HOME / "airflow.log"
PATIENCE = 300.0
"""Seconds after which a run that does not end is stopped."""
OURS = re.compile(r"airflow_provider_kling|^run_dag$")
"""Loggers of the lines worth printing: the provider's, also as Airflow prefixes them; run_dag's."""
TASK_STARTS = re.compile(r"^\[DAG TEST\] starting task_id=(\S+)")
DEFERRED = "Pausing task as DEFERRED"


class Steps:
    """Prints what happens, with the seconds since the start and the task it belongs to."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.task = "airflow"
        self.errors: list[str] = []
        """What Airflow called an error; it does so in good runs, too, so only a failed run shows them."""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def tell(self, text: str, about: str | None = None) -> None:
        print(f"{self.seconds:6.1f} s  {about or self.task:<10} {text}", flush=True)

    def follow(self, entry: dict[str, Any]) -> None:
        """Print one entry of Airflow's log, if it is a step, and keep it, if it is an error."""
        event, logger = str(entry.get("event", "")), str(entry.get("logger", ""))
        if started := TASK_STARTS.match(event):
            self.task = started[1]
            self.tell("task starts")
        elif event.startswith(DEFERRED):
            self.tell("deferred: the triggerer waits, and no worker slot is taken")
        elif OURS.search(logger):
            self.tell(event.strip())
        if entry.get("level") in ("error", "critical"):
            causes = [
                f"{each.get('exc_type')}: {each.get('exc_value')}" for each in entry.get("exception") or []
            ]
            self.errors.append(f"{self.task}: {causes[0] if causes else event}")


def entries(lines: IO[bytes], log: IO[str]) -> Iterator[dict[str, Any]]:
    """Read Airflow's output as log entries, and keep all of it in the log in readable form."""
    for raw in lines:
        line = raw.decode(errors="replace").rstrip("\n")
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            print(line, file=log, flush=True)
            continue
        rest = dict(entry)
        head = " ".join(str(rest.pop(name, "")) for name in ("timestamp", "level", "logger", "event"))
        print(head, json.dumps(rest) if rest else "", file=log, flush=True)
        yield entry


def run_dag(steps: Steps, env: dict[str, str]) -> Path:
    """Run the DAG and return the path that its last task returned."""
    returned = None
    command = [sys.executable, "-u", str(ROOT / "scripts" / "run_dag.py")]
    command += [str(DAGS / f"{DAG_ID}.py"), DAG_ID, DOWNLOAD]
    with (
        LOG.open("w") as log,
        group(command, env=env | {"AIRFLOW__LOGGING__JSON_LOGS": "True"}, stdout=subprocess.PIPE) as process,
    ):
        late = threading.Timer(PATIENCE, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            for entry in entries(process.stdout, log):
                steps.follow(entry)
                returned = entry.get("returned", returned)
            code = process.wait()
        finally:
            late.cancel()
    if code < 0 and steps.seconds >= PATIENCE:
        raise Trouble(f"The DAG run did not end within {PATIENCE:.0f} s.")
    if code != 0 or not isinstance(returned, str):
        raise Trouble("The DAG run did not succeed.")
    return Path(returned.removeprefix("file://"))


def describe(path: Path) -> str:
    """Say what the video is, by what its container says."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        seconds = float(container.duration or 0) / av.time_base
        megabytes = path.stat().st_size / 1e6
        return f"{megabytes:.2f} MB, {seconds:.2f} s, {video.width}x{video.height} {video.name}"


def main() -> int:
    clean_up_on_signals()
    steps = Steps()
    print("A picture becomes a video, through a real Airflow DAG run.", flush=True)
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    OUTPUT.mkdir(exist_ok=True)
    try:
        with emulator(HOME) as vendor:
            steps.tell(f"listens on {vendor.url}, in the vendor's place: nothing is billed", "emulator")
            steps.tell("starts, with a home and a database of its own")
            env = {
                "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection(vendor)),
                "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            }
            path = run_dag(steps, airflow_environment(HOME) | env)
        steps.tell("stopped, and Airflow with it", "emulator")
        print(f"\n{shown(path)}: {describe(path)}", flush=True)
    except (Trouble, OSError, av.error.FFmpegError) as error:
        for each in steps.errors:
            print(each, file=sys.stderr)
        print(f"\nThe demo failed. {error}", file=sys.stderr)
        print(f"The logs are in {shown(HOME)}/: airflow.log, emulator.log.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; all that the demo started is stopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())

"""What a poll of a waiting trigger costs: this provider beside its peers and the floor.

Run with ``python benchmarks/waiting.py``; ``--help`` says how to choose. Every figure is the median
of several runs, each in fresh processes, the contenders taking turns. A ratio is only printed where
both sides kept up with the polls that were due and nothing failed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import CONTENDERS
from benchmarks.vendor import SPAWN, Counts, Vendor

KEPT_UP = 0.8
"""A run that made less than this share of the polls that were due was saturated."""
PROBE = 0.01
FIRST_LOOKS = {"kling": 8}
"""Seconds after which everybody has polled once: this provider's triggers begin after 5 to 7.5 s, all
others after their first interval."""
NO_POLLS = ("bare", "asleep")
"""Contenders that only show what the process has before anybody polls."""
MACHINE = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


@dataclass(frozen=True)
class Case:
    """What is measured.

    :param n: waits.
    :param interval: seconds between two polls of each.
    """

    n: int
    interval: float
    tls: bool = False

    def __str__(self) -> str:
        return f"N={self.n}, {self.n / self.interval:g} polls/s, {'TLS' if self.tls else 'plain'}"


@dataclass(frozen=True)
class Result:
    """What one run gave.

    :param cpu: microseconds of CPU a poll.
    :param share: polls made, of those due.
    :param connections: TCP connections a poll, in the steady state.
    :param memory: KB of resident memory a wait.
    :param lag: event loop's, p99 in ms.
    :param worst: event loop's, the longest in ms.
    """

    cpu: float
    share: float
    connections: float
    memory: float
    lag: float
    worst: float
    failed: int = 0

    @property
    def trouble(self) -> str:
        """Why its figures are not to be compared; empty where they are."""
        if self.failed:
            return f"{self.failed} waits failed"
        return f"saturated at {self.share:.0%}" if self.share < KEPT_UP else ""


def resident() -> int:
    """KB."""
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


async def lags(seconds: float) -> list[float]:
    """How late the loop wakes up somebody who asked for it, in ms; sorted."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    late = []
    while (now := loop.time()) < end:
        await asyncio.sleep(PROBE)
        late.append((loop.time() - now - PROBE) * 1000)
    return sorted(late)


async def measure(contender: str, case: Case, url: str, counts: Counts, seconds: float) -> Result:
    # What is loaded once, and the first pages of memory, belong to nobody.
    few = await CONTENDERS[contender](url, 32, 1.0)
    first_looks = FIRST_LOOKS.get(contender, 2)
    await asyncio.sleep(first_looks + 1)
    for wait in few:
        wait.cancel()
    if few:
        await asyncio.wait(few)
    before = resident()
    waits = await CONTENDERS[contender](url, case.n, case.interval)
    await asyncio.sleep(first_looks + min(2 * case.interval, 12))
    memory = (resident() - before) / max(case.n, 1)
    seconds = max(seconds, case.interval)  # everybody's turn, as first looks come in a bunch
    begun, cpu = time.monotonic(), time.process_time()
    polls, connections = counts.polls.value, counts.connections.value
    await asyncio.sleep(seconds)
    cpu, passed = time.process_time() - cpu, time.monotonic() - begun
    polls, connections = counts.polls.value - polls, counts.connections.value - connections
    late = await lags(seconds)
    failed = sum(wait.done() for wait in waits)
    for wait in waits:
        wait.cancel()
    if waits:
        await asyncio.wait(waits)
    return Result(
        cpu=cpu / max(polls, 1) * 1e6,
        share=polls / passed * case.interval / case.n if case.n else 1.0,
        connections=connections / max(polls, 1),
        memory=memory,
        lag=late[int(0.99 * len(late))],
        worst=late[-1],
        failed=failed,
    )


def child(contender: str, case: Case, url: str, counts: Counts, seconds: float, answer: Any) -> None:
    """A fresh process."""
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    import logging

    logging.disable(logging.INFO)
    answer.send(asyncio.run(measure(contender, case, url, counts, seconds)))


def run(contender: str, case: Case, folder: Path, seconds: float) -> Result:
    vendor = Vendor(folder, tls=case.tls)
    try:
        if vendor.certificate is not None:
            for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
                os.environ[variable] = vendor.certificate
        mine, theirs = multiprocessing.Pipe()
        process = SPAWN.Process(
            target=child, args=(contender, case, vendor.url, vendor.counts, seconds, theirs)
        )
        process.start()
        theirs.close()
        try:
            result: Result = mine.recv()
        except EOFError:
            raise SystemExit(f"{contender}, {case}: the process failed") from None
        process.join()
        return result
    finally:
        vendor.stop()


def medians(results: Sequence[Result]) -> Result:
    columns = {name: statistics.median(asdict(r)[name] for r in results) for name in asdict(results[0])}
    columns["failed"] = max(r.failed for r in results)
    columns["share"] = min(r.share for r in results)
    return Result(**columns)


def row(name: str, result: Result, base: Result | None) -> str:
    ratio = "-"
    if result.trouble:
        ratio = result.trouble
    elif base is not None and not base.trouble:
        ratio = f"{result.cpu / base.cpu:.2f}"
    return (
        f"{name:10}{result.cpu:9.0f}{result.share:8.0%}{result.connections:9.3f}{result.memory:8.1f}"
        f"{result.lag:9.1f}{result.worst:8.0f}  {ratio}"
    )


def compare(case: Case, contenders: Sequence[str], runs: int, seconds: float, folder: Path) -> None:
    results: dict[str, list[Result]] = {name: [] for name in contenders}
    for _ in range(runs):
        for name in contenders:
            results[name].append(run(name, case, folder, seconds))
    found = {name: medians(each) for name, each in results.items()}
    print(f"\n{case}, medians of {runs}")
    print(f"{'':10}{'us/poll':>9}{'of due':>8}{'conn.':>9}{'KB':>8}{'lag p99':>9}{'worst':>8}  of the floor")
    for name, result in found.items():
        if name in NO_POLLS:
            memory = f"{result.memory:8.1f}" if name == "asleep" else " " * 8
            print(f"{name:10}{'':26}{memory}{result.lag:9.1f}{result.worst:8.0f}")
        else:
            print(row(name, result, found.get("floor")))
    with open(folder / "results.jsonl", "a") as file:
        for name, each in results.items():
            file.write(json.dumps([name, asdict(case), [asdict(r) for r in each]]) + "\n")
    sys.stdout.flush()


CASES: dict[str, tuple[Case, tuple[str, ...]]] = {
    "200": (Case(200, 1.0), ("floor", "kling", "dbt.cloud", "http")),
    "1000": (Case(1000, 1.0), ("bare", "asleep", "floor", "kling", "dbt.cloud", "http")),
    "200-tls": (Case(200, 1.0, tls=True), ("floor", "kling", "dbt.cloud", "http")),
    "1000-tls": (Case(1000, 1.0, tls=True), ("floor", "kling")),  # the others are saturated without it
    "5000": (Case(5000, 10.0), ("bare", "kling")),
    "grow-100": (Case(100, 10.0), ("kling",)),
    "grow-10000": (Case(10_000, 10.0), ("kling",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all of them by default")
    parser.add_argument("--only", nargs="*", help="contenders")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    parser.add_argument("--folder", type=Path, help="where results.jsonl goes")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kling-benchmark-") as temporary:
        os.environ.setdefault("AIRFLOW_HOME", temporary)
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{MACHINE}. CPU of the waiting process only; the server has its own.")
        for name in args.cases or CASES:
            case, contenders = CASES[name]
            chosen = [each for each in contenders if args.only is None or each in args.only]
            compare(case, chosen, args.runs, args.seconds, folder)


if __name__ == "__main__":
    main()

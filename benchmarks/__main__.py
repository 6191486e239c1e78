"""Runs a measurement by its name: ``python -m benchmarks waiting 200 --runs 5``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Final

MEASUREMENTS: Final = {
    "batch": "a clip in a batch, as a mapped task, as three (five minutes; --simulated 10000 in two)",
    "waiting": "what a poll costs in the triggerer, beside other providers (an hour; name cases for less)",
    "schedule": "polls against lag, beside the optimum (seconds)",
    "outage": "workers held, log requests and what is paid while submits fail (half a minute)",
    "dag_import": "what an import adds to a DAG file (a minute)",
    "download": "a landing beside curl (minutes)",
    "gallery": "what the gallery does with 10,000 generations (a minute)",
    "worker": "what a task adds to a worker, beside a task that does nothing (three minutes)",
}


def main(arguments: Sequence[str]) -> None:
    name, *options = arguments or [""]
    if name not in MEASUREMENTS:
        listed = "\n".join(f"  {each:12}{what}" for each, what in MEASUREMENTS.items())
        raise SystemExit(f'Choose a measurement, for example make benchmark ARGS="schedule":\n{listed}')
    sys.argv = [f"benchmarks {name}", *options]
    importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])

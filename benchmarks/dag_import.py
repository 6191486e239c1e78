"""What importing a provider's operators and sensors adds to the parsing of a DAG file.

Run with ``python benchmarks/dag_import.py``. Each import runs in forks of a process that has
already loaded what every DAG file loads; fresh interpreters would drown the figures in noise.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

BASELINE = "from airflow.sdk import BaseOperator, BaseSensorOperator, BaseHook, DAG"
IMPORTS = {
    "kling operators, sensors": (
        "airflow_provider_kling.operators.kling",
        "airflow_provider_kling.sensors.kling",
    ),
    "bash operator": ("airflow.providers.standard.operators.bash",),
    "dbt.cloud operators": ("airflow.providers.dbt.cloud.operators.dbt",),
    "http operators, sensors": (
        "airflow.providers.http.operators.http",
        "airflow.providers.http.sensors.http",
    ),
    "the requests library": ("requests",),
    "the aiohttp library": ("aiohttp",),
}


def in_a_fork(modules: tuple[str, ...]) -> tuple[float, int] | None:
    """CPU in ms and modules added; None where one is not installed."""
    mine, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        loaded, begun = len(sys.modules), time.process_time()
        try:
            for module in modules:
                importlib.import_module(module)
            spent = time.process_time() - begun
            os.write(theirs, f"{spent * 1000} {len(sys.modules) - loaded}".encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(mine, "rb") as pipe:
        answer = pipe.read().split()
    os.waitpid(pid, 0)
    return (float(answer[0]), int(answer[1])) if answer else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="kling-benchmark-") as home:
        os.environ.setdefault("AIRFLOW_HOME", home)
        exec(BASELINE, {})
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; "
            f"medians of {runs} forks, on top of:\n{BASELINE}"
        )
        for name, modules in IMPORTS.items():
            in_a_fork(modules)  # compiles what was never imported before
            results = [in_a_fork(modules) for _ in range(runs)]
            found = [each for each in results if each is not None]
            if len(found) < runs:
                print(f"{name:28}{'not installed':>13}")
                continue
            cpu = statistics.median(each[0] for each in found)
            print(f"{name:28}{cpu:9.1f} ms{found[0][1]:6} modules")


if __name__ == "__main__":
    main()

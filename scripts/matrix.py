"""Run the tests on each Airflow and each Python that is installed: ``make matrix``.

``make matrix ARGS="3.0 3.4"`` runs only those Airflows. Each pair has a virtual environment of its own,
``.venv-3.1-python3.12`` for example, and a log below ``.airflow/matrix/``. A table closes the run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".airflow" / "matrix"
PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
NEWEST_PYTHON = {"2.11": 12, "lowest": 12, "3.0": 12, "3.1": 13}
"""The last minor version of Python that an Airflow installs on, where that is not 3.14."""
TESTS = ("tests/unit", "tests/contract", "tests/airflow")
CLOSING_LINE = re.compile(r"(?:\d+ \w+,? ?)+ in [\d.]+s")


def airflows() -> list[str]:
    """Return what there is a lock for, oldest first and the lower bounds last."""
    names = [lock.stem.removeprefix("airflow-") for lock in (ROOT / "requirements").glob("airflow-*.txt")]
    return sorted(
        names, key=lambda name: (name == "lowest", [int(part) for part in re.findall(r"\d+", name)])
    )


def works(python: str) -> bool:
    """Say whether a Python is installed."""
    if shutil.which(python) is None:
        return False
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def run(airflow: str, python: str) -> str:
    """Run the tests on one pair, and return pytest's closing line or what went wrong."""
    venv = f".venv-{airflow}-{python}"
    log = LOGS / f"{airflow}-{python}.log"
    lock = f"requirements/airflow-{airflow}.txt"
    made = ROOT / venv / ".ready"
    with log.open("w") as output:
        if not made.exists() or made.stat().st_mtime < (ROOT / lock).stat().st_mtime:
            set_up = [python, "scripts/set_up.py", venv, lock]
            if subprocess.run(set_up, cwd=ROOT, stdout=output, stderr=output, check=False).returncode != 0:
                return f"FAILED: could not be set up; see {log.relative_to(ROOT)}"
            made.touch()
        command = [f"{venv}/bin/python", "-m", "pytest", "-n", "2", "--dist", "loadfile", "-q", *TESTS]
        code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=output, check=False).returncode
    closing = CLOSING_LINE.findall(log.read_text())
    said = closing[-1] if closing else "ended without a result"
    return said if code == 0 else f"FAILED: {said}; see {log.relative_to(ROOT)}"


def main(*chosen: str) -> int:
    LOGS.mkdir(parents=True, exist_ok=True)
    pythons = [python for python in PYTHONS if works(python)]
    rows = []
    for airflow in chosen or airflows():
        newest = NEWEST_PYTHON.get(airflow, 14)
        for python in (each for each in pythons if int(each.rpartition(".")[2]) <= newest):
            print(f"Airflow {airflow} on {python} ...", flush=True)
            started = time.monotonic()
            said = run(airflow, python)
            print(f"  {said} ({time.monotonic() - started:.0f} s with the setting up)", flush=True)
            rows.append((airflow, python.removeprefix("python"), said))
    print("\n| Airflow | Python | result |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    absent = [python for python in PYTHONS if python not in pythons]
    if absent:
        print(f"\nNot installed here, and so not tested: {', '.join(absent)}.")
    return int(any(said.startswith("FAILED") for _, _, said in rows))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

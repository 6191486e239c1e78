"""Compile the locks of ``requirements/`` from setup.cfg's needs, dev.in's tools and one Airflow each.

Resolved for the oldest supported Python, so that one lock serves all of them: what only a newer
Python needs is missing here, and the installer adds it. A line ``# uv: --option value`` in an
``.in`` file is an option for that file alone.

``lock.py NAME ...`` compiles only those, for example ``lock.py airflow-3.1``.
"""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

from set_up import environment_of_uv

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "requirements" / "dev.in"
LOWEST = "airflow-lowest"
"""The lock that pins the lower bounds of setup.cfg."""
OPTION = "# uv: "
OPTIONS = ["--quiet", "--upgrade", "--no-header", "--no-annotate", "--python-version", "3.11", "--all-extras"]


def lower_bounds() -> str:
    """Return what setup.cfg needs and its extras with each ``>=`` as a pin."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    needs = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = "\n".join(needs).splitlines()
    return "\n".join(line.replace(">=", "==") for line in lines if not line.startswith("#"))


def compile_lock(chosen: Path) -> None:
    """Write the lock beside an ``.in`` file, if it changed: make sets up again what is older than it."""
    options = [
        word
        for line in chosen.read_text().splitlines()
        if line.startswith(OPTION)
        for word in line.removeprefix(OPTION).split()
    ]
    sources = ["setup.cfg", str(TOOLS.relative_to(ROOT)), str(chosen.relative_to(ROOT))]
    pinned = ["-"] if chosen.stem == LOWEST else []
    command = [sys.executable, "-m", "uv", "pip", "compile", *OPTIONS, *options, *sources, *pinned]
    compiled = subprocess.run(
        command,
        cwd=ROOT,
        env=environment_of_uv(Path(sys.executable)),
        input=lower_bounds(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    lock = chosen.with_suffix(".txt")
    text = f"# make lock: compiled from {', '.join(sources)}\n{compiled}"
    if not lock.exists() or lock.read_text() != text:
        lock.write_text(text)
    print(f"{lock.relative_to(ROOT)}: {len(compiled.splitlines())} packages")


def main(*names: str) -> None:
    for chosen in sorted((ROOT / "requirements").glob("*.in")):
        if chosen != TOOLS and (not names or chosen.stem in names):
            compile_lock(chosen)


if __name__ == "__main__":
    main(*sys.argv[1:])

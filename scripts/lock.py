"""Compile the locks of ``requirements/``: setup.cfg with all extras, dev.in's tools, one Airflow each.

Resolved for the oldest supported Python, so that one lock serves all of them: what only a newer
Python needs is missing here, and the installer adds it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from set_up import environment_of_uv

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "requirements" / "dev.in"
OPTIONS = ["--quiet", "--upgrade", "--no-header", "--no-annotate", "--python-version", "3.11", "--all-extras"]


def main() -> None:
    env = environment_of_uv(Path(sys.executable))
    for chosen in sorted((ROOT / "requirements").glob("*.in")):
        if chosen.name == TOOLS.name:
            continue
        sources = ["setup.cfg", str(TOOLS.relative_to(ROOT)), str(chosen.relative_to(ROOT))]
        command = [sys.executable, "-m", "uv", "pip", "compile", *OPTIONS, *sources]
        compiled = subprocess.run(
            command, cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        lock = chosen.with_suffix(".txt")
        text = f"# make lock: compiled from {', '.join(sources)}\n{compiled}"
        if not lock.exists() or lock.read_text() != text:  # make sets up anew what is older than it
            lock.write_text(text)
        print(f"{lock.relative_to(ROOT)}: {len(compiled.splitlines())} packages")


if __name__ == "__main__":
    main()

"""Make a virtual environment from a lock: ``set_up.py VENV LOCK``. Needs nothing but Python.

uv installs the lock in seconds where pip takes a minute or two. pip is asked where uv cannot be had
or cannot reach the package index: uv reads only part of what a machine tells pip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pinned(name: str, lock: Path) -> str:
    """Return the lock's ``name==version`` line of one package."""
    for line in lock.read_text().splitlines():
        if line.startswith(f"{name}=="):
            return line
    raise SystemExit(f"{lock} pins no {name}; run: make lock")


def environment_of_uv(python: Path) -> dict[str, str]:
    """Give uv what it does not look for itself: pip's package index, the machine's certificates."""
    env = {"UV_SYSTEM_CERTS": "1"} | os.environ
    if not env.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
        asked = [str(python), "-m", "pip", "config", "get", "global.index-url"]
        configured = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        if url := env.get("PIP_INDEX_URL") or configured.strip():
            env["UV_DEFAULT_INDEX"] = url
    return env


def installed_by_uv(python: Path, lock: Path, steps: list[list[str]]) -> bool:
    """Install with uv, and say whether that worked; why it did not goes to stderr."""
    pip_install = [str(python), "-m", "pip", "install", "-qq", pinned("uv", lock)]
    if subprocess.run(pip_install, check=False).returncode != 0:
        return False
    uv = [str(python), "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    env = environment_of_uv(python)
    return all(subprocess.run([*uv, *step], check=False, env=env).returncode == 0 for step in steps)


def main(venv: str, lock_path: str) -> None:
    lock, python = ROOT / lock_path, ROOT / venv / "bin" / "python"
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Setting up {venv} with Python {version} from {lock_path}, once ...", flush=True)
    started = time.monotonic()
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", ROOT / venv], check=True)
    except subprocess.CalledProcessError:
        raise SystemExit(
            f"{sys.executable} cannot make virtual environments. On Debian and Ubuntu the package "
            f"python{sys.version_info[0]}.{sys.version_info[1]}-venv is missing."
        ) from None
    # The lock has setuptools, so building the project needs no environment of its own.
    steps = [
        ["--requirement", str(lock)],
        ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)],
    ]
    if not installed_by_uv(python, lock, steps):
        print("uv could not install it; going on with pip, which is slower.", flush=True)
        for step in steps:
            install = [str(python), "-m", "pip", "install", "-qq", *step]
            if subprocess.run(install, check=False).returncode != 0:
                raise SystemExit(
                    f"pip could not install {lock_path} either; its message is above. It needs a "
                    "package index, and takes it from its own settings (PIP_INDEX_URL, pip.conf)."
                )
    # The build leaves its metadata in the checkout. From there it would be read too, and go stale.
    for leftover in ROOT.glob("*.egg-info"):
        shutil.rmtree(leftover, ignore_errors=True)
    print(f"{venv} is ready after {time.monotonic() - started:.0f} s.", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Check that what the package ships is built from ``ui/``: built again, it is the same, and small."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

from schema import document

ROOT = Path(__file__).resolve().parent.parent
UI = ROOT / "ui"
SHIPPED = ROOT / "airflow_provider_kling" / "ui" / "static"
MOST_BYTES = 250_000
"""Of all files together, compressed."""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def problems() -> list[str]:
    """What is wrong, a sentence each."""
    found = []
    if (UI / "openapi.json").read_text() != document():
        found.append("ui/openapi.json is not the document of the app's routes.")
    with tempfile.TemporaryDirectory() as folder:
        types, built = Path(folder) / "schema.ts", Path(folder) / "static"
        generate = ["npx", "--no-install", "openapi-typescript", "openapi.json", "--output", str(types)]
        subprocess.run(generate, cwd=UI, check=True, capture_output=True)
        if types.read_bytes() != (UI / "src" / "schema.ts").read_bytes():
            found.append("ui/src/schema.ts is not generated from ui/openapi.json.")
        subprocess.run(["npx", "--no-install", "tsc", "--noEmit"], cwd=UI, check=True)
        subprocess.run(["node", "build.mjs", str(built)], cwd=UI, check=True)
        fresh, shipped = contents(built), contents(SHIPPED)
    different = sorted(name for name in fresh.keys() | shipped.keys() if fresh.get(name) != shipped.get(name))
    if different:
        found.append(f"{SHIPPED.relative_to(ROOT)} is not built from ui/: {', '.join(different)}.")
    size = sum(len(gzip.compress(content)) for content in shipped.values())
    if size > MOST_BYTES:
        found.append(f"The page has {size:,} bytes compressed; {MOST_BYTES:,} are allowed.")
    print(f"The page: {len(shipped)} files, {size:,} bytes compressed.")
    return found


if __name__ == "__main__":
    if wrong := problems():
        raise SystemExit("\n".join([*wrong, "Run: make ui"]))
    sys.exit()

"""Say whether this commit can be released, and stop with all that is missing: ``make release-check``."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "airflow_provider_kling"
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
Check = Callable[[str], Iterator[str]]


def declared_version() -> str:
    """Return the version that the package carries."""
    found = re.search(r'__version__ = "([^"]+)"', (PACKAGE / "__init__.py").read_text())
    return found[1] if found else ""


def output(*command: str) -> str:
    """Return what a command prints; empty where it fails."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def version(release: str) -> Iterator[str]:
    if not re.fullmatch(r"\d+\.\d+\.\d+", release):
        yield f"version: {release!r} is no X.Y.Z"
    if output("git", "tag", "--list", f"v{release}"):
        yield f"version: v{release} is tagged already; raise __version__"


def checkout(release: str) -> Iterator[str]:
    if changed := output("git", "status", "--porcelain"):
        yield f"checkout: not committed: {changed.splitlines()[0].strip()} and perhaps more"


def changelog(release: str) -> Iterator[str]:
    text = (ROOT / "CHANGELOG.md").read_text()
    heading = re.search(rf"^## {re.escape(release)}\b(.*)$", text, re.MULTILINE)
    if heading is None:
        yield f"changelog: CHANGELOG.md has no section {release}"
    elif "unreleased" in heading[1]:
        yield f"changelog: section {release} has no date yet"


def documentation(release: str) -> Iterator[str]:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
            if not (page.parent / link).exists():
                yield f"docs: {page.relative_to(ROOT)} links to {link}, which is not there"


def locks(release: str) -> Iterator[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    stated = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = "\n".join(stated).splitlines()
    needs = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    for source in sorted((ROOT / "requirements").glob("*.in")):
        lock = source.with_suffix(".txt")
        if source.stem == "dev":
            continue
        text = lock.read_text() if lock.exists() else ""
        pinned = {canonicalize_name(name): pin for name, pin in PIN.findall(text)}
        for need in needs:
            pin = pinned.get(canonicalize_name(need.name))
            if pin is None or not need.specifier.contains(pin, prereleases=True):
                yield f"lock: {lock.relative_to(ROOT)} pins {need.name} {pin}, not {need}; run make lock"


def matrix(release: str) -> Iterator[str]:
    logs = sorted((ROOT / ".airflow" / "matrix").glob("*.log"))
    locked = {lock.stem.removeprefix("airflow-") for lock in (ROOT / "requirements").glob("airflow-*.txt")}
    newest = max(path.stat().st_mtime for path in PACKAGE.rglob("*.py"))
    tested = {log.stem.rpartition("-")[0] for log in logs if log.stat().st_mtime > newest}
    if untested := sorted(locked - tested):
        yield f"matrix: not run since the last change on Airflow {', '.join(untested)}; run make matrix"
    for log in logs:
        closing = (log.read_text().strip().splitlines() or [""])[-1].strip("= ")
        if re.search(r"\bfailed\b|\berrors?\b", closing):
            yield f"matrix: {log.stem}: {closing}"
        elif "passed" not in closing:
            yield f"matrix: {log.stem}: ended without a result"


def distributions(release: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        built = subprocess.run(
            [sys.executable, "scripts/build.py", folder],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        files = [str(path) for path in Path(folder).glob("*")]
        if built.returncode != 0 or len(files) != 2:
            yield f"build: {built.stderr.strip()[-300:]}"
            return
        checked = subprocess.run(
            [sys.executable, "-m", "twine", "check", "--strict", *files],
            capture_output=True,
            text=True,
            check=False,
        )
        if checked.returncode != 0:
            yield f"twine: {checked.stdout.strip()[-300:]}"


CHECKS: tuple[Check, ...] = (version, checkout, changelog, documentation, locks, matrix, distributions)


def main() -> int:
    release = declared_version()
    problems = [problem for check in CHECKS for problem in check(release)]
    for problem in problems:
        print(problem)
    if problems:
        print(f"\n{release} cannot be released: {len(problems)} things are missing.")
        return 1
    print(f"{release} can be released: tag v{release}, then upload dist/ after make build.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

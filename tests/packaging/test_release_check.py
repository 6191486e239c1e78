"""scripts/release_check.py lets a finished checkout pass, and stops on each thing that is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "1.2.3"
SETUP = """[metadata]
name = airflow-provider-kling
version = attr: airflow_provider_kling.__version__
long_description = file: README.md
long_description_content_type = text/markdown
license_expression = Apache-2.0
[options]
packages = find:
install_requires =
    apache-airflow>=2.11.0
    # a comment
    Pillow>=11.1.0
[options.extras_require]
heic =
    pi-heif>=1.0.0
"""
PYPROJECT = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
LOCK = "# make lock\napache-airflow==3.4.0b2\npi-heif==1.1.0\npillow==12.0.0\n"
FILES = {
    "setup.cfg": SETUP,
    "pyproject.toml": PYPROJECT,
    "README.md": "# Provider\nSee [the pages](docs/index.md) and [a site](https://example.org/).\n",
    "docs/index.md": "# Pages\n[Above](../README.md#commands)\n",
    "CHANGELOG.md": f"# Changelog\n\n## {RELEASE} (2026-12-01)\nMore.\n\n## 1.2.2 (2026-11-01)\nFirst.\n",
    "requirements/dev.in": "pytest\n",
    "requirements/airflow-3.4.in": "apache-airflow\n",
    "requirements/airflow-3.4.txt": LOCK,
    "airflow_provider_kling/__init__.py": f'__version__ = "{RELEASE}"\n',
    ".gitignore": ".airflow/\nbuild/\n*.egg-info/\n__pycache__/\n",
}
MATRIX_LOG = ".airflow/matrix/3.4-python3.11.log"


def git(checkout: Path, *arguments: str) -> None:
    who = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=checkout, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small project with which nothing is wrong."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "build.py", tmp_path / "scripts")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Release")
    log = tmp_path / MATRIX_LOG
    log.parent.mkdir(parents=True)
    log.write_text("...\n==== 12 passed in 3.00s ====\n")
    return tmp_path


@pytest.fixture
def release_check(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_check", ROOT / "scripts" / "release_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", checkout)
    monkeypatch.setattr(module, "PACKAGE", checkout / "airflow_provider_kling")
    return module


def test_a_finished_checkout_can_be_released(
    release_check: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release_check.main() == 0
    assert capsys.readouterr().out.startswith(f"{RELEASE} can be released")


def rewrite(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(checkout: Path) -> None:
        text = (checkout / name).read_text()
        assert old in text
        (checkout / name).write_text(text.replace(old, new))
        git(checkout, "commit", "--quiet", "--all", "--allow-empty", "--message", "Change")
        os.utime(checkout / MATRIX_LOG)

    return change


def package_changed_later(checkout: Path) -> None:
    later = time.time() + 60
    os.utime(checkout / "airflow_provider_kling" / "__init__.py", (later, later))


MISSING: dict[str, tuple[Callable[[Path], None], str]] = {
    "a version": (rewrite("airflow_provider_kling/__init__.py", RELEASE, "1.2.dev3"), "version: '1.2.dev3' is no"),
    "a new version": (lambda checkout: git(checkout, "tag", f"v{RELEASE}"), "version: v1.2.3 is tagged already"),
    "a commit": (lambda checkout: (checkout / "new.py").touch(), "checkout: not committed: ?? new.py"),
    "a section of the changelog": (rewrite("CHANGELOG.md", f"## {RELEASE}", "## 1.2.30"), "changelog: CHANGELOG.md has"),
    "a date in the changelog": (rewrite("CHANGELOG.md", "2026-12-01", "unreleased"), "changelog: section 1.2.3 has no"),
    "a page": (rewrite("README.md", "docs/index.md", "docs/start.md"), "docs: README.md links to docs/start.md"),
    "a lock": (
        lambda checkout: git(checkout, "rm", "--quiet", "requirements/airflow-3.4.txt"),
        "lock: requirements/airflow-3.4.txt pins apache-airflow None",
    ),
    "a dependency in a lock": (
        rewrite("requirements/airflow-3.4.txt", "pi-heif==1.1.0\n", ""),
        "lock: requirements/airflow-3.4.txt pins pi-heif None, not pi-heif>=1.0.0",
    ),
    "a lock of today's bounds": (
        rewrite("setup.cfg", "Pillow>=11.1.0", "Pillow>=12.1"),
        "lock: requirements/airflow-3.4.txt pins Pillow 12.0.0, not Pillow>=12.1",
    ),
    "a run of the matrix": (lambda checkout: (checkout / MATRIX_LOG).unlink(), "matrix: not run since"),
    "a run after the last change": (package_changed_later, "matrix: not run since the last change on Airflow 3.4"),
    "a good run": (
        lambda checkout: (checkout / MATRIX_LOG).write_text("== 1 failed, 11 passed in 3.00s ==\n"),
        "matrix: 3.4-python3.11: 1 failed, 11 passed in 3.00s",
    ),
    "an end of a run": (
        lambda checkout: (checkout / MATRIX_LOG).write_text("tests/unit/test_docs.py ....\n"),
        "matrix: 3.4-python3.11: ended without a result",
    ),
    "a build": (rewrite("setup.cfg", "packages = find:", "packages = nothing"), "build: "),
    "a readable README": (rewrite("setup.cfg", "long_description = file: README.md", ""), "twine: "),
}  # fmt: skip


@pytest.mark.parametrize("missing", MISSING)
def test_it_stops_on_what_is_missing(
    missing: str,
    release_check: ModuleType,
    checkout: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take_away, said = MISSING[missing]
    take_away(checkout)
    if not said.startswith(("build:", "twine:")):
        quick = tuple(each for each in release_check.CHECKS if each is not release_check.distributions)
        monkeypatch.setattr(release_check, "CHECKS", quick)

    assert release_check.main() == 1

    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(said) for line in lines), lines
    assert lines[-1].endswith("things are missing.")


def test_each_item_is_seen_to_stop(release_check: ModuleType) -> None:
    kinds = {said.partition(":")[0] for _, said in MISSING.values()}
    assert len(release_check.CHECKS) == len(kinds - {"twine"})

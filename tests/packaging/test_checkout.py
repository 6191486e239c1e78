"""What the checkout promises: make's list, the locks, the declared dependencies, nothing left running."""

from __future__ import annotations

import ast
import configparser
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
OPTIONAL = {"flask_appbuilder", "flask_babel", "wtforms"}
"""Imported only where an Airflow before 3.2 has brought them along, for its connection form."""

OF_AIRFLOW = {"fastapi", "jinja2", "opentelemetry", "pydantic", "sqlalchemy"}
"""What Airflow itself stands on: taken in the version that it brings."""


def declared() -> list[Requirement]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    needs = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = "\n".join(needs).splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def locked(lock: Path) -> dict[str, str]:
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_alone_lists_every_target() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    described = dict(re.findall(r"^  (\S+) +(\S.*)$", listed, re.MULTILINE))
    assert set(described) == set(phony[1].split())
    assert {"demo", "test", "check", "airflow", "emulator", "clean"} <= set(described)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_is_plain_pins(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[A-Za-z0-9.!+]+", line)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_is_up_to_date_with_what_is_asked_for(lock: Path) -> None:
    pins = locked(lock)
    sources = [ROOT / "requirements" / "dev.in", lock.with_suffix(".in")]
    asked = declared() + [
        Requirement(line)
        for source in sources
        for line in source.read_text().splitlines()
        if not line.startswith("#")
    ]
    unmet = [
        f"{each}: {pins.get(canonicalize_name(each.name), 'missing')}"
        for each in asked
        if not each.specifier.contains(pins.get(canonicalize_name(each.name), "0"), prereleases=True)
    ]
    assert unmet == [], "run: make lock"


def imported() -> Iterator[tuple[str, Path]]:
    for path in (ROOT / "airflow_provider_kling").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((alias.name.split(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.split(".")[0], path


def test_a_library_that_is_imported_is_declared() -> None:
    names = {canonicalize_name(each.name) for each in declared()}
    providers = importlib.metadata.packages_distributions()
    ours = {"airflow_provider_kling", *sys.stdlib_module_names, *OPTIONAL, *OF_AIRFLOW}
    undeclared = {
        f"{path.relative_to(ROOT)}: {module}"
        for module, path in imported()
        if module not in ours and not names & {canonicalize_name(each) for each in providers.get(module, ())}
    }
    assert undeclared == set()


@pytest.fixture(scope="module")
def processes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("processes", ROOT / "scripts" / "processes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["processes"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("parent_dies_first", [False, True])
def test_nothing_that_a_script_started_stays(
    processes: ModuleType, tmp_path: Path, parent_dies_first: bool
) -> None:
    told = tmp_path / "pid"
    code = f"""
import pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
told = pathlib.Path({str(told)!r})
told.with_suffix(".part").write_text(str(child.pid))
told.with_suffix(".part").rename(told)
time.sleep({0 if parent_dies_first else 600})
"""
    with processes.group([sys.executable, "-c", code], env=os.environ, stdout=subprocess.DEVNULL) as parent:
        assert processes.wait_until(told.exists, 30)
        if parent_dies_first:
            parent.wait(30)
        child = psutil.Process(int(told.read_text()))
        assert child.is_running()
    assert parent.returncode is not None
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE

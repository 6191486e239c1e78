"""What imports load, seen in fresh interpreters; what the source may import is in ``test_layout.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.source_tree import PACKAGE, ROOT, files, is_within, name_of

LAZY = ("requests", "aiohttp", "urllib3", "pydantic", "airflow.models", "PIL", "av", "numpy")
"""What importing operators and sensors must not load on top of what a DAG file has loaded anyway."""
ADDED_MODULES = 25
"""How many modules operators and sensors may add to a DAG's import, all together."""
ADDED_SECONDS = 0.020
"""The CPU that they may add to it. ``make benchmark ARGS="dag_import"`` measures it beside others."""
ADDED_SHARE = 1 / 6
"""The same as a share of what importing the HTTP clients takes, for machines that are slow or busy."""


FILES = files()


def run(code: str, home: Path) -> list[str]:
    """Run code in a fresh interpreter; it prints one JSON list of strings."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"AIRFLOW_HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed: list[str] = json.loads(done.stdout.splitlines()[-1])
    return listed


def modules_in(*parts: str) -> list[str]:
    return sorted(f"{PACKAGE}.{name_of(path)}" for path in FILES if name_of(path).split(".")[0] in parts)


def test_the_api_works_where_there_is_no_airflow(tmp_path: Path) -> None:
    code = f"""
import importlib, json, sys
class NoAirflow:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "airflow":
            raise ModuleNotFoundError(f"there is no {{name}} here", name=name)
sys.meta_path.insert(0, NoAirflow())
names = {modules_in("api")!r}
for name in names:
    importlib.import_module(name)
print(json.dumps(names))
"""
    assert len(run(code, tmp_path)) > 1


@pytest.mark.parametrize("module", [PACKAGE, f"{PACKAGE}.get_provider_info"])
def test_looking_at_the_provider_costs_nothing(module: str, tmp_path: Path) -> None:
    code = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    loaded = run(code, tmp_path)
    heavy = [name for name in loaded if name.split(".")[0] in ("airflow", *LAZY)]
    assert heavy == []


BASE_CLASSES = f"""
try:
    from airflow.sdk import BaseHook, BaseOperator, BaseSensorOperator
except ImportError:
    from airflow.models.dag import DAG
    from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator
import {PACKAGE}.get_provider_info  # each process of Airflow has it
"""
"""What a DAG file has loaded before it imports this provider's operators."""
OPERATORS = modules_in("operators", "sensors")
CLIENTS = [f"{PACKAGE}.api.client", f"{PACKAGE}.api.async_client"]
"""No DAG file needs them; they load requests, which Airflow 2 has loaded anyway, and aiohttp."""


def added_to_a_dag_file(names: list[str], home: Path) -> list[str]:
    """The modules that importing these loads, besides Airflow's base classes."""
    code = f"""
import importlib, json, sys
{BASE_CLASSES}
before = set(sys.modules)
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    return run(code, home)


def heavy_of(names: list[str]) -> list[str]:
    return [name for name in names if any(is_within(name, library) for library in LAZY)]


def seconds_added_to_a_dag_file(choices: list[list[str]], home: Path) -> list[float]:
    """The CPU that importing each choice takes, besides Airflow's base classes: the best of several forks."""
    code = f"""
import importlib, json, os, sys, time
{BASE_CLASSES}
def imported(names):
    reader, writer = os.pipe()
    if os.fork() == 0:
        begun = time.process_time()
        for name in names:
            importlib.import_module(name)
        os.write(writer, str(time.process_time() - begun).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        spent = pipe.read()
    os.wait()
    return spent
print(json.dumps([min(imported(names) for _ in range(9)) for names in {choices!r}]))
"""
    return list(map(float, run(code, home)))


def test_a_dag_file_loads_nothing_heavy_with_the_operators(tmp_path: Path) -> None:
    assert len(OPERATORS) > 3
    assert heavy_of(added_to_a_dag_file(OPERATORS, tmp_path)) == []
    assert "aiohttp" in heavy_of(added_to_a_dag_file(CLIENTS, tmp_path))


def test_operators_and_sensors_add_few_modules(tmp_path: Path) -> None:
    added = added_to_a_dag_file(OPERATORS, tmp_path)
    assert len(added) <= ADDED_MODULES, added
    assert set(OPERATORS) < set(added)


def test_operators_and_sensors_take_little_time(tmp_path: Path) -> None:
    operators, clients = seconds_added_to_a_dag_file([OPERATORS, CLIENTS], tmp_path)
    assert operators <= max(ADDED_SECONDS, clients * ADDED_SHARE)
    assert clients > ADDED_SECONDS

"""What must not be imported where: read from the source, and seen in fresh interpreters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.source_tree import PACKAGE, ROOT, Import, all_imports, files, is_within, name_of

EMULATOR = "emulator"
"""Stands beside the house: it knows the API's facts, and nothing but its own script imports it."""

HOMES = {
    "requests": {"api.client", "api.transport.urllib3_connections"},
    "aiohttp": {"api.async_client", "api.transport.aiohttp_connections"},
}
"""The only modules that may import a transport; the emulator is a server on aiohttp."""

LAZY = ("requests", "aiohttp", "urllib3", "pydantic", "airflow.models", "PIL", "av", "numpy")
"""What importing operators and sensors must not load on top of what a DAG file has loaded anyway."""
ADDED_MODULES = 25
"""How many modules operators and sensors may add to a DAG's import, all together."""


def part_of(module: str) -> str:
    return module.split(".")[0]


FILES = files()
IMPORTS = all_imports()


def described(imports: list[Import]) -> list[str]:
    return [str(found) for found in imports]


@pytest.mark.parametrize("part", ["api", EMULATOR])
def test_the_vendor_s_side_imports_neither_airflow_nor_the_rest(part: str) -> None:
    allowed = (f"{PACKAGE}.api", f"{PACKAGE}.{part}", f"{PACKAGE}.__version__")
    wrong = [
        found
        for found in IMPORTS
        if part_of(found.module) == part
        and (
            is_within(found.imported, "airflow")
            or (
                is_within(found.imported, PACKAGE)
                and not any(is_within(found.imported, each) for each in allowed)
            )
        )
    ]
    assert described(wrong) == []


@pytest.mark.parametrize("library", HOMES)
def test_a_transport_has_one_home(library: str) -> None:
    wrong = [
        found
        for found in IMPORTS
        if is_within(found.imported, library)
        and found.module not in HOMES[library]
        and not (library == "aiohttp" and part_of(found.module) == EMULATOR)
    ]
    assert described(wrong) == []


def test_what_differs_between_airflow_versions_is_imported_in_version_compat_alone() -> None:
    wrong = [
        found
        for found in IMPORTS
        if found.module != "version_compat"
        and is_within(found.imported, "airflow")
        and (found.guarded or is_within(found.imported, "airflow.sdk"))
    ]
    assert described(wrong) == []


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
    return sorted(f"{PACKAGE}.{name_of(path)}" for path in FILES if part_of(name_of(path)) in parts)


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


@pytest.fixture(scope="module")
def added_to_a_dag_file(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    names = modules_in("operators", "sensors")
    if not names:
        pytest.fail("there are neither operators nor sensors")
    code = f"""
import importlib, json, sys
try:
    from airflow.sdk import BaseHook, BaseOperator, BaseSensorOperator
except ImportError:
    from airflow.models.dag import DAG
    from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseOperatorLink, BaseSensorOperator
import {PACKAGE}.get_provider_info  # each process of Airflow has it
before = set(sys.modules)
for name in {names!r}:
    importlib.import_module(name)
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    return run(code, tmp_path_factory.mktemp("airflow"))


def test_a_dag_file_loads_nothing_heavy_with_the_operators(added_to_a_dag_file: list[str]) -> None:
    heavy = [name for name in added_to_a_dag_file if any(is_within(name, lib) for lib in LAZY)]
    assert heavy == []


def test_operators_and_sensors_add_few_modules(added_to_a_dag_file: list[str]) -> None:
    assert len(added_to_a_dag_file) <= ADDED_MODULES, added_to_a_dag_file

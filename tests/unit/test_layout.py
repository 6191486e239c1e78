"""The rules of the house: layers, circles, sizes, and one home for each kind of thing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.source_tree import (
    PACKAGE,
    ROOT,
    circles,
    files,
    import_graph,
    imports_of,
    name_of,
)

MOST_MODULES_IN_A_FOLDER = 12
MOST_LINES_IN_A_MODULE = 500
MOST_MODULES_AT_THE_ROOT = 4

LAYERS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {
                "api.bounds",
                "api.exceptions",
                "api.generation",
                "api.retry",
                "api.redaction",
                "version_compat",
            },
            {"api.settings", "api.paths"},
            {"api.transport", "api.download", "get_provider_info", "retry_policy"},
            {"api.polling"},
            {"api.catalog", "api.calls"},
            {"api.client", "api.async_client", "api.media", "api.billing"},
            {"api.durable"},
            {"api", "hooks"},
            {"triggers"},
            {"task", "links"},
            {"sensors", "operators", "cost_report"},
            {"decorators", "ui"},
        ),
    )
)
"""From the ground up. A part imports its own layer and those below; ``api`` is its list of public names."""
EMULATOR = "emulator"
"""Stands beside the house: it knows the API's facts, and nothing but its own script imports it."""
UI_IMPORTS = {"ui", "api", "hooks", "task", "task.xcom", "version_compat", "get_provider_info"}
"""What the plugin reads; it serves the API server, where nothing of a task runs."""

GRAPH = import_graph()
FOLDERS = sorted(
    {path.parent for root in (PACKAGE, "tests", "dags", "scripts") for path in (ROOT / root).rglob("*.py")}
)


def part_of(module: str) -> str:
    """The folder or loose module that has a layer: ``api.transport.body`` is in ``api.transport``."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "api" else 1])


def is_in(module: str, parts: set[str]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def test_each_part_has_a_place() -> None:
    placed = {part for layer in LAYERS for part in layer} | {"", EMULATOR}
    assert {part_of(module) for module in GRAPH} - placed == set(), "give the new part a layer in LAYERS"


def test_imports_point_down_only() -> None:
    height = {part: level for level, layer in enumerate(LAYERS) for part in layer}
    wrong = [
        f"{module} imports {target}"
        for module, targets in sorted(GRAPH.items())
        if part_of(module) in height
        for target in sorted(targets)
        if height.get(part_of(target), len(LAYERS)) > height[part_of(module)]
    ]
    # the list of public names is for others
    inside = [f"{module} imports api" for module, targets in GRAPH.items() if "api" in targets]
    assert wrong + inside == []


def test_the_plugin_uses_hooks_and_xcom_alone() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, targets in sorted(GRAPH.items())
        if is_in(module, {"ui"})
        for target in sorted(targets)
        if not is_in(target, UI_IMPORTS)
    ]
    assert wrong == []


def test_no_modules_import_one_another() -> None:
    assert circles(GRAPH) == []


def test_the_graph_sees_imports_in_functions_and_for_type_checkers(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE
    sources = {
        "__init__.py": "__version__ = '1'",
        "a.py": f"from {PACKAGE} import __version__\nfrom {PACKAGE}.hooks.b import B",
        "hooks/__init__.py": "",
        "hooks/b.py": f"def f():\n    try:\n        import {PACKAGE}.hooks.c\n    except ImportError:\n        import h",
        "hooks/c.py": f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {PACKAGE}.a import A",
        "hooks/d.py": f"from {PACKAGE}.a import A",
    }
    for name, source in sources.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(source)
    graph = import_graph(tmp_path)
    assert graph == {
        "": set(),
        "a": {"hooks.b"},
        "hooks": set(),
        "hooks.b": {"hooks.c"},
        "hooks.c": {"a"},
        "hooks.d": {"a"},
    }
    assert circles(graph) == [["a", "hooks.b", "hooks.c"]]
    found = {each.imported: each.guarded for each in imports_of(package / "hooks" / "b.py", tmp_path)}
    assert found == {f"{PACKAGE}.hooks.c": True, "h": False}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_a_folder_can_be_taken_in_at_a_glance(folder: Path) -> None:
    modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES_IN_A_FOLDER, modules


def test_few_modules_stand_at_the_root() -> None:
    loose = [path.name for path in (ROOT / PACKAGE).glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= MOST_MODULES_AT_THE_ROOT, loose


def test_no_module_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files()}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES_IN_A_MODULE} == {}


def classes_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            yield (
                node.name,
                [base.attr if isinstance(base, ast.Attribute) else ast.unparse(base) for base in node.bases],
            )


def test_each_kling_error_is_in_the_tree() -> None:
    classes = [(path, name, bases) for path in files() for name, bases in classes_of(path)]
    errors = {"KlingError"}
    while more := {name for _, name, bases in classes if errors & set(bases)} - errors:
        errors |= more
    assert len(errors) > 10
    elsewhere = [
        f"{name_of(path)}.{name}"
        for path, name, _ in classes
        if name in errors and name_of(path) != "api.exceptions"
    ]
    assert elsewhere == []


SAME_BY_CHANCE = {"CHUNK", "PIECE", "SCHEMA"}
"""Sizes of reads, and the versions of formats: each module's own choice."""


def test_a_constant_has_one_home() -> None:
    """No two modules define a constant of the same name and value, underscore or not."""
    homes: dict[tuple[str, str], list[str]] = {}
    for path in files():
        if is_in(name_of(path), {EMULATOR}):
            continue
        for node in ast.parse(path.read_text()).body:
            target = node.target if isinstance(node, ast.AnnAssign) else None
            target = node.targets[0] if isinstance(node, ast.Assign) else target
            if isinstance(target, ast.Name) and target.id.isupper() and node.value is not None:
                homes.setdefault((target.id.lstrip("_"), ast.unparse(node.value)), []).append(name_of(path))
    assert {
        name: where for (name, _), where in homes.items() if len(where) > 1 and name not in SAME_BY_CHANCE
    } == {}


def constants_in(node: ast.AST) -> set[str]:
    return {
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }


def test_each_xcom_key_is_in_task_xcom() -> None:
    """Elsewhere a key is a name from there: no text stands where an XCom is pushed or pulled."""
    wrong = []
    for path in files():
        if name_of(path) == "task.xcom":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            if called not in ("xcom_push", "xcom_pull", "push", "_push", "get_value", "get_one"):
                continue
            keys = [keyword.value for keyword in node.keywords if keyword.arg == "key"]
            if called in ("push", "_push"):
                keys += node.args[:1]
            wrong += [
                f"{name_of(path)}, line {node.lineno}: {text!r}" for key in keys for text in constants_in(key)
            ]
    assert wrong == []


SECRET_WORDS = re.compile(
    r"secret|redact|unsign|signature|conceal|_hide|hidden_|masked|sanitiz", re.IGNORECASE
)
SECRET_PATTERNS = re.compile(r"ksSecret|X-Amz-Signature|;base64,|x-goog|sig=", re.IGNORECASE)


def test_what_hides_secrets_is_in_api_redaction() -> None:
    wrong = []
    for path in files():
        module = name_of(path)
        if module == "api.redaction" or is_in(module, {EMULATOR}):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and SECRET_WORDS.search(node.name):
                wrong.append(f"{module}.{node.name}")
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in ("re.compile", "re.sub")
                and any(map(SECRET_PATTERNS.search, constants_in(node)))
            ):
                wrong.append(f"{module}, line {node.lineno}: {ast.unparse(node)}")
    assert wrong == []


TESTED_ELSEWHERE = {
    # what takes a socket: both clients against the emulator and misbehaving servers
    "api.client": "tests/contract",
    "api.async_client": "tests/contract",
    "api.download": "tests/contract/test_fetch.py",
    "api.transport": "tests/contract/test_transport.py",
    # tables and small parts that the tests of their only users cover
    "api.catalog": "tests/unit/api/catalog/test_validation.py",
    "api.durable.attempt": "tests/unit/api/durable/test_decision.py",
    "api.polling.poll_tracker": "tests/unit/api/test_calls.py",
    # what takes Airflow: runs of real DAGs
    "decorators": "tests/airflow/operators",
    "operators": "tests/airflow/operators",
    "sensors": "tests/airflow/operators/test_sensor.py",
    "task": "tests/airflow/operators",
    "triggers": "tests/airflow/triggers",
    "hooks": "tests/airflow",
    "get_provider_info": "tests/airflow/test_provider_metadata.py",
    "retry_policy": "tests/airflow/operators/test_failures.py",
    "version_compat": "tests/airflow",
    "operators.batch": "tests/airflow/operators/test_batch.py",
    "task.batch.options": "tests/airflow/operators/test_batch.py",
    "task.batch.row_submits": "tests/airflow/operators/test_batch.py",
    "task.batch.run": "tests/airflow/operators/test_batch.py",
    "triggers.batch": "tests/airflow/operators/test_batch.py",
    # a server, driven over HTTP
    "emulator": "tests/contract/emulator",
    "ui": "tests/ui",
}
"""Modules without a file of their own in ``tests/unit``, by folder or name, and what tests them."""


def test_each_module_has_a_file_of_tests_at_the_same_path() -> None:
    missing = []
    for path in files():
        if path.name.startswith("__"):
            continue
        beside = path.relative_to(ROOT / PACKAGE)
        if not (ROOT / "tests" / "unit" / beside.parent / f"test_{beside.name}").exists():
            missing.append(name_of(path))
    assert [module for module in missing if not is_in(module, set(TESTED_ELSEWHERE))] == []
    assert [part for part in TESTED_ELSEWHERE if not any(is_in(module, {part}) for module in missing)] == []
    assert [place for place in TESTED_ELSEWHERE.values() if not (ROOT / place).exists()] == []

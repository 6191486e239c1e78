"""The package's own source, as the tests of its structure read it: modules, imports, the graph of both."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = "airflow_provider_kling"
ROOT = Path(__file__).resolve().parents[2]


class Import(NamedTuple):
    """One imported name, where it is written, and whether an ImportError is caught around it."""

    module: str
    imported: str
    line: int
    guarded: bool

    def __str__(self) -> str:
        return f"{PACKAGE}.{self.module}, line {self.line}: imports {self.imported}"


def files(root: Path = ROOT) -> list[Path]:
    return sorted((root / PACKAGE).rglob("*.py"))


def name_of(path: Path, root: Path = ROOT) -> str:
    """Name a module without the package: ``api/client.py`` is ``api.client``, the package ``""``."""
    parts = path.relative_to(root / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def imports_of(path: Path, root: Path = ROOT) -> Iterator[Import]:
    """All imports of a module, also those in functions and those for type checkers alone."""
    module = name_of(path, root)
    tree = parsed(path)
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and any(map(_catches_import_error, node.handlers))
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import in line {node.lineno}"
            # "from a import b" can mean the module a.b, which matters for airflow.sdk and the like.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield Import(module, name, node.lineno, id(node) in guarded)


def all_imports(root: Path = ROOT) -> list[Import]:
    return [found for path in files(root) for found in imports_of(path, root)]


def import_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """Which module of the package imports which others; ``__version__`` in its root does not count."""
    modules = {name_of(path, root) for path in files(root)}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for found in all_imports(root):
        if not is_within(found.imported, PACKAGE):
            continue
        target = found.imported.removeprefix(PACKAGE).lstrip(".")
        while target and target not in modules:
            target = target.rpartition(".")[0]
        if target not in ("", found.module):
            graph[found.module].add(target)
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Each set of modules that import one another, by however many steps."""
    reached = {start: _reached(graph, start) for start in graph}
    found = {
        tuple(sorted(other for other in reached[start] if start in reached[other]))
        for start in graph
        if start in reached[start]
    }
    return [list(circle) for circle in sorted(found)]


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = [start]
    while left:
        for target in graph[left.pop()] - seen:
            seen.add(target)
            left.append(target)
    return seen


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    named = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(named & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})

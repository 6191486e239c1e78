"""The rules of the house, each a function from a source tree to what breaks it.

``test_layout.py`` and ``test_imports.py`` hold them against this project, and against small trees that break
one rule each.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from tests.unit.source_tree import (
    PACKAGE,
    Import,
    all_imports,
    circles,
    files,
    import_graph,
    is_within,
    name_of,
    parsed,
)

MOST_MODULES_IN_A_FOLDER = 12
MOST_LINES_IN_A_MODULE = 500
MOST_MODULES_AT_THE_ROOT = 4
EMULATOR = "emulator"
"""Stands beside the house: it knows the API's facts, and nothing but its own script imports it."""
UI_IMPORTS = {
    *("ui", "api", "hooks", "version_compat", "get_provider_info"),
    *("task.xcom", "task.batch.store"),  # what tasks leave for others
}
"""What the plugin reads; it serves the API server, where nothing of a task runs."""
HOMES = {
    "requests": {"api.client", "api.transport.urllib3_connections"},
    "aiohttp": {"api.async_client", "api.transport.aiohttp_connections"},
}
"""The only modules that may import a transport; the emulator is a server on aiohttp."""
SAME_BY_CHANCE = {"CHUNK", "PIECE", "SCHEMA"}
"""Sizes of reads, and the versions of formats: each module's own choice."""
XCOM_CALLS = ("xcom_push", "xcom_pull", "push", "_push", "get_value", "get_one")
SECRET_WORDS = re.compile(
    r"secret|redact|unsign|signature|conceal|_hide|hidden_|masked|sanitiz", re.IGNORECASE
)
SECRET_PATTERNS = re.compile(r"ksSecret|X-Amz-Signature|;base64,|x-goog|sig=", re.IGNORECASE)

Layers = Sequence[Collection[str]]


def part_of(module: str) -> str:
    """The folder or loose module that has a layer: ``api.transport.body`` is in ``api.transport``."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "api" else 1])


def is_in(module: str, parts: Collection[str]) -> bool:
    return any(is_within(module, part) for part in parts)


def without_a_place(root: Path, layers: Layers) -> list[str]:
    placed = {part for layer in layers for part in layer} | {"", EMULATOR}
    return sorted({part_of(module) for module in import_graph(root)} - placed)


def imports_that_point_up(root: Path, layers: Layers) -> list[str]:
    """Imports of a higher layer, and those of ``api``'s list of public names, which is for others."""
    height = {part: level for level, layer in enumerate(layers) for part in layer}
    graph = import_graph(root)
    return [
        f"{module} imports {target or PACKAGE}"
        for module, targets in sorted(graph.items())
        for target in sorted(targets)
        if target == "api"
        or (part_of(module) in height and height.get(part_of(target), len(layers)) > height[part_of(module)])
    ]


def imports_of_the_plugin(root: Path) -> list[str]:
    return [
        f"{module} imports {target}"
        for module, targets in sorted(import_graph(root).items())
        if is_in(module, {"ui"})
        for target in sorted(targets)
        if not is_in(target, UI_IMPORTS)
    ]


def import_circles(root: Path) -> list[str]:
    return [" and ".join(circle) for circle in circles(import_graph(root))]


def full_folders(root: Path) -> list[str]:
    """Folders of the package, the tests, the DAGs and the scripts with too many modules to take in."""
    found = []
    for top in (PACKAGE, "tests", "dags", "scripts"):
        for folder in sorted({path.parent for path in (root / top).rglob("*.py")}):
            modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
            if len(modules) > MOST_MODULES_IN_A_FOLDER:
                found.append(f"{folder.relative_to(root)}: {len(modules)} modules")
    return found


def modules_at_the_root(root: Path) -> list[str]:
    loose = sorted(path.name for path in (root / PACKAGE).glob("*.py") if path.name != "__init__.py")
    return loose if len(loose) > MOST_MODULES_AT_THE_ROOT else []


def long_modules(root: Path) -> list[str]:
    lengths = {name_of(path, root): len(path.read_text().splitlines()) for path in files(root)}
    return [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > MOST_LINES_IN_A_MODULE]


def too_many_public_classes(root: Path, most: int) -> list[str]:
    """How many classes a reader of the package can meet; those of the emulator stand beside it."""
    names = [
        node.name
        for path in files(root)
        if not is_in(name_of(path, root), {EMULATOR})
        for node in parsed(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    return [f"{len(names)} public classes, of {most} at most"] if len(names) > most else []


def errors_outside_of_the_tree(root: Path) -> list[str]:
    """Subclasses of KlingError, by however many steps, that are not in ``api/exceptions.py``."""
    errors = _kling_errors(root)
    return [
        f"{name_of(path, root)}.{name}"
        for path in files(root)
        for name, _ in _classes_of(path)
        if name in errors and name_of(path, root) != "api.exceptions"
    ]


def constants_with_two_homes(root: Path) -> list[str]:
    """Constants of the same name and value, underscore or not, that two modules define."""
    homes: dict[tuple[str, str], list[str]] = {}
    for path in files(root):
        if is_in(name_of(path, root), {EMULATOR}):
            continue
        for node in parsed(path).body:
            target = node.target if isinstance(node, ast.AnnAssign) else None
            target = node.targets[0] if isinstance(node, ast.Assign) else target
            if isinstance(target, ast.Name) and target.id.isupper() and node.value is not None:  # type: ignore[attr-defined]
                value = ast.unparse(node.value)  # type: ignore[attr-defined]
                homes.setdefault((target.id.lstrip("_"), value), []).append(name_of(path, root))
    return [
        f"{name}: {', '.join(where)}"
        for (name, _), where in homes.items()
        if len(where) > 1 and name not in SAME_BY_CHANCE
    ]


def xcom_keys_elsewhere(root: Path) -> list[str]:
    """Texts where an XCom is pushed or pulled; outside of ``task/xcom.py`` a key is a name from there."""
    wrong = []
    for path in files(root):
        if name_of(path, root) == "task.xcom":
            continue
        for node in ast.walk(parsed(path)):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            if called not in XCOM_CALLS:
                continue
            keys = [keyword.value for keyword in node.keywords if keyword.arg == "key"]
            if called in ("push", "_push"):
                takes_context = bool(node.args) and "context" in ast.unparse(node.args[0])
                keys += node.args[1:2] if takes_context else node.args[:1]
            wrong += [
                f"{name_of(path, root)}, line {node.lineno}: {text!r}"
                for key in keys
                for text in sorted(_constants_in(key))
            ]
    return wrong


def secrets_hidden_elsewhere(root: Path) -> list[str]:
    """Functions and patterns that hide secrets outside of ``api/redaction.py``."""
    wrong = []
    for path in files(root):
        module = name_of(path, root)
        if module == "api.redaction" or is_in(module, {EMULATOR}):
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and SECRET_WORDS.search(node.name):
                wrong.append(f"{module}.{node.name}")
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func) in ("re.compile", "re.sub")
                and any(map(SECRET_PATTERNS.search, _constants_in(node)))
            ):
                wrong.append(f"{module}, line {node.lineno}: {ast.unparse(node)}")
    return wrong


def loggers_that_hide_nothing(root: Path) -> list[str]:
    """Loggers that are not made by ``api/redaction.py``, Airflow's own of an operator among them.

    A trigger's own is allowed: Airflow routes it to the log of its task. It is given ids and numbers alone.
    """
    wrong = []
    for path in files(root):
        module = name_of(path, root)
        if module == "api.redaction" or is_in(module, {EMULATOR}):
            continue
        wrong += [
            f"{module}, line {node.lineno}: {ast.unparse(node)}"
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.Attribute)
            and ast.unparse(node)
            in ("logging.getLogger", *(() if is_in(module, {"triggers"}) else ("self.log",)))
        ]
    return wrong


def values_shown_as_they_are(root: Path) -> list[str]:
    """Values quoted in errors of other kinds than KlingError, which alone hides secrets by itself."""
    errors = _kling_errors(root)
    wrong = []
    for path in files(root):
        module = name_of(path, root)
        if module in ("api", "api.redaction") or is_in(module, {EMULATOR}):
            continue
        for node in ast.walk(parsed(path)):
            made = node.exc if isinstance(node, ast.Raise) else None
            if not isinstance(made, ast.Call) or ast.unparse(made.func).split(".")[-1] in errors:
                continue
            wrong += [
                f"{module}, line {value.lineno}: {ast.unparse(value.value)}"
                for value in ast.walk(made)
                if isinstance(value, ast.FormattedValue)
                and value.conversion == ord("r")
                and not ast.unparse(value.value).startswith("clean(")
            ]
    return wrong


def modules_without_tests(root: Path, tested_elsewhere: Mapping[str, str]) -> list[str]:
    """Modules without a file at the same path in ``tests/unit``, and entries that say so in vain.

    :param tested_elsewhere: modules and folders that need no such file, and the place of their tests.
    """
    missing = []
    for path in files(root):
        if path.name.startswith("__"):
            continue
        beside = path.relative_to(root / PACKAGE)
        if not (root / "tests" / "unit" / beside.parent / f"test_{beside.name}").exists():
            missing.append(name_of(path, root))
    return [
        *(f"{module} has no tests" for module in missing if not is_in(module, tested_elsewhere)),
        *(
            f"{part} is listed in vain"
            for part in tested_elsewhere
            if not any(is_in(each, {part}) for each in missing)
        ),
        *(f"{place} is missing" for place in tested_elsewhere.values() if not (root / place).exists()),
    ]


def foreign_imports_of(part: str, root: Path) -> list[str]:
    """What ``api`` or the emulator imports of Airflow and of the rest of the package."""
    allowed = (f"{PACKAGE}.api", f"{PACKAGE}.{part}", f"{PACKAGE}.__version__")
    return _described(
        found
        for found in all_imports(root)
        if is_within(found.module, part)
        and (
            is_within(found.imported, "airflow")
            or (is_within(found.imported, PACKAGE) and not is_in(found.imported, allowed))
        )
    )


def transports_outside_of_their_home(root: Path) -> list[str]:
    return _described(
        found
        for found in all_imports(root)
        for library, homes in HOMES.items()
        if is_within(found.imported, library)
        and found.module not in homes
        and not (library == "aiohttp" and is_within(found.module, EMULATOR))
    )


def imports_that_differ_between_airflow_versions(root: Path) -> list[str]:
    """Outside of ``version_compat.py``: imports of ``airflow.sdk``, and any that may be missing."""
    return _described(
        found
        for found in all_imports(root)
        if found.module != "version_compat"
        and is_within(found.imported, "airflow")
        and (found.guarded or is_within(found.imported, "airflow.sdk"))
    )


def _described(imports: Iterator[Import]) -> list[str]:
    return [str(found) for found in imports]


def _classes_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ClassDef):
            yield (
                node.name,
                [base.attr if isinstance(base, ast.Attribute) else ast.unparse(base) for base in node.bases],
            )


def _kling_errors(root: Path) -> set[str]:
    classes = [found for path in files(root) for found in _classes_of(path)]
    errors = {"KlingError"}
    while more := {name for name, bases in classes if errors & set(bases)} - errors:
        errors |= more
    return errors


def _constants_in(node: ast.AST) -> set[str]:
    return {
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }

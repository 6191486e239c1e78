"""The rules of the house hold in this project, and each is seen to notice what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.unit import layout_rules as rules
from tests.unit.source_tree import PACKAGE, ROOT, circles, import_graph, imports_of

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
            {"api.settings", "api.paths", "api.temporary_files"},
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

TESTED_ELSEWHERE = {
    # what takes a socket: both clients against the emulator and misbehaving servers
    "api.client": "tests/contract",
    "api.async_client": "tests/contract",
    "api.download": "tests/contract/test_fetch.py",
    "api.transport": "tests/contract/test_transport.py",
    # tables and small parts that the tests of their only users cover
    "api.catalog": "tests/unit/api/catalog/test_validation.py",
    "api.durable.attempt": "tests/unit/api/durable/test_decision.py",
    "api.media.decoder_process": "tests/unit/api/media/test_image.py",
    "api.media.picture": "tests/unit/api/media/test_image.py",
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
    "task.batch.row_submits": "tests/airflow/batches",
    "task.batch.run": "tests/airflow/batches",
    # a server, driven over HTTP
    "emulator": "tests/contract/emulator",
    "ui": "tests/ui",
}
"""Modules without a file of their own in ``tests/unit``, by folder or name, and what tests them."""

MOST_PUBLIC_CLASSES = 189
"""A new one takes the place of another, or a reason to raise this."""

RULES: dict[str, Callable[[Path], list[str]]] = {
    "each part has a layer": partial(rules.without_a_place, layers=LAYERS),
    "imports point down only": partial(rules.imports_that_point_up, layers=LAYERS),
    "the plugin runs nothing of a task": rules.imports_of_the_plugin,
    "no modules import one another": rules.import_circles,
    "a folder can be taken in at a glance": rules.full_folders,
    "few modules stand at the root": rules.modules_at_the_root,
    "no module is too long": rules.long_modules,
    "few classes are public": partial(rules.too_many_public_classes, most=MOST_PUBLIC_CLASSES),
    "each KlingError is in api/exceptions.py": rules.errors_outside_of_the_tree,
    "a constant has one home": rules.constants_with_two_homes,
    "each XCom key is in task/xcom.py": rules.xcom_keys_elsewhere,
    "what hides secrets is in api/redaction.py": rules.secrets_hidden_elsewhere,
    "what is logged goes through api/redaction.py": rules.loggers_that_hide_nothing,
    "what an error quotes goes through api/redaction.py": rules.values_shown_as_they_are,
    "each module has tests at the same path": partial(
        rules.modules_without_tests, tested_elsewhere=TESTED_ELSEWHERE
    ),
    "api imports neither Airflow nor the rest": partial(rules.foreign_imports_of, "api"),
    "the emulator imports neither Airflow nor the rest": partial(rules.foreign_imports_of, rules.EMULATOR),
    "requests and aiohttp have one home each": rules.transports_outside_of_their_home,
    "what differs between Airflow versions is in version_compat.py": (
        rules.imports_that_differ_between_airflow_versions
    ),
}

BROKEN: list[tuple[str, Mapping[str, str], str]] = [
    ("each part has a layer", {"helpers/a.py": ""}, "helpers"),
    ("each part has a layer", {"api/helpers/a.py": ""}, "api.helpers"),
    (
        "imports point down only",
        {"hooks/a.py": f"from {PACKAGE}.operators.b import B", "operators/b.py": ""},
        "hooks.a imports operators.b",
    ),
    (
        "imports point down only",
        {
            "api/transport/a.py": f"def f():\n    from {PACKAGE}.api.polling.b import B",
            "api/polling/b.py": "",
        },
        "api.transport.a imports api.polling.b",
    ),
    (
        "imports point down only",
        {"hooks/a.py": f"from {PACKAGE}.api import KlingClient", "api/__init__.py": ""},
        "hooks.a imports api",
    ),
    (
        "the plugin runs nothing of a task",
        {"ui/a.py": f"from {PACKAGE}.task.wait import wait", "task/wait.py": ""},
        "ui.a imports task.wait",
    ),
    (
        "no modules import one another",
        {
            "hooks/a.py": f"def f():\n    import {PACKAGE}.hooks.b",
            "hooks/b.py": "from typing import TYPE_CHECKING\n"
            f"if TYPE_CHECKING:\n    from {PACKAGE}.hooks.a import A",
        },
        "hooks.a and hooks.b",
    ),
    (
        "a folder can be taken in at a glance",
        {f"hooks/{letter}.py": "" for letter in "abcdefghijklm"},
        f"{PACKAGE}/hooks: 13 modules",
    ),
    (
        "a folder can be taken in at a glance",
        {f"../tests/unit/test_{letter}.py": "" for letter in "abcdefghijklm"},
        "tests/unit: 13 modules",
    ),
    ("few modules stand at the root", {f"{letter}.py": "" for letter in "abcde"}, "a.py"),
    ("no module is too long", {"hooks/a.py": "x = 1\n" * 501}, "hooks.a: 501 lines"),
    (
        "few classes are public",
        {"task/a.py": "".join(f"class A{number}: ...\n" for number in range(MOST_PUBLIC_CLASSES + 1))},
        f"{MOST_PUBLIC_CLASSES + 1} public classes",
    ),
    (
        "each KlingError is in api/exceptions.py",
        {
            "api/exceptions.py": "class KlingError(Exception): ...\nclass ApiError(KlingError): ...",
            "hooks/a.py": "class Lost(exceptions.ApiError): ...",
        },
        "hooks.a.Lost",
    ),
    (
        "a constant has one home",
        {"hooks/a.py": "LONGEST = 900", "api/b.py": "_LONGEST: Final = 900"},
        "LONGEST: api.b, hooks.a",
    ),
    (
        "each XCom key is in task/xcom.py",
        {"operators/a.py": "ti.xcom_push(key='kling_path', value=1)"},
        "operators.a, line 1: 'kling_path'",
    ),
    (
        "each XCom key is in task/xcom.py",
        {"sensors/a.py": "xcom.push(context, 'kling_path', 1)"},
        "sensors.a, line 1: 'kling_path'",
    ),
    ("what hides secrets is in api/redaction.py", {"hooks/a.py": "def hide_secrets(): ..."}, "hooks.a"),
    (
        "what hides secrets is in api/redaction.py",
        {"hooks/a.py": "re.sub('ksSecret=[^&]*', '', url)"},
        "hooks.a, line 1",
    ),
    (
        "what is logged goes through api/redaction.py",
        {"hooks/a.py": "log = logging.getLogger(__name__)"},
        "hooks.a, line 1: logging.getLogger",
    ),
    (
        "what is logged goes through api/redaction.py",
        {"operators/a.py": "self.log.info('%s', url)"},
        "operators.a, line 1: self.log",
    ),
    (
        "what an error quotes goes through api/redaction.py",
        {"hooks/a.py": "raise ValueError(f'no {url!r}')"},
        "hooks.a, line 1: url",
    ),
    ("each module has tests at the same path", {"links/a.py": ""}, "links.a has no tests"),
    (
        "api imports neither Airflow nor the rest",
        {"api/a.py": "def f():\n    from airflow.models import DAG"},
        "api.a, line 2: imports airflow.models.DAG",
    ),
    (
        "api imports neither Airflow nor the rest",
        {"api/a.py": f"import {PACKAGE}.hooks.b", "hooks/b.py": ""},
        "api.a, line 1",
    ),
    (
        "the emulator imports neither Airflow nor the rest",
        {"emulator/a.py": f"from {PACKAGE}.task.b import B", "task/b.py": ""},
        "emulator.a, line 1",
    ),
    (
        "requests and aiohttp have one home each",
        {"hooks/a.py": "import requests.adapters"},
        "hooks.a, line 1: imports requests.adapters",
    ),
    (
        "requests and aiohttp have one home each",
        {"api/client.py": "import aiohttp"},
        "api.client, line 1: imports aiohttp",
    ),
    (
        "what differs between Airflow versions is in version_compat.py",
        {"hooks/a.py": "from airflow.sdk import BaseHook"},
        "hooks.a, line 1",
    ),
    (
        "what differs between Airflow versions is in version_compat.py",
        {"hooks/a.py": "try:\n    from airflow.io import path\nexcept ImportError:\n    pass"},
        "hooks.a, line 2",
    ),
]
"""Per rule a tree that breaks it: its files, by their paths in the package, and what is to be noticed."""


def tree(root: Path, sources: Mapping[str, str]) -> Path:
    """Write a source tree with these files in the package, and return its root."""
    for name, source in {"__init__.py": "__version__ = '1'", **sources}.items():
        path = root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_holds(rule: str) -> None:
    assert RULES[rule](ROOT) == []


@pytest.mark.parametrize(
    ("rule", "sources", "noticed"), BROKEN, ids=[f"{rule}: {noticed}" for rule, _, noticed in BROKEN]
)
def test_what_breaks_the_rule_is_noticed(
    tmp_path: Path, rule: str, sources: Mapping[str, str], noticed: str
) -> None:
    found = [each for each in RULES[rule](tree(tmp_path, sources)) if noticed in each]
    assert len(found) == 1, RULES[rule](tmp_path)


def test_each_rule_was_broken_once() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


def test_a_list_of_exceptions_has_no_idle_entry(tmp_path: Path) -> None:
    root = tree(tmp_path, {"hooks/a.py": ""})
    assert rules.modules_without_tests(root, {"hooks": "tests/nowhere", "ui": PACKAGE}) == [
        "ui is listed in vain",
        "tests/nowhere is missing",
    ]


def test_the_graph_sees_imports_in_functions_and_for_type_checkers(tmp_path: Path) -> None:
    sources = {
        "__init__.py": "__version__ = '1'",
        "a.py": f"from {PACKAGE} import __version__\nfrom {PACKAGE}.hooks.b import B",
        "hooks/__init__.py": "",
        "hooks/b.py": f"def f():\n    try:\n        import {PACKAGE}.hooks.c\n    except ImportError:\n        import h",
        "hooks/c.py": f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {PACKAGE}.a import A",
        "hooks/d.py": f"from {PACKAGE}.a import A",
    }
    root = tree(tmp_path, sources)
    graph = import_graph(root)
    assert graph == {
        "": set(),
        "a": {"hooks.b"},
        "hooks": set(),
        "hooks.b": {"hooks.c"},
        "hooks.c": {"a"},
        "hooks.d": {"a"},
    }
    assert circles(graph) == [["a", "hooks.b", "hooks.c"]]
    found = {each.imported: each.guarded for each in imports_of(root / PACKAGE / "hooks" / "b.py", root)}
    assert found == {f"{PACKAGE}.hooks.c": True, "h": False}

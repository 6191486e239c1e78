"""What the pages of ``docs/`` must name: each page in the site, each parameter, each field, each XCom."""

from __future__ import annotations

import ast
import configparser
import inspect
import re
from pathlib import Path

import pytest

from airflow_provider_kling import api
from airflow_provider_kling.api import exceptions
from airflow_provider_kling.get_provider_info import CONNECTION_FIELDS
from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator
from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.operators.reconcile import KlingReconcileOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor
from airflow_provider_kling.task import xcom

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}
OUR_ADDRESS = re.compile(r"https://[^\s)]*airflow-provider-kling[^\s)]*")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_each_page_has_its_place_in_the_site() -> None:
    listed = re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / "index.md").read_text(), re.DOTALL)
    named = [line for block in listed for line in block.splitlines() if line and not line.startswith(":")]
    assert len(named) == len(set(named))
    assert set(named) == PAGES - {"index"}


@pytest.mark.parametrize(
    "page",
    [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    links = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_pages_and_the_package_name_the_same_addresses() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["metadata"]["project_urls"].strip().splitlines()
    urls = dict(line.split(" = ") for line in lines)
    assert next(iter(urls)) == "Documentation"
    pages = [*DOCS.rglob("*.md"), *ROOT.glob("*.md")]
    named = [each for page in pages for each in re.findall(OUR_ADDRESS, page.read_text())]
    assert len(named) >= 2
    assert [each for each in named if not each.startswith((urls["Documentation"], urls["Source"]))] == []


OPERATORS = [
    KlingGenerateOperator,
    KlingDownloadOperator,
    KlingGenerationSensor,
    KlingGenerateBatchOperator,
    KlingReconcileOperator,
]


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_docstring_has_each_parameter(operator: type) -> None:
    given = [name for name in inspect.signature(operator).parameters if name != "kwargs"]
    assert re.findall(r":param (\w+):", operator.__doc__ or "") == given


@pytest.mark.parametrize("page", sorted((DOCS / "operators").glob("*.md")), ids=lambda page: page.stem)
def test_each_operator_s_page_has_all_that_is_to_be_known(page: Path) -> None:
    text = page.read_text()
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    assert "Durable execution" in headings
    assert ".. auto" in text
    assert page.stem == "hook" or any(each.startswith("XComs") for each in headings)


def test_the_reference_has_every_public_name() -> None:
    text = (DOCS / "reference" / "api.md").read_text()
    errors = {name for name, value in vars(exceptions).items() if isinstance(value, type)}
    assert [name for name in api.__all__ if name not in errors and f".api.{name}\n" not in text] == []


def test_the_connection_s_page_has_each_field() -> None:
    text = (DOCS / "connection.md").read_text()
    assert [name for name in CONNECTION_FIELDS if f"`{name}`" not in text] == []


def test_each_xcom_is_in_the_pages_of_the_operators() -> None:
    text = "".join(page.read_text() for page in (DOCS / "operators").glob("*.md"))
    keys = [value for name, value in vars(xcom).items() if name.isupper() and isinstance(value, str)]
    assert len(keys) > 5
    assert [key for key in keys if f"`{key}`" not in text] == []


NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
COUNTS = re.compile(r"accepted|submits\(|\.generations|\.journal|import_error\(|\brefused\(")
"""How a test sees that the emulator accepted nothing, or that no task ran."""


def named_tests(page: Path) -> list[tuple[str, str]]:
    return NAMED_TEST.findall(page.read_text())


def functions(module: Path) -> dict[str, str]:
    """Source of each test of a module, by its name."""
    source = module.read_text()
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    return {node.name: ast.get_source_segment(source, node) or "" for node in found}


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_each_test_that_a_page_names_is_there(page: Path) -> None:
    assert [
        f"{module}::{name}"
        for module, name in named_tests(page)
        if not (ROOT / module).is_file() or name not in functions(ROOT / module)
    ] == []


def test_each_promise_of_what_is_seen_before_paying_is_a_test_that_counts() -> None:
    text = (DOCS / "before-paying.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| shown by" not in line]
    assert len(rows) > 20
    assert [row for row in rows if not NAMED_TEST.search(row)] == []
    named = named_tests(DOCS / "before-paying.md")
    assert len(named) == len(set(named))
    assert [name for module, name in named if not COUNTS.search(functions(ROOT / module)[name])] == []


def test_each_promise_about_secrets_memory_and_files_is_a_test() -> None:
    table = (DOCS / "security.md").read_text().partition("## Shown by")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 40
    assert [row for row in rows if len(NAMED_TEST.findall(row)) != 1] == []
    named = named_tests(DOCS / "security.md")
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    ("page", "listed"),
    [
        ("README.md", "before-paying.md"),
        ("docs/storage.md", "before-paying.md"),
        ("docs/operators/generate.md", "before-paying.md"),
        ("SECURITY.md", "docs/security.md"),
    ],
)
def test_pages_that_promise_lead_to_the_list(page: str, listed: str) -> None:
    assert listed in (ROOT / page).read_text()


def test_troubleshooting_quotes_messages_as_they_are() -> None:
    """Each quoted message of a table's first column stands in the source, up to what is filled in."""
    texts = []
    for path in (ROOT / "airflow_provider_kling").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.ClassDef):
                texts.append(node.name)
    texts += [path.read_text() for path in (ROOT / "ui" / "src").glob("*.tsx")]
    source = "\n".join(texts)
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    quoted = [
        part
        for row in rows
        for text in re.findall(r"`([^`]+)`", row)
        for part in text.split("...")
        if part.strip()
    ]
    assert len(quoted) > 30
    assert [each for each in quoted if each.strip(" ,") not in source] == []

"""The public names of ``airflow_provider_kling.api``: complete, lazy, and the same for type checkers."""

from __future__ import annotations

import ast
import enum
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from airflow_provider_kling import api
from airflow_provider_kling.api import exceptions

INTERNAL = {
    # The conversations as generators, for the three drivers of this package and their tests.
    "VendorCalls",
    # One request and its reply, for the shared poller.
    "HttpRequest",
    "HttpResponse",
    "ConnectionLost",
    # What KlingClient.fetch gives to the code that saves a video.
    "Stream",
    # What a limiter tells its log.
    "RateChange",
    # Facts of a model that the validation reads; validate() is the public way to ask them.
    "Parameter",
}
"""Classes that signatures name and nobody outside of the package needs; each with its reason."""


def classes_of_the_package() -> set[str]:
    folder = Path(api.__file__).parent
    return {
        found
        for path in folder.rglob("*.py")
        for found in re.findall(r"^class ([A-Z]\w*)", path.read_text(), re.MULTILINE)
    }


def signatures(name: str) -> Iterator[tuple[str, str]]:
    """What a public name's signatures, fields and properties are annotated with, as text."""
    value = getattr(api, name)
    if inspect.isfunction(value):
        yield name, str(inspect.signature(value))
    if not inspect.isclass(value) or issubclass(value, enum.Enum | BaseException):
        return
    if is_dataclass(value):
        for each in fields(value):
            yield f"{name}.{each.name}", str(each.type)
    for attribute, member in inspect.getmembers(value):
        if attribute.startswith("_") and attribute != "__init__":
            continue
        member = member.fget if isinstance(member, property) else member
        if inspect.isfunction(member) or inspect.ismethod(member):
            yield f"{name}.{attribute}", str(inspect.signature(member))


@pytest.mark.parametrize("name", api.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(api, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = api.nothing


def test_all_errors_are_public_and_what_they_tell() -> None:
    told = {
        name
        for name, value in vars(exceptions).items()
        if inspect.isclass(value)
        and issubclass(value, exceptions.KlingError | enum.Enum)
        and value.__module__ == exceptions.__name__
    }
    assert told <= set(api.__all__)


def test_a_public_signature_names_only_public_classes() -> None:
    known = classes_of_the_package()
    assert "KlingClient" in known
    missing = {
        f"{where}: {word}"
        for name in api.__all__
        for where, text in signatures(name)
        for word in re.findall(r"\b[A-Z]\w+", text)
        if word in known and word not in api.__all__ and word not in INTERNAL
    }
    assert missing == set()


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(api.__file__).read_text())
    seen = {
        alias.asname or alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(seen) == set(api.__all__) == set(api._HOMES)
    assert {name: f"{api.__name__}.{home}" for name, home in api._HOMES.items()} == seen


def test_importing_the_package_loads_nothing_of_it() -> None:
    code = (
        "import json, sys, airflow_provider_kling.api as api; dir(api);"
        "print(json.dumps([name for name in sys.modules if name.startswith(api.__name__ + '.')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_name_loads_no_transport_that_it_does_not_need() -> None:
    code = (
        "import json, sys; from airflow_provider_kling.api import KlingClient, KlingError;"
        "print(json.dumps([name for name in ('aiohttp', 'PIL', 'av', 'airflow') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []

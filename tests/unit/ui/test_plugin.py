from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from airflow.api_fastapi.core_api.datamodels.plugins import ExternalViewResponse

from airflow_provider_kling.get_provider_info import get_provider_info
from airflow_provider_kling.ui.plugin import KlingPlugin, running_version, views
from airflow_provider_kling.version_compat import BaseOperator

KNOWN_SINCE_3_1 = {"nav", "dag", "dag_run", "task", "task_instance"}


@pytest.mark.parametrize("version", [(2, 11), (3, 0)])
def test_an_airflow_without_views_gets_none(version: tuple[int, int]) -> None:
    assert views(version) == []


@pytest.mark.parametrize("version", [(3, 1), (3, 2), (3, 3), (3, 4)])
def test_every_destination_is_known_to_every_airflow_with_views(version: tuple[int, int]) -> None:
    found = views(version)
    assert {each["destination"] for each in found} == {"nav", "dag", "dag_run", "task_instance"}
    assert {each["destination"] for each in found} <= KNOWN_SINCE_3_1
    assert len({each["url_route"] for each in found}) == len(found)
    assert not any(each["href"].startswith(("/", "http")) for each in found)  # a path prefix is kept


def test_only_airflow_3_4_is_told_which_operators_have_the_tab() -> None:
    assert not any("applies_to" in each for each in views((3, 3)))
    (scoped,) = (each for each in views((3, 4)) if "applies_to" in each)
    assert scoped["destination"] == "task_instance"
    named = set(scoped["applies_to"]["operator_name"])
    assert {f"@task.{each['name']}" for each in get_provider_info()["task-decorators"]} <= named
    generating = set()
    for info in (*get_provider_info()["operators"], *get_provider_info()["sensors"]):
        for module in map(importlib.import_module, info["python-modules"]):
            generating |= {
                name
                for name, value in vars(module).items()
                if isinstance(value, type) and issubclass(value, BaseOperator)
            }
    assert {each for each in generating if each.startswith("Kling")} - named == {
        "KlingReconcileOperator"
    }  # it makes nothing to look at


def test_the_running_airflow_takes_the_views() -> None:
    for view in views(running_version()):
        ExternalViewResponse.model_validate(view)


def test_it_is_declared_twice_and_once_the_same() -> None:
    (declared,) = (each for each in entry_points(group="airflow.plugins") if each.name == "kling")
    assert declared.load() is KlingPlugin
    (told,) = get_provider_info()["plugins"]
    assert told["name"] == KlingPlugin.name
    assert told["plugin-class"] == f"{KlingPlugin.__module__}.{KlingPlugin.__qualname__}"


def test_a_process_that_serves_no_page_does_not_load_the_app() -> None:
    code = """
import json, sys
from airflow.plugins_manager import AirflowPlugin
before = set(sys.modules)
import airflow_provider_kling.ui.plugin
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    added = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in added if name.startswith(("fastapi", "sqlalchemy", "airflow.models"))] == []
    assert "airflow_provider_kling.ui.app" not in added


def test_the_app_is_mounted_under_its_prefix() -> None:
    (mounted,) = KlingPlugin().fastapi_apps
    assert mounted["url_prefix"] == "/kling"
    assert mounted["app"] is KlingPlugin().fastapi_apps[0]["app"]

"""What Airflow makes of get_provider_info(): each test asks Airflow in a process of its own."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.get_provider_info import CONNECTION_FIELDS, CONNECTION_TYPE, get_provider_info

AIRFLOW = tuple(map(int, importlib.metadata.version("apache-airflow").split(".")[:2]))
ROOT = Path(__file__).resolve().parents[2]
FORM_FROM_METADATA = (3, 2)
"""The first Airflow that reads the connection form without importing the hook."""


def ask_airflow(code: str, home: Path) -> Any:
    """Run code with an Airflow home of its own, and return what its last line holds as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def connection_form(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if AIRFLOW < FORM_FROM_METADATA:
        pytest.skip("before Airflow 3.2 the form comes from the hook")
    code = """
import json, sys
from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService
forms = [meta for meta in HookMetaService.hook_meta_data() if meta.connection_type == "kling"]
print(json.dumps({
    "forms": [form.model_dump(mode="json") for form in forms],
    "hook_imported": "airflow_provider_kling.hooks.kling" in sys.modules,
}))
"""
    answer: dict[str, Any] = ask_airflow(code, tmp_path_factory.mktemp("airflow"))
    return answer


def test_the_entry_point_leads_to_it() -> None:
    found = [
        entry
        for entry in importlib.metadata.entry_points(group="apache_airflow_provider")
        if entry.value.startswith("airflow_provider_kling.")
    ]
    assert len(found) == 1, "install the project into this environment: pip install --editable ."
    assert found[0].load() is get_provider_info


def schema_of_airflow(name: str) -> dict[str, Any]:
    airflow = importlib.util.find_spec("airflow")
    assert airflow is not None
    assert airflow.submodule_search_locations
    folder = Path(next(iter(airflow.submodule_search_locations)))
    schema: dict[str, Any] = json.loads((folder / name).read_text())
    return schema


def test_it_is_what_airflow_s_schema_asks_for() -> None:
    jsonschema.validate(get_provider_info(), schema_of_airflow("provider_info.schema.json"))
    assert json.loads(json.dumps(get_provider_info())) == get_provider_info()


PARTS = ("integrations", "hooks", "operators", "sensors", "triggers", "connection-types", "task-decorators")


@pytest.mark.skipif(AIRFLOW < FORM_FROM_METADATA, reason="the older schema lacks our tags and conn-fields")
@pytest.mark.parametrize("part", PARTS)
def test_each_part_is_as_strict_as_airflow_asks_of_its_own_providers(part: str) -> None:
    """provider.yaml's schema forbids keys that it does not know; provider_info's lets them pass."""
    schema = schema_of_airflow("provider.yaml.schema.json")
    assert part in schema["properties"]
    jsonschema.validate({part: get_provider_info()[part]}, {**schema, "required": []})


@pytest.mark.parametrize("part", ["hooks", "operators", "sensors", "triggers"])
def test_it_names_each_module_with_a_public_class_of_that_kind(part: str) -> None:
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_kling.version_compat import BaseHook, BaseOperator, BaseSensorOperator

    bases = {
        "hooks": BaseHook,
        "operators": BaseOperator,
        "sensors": BaseSensorOperator,
        "triggers": BaseTrigger,
    }
    info = get_provider_info()
    (entry,) = info[part]
    assert entry["integration-name"] in {each["integration-name"] for each in info["integrations"]}
    folder = ROOT / "airflow_provider_kling" / part
    having = set()
    for path in folder.glob("[a-z]*.py"):
        module = importlib.import_module(f"airflow_provider_kling.{part}.{path.stem}")
        if any(
            isinstance(value, type)
            and issubclass(value, bases[part])
            and value.__module__ == module.__name__
            and not name.startswith("_")
            for name, value in vars(module).items()
        ):
            having.add(module.__name__)
    assert set(entry["python-modules"]) == having


def test_its_guides_are_pages_of_the_documentation() -> None:
    (integration,) = get_provider_info()["integrations"]
    missing = [guide for guide in integration["how-to-guide"] if not (ROOT / guide.lstrip("/")).is_file()]
    assert missing == []


def test_airflow_providers_hooks_and_triggers_list_them(tmp_path: Path) -> None:
    code = """
import json
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
print(json.dumps({
    "hook": manager.hooks["kling"].hook_class_name,
    "triggers": [each.trigger_class_name for each in manager.trigger if "kling" in each.package_name],
}))
"""
    found = ask_airflow(code, tmp_path)
    assert found["hook"] == "airflow_provider_kling.hooks.kling.KlingHook"
    assert "airflow_provider_kling.triggers.kling" in found["triggers"]


def test_airflow_lists_the_provider_with_its_version(tmp_path: Path) -> None:
    code = """
import json
from airflow.providers_manager import ProvidersManager
found = ProvidersManager().providers["airflow-provider-kling"]
print(json.dumps({"version": found.version, "name": found.data["name"]}))
"""
    version = importlib.metadata.version("airflow-provider-kling")
    assert ask_airflow(code, tmp_path) == {"version": version, "name": "Kling"}


def test_airflow_builds_the_form_without_the_hook(connection_form: dict[str, Any]) -> None:
    assert connection_form["hook_imported"] is False
    (form,) = connection_form["forms"]
    assert form["hook_name"] == "Kling (AI/ML API)"
    standard = form["standard_fields"]
    assert {name for name in standard if (standard[name] or {}).get("hidden")} == {
        "url_schema",
        "port",
        "login",
    }
    assert standard["password"]["title"] == "API key"
    assert standard["host"]["title"] == "Base URL"
    assert standard["host"]["placeholder"] == Settings("k").base_url


def test_the_form_has_each_extra_field_with_label_and_default(
    connection_form: dict[str, Any],
) -> None:
    (form,) = connection_form["forms"]
    shown = form["extra_fields"]
    assert set(shown) == set(CONNECTION_FIELDS)
    wanted = {"generation_path", "connect_timeout", "read_timeout", "ca_bundle", "proxy", "allow_plain_http"}
    assert wanted <= set(shown)
    assert all(field["schema"]["title"] and field["description"] for field in shown.values())
    assert shown["generation_path"]["schema"]["enum"] == [
        "/v2/generate/video/kling/generation",
        "/v2/video/generations",
    ]


def test_the_defaults_that_the_form_shows_are_the_ones_that_apply() -> None:
    in_force = Settings("k")
    for name, field in CONNECTION_FIELDS.items():
        default = field["schema"].get("default")
        assert default == getattr(in_force, name), name
        jsonschema.validate(default, field["schema"])


def test_airflow_finds_the_hook_of_the_connection_type(tmp_path: Path) -> None:
    code = f"""
import json
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
hook = manager.hooks[{CONNECTION_TYPE!r}]
widgets = [name for name in manager.connection_form_widgets if name.startswith("extra__kling__")]
print(json.dumps({{
    "class": hook.hook_class_name,
    "name": hook.hook_name,
    "test": hook.connection_testable,
    "widgets": sorted(name.removeprefix("extra__kling__") for name in widgets),
    "behaviour": manager.field_behaviours.get({CONNECTION_TYPE!r}),
}}))
"""
    found = ask_airflow(code, tmp_path)
    (declared,) = get_provider_info()["connection-types"]
    assert found["class"] == declared["hook-class-name"]
    assert found["name"] == declared["hook-name"]
    assert found["test"] is True
    if AIRFLOW < FORM_FROM_METADATA and importlib.util.find_spec("flask_appbuilder") is None:
        assert (found["widgets"], found["behaviour"]) == ([], None), "more than docs/versions.md promises"
        return
    assert found["widgets"] == sorted(CONNECTION_FIELDS)
    behaviour = declared["ui-field-behaviour"]
    assert found["behaviour"]["hidden_fields"] == behaviour["hidden-fields"]
    assert found["behaviour"]["relabeling"] == behaviour["relabeling"]
    assert found["behaviour"]["placeholders"] == behaviour["placeholders"]

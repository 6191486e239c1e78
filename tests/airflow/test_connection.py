"""The connection ``kling`` as Airflow keeps it, and what its test button says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from airflow_provider_kling.get_provider_info import (
    CONNECTION_FIELDS,
    HIDDEN_FIELDS,
    PLACEHOLDERS,
    RELABELING,
)
from tests.airflow.real_airflow import INSIDE, VERSION, RealAirflow

CONN = "AIRFLOW_CONN_KLING_DEFAULT"
TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"
OLDER = os.environ.get("AIRFLOW_2_11_PYTHON")
HOOK_MAKES_THE_FORM = (3, 2)
"""The first Airflow that no longer asks the hook for the connection's form."""


def as_json(**fields: Any) -> str:
    return json.dumps({"conn_type": "kling", "password": "secret-key", **fields})


def settings(airflow: RealAirflow, connection: str) -> dict[str, Any]:
    answer: dict[str, Any] = airflow.ask("settings_of", {CONN: connection}, conn_id="kling_default")
    return answer


def refusal(airflow: RealAirflow, connection: str) -> str:
    with pytest.raises(AssertionError) as refused:
        settings(airflow, connection)
    return str(refused.value)


def answer(airflow: RealAirflow, connection: str) -> tuple[bool, str]:
    fine, said = airflow.ask("test_connection", {CONN: connection}, conn_id="kling_default")
    assert "secret-key" not in said
    return fine, said


class TestReading:
    def test_a_key_is_enough(self, airflow: RealAirflow) -> None:
        read = settings(airflow, as_json())

        assert read["api_key"] == len("secret-key")
        assert read["base_url"] == "https://api.aimlapi.com"
        assert read["generation_path"] == "/v2/generate/video/kling/generation"
        for name, field in CONNECTION_FIELDS.items():
            assert read[name] == field["schema"].get("default")

    def test_json_with_everything(self, airflow: RealAirflow) -> None:
        extra = {
            "generation_path": "/v2/video/generations",
            "connect_timeout": 3,
            "read_timeout": "7.5",
            "ca_bundle": "/etc/ssl/own.pem",
            "proxy": "http://proxy.example.com:3128",
            "allow_plain_http": "true",
        }
        read = settings(airflow, as_json(host="http://gateway.example.com/kling/", extra=extra))

        assert {name: read[name] for name in extra} == {
            **extra,
            "connect_timeout": 3.0,
            "read_timeout": 7.5,
            "allow_plain_http": True,
        }
        assert read["base_url"] == "http://gateway.example.com/kling"

    def test_a_uri_with_everything(self, airflow: RealAirflow) -> None:
        """A URI has nothing but text; a key may hold what a URI has to quote."""
        key = "a/b+c:d@e"
        read = settings(
            airflow,
            f"kling://:{quote(key, safe='')}@gateway.example.com:8443/https?connect_timeout=3&read_timeout=7.5"
            "&generation_path=%2Fv2%2Fvideo%2Fgenerations&allow_plain_http=False",
        )

        assert read["api_key"] == len(key)
        assert read["base_url"] == "https://gateway.example.com:8443"
        assert (read["connect_timeout"], read["read_timeout"]) == (3.0, 7.5)
        assert read["generation_path"] == "/v2/video/generations"
        assert read["allow_plain_http"] is False

    @pytest.mark.parametrize("path", ["", "/", "/v2", "/kling"])
    def test_a_port_of_its_own_counts_with_any_path(self, airflow: RealAirflow, path: str) -> None:
        read = settings(airflow, as_json(host=f"gateway.example.com{path}", port=8443))
        kept = path if path == "/kling" else ""
        assert read["base_url"] == f"https://gateway.example.com:8443{kept}"

    def test_empty_fields_of_the_form_mean_the_defaults(self, airflow: RealAirflow) -> None:
        empty = dict.fromkeys(CONNECTION_FIELDS, "")
        assert settings(airflow, as_json(host="", extra=empty)) == settings(airflow, as_json())

    def test_an_unknown_field_is_named(self, airflow: RealAirflow) -> None:
        settings(airflow, as_json(extra={"conect_timeout": 3}))
        assert "'conect_timeout'" in airflow.last_output
        assert "connect_timeout" in airflow.last_output

    @pytest.mark.parametrize(
        ("connection", "said"),
        [
            (json.dumps({"conn_type": "kling"}), ["'kling_default' has no API key", "password field"]),
            (as_json(password="  "), ["'kling_default' has no API key"]),
            (as_json(password="two words"), ["'kling_default' cannot be used", "spaces"]),
            (as_json(host="http://gateway.example.com"), ["not encrypted", "allow_plain_http"]),
            (as_json(host="ftp://gateway.example.com"), ["ftp://gateway.example.com", "https URL"]),
            (as_json(extra={"read_timeout": "soon"}), ["read_timeout='soon'", "not a number"]),
            (as_json(extra={"read_timeout": -1}), ["read_timeout=-1"]),
            (as_json(extra={"allow_plain_http": "maybe"}), ["allow_plain_http='maybe'", "true nor false"]),
            (as_json(extra={"generation_path": "/v1"}), ["'/v1'", "/v2/video/generations"]),
        ],
    )
    def test_what_cannot_be_used_is_explained(
        self, airflow: RealAirflow, connection: str, said: list[str]
    ) -> None:
        refused = refusal(airflow, connection)
        assert "ConfigurationError" in refused
        assert "Nothing was sent, so this cost nothing." in refused
        for words in said:
            assert words in refused

    @pytest.mark.parametrize("host", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"])
    def test_plain_http_to_this_machine_is_fine(self, airflow: RealAirflow, host: str) -> None:
        assert settings(airflow, as_json(host=host))["base_url"] == host


class TestButton:
    """Costs nothing, and says plainly what is wrong."""

    def test_fine(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        fine, said = answer(airflow, as_json(host=vendor.url, password=vendor.api_key))

        assert fine
        assert "1000.00 USD" in said
        assert vendor.stats["calls"] == {"billing": 1}

    def test_a_wrong_key(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        fine, said = answer(airflow, as_json(host=vendor.url))

        assert not fine
        assert said.startswith("Wrong key")
        assert "password field" in said

    def test_no_credit(self, airflow: RealAirflow) -> None:
        with EmulatorThread(EmulatorOptions(balance=0)) as poor:
            fine, said = answer(airflow, as_json(host=poor.url, password=poor.api_key))

        assert not fine
        assert "no credit" in said
        assert "0.00 USD" in said

    def test_unreachable(self, airflow: RealAirflow) -> None:
        fine, said = answer(airflow, as_json(host="http://127.0.0.1:1"))

        assert not fine
        assert said.startswith("Unreachable")
        assert "127.0.0.1:1" in said

    def test_not_configured(self, airflow: RealAirflow) -> None:
        fine, said = answer(airflow, json.dumps({"conn_type": "kling"}))

        assert not fine
        assert "no API key" in said


@pytest.mark.parametrize("place", ["json", "uri", "database"])
def test_tasks_use_it_wherever_it_is_kept(airflow: RealAirflow, vendor: EmulatorThread, place: str) -> None:
    """And the path that it selects."""
    address = vendor.url.removeprefix("http://")
    uri = f"kling://:{vendor.api_key}@{address}/http?generation_path=%2Fv2%2Fvideo%2Fgenerations"
    conn_id = "kling_default"
    env = {
        "json": {
            CONN: as_json(
                host=vendor.url, password=vendor.api_key, extra={"generation_path": "/v2/video/generations"}
            )
        },
        "uri": {CONN: uri},
        "database": {},
    }[place]
    if place == "database":
        conn_id = "kling_stored"
        airflow.ask("store_connection", {}, uri=uri, conn_id=conn_id)
    run = airflow.run(
        f'''
        generate = KlingGenerateOperator(
            task_id="generate", model="{TEXT_MODEL}", prompt="x", kling_conn_id="{conn_id}")
        KlingGenerationSensor(task_id="wait", generation_id=generate.output, kling_conn_id="{conn_id}")
        ''',
        **env,
    )

    assert run.state == "success"
    assert {entry.path for entry in vendor.journal if entry.call in ("submit", "poll")} == {
        "/v2/video/generations"
    }


@pytest.fixture(scope="module")
def form(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The form of Airflow before 3.2, which asks the hook: this one, or one that the environment names."""
    python = sys.executable if VERSION < HOOK_MAKES_THE_FORM else OLDER
    if python is None:
        pytest.skip("the form comes from the hook before Airflow 3.2; AIRFLOW_2_11_PYTHON names one")
    code = f"import json, sys; sys.path[:0] = [{str(INSIDE.parent)!r}]; import inside_provider; "
    code += "print(json.dumps(inside_provider.hook_form()))"
    env = os.environ | {
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("home")),
        "PYTHONPATH": str(INSIDE.parents[2]),
    }
    done = subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_old_form_has_every_field_in_a_kind_that_airflow_takes(form: dict[str, Any]) -> None:
    assert form["labels"] == {name: field["label"] for name, field in CONNECTION_FIELDS.items()}
    assert set(form["widgets"].values()) == {"StringField", "BooleanField"}
    assert form["widgets"]["allow_plain_http"] == "BooleanField"


def test_the_old_form_renames_and_hides_standard_fields(form: dict[str, Any]) -> None:
    assert form["behaviour"] == {
        "hidden_fields": HIDDEN_FIELDS,
        "relabeling": RELABELING,
        "placeholders": PLACEHOLDERS,
    }

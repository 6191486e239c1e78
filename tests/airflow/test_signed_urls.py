"""A picture's address that gives access: sent to the vendor, and in nothing that Airflow keeps, at DEBUG too."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.airflow.real_airflow import RealAirflow, Run
from tests.airflow.test_secrets import kept

KEY = "sk-A-key-that-is-found-wherever-it-is"
SECRETS = {
    "amazon": "5f1d0c8e4b7a19f263d05f1d0c8e4b7a19f263d05f1d0c8e4b7a19f263d01234",
    "azure": "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4MTIzNDU2Nzg",
    "vendor": "9d41f7a2c08b4e6f8d41f7a2c08b4e6f",
    "token": "tok3n-Of-A-Bucket-4711",
    "password": "h0rse-Battery-staple",
    "rendered": "a7b19f263e5d0c84b7a19f263e5d0c84",
}
URLS = {
    "amazon": "https://pictures.invalid/a.jpg?X-Amz-Date=20261127T000000Z&X-Amz-Signature="
    + SECRETS["amazon"],
    "azure": "https://pictures.invalid/b.jpg?sv=2024-01-01&se=2027&sig=" + SECRETS["azure"] + "%3D",
    "vendor": "https://cdn.invalid/c.jpg?ksTime=1&ksSecret=" + SECRETS["vendor"],
    "token": f"https://{SECRETS['token']}@pictures.invalid/d.jpg",
    "password": f"https://user:{SECRETS['password']}@pictures.invalid/e.jpg",
    "rendered": "https://pictures.invalid/f.jpg?Expires=1&Signature=" + SECRETS["rendered"],
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[RealAirflow, str, list[Run]]:
    """An Airflow that logs all it can, and has used each of them: as an argument, rendered, and in a failure."""
    options = EmulatorOptions(
        keys=(KEY,),
        queued_seconds=0,
        generating_seconds=0,
        log_lag=0,
        offline_pictures=True,
        picture_timeout=1,
    )
    vendor = EmulatorThread(options)
    with (
        vendor,
        RealAirflow(
            tmp_path_factory.mktemp("signed") / "home", AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG"
        ) as airflow,
    ):
        connection = {"conn_type": "kling", "host": vendor.url, "password": KEY}
        airflow.env = {
            "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
            # Airflow keeps the source of each DAG, so what is secret comes from elsewhere.
            "SIGNED": json.dumps(URLS),
        }
        runs = [
            airflow.run(
                f"""
                import json, os
                SIGNED = json.loads(os.environ["SIGNED"])
                dag.user_defined_macros = {{"signed": SIGNED}}
                for name in {[name for name in URLS if name != "rendered"]}:
                    made = KlingGenerateOperator(task_id=name, prompt="x", image=SIGNED[name])
                KlingGenerateOperator(
                    task_id="rendered", prompt="x", image="{{{{ signed['rendered'] }}}}",
                    path="{airflow.output}/", sidecar=True)
                KlingGenerateOperator(
                    task_id="parameters", model="kling-video/v1.6/standard/image-to-video",
                    parameters=dict(prompt="x", image_url="{{{{ signed['amazon'] }}}}"))
                KlingGenerateOperator(
                    task_id="refused", prompt="x", image=SIGNED["azure"], cfg_scale="{{{{ 7 }}}}")
                """
            )
        ]
        vendor.faults.add("submit", 400, message="cannot fetch " + URLS["amazon"])
        runs.append(
            airflow.run(
                """
                import json, os
                SIGNED = json.loads(os.environ["SIGNED"])
                KlingGenerateOperator(task_id="told", prompt="x", image=SIGNED["amazon"])
                """
            )
        )
        sent = json.dumps([each["parameters"] for each in vendor.generations])
    return airflow, sent, runs


def test_the_runs_did_what_they_should(seen: Any) -> None:
    _, sent, (run, told) = seen
    states = {name: task.state for name, task in run.tasks.items()}
    assert states == dict.fromkeys([*URLS, "parameters"], "success") | {"refused": "failed"}
    assert told["told"].state == "failed"
    assert [name for name, secret in SECRETS.items() if secret not in sent] == []


def places_of(secret: str, airflow: RealAirflow) -> list[str]:
    """Where a secret is, but for the lines in which ``dag.test()`` logs what it tells its masker."""
    found = []
    for path, content in kept(airflow).items():
        lines = [line for line in content.splitlines() if secret.encode() in line]
        if [line for line in lines if b"msg=MaskSecret(" not in line]:
            found.append(str(path.relative_to(airflow.home)))
    return found


@pytest.mark.parametrize("name", SECRETS)
def test_it_is_nowhere(seen: Any, name: str) -> None:
    """Rendered templates, the serialized DAG, XComs, task logs, what is printed: none of them has it."""
    airflow, _, _ = seen
    assert places_of(SECRETS[name], airflow) == []


def test_the_key_is_nowhere_at_debug(seen: Any) -> None:
    airflow, _, _ = seen
    assert places_of(KEY, airflow) == []


def test_the_sidecar_has_no_signature(seen: Any) -> None:
    airflow, _, _ = seen
    (sidecar,) = Path(airflow.output).glob("*.json")
    assert "pictures.invalid/f.jpg" in sidecar.read_text()
    assert SECRETS["rendered"] not in sidecar.read_text()


def test_no_line_of_ours_or_of_urllib3_has_the_signature_of_a_video_at_debug(seen: Any) -> None:
    """Airflow itself logs at DEBUG what is pushed to XCom, where the URL has to be usable."""
    airflow, _, (run, _) = seen
    found = re.search(r"ksSecret=(\w+)", run["rendered"].xcom["video_url"])
    assert found
    logs = b"".join(content for path, content in kept(airflow).items() if path.suffix in (".log", ".txt"))
    assert b"GET /cdn/" in logs
    lines = [line for line in logs.splitlines() if found[1].encode() in line]
    assert [line for line in lines if b"XCom(" not in line and b"MaskSecret(" not in line] == []

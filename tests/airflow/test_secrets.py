"""Nothing that Airflow keeps of a run holds the key, a signed URL in a log, or a picture."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.airflow.real_airflow import PICTURES, VERSION, RealAirflow, Run

KEY = "sk-A-key-that-is-found-wherever-it-is"
MUG = PICTURES / "mug.jpg"
TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"
INLINE = "data:image/jpeg;base64," + base64.b64encode(MUG.read_bytes()).decode()
READ = f"""import base64; INLINE = "data:image/jpeg;base64," + base64.b64encode(open("{MUG}", "rb").read()).decode()"""
PIECES = [INLINE[at : at + 40] for at in range(100, len(INLINE) - 40, len(INLINE) // 12)]
"""From all over the picture: whoever keeps a part of it keeps one of them, or cut it very short."""

ON_3_0 = VERSION[:2] == (3, 0)
MESSAGES_ON_3_0 = re.compile(
    rb"^.*\[debug +\] (?:Sending request|Received message from task runner).*$", re.MULTILINE
)
"""On Airflow 3.0 dag.test() shows each message between a task and its supervisor on the console, those
that name a secret to be masked among them; no task log has them."""


def kept(airflow: RealAirflow) -> dict[Path, bytes]:
    """All that Airflow wrote in its home, but the DAGs that were given to it and the videos it landed."""
    files = (path for path in airflow.home.rglob("*") if path.is_file())
    return {
        path: MESSAGES_ON_3_0.sub(b"", path.read_bytes()) if ON_3_0 else path.read_bytes()
        for path in files
        if not (path.is_relative_to(airflow.dags) or path.is_relative_to(airflow.output))
    }


def places_of(secret: str, airflow: RealAirflow) -> list[str]:
    return [
        str(path.relative_to(airflow.home))
        for path, content in kept(airflow).items()
        if secret.encode() in content
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RealAirflow, list[Run]]:
    """An Airflow that has seen it all: success and failure, inline and local pictures, deferrals, events."""
    options = EmulatorOptions(keys=(KEY,), queued_seconds=0, generating_seconds=1, log_lag=0)
    with (
        EmulatorThread(options) as vendor,
        RealAirflow(tmp_path_factory.mktemp("secrets") / "home") as airflow,
    ):
        connection = {"conn_type": "kling", "host": vendor.url, "password": KEY}
        airflow.env = {"AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection)}
        airflow.ask(
            "store_connection", {}, uri=f"kling://:{KEY}@{vendor.url[7:]}/http", conn_id="kling_stored"
        )
        runs = [
            airflow.run(
                f'''
                {READ}
                inline = KlingGenerateOperator(task_id="inline", prompt="x", image=INLINE)
                nested = KlingGenerateOperator(
                    task_id="nested", model="kling-video/v1.6/standard/multi-image-to-video", prompt="x",
                    parameters=dict(image_list=[INLINE, INLINE]))
                local = KlingGenerateOperator(
                    task_id="local", prompt="x", image="{MUG}", kling_conn_id="kling_stored",
                    wait_for_completion=True, deferrable=True)
                KlingGenerateOperator.partial(task_id="mapped", prompt="x").expand(image=[INLINE, "{MUG}"])
                KlingGenerateOperator.partial(task_id="shared", image=INLINE).expand(prompt=["x"])
                KlingGenerateOperator.partial(task_id="each", prompt="x").expand_kwargs(
                    [dict(image=INLINE), dict(parameters=dict(image_url=INLINE))])
                dag.user_defined_macros = {{"picture": INLINE.partition(",")[2]}}
                KlingGenerateOperator(
                    task_id="rendered", prompt="x", image="data:image/jpeg;base64,{{{{ picture }}}}")
                wait = KlingGenerationSensor(
                    task_id="wait", generation_id=local.output, kling_conn_id="kling_stored")
                download = KlingDownloadOperator(
                    task_id="download", generation_id=local.output, path="{airflow.output}/",
                    kling_conn_id="kling_stored")
                wait >> download
                ''',
                dag={"params": {"seconds": 5}},
            )
        ]
        vendor.faults.add("submit", 401)
        vendor.faults.add("submit", "reset-after")
        vendor.faults.add("poll", "html", times=2)
        for _ in range(2):
            runs.append(
                airflow.run(
                    f"""
                    {READ}
                    KlingGenerateOperator(
                        task_id="refused", prompt="x", image=INLINE, wait_for_completion=True,
                        poke_interval=1, uncertain_grace=1)
                    """
                )
            )
        vendor.faults.add("submit", "unreadable-body", times=3)
        runs.append(
            airflow.run(f'{READ}\nKlingGenerateOperator(task_id="refused", prompt="x", image=INLINE)')
        )
        wrong = (
            'KlingGenerateOperator(task_id="wrong", prompt="x", image=INLINE, duration=7, cfg_scale=INLINE)'
        )
        error = airflow.import_error(f"{READ}\n{wrong}")
        assert "must be 5 or 10" in error
        assert INLINE[50:90] not in error
        airflow.ask("test_connection", {}, conn_id="kling_default")
    return airflow, runs


def test_the_runs_did_what_they_should(runs: tuple[RealAirflow, list[Run]]) -> None:
    _, (success, refused, reattached, unreadable) = runs
    assert success.state == "success", success
    assert refused.state == "failed"
    assert reattached.state == "success"
    assert unreadable.state == "success"


def test_the_key_is_nowhere(runs: tuple[RealAirflow, list[Run]]) -> None:
    """The stored connection is encrypted: Airflow makes a fernet key of its own."""
    airflow, _ = runs
    assert places_of(KEY, airflow) == []


def test_the_picture_is_nowhere(runs: tuple[RealAirflow, list[Run]]) -> None:
    airflow, _ = runs
    for piece in PIECES:
        assert places_of(piece, airflow) == []


def test_and_this_finds_what_is_there(runs: tuple[RealAirflow, list[Run]]) -> None:
    """A search that cannot find anything proves nothing."""
    airflow, (success, *_) = runs
    assert "airflow.db" in places_of(success["local"].xcom["generation_id"], airflow)
    assert "stdout.log" in places_of("Submitting to kling-video", airflow)


def test_logs_hold_no_signed_url(runs: tuple[RealAirflow, list[Run]]) -> None:
    airflow, _ = runs
    logs = {path: content for path, content in kept(airflow).items() if path.suffix in (".log", ".txt")}
    assert logs
    assert [path for path, content in logs.items() if re.search(rb"ksSecret=(?!\*)", content)] == []


def test_inline_pictures_are_shown_by_type_and_length(runs: tuple[RealAirflow, list[Run]]) -> None:
    _, (success, *_) = runs
    shown = f"data:image/jpeg;base64,… ({len(INLINE)} characters)"
    for task in ("inline", "rendered", "mapped[0]", "shared[0]", "each[0]"):
        assert success[task].rendered["image"] == shown
    assert success["mapped[1]"].rendered["image"] == str(MUG)
    assert str(success["nested"].rendered["parameters"]).count(shown) == 2
    assert shown in str(success["each[1]"].rendered["parameters"])


def test_what_a_trigger_is_given_is_plain(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    """It goes to the database, and to whoever looks at the triggerer."""
    arguments = airflow.ask(
        "trigger_arguments", {}, generation_id="g", deadline=1.0, schedule={"interval": 5}
    )

    assert {
        "generation_id": "g",
        "kling_conn_id": "kling_default",
        "deadline": 1.0,
    }.items() <= arguments.items()
    assert "://" not in json.dumps(arguments)
    assert vendor.api_key not in json.dumps(arguments)

"""KlingGenerationSensor in real Airflow: poked, rescheduled and deferred."""

from __future__ import annotations

import pytest

from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import RealAirflow

MODEL = "kling-video/v1.6/standard/text-to-video"
MODES = {
    "poke": "deferrable=False",
    "reschedule": 'mode="reschedule"',
    "deferrable": "deferrable=True",
}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
blocking_modes = pytest.mark.parametrize("mode", list(MODES.values())[:2], ids=list(MODES)[:2])


def submitted(vendor: EmulatorThread, prompt: str = "A boat.") -> str:
    with KlingClient(Settings(vendor.api_key, base_url=vendor.url)) as client:
        return client.submit(GenerationRequest(MODEL, {"prompt": prompt})).id


def sensor(generation_id: str, arguments: str) -> str:
    return f'KlingGenerationSensor(task_id="wait", generation_id="{generation_id}", {arguments})'


@each_mode
def test_it_waits(patient_airflow: RealAirflow, slow_vendor: EmulatorThread, mode: str) -> None:
    generation_id = submitted(slow_vendor)

    run = patient_airflow.run(sensor(generation_id, f'{mode}, poke_interval=1, model="{MODEL}"'))

    (generation,) = slow_vendor.generations
    xcom = run["wait"].xcom
    assert run.state == "success"
    assert xcom["return_value"] == {
        "id": generation_id,
        "status": "completed",
        "video_url": xcom["video_url"],
        "duration": 5.0,
        "credits_used": generation["credits"],
        "model": MODEL,
    }
    assert xcom["video_url"].startswith(f"{slow_vendor.cdn_url}/{generation_id}.mp4?")
    assert ("in the triggerer" in run.log) == ("deferrable=True" in mode)
    assert "ksSecret" not in run.log


@each_mode
def test_it_knows_what_the_task_upstream_asked_for(
    patient_airflow: RealAirflow, slow_vendor: EmulatorThread, mode: str
) -> None:
    """The model, whose usual duration it polls by, and what the price is estimated from."""
    run = patient_airflow.run(f"""
    generate = KlingGenerateOperator.partial(task_id="generate", model="{MODEL}").expand(prompt=["a", "b"])
    KlingGenerationSensor.partial(task_id="wait", {mode}).expand(generation_id=generate.output)
    """)

    assert run.state == "success", run.log[-3000:]
    ids = [run[f"generate[{index}]"].xcom["return_value"] for index in (0, 1)]
    for index, generation_id in enumerate(ids):
        waited = run[f"wait[{index}]"].xcom
        assert waited["return_value"]["id"] == generation_id
        assert waited["return_value"]["model"] == MODEL
        assert waited["cost"]["usd"] == 0.29


@each_mode
def test_it_looks_once_before_it_waits(airflow: RealAirflow, vendor: EmulatorThread, mode: str) -> None:
    run = airflow.run(sensor(submitted(vendor), mode))

    assert run.state == "success"
    assert "in the triggerer" not in run.log
    assert vendor.stats["calls"]["poll"] == 1


@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
@each_mode
def test_it_gives_up_after_its_timeout(
    airflow: RealAirflow, vendor: EmulatorThread, mode: str, soft_fail: bool, state: str
) -> None:
    generation_id = submitted(vendor, "A boat. [emulator: stall]")

    run = airflow.run(
        sensor(generation_id, f"{mode}, poke_interval=1, timeout=1, retries=3, soft_fail={soft_fail}")
    )

    assert run["wait"].state == state
    assert run["wait"].tries == 1
    if not soft_fail:
        assert "AirflowSensorTimeout" in run.log
    assert f"Timed out waiting for generation {generation_id}" in run.log
    assert "billed on completion" in run.log
    assert f"KlingGenerationSensor(generation_id='{generation_id}', timeout=...)" in run.log


@pytest.mark.parametrize(("soft_fail", "state"), [(False, "failed"), (True, "skipped")])
@each_mode
def test_a_generation_that_failed_is_not_waited_for_again(
    airflow: RealAirflow, vendor: EmulatorThread, mode: str, soft_fail: bool, state: str
) -> None:
    generation_id = submitted(vendor, "A boat. [emulator: moderation]")

    run = airflow.run(sensor(generation_id, f"{mode}, retries=3, soft_fail={soft_fail}"))

    assert run["wait"].state == state
    assert run["wait"].tries == 1
    assert f"Generation {generation_id} ended in an error" in run.log
    assert "The vendor does not charge" in run.log


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        pytest.param("deferrable=False", "still waiting", id="poke"),
        pytest.param("deferrable=True", "deferring anyway", id="deferrable"),
    ],
)
def test_a_bad_poll_does_not_end_the_wait(
    patient_airflow: RealAirflow, slow_vendor: EmulatorThread, mode: str, words: str
) -> None:
    """Not even five of them, which is as many as the client makes by itself."""
    generation_id = submitted(slow_vendor)
    slow_vendor.faults.add("poll", 503, times=5, retry_after="0")

    run = patient_airflow.run(sensor(generation_id, f"{mode}, poke_interval=1"))

    assert run.state == "success"
    assert run["wait"].tries == 1
    assert words in run.log


@each_mode
def test_an_unknown_generation_fails_at_once(airflow: RealAirflow, vendor: EmulatorThread, mode: str) -> None:
    run = airflow.run(sensor("nobody-knows-me", f"{mode}, retries=3"))

    assert run["wait"].state == "failed"
    assert run["wait"].tries == 1
    assert "nobody-knows-me" in run.log
    assert "Check that the connection is the one that submitted it" in run.log


@blocking_modes
def test_the_last_look_is_at_the_deadline(airflow: RealAirflow, vendor: EmulatorThread, mode: str) -> None:
    """An interval that is longer than the timeout does not make the wait longer."""
    generation_id = submitted(vendor, "A boat. [emulator: stall]")

    run = airflow.run(sensor(generation_id, f"{mode}, poke_interval=60, timeout=1"))

    assert run["wait"].state == "failed"
    first, *_, last = [entry.time for entry in vendor.journal if entry.call == "poll"]
    assert 0.5 < last - first < 10


@each_mode
def test_a_cleared_sensor_waits_for_the_same_generation(
    airflow: RealAirflow, vendor: EmulatorThread, mode: str
) -> None:
    generation_id = submitted(vendor, "A boat. [emulator: poll:404:times=3]")
    run = airflow.run(sensor(generation_id, mode))
    assert run["wait"].state == "failed"

    run.clear("wait").go_on()

    assert run.state == "success"
    assert run["wait"].xcom["return_value"]["id"] == generation_id
    assert vendor.stats["accepted"] == 1

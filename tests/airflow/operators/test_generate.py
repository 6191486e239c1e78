"""KlingGenerateOperator and KlingDownloadOperator in real Airflow."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import PICTURES, VERSION, RealAirflow

TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"
TEXT = f'KlingGenerateOperator(task_id="generate", model="{TEXT_MODEL}", '
MUG = PICTURES / "mug.jpg"


def sent(vendor: EmulatorThread) -> list[dict[str, Any]]:
    """The parameters of each accepted submit."""
    return [generation["parameters"] for generation in vendor.generations]


def test_it_returns_the_id_and_pushes_it(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    run = airflow.run(f'{TEXT} prompt="A boat.")')

    (generation,) = vendor.generations
    assert run.state == "success"
    xcom = run["generate"].xcom
    assert xcom["return_value"] == xcom["generation_id"] == generation["id"]
    assert xcom["client_request_id"] == generation["client_request_id"]
    assert "video_url" not in xcom
    assert generation["client_request_id"] in run.log
    assert generation["id"] in run.log
    assert {entry.path for entry in vendor.journal} == {"/v2/generate/video/kling/generation"}
    assert [entry.method for entry in vendor.journal] == ["POST"]


def test_it_waits_on_the_worker(patient_airflow: RealAirflow, slow_vendor: EmulatorThread) -> None:
    run = patient_airflow.run(f'{TEXT} prompt="A boat.", wait_for_completion=True, poke_interval=1)')

    (generation,) = slow_vendor.generations
    xcom = run["generate"].xcom
    assert run.state == "success"
    assert xcom["return_value"] == generation["id"]
    assert xcom["generation"] == {
        "id": generation["id"],
        "status": "completed",
        "video_url": xcom["video_url"],
        "duration": 5.0,
        "credits_used": generation["credits"],
        "model": TEXT_MODEL,
    }
    assert xcom["video_url"].startswith(f"{slow_vendor.cdn_url}/{generation['id']}.mp4?")
    assert "triggerer" not in run.log


def test_it_waits_in_the_triggerer(patient_airflow: RealAirflow, slow_vendor: EmulatorThread) -> None:
    run = patient_airflow.run(f'{TEXT} prompt="A boat.", wait_for_completion=True, deferrable=True)')

    (generation,) = slow_vendor.generations
    assert run.state == "success"
    assert run["generate"].tries == 1
    assert run["generate"].xcom["return_value"] == generation["id"]
    assert run["generate"].xcom["generation"]["model"] == TEXT_MODEL
    assert run["generate"].xcom["video_url"]
    assert f"Waiting for generation {generation['id']} in the triggerer." in run.log


def test_airflow_s_own_default_says_where_to_wait(started_airflow: RealAirflow) -> None:
    code = (
        "from airflow_provider_kling.operators.kling import KlingGenerateOperator as Generate\n"
        "from airflow_provider_kling.sensors.kling import KlingGenerationSensor as Sensor\n"
        f"generate = Generate(task_id='a', model={TEXT_MODEL!r}, prompt='x')\n"
        "print(generate.deferrable, Sensor(task_id='b', generation_id='c').deferrable)"
    )
    for setting in ("True", "False"):
        env = started_airflow.environment() | {"AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": setting}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
        )
        assert done.stdout.split()[-2:] == [setting, setting], done.stderr


def test_what_is_completed_at_once_is_not_deferred(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    run = airflow.run(f'{TEXT} prompt="A boat.", wait_for_completion=True, deferrable=True)')

    assert run.state == "success"
    assert run["generate"].xcom["generation"]["status"] == "completed"
    assert "in the triggerer" not in run.log


def test_templates(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    """Each field that a user would template; numbers that a template renders as text are accepted."""
    run = airflow.run(
        """
        KlingGenerateOperator(
            task_id="generate",
            model="{{ params.model }}",
            prompt="Run {{ run_id }}",
            image="{{ params.pictures }}/{{ params.name }}.jpg",
            duration="{{ params.seconds }}",
            negative_prompt="{{ params.not }}",
            cfg_scale="{{ params.cfg }}",
            parameters={"provider": "{{ params.provider }}"},
            kling_conn_id="{{ params.conn }}",
        )
        """,
        dag={
            "params": {
                "model": "kling-video/v1.6/standard/image-to-video",
                "pictures": str(PICTURES),
                "name": "mug",
                "seconds": 10,
                "not": "text",
                "cfg": 0.25,
                "provider": "fal",
                "conn": "kling_default",
            }
        },
    )

    assert run.state == "success"
    (parameters,) = sent(vendor)
    assert parameters.pop("image_url")
    assert parameters == {
        "prompt": f"Run {run.run_id}",
        "duration": 10,
        "negative_prompt": "text",
        "cfg_scale": 0.25,
        "provider": "fal",
    }
    assert run["generate"].rendered["image"] == str(MUG)


def test_values_keep_their_type_where_templates_render_natively(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    run = airflow.run(
        f'{TEXT} prompt="A boat.", parameters="{{{{ params.all }}}}")',
        dag={
            "params": {"all": {"duration": 10, "aspect_ratio": "9:16"}},
            "render_template_as_native_obj": True,
        },
    )

    assert run.state == "success"
    assert sent(vendor) == [{"prompt": "A boat.", "duration": 10, "aspect_ratio": "9:16"}]


def test_defaults_are_the_vendor_s(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    """None is not sent, and nothing is sent that nobody gave."""
    airflow.run(f'{TEXT} prompt="A boat.", duration=None, parameters={{"cfg_scale": None}})')

    assert sent(vendor) == [{"prompt": "A boat."}]


def test_what_has_no_effect_is_not_sent_and_said(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    run = airflow.run(
        f'KlingGenerateOperator(task_id="generate", prompt="x", image="{MUG}", parameters={{"ratio": "1:1"}})'
    )

    assert run.state == "success"
    assert "'ratio' has no effect" in run.log
    assert "ratio" not in sent(vendor)[0]


def test_a_model_that_nobody_knows_is_tried_with_a_warning(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    """The emulator refuses it: a vendor that knows it would not."""
    run = airflow.run(
        'KlingGenerateOperator(task_id="generate", model="klingai/video-v3-standart-text-to-video",'
        ' prompt="x", parameters={"glitter": True})'
    )

    assert "is not a model that this version knows" in run.log
    assert "did you mean 'klingai/video-v3-standard-text-to-video'" in run.log
    assert [entry.call for entry in vendor.journal] == ["submit"]


def test_pictures_are_sent_whole(airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path) -> None:
    spaced = tmp_path / "a mug.jpg"
    spaced.write_bytes(MUG.read_bytes())
    run = airflow.run(
        f'''
        KlingGenerateOperator(task_id="path", prompt="x", image="{MUG}")
        KlingGenerateOperator(task_id="uri", prompt="x", image="{spaced.as_uri()}")
        from pathlib import Path
        KlingGenerateOperator(task_id="object", prompt="x", image=Path("{spaced}"))
        '''
    )

    assert run.state == "success"
    # the emulator tells a picture by its digest, as nobody wants to read 100 kB of base64
    assert len({parameters["image_url"] for parameters in sent(vendor)}) == 1
    assert "mug.jpg, " in run.log
    assert f"{MUG.stat().st_size} bytes" in run.log


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nothing.jpg", None, ["image_url", "nothing.jpg"]),
        ("text.jpg", b"Dear all, this is no picture.", ["image_url", "text.jpg"]),
    ],
)
def test_a_picture_that_cannot_be_used_stops_before_any_spending(
    airflow: RealAirflow,
    vendor: EmulatorThread,
    tmp_path: Path,
    name: str,
    content: bytes | None,
    said: list[str],
) -> None:
    picture = tmp_path / name
    if content is not None:
        picture.write_bytes(content)
    run = airflow.run(f'KlingGenerateOperator(task_id="generate", prompt="x", image="{picture}", retries=3)')

    assert run["generate"].state == "failed"
    assert run["generate"].tries == 1
    assert vendor.journal == []
    for words in [*said, "No money was spent."]:
        assert words in run.log


class TestMapping:
    """``partial`` with ``expand`` and ``expand_kwargs``, over lists and over XComs."""

    def test_over_a_list(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(
            f'KlingGenerateOperator.partial(task_id="generate", model="{TEXT_MODEL}", duration="5")'
            '.expand(prompt=["one", "two"], negative_prompt=["a", "b"])'
        )

        assert run.state == "success"
        assert len(vendor.generations) == 4
        pairs = {(each["prompt"], each["negative_prompt"]) for each in sent(vendor)}
        assert pairs == {("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")}
        ids = {run[f"generate[{index}]"].xcom["return_value"] for index in range(4)}
        assert ids == {generation["id"] for generation in vendor.generations}

    def test_from_end_to_end_over_an_xcom(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(
            f'''
            @task
            def work():
                return [{{"prompt": "one", "duration": 10}}, {{"prompt": "two", "parameters": {{"cfg_scale": 1}}}}]

            generate = KlingGenerateOperator.partial(
                task_id="generate", model="{TEXT_MODEL}").expand_kwargs(work())
            wait = KlingGenerationSensor.partial(task_id="wait", deferrable=True).expand(
                generation_id=generate.output)
            download = KlingDownloadOperator.partial(task_id="download").expand_kwargs(
                generate.output.map(lambda id: {{"generation_id": id, "path": f"{airflow.output}/{{id}}.mp4"}}))
            wait >> download
            '''
        )

        assert run.state == "success"
        assert sorted(sent(vendor), key=str) == [
            {"prompt": "one", "duration": 10},
            {"prompt": "two", "cfg_scale": 1},
        ]
        for index in range(2):
            generation_id = run[f"generate[{index}]"].xcom["return_value"]
            assert run[f"wait[{index}]"].xcom["return_value"]["id"] == generation_id
            assert run[f"download[{index}]"].xcom["video"]["generation_id"] == generation_id

    @pytest.mark.skipif(VERSION < (3, 0), reason="Airflow 2 would map over the XCom itself")
    def test_over_a_list_with_xcoms_in_it(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(
            f'''
            one = KlingGenerateOperator(task_id="one", model="{TEXT_MODEL}", prompt="one")
            two = KlingGenerateOperator(task_id="two", model="{TEXT_MODEL}", prompt="two")
            KlingGenerationSensor.partial(task_id="wait").expand(generation_id=[one.output, two.output])
            '''
        )

        assert run.state == "success"
        for index, name in enumerate(("one", "two")):
            assert run[f"wait[{index}]"].xcom["return_value"]["id"] == run[name].xcom["return_value"]

    def test_with_an_xcom_for_all(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(
            f'''
            seconds = task(task_id="seconds")(lambda: "10")()
            KlingGenerateOperator.partial(
                task_id="generate", model="{TEXT_MODEL}", duration=seconds).expand(prompt=["one", "two"])
            '''
        )

        assert run.state == "success"
        assert [each["duration"] for each in sent(vendor)] == [10, 10]

    def test_of_operators_that_wait(self, airflow: RealAirflow, vendor: EmulatorThread) -> None:
        run = airflow.run(
            f'KlingGenerateOperator.partial(task_id="generate", model="{TEXT_MODEL}",'
            ' wait_for_completion=True).expand(prompt=["one", "two"])'
        )

        assert run.state == "success"
        for index in range(2):
            xcom = run[f"generate[{index}]"].xcom
            assert xcom["generation"]["id"] == xcom["return_value"]


class TestDownload:
    @pytest.fixture
    def generation_id(self, airflow: RealAirflow) -> str:
        run = airflow.run(f'{TEXT} prompt="A boat.")')
        return str(run["generate"].xcom["return_value"])

    def test_it_returns_the_path_and_pushes_what_it_knows(
        self, airflow: RealAirflow, vendor: EmulatorThread, generation_id: str, tmp_path: Path
    ) -> None:
        run = airflow.run(
            f'KlingDownloadOperator(task_id="download", generation_id="{generation_id}",'
            f' path="{tmp_path}/{{{{ dag.dag_id }}}}/{{generation_id}}.mp4")'
        )

        path = tmp_path / run.dag_id / f"{generation_id}.mp4"
        video = run["download"].xcom["video"]
        assert run["download"].xcom["return_value"] == str(path)
        assert video["generation_id"] == generation_id
        assert video["path"] == str(path)
        assert video["size"] == path.stat().st_size
        assert video["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert not any(entry.authorization for entry in vendor.journal if entry.call == "cdn")
        assert "ksSecret" not in run.log

    def test_it_leaves_another_file_alone(
        self, airflow: RealAirflow, generation_id: str, tmp_path: Path
    ) -> None:
        (tmp_path / "taken.mp4").write_bytes(b"precious")
        body = (
            f'KlingDownloadOperator(task_id="download", generation_id="{generation_id}",'
            f' path="{tmp_path}/taken.mp4", retries=2)'
        )
        refused = airflow.run(body)

        assert refused["download"].state == "failed"
        assert refused["download"].tries == 1
        assert "taken.mp4" in refused.log
        assert "overwrite" in refused.log
        assert (tmp_path / "taken.mp4").read_bytes() == b"precious"

        replaced = airflow.run(body.replace("retries=2", "overwrite=True"))

        assert replaced.state == "success"
        assert (tmp_path / "taken.mp4").stat().st_size == replaced["download"].xcom["video"]["size"]

    def test_a_cleared_download_fetches_the_same_generation(
        self, airflow: RealAirflow, vendor: EmulatorThread, generation_id: str, tmp_path: Path
    ) -> None:
        run = airflow.run(
            f'KlingDownloadOperator(task_id="download", generation_id="{generation_id}", path="{tmp_path}/")'
        )
        (tmp_path / f"{generation_id}.mp4").unlink()
        run.clear("download").go_on()

        assert run.state == "success"
        assert (tmp_path / f"{generation_id}.mp4").exists()
        assert len(vendor.generations) == 1

    def test_what_is_not_completed_is_retried(
        self, airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
    ) -> None:
        run = airflow.run(
            f'{TEXT} prompt="A boat. [emulator: stall]") >> KlingDownloadOperator(task_id="download",'
            f' generation_id="{{{{ ti.xcom_pull(task_ids=\'generate\') }}}}", path="{tmp_path}/", retries=1)'
        )

        assert run["download"].state == "up_for_retry"
        assert "is not completed yet" in run.log
        assert "KlingGenerationSensor" in run.log
        assert list(tmp_path.iterdir()) == []

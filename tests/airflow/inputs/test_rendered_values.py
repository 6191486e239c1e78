"""What templates render to: what its author cannot mean costs nothing, and what native rendering changes is read."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.airflow.conftest import connected
from tests.airflow.real_airflow import PICTURES, RealAirflow
from tests.media_samples import m4a, mp4, picture

TEXT = "kling-video/v1.6/standard/text-to-video"
NEW = "klingai/video-v9-image-to-video"

PROMPTS = {
    "nothing": "{{ ti.xcom_pull(task_ids='nobody') }}",
    "none": "{{ none }}",
    "none_in_quotes": "'{{ none }}'.",
    "two_nones": "{{ none }}, {{ params.get('x') }}",
    "list": "{{ ['a boat', 'a ship'] }}",
    "mapping": "{{ {'prompt': 'a boat'} }}",
    "conf": "{{ dag_run.conf }}",
    "lazy": "{{ ti.xcom_pull(task_ids='words') }}",
    "two_of_a_list": "{{ ti.xcom_pull(task_ids='listed') }}",
    "objects": "{{ [macros.datetime(2026, 1, 1)] }}",
    "function": "{{ ti.xcom_pull }}",
    "module": "{{ macros }}",
    "instance": "A boat, {{ ti }}.",
    "run": "A boat, {{ dag_run }}.",
    "generator": "{{ ['a', 'b'] | map('upper') }}",
    "views": "{{ {'a': 1}.values() }}",
    "not_rendered": "{{ '{{ params.mood }}' }} boat",
    "undefined": "{{ 'undefined' }}",
    "empty": "{{ nothing_of_that_name }}",
    "blank": "{{ '  ' }}",
    "nul": "A {{ 'a\\0b' }}.",
    "half": "A {{ '\\ud83d' }}.",
}
"""Templates that each render to a text, none of which is a prompt."""
SOURCES = """
@task
def word(n):
    return f"word {n}"

words = word.override(task_id="words").expand(n=[1, 2])

@task
def listed():
    return ["a boat", "a ship"]

first = [words, listed()]
"""


def accepted(vendor: EmulatorThread) -> int:
    return sum(entry.accepted for entry in vendor.journal)


def test_a_text_that_nobody_means_costs_nothing(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    tasks = "\n".join(
        f"first >> KlingGenerateOperator(task_id={name!r}, model={TEXT!r}, duration=5, retries=2, prompt={prompt!r})"
        for name, prompt in PROMPTS.items()
    )
    run = airflow.run(SOURCES + tasks)

    states = {name: run[name].state for name in PROMPTS}
    # Airflow itself fails these before the task begins, and retries them
    own = {name: states.pop(name) for name in ("empty", "nul", "half")}
    assert states == dict.fromkeys(states, "failed"), [each["parameters"] for each in vendor.generations]
    assert set(own.values()) <= {"failed", "up_for_retry"}
    assert accepted(vendor) == 0
    assert [entry.path for entry in vendor.journal if entry.method == "POST"] == []


@pytest.mark.parametrize(
    "argument",
    [
        "model=\"{{ ti.xcom_pull(task_ids='nobody') }}\"",
        "negative_prompt=\"{{ ['blur', 'noise'] }}\"",
        'duration="{{ none }}"',
        'cfg_scale="{{ none }}"',
        'max_cost_usd="{{ none }}"',
        'parameters={"aspect_ratio": "{{ none }}"}',
        'parameters={"provider": "{{ none }}"}',
        'image="{{ none }}", model="kling-video/v1.6/standard/image-to-video"',
        'image="{{ [] }}", model="kling-video/v1.6/standard/image-to-video"',
        'image="", model="kling-video/v1.6/standard/image-to-video"',
    ],
)
def test_the_same_of_each_other_argument(airflow: RealAirflow, vendor: EmulatorThread, argument: str) -> None:
    model = "" if "model=" in argument else f"model={TEXT!r}, "
    body = f'KlingGenerateOperator(task_id="generate", {model}prompt="A boat.", retries=2, {argument})'
    if 'image=""' in argument:
        assert "image" in airflow.import_error(body)
        return
    run = airflow.run(body)

    assert run["generate"].state == "failed", run.log[-3000:]
    assert run["generate"].tries == 1
    assert accepted(vendor) == 0


def test_a_connection_that_a_template_leaves_out_costs_nothing(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    """Airflow retries a connection that it does not find: it may be there by then."""
    run = airflow.run(
        f'KlingGenerateOperator(task_id="generate", model={TEXT!r}, prompt="A boat.", kling_conn_id="{{{{ none }}}}")'
    )

    assert run["generate"].state == "failed", run.log[-3000:]
    assert vendor.journal == []


def test_what_native_rendering_makes_of_texts_is_read_as_they_were(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    """18-digit ids, years and digits become numbers there, and a number is the text that it spells."""
    run = airflow.run(
        f"""
    made = KlingGenerateOperator(
        task_id="made", model="kling-video/v2.1/standard/image-to-video",
        image="{PICTURES}/{{{{ 'mug' }}}}.jpg", prompt="{{{{ 2024 }}}}", duration="{{{{ 5 }}}}",
    )
    wait = KlingGenerationSensor(
        task_id="wait", generation_id="{{{{ ti.xcom_pull(task_ids='made') }}}}", poke_interval=1
    )
    save = KlingDownloadOperator(
        task_id="save", generation_id="{{{{ ti.xcom_pull(task_ids='made') }}}}", sidecar=True,
        path="{tmp_path}/{{{{ '7' }}}}/",
    )
    year = KlingGenerateOperator(
        task_id="year", model={TEXT!r}, prompt="{{{{ '1984' }}}}", negative_prompt="{{{{ '0' }}}}",
        duration="{{{{ '10' }}}}", cfg_scale="{{{{ '0.7' }}}}", path="{tmp_path}/{{{{ '2026' }}}}.mp4",
    )
    made >> wait >> save >> year
    """,
        dag={"render_template_as_native_obj": True},
    )

    assert run.state == "success", run.log[-5000:]
    generation_id = str(run["made"].xcom["return_value"])
    assert len(generation_id) == 18
    assert generation_id.isdigit()
    assert (tmp_path / "7" / f"{generation_id}.mp4").is_file()
    assert json.loads((tmp_path / "7" / f"{generation_id}.json").read_text())["request"]["prompt"] == "2024"
    assert (tmp_path / "2026.mp4").is_file()
    asked = {each["id"]: each["parameters"] for each in vendor.generations}
    assert asked[generation_id]["prompt"] == "2024"
    year = asked[str(run["year"].xcom["return_value"])]
    assert (year["prompt"], year["negative_prompt"], year["duration"], year["cfg_scale"]) == (
        "1984",
        "0",
        10,
        0.7,
    )


@pytest.mark.parametrize("value", ["True", "3.5", "['a', 'b']", "{'a': 1}", "None"])
def test_what_native_rendering_makes_no_text_of_costs_nothing(
    airflow: RealAirflow, vendor: EmulatorThread, value: str
) -> None:
    run = airflow.run(
        f'KlingGenerateOperator(task_id="generate", model={TEXT!r}, retries=2, duration=5, prompt="{{{{ {value} }}}}")',
        dag={"render_template_as_native_obj": True},
    )

    assert run["generate"].state == "failed", run.log[-3000:]
    assert run["generate"].tries == 1
    assert accepted(vendor) == 0


IMAGES = (
    "image",
    "start_image",
    "image_tail",
    "end_image_url",
    "mask",
    "first_frame",
    "camelCaseImage",
    "imageUrl",
)


@pytest.fixture
def newer_vendor() -> Iterator[EmulatorThread]:
    """An emulator that takes models which this version does not know."""
    options = EmulatorOptions(queued_seconds=0, generating_seconds=0, log_lag=0, unknown_models=True)
    with EmulatorThread(options) as emulator:
        yield emulator


def test_media_of_a_model_that_nobody_knows_are_read_and_shown_nowhere(
    started_airflow: RealAirflow, newer_vendor: EmulatorThread, tmp_path: Path
) -> None:
    airflow = connected(started_airflow, newer_vendor)
    content = picture("PNG")
    image, film, sound = tmp_path / "a.png", tmp_path / "b.mp4", tmp_path / "c.m4a"
    image.write_bytes(content)
    film.write_bytes(mp4(1))
    sound.write_bytes(m4a())
    inline = "data:image/png;base64," + base64.b64encode(content).decode()
    parameters = {
        **dict.fromkeys(IMAGES, str(image)),
        **{name: [str(image), f"file://{image}"] for name in ("images", "image_urls", "keyframes")},
        "elements": [{"image": str(image), "name": "boat"}],
        "subject": {"reference_images": [{"url": str(image)}]},
        "videos": [str(film)],
        "video_url": str(film),
        "audio_urls": [str(sound)],
        "voice": str(sound),
        "anything": inline,
        "deep": {"er": [inline]},
        "style": "watercolour",
        "image_count": 2,
    }
    run = airflow.run(f"""
    KlingGenerateOperator(
        task_id="generate", model={NEW!r}, prompt="A boat.", parameters={parameters!r},
        path="{tmp_path}/out/", sidecar=True,
    )
    """)

    assert run.state == "success", run.log[-5000:]
    (generation,) = newer_vendor.generations
    sent = generation["parameters"]
    digest = f"sha256:{hashlib.sha256(content).hexdigest()} ({len(content)} bytes)"
    for name in IMAGES:
        assert sent[name] == digest, name
    for name in ("images", "image_urls", "keyframes"):
        assert sent[name] == [digest, digest]
    assert sent["elements"] == [{"image": digest, "name": "boat"}]
    assert sent["subject"] == {"reference_images": [{"url": digest}]}
    assert (sent["anything"], sent["deep"]) == (digest, {"er": [digest]})
    assert (sent["style"], sent["image_count"]) == ("watercolour", 2)
    for name in ("videos", "audio_urls"):
        assert all(each.startswith("sha256:") for each in sent[name])
    for name in ("video_url", "voice"):
        assert sent[name].startswith("sha256:")
    (beside,) = (tmp_path / "out").glob("*.json")
    task = run["generate"]
    kept = base64.b64encode(content).decode()[20:60]
    for place in (
        run.log,
        json.dumps(task.xcom),
        json.dumps(task.rendered),
        json.dumps(task.remembered),
        beside.read_text(),
    ):
        assert kept not in place


@pytest.mark.parametrize(
    "parameters",
    [
        *(
            {name: "/no/such/boat.png"}
            for name in ("image", "start_image", "image_tail", "mask", "first_frame_url")
        ),
        {"keyframes": ["/no/such/boat.png"]},
        {"videos": ["./boat.mp4"]},
        {"audios": ["~/boat.mp3"]},
        {"scene": {"images": [{"url": "boats/boat.webp"}]}},
        {"style_reference": "/no/such/boat.png"},
        {"start_image": "s3://no-connection@bucket/boat.png"},
        {"start_image": "data:image/png;base64,bm8gcGljdHVyZQ=="},
        {"anything": "file:///no/such/boat.png"},
    ],
    ids=str,
)
def test_a_local_path_never_goes_to_the_vendor_as_text(
    airflow: RealAirflow, vendor: EmulatorThread, parameters: dict[str, object]
) -> None:
    run = airflow.run(f"""
    KlingGenerateOperator(task_id="generate", model={NEW!r}, prompt="A boat.", parameters={parameters!r})
    """)

    assert run["generate"].state == "failed", run.log[-3000:]
    assert [entry.path for entry in vendor.journal if entry.method == "POST"] == []

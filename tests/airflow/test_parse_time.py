"""What is known when a DAG file is parsed is checked then: an import error instead of a bill."""

from __future__ import annotations

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import RealAirflow

IMAGE = "https://pictures.example/mug.jpg"
FINE = f'prompt="The mug turns.", image="{IMAGE}"'


def task(arguments: str) -> str:
    return f'KlingGenerateOperator(task_id="generate", {arguments})'


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            task(f"{FINE}, duration=7"),
            ["'duration' of kling-video/v1.6/standard/image-to-video must be 5 or 10, not 7"],
        ),
        (task(f"{FINE}, parameters=dict(duratoin=5)"), ["'duratoin'", "did you mean 'duration'"]),
        (task(f"{FINE}, cfg_scale=1.5"), ["'cfg_scale'", "1.5", "0 to 1"]),
        (task(f'prompt="x", image="{IMAGE}", parameters=dict(prompt="y")'), ["prompt", "given twice"]),
        (task(f'{FINE}, parameters=dict(image_url="{IMAGE}")'), ["'image_url'", "given twice"]),
        (task('prompt="x"'), ["needs the parameter 'image_url'"]),
        (task(f'{FINE}, parameters="cfg_scale=1"'), ["parameters", "mapping", "str"]),
        (task(f'{FINE}, model="kling-video/v1.6/standard/text-to-video"'), ["takes no reference picture"]),
        (task(f"{FINE}, poke_interval=-1"), ["poke_interval", "-1", "1", "3600"]),
        (task(f"{FINE}, timeout=0"), ["timeout=0", "604800"]),
        (task(f"{FINE}, uncertain_grace=-1"), ["uncertain_grace=-1"]),
        (task(f'{FINE}, on_clear="again"'), ["on_clear='again'", "'reuse'", "'regenerate'"]),
        (task(f'{FINE}, on_changed_request="x"'), ["on_changed_request='x'", "'submit'", "'fail'"]),
        (task(f'{FINE}, on_uncertain_submit="x"'), ["on_uncertain_submit='x'", "'resubmit'", "'fail'"]),
        (
            'KlingGenerationSensor(task_id="wait", generation_id="g", poke_interval=-1)',
            ["poke_interval", "-1"],
        ),
        ('KlingGenerationSensor(task_id="wait", generation_id="g", timeout=-1)', ["timeout=-1"]),
        (
            'KlingDownloadOperator(task_id="download", generation_id="g", path="out/{generation}.mp4")',
            ["{generation}", "{generation_id}"],
        ),
        (
            'KlingDownloadOperator(task_id="download", generation_id="g", path="out/../../x.mp4")',
            ["out/../../x.mp4"],
        ),
    ],
)
def test_a_mistake_is_an_import_error(airflow: RealAirflow, body: str, said: list[str]) -> None:
    error = airflow.import_error(body)

    assert "AirflowFailException" in error
    for words in said:
        assert words in error


def test_everything_is_named_at_once(airflow: RealAirflow) -> None:
    error = airflow.import_error(
        task("prompt=3.5, duration=7, cfg_scale=2, parameters=dict(negativ_prompt='x')")
    )

    assert "5 problems" in error
    for words in ("'prompt'", "'duration'", "'cfg_scale'", "'negativ_prompt'", "'image_url'"):
        assert words in error
    assert "No money was spent." in error


@pytest.mark.parametrize(
    ("mapped", "said"),
    [
        ('.partial(task_id="g", duration=7).expand(prompt=["a"])', ["'duration'", "7"]),
        (
            f'.partial(task_id="g", prompt="a", image="{IMAGE}").expand(duration=[5, 7, 10, 8])',
            ["2 problems", "In duration[1]: 'duration'", "not 7", "In duration[3]", "not 8"],
        ),
        (
            f'.partial(task_id="g", image="{IMAGE}").expand_kwargs('
            '[dict(prompt="a", cfg_scale=0.5), dict(prompt="b", cfg_scale=2), dict(promt="c")])',
            [
                "In expand_kwargs[1]: 'cfg_scale'",
                "not 2",
                "In expand_kwargs[2]: got an unexpected keyword argument 'promt'",
            ],
        ),
        ('.partial(task_id="g").expand(prompt=["a", "b"])', ["needs the parameter 'image_url'"]),
        (f'.partial(task_id="g", {FINE}, poke_interval=-1).expand(duration=[5])', ["poke_interval", "-1"]),
        (f'.partial(task_id="g", {FINE}, timeout=1e12).expand(duration=[5])', ["timeout=1000000000000.0"]),
        (f'.partial(task_id="g", {FINE}, on_clear="x").expand(duration=[5])', ["on_clear='x'"]),
        (
            f'.partial(task_id="g", {FINE}).expand(poke_interval=[5, float("nan")])',
            ["In poke_interval[1]", "nan"],
        ),
        (
            f'.partial(task_id="g", {FINE}, path="out/clip.mp4").expand(duration=[5, 10])',
            ["all mapped tasks would be saved at 'out/clip.mp4'", "{generation_id}"],
        ),
    ],
)
def test_mapped_tasks_are_checked_too(airflow: RealAirflow, mapped: str, said: list[str]) -> None:
    error = airflow.import_error(f"KlingGenerateOperator{mapped}")

    for words in said:
        assert words in error


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('KlingGenerationSensor.partial(task_id="w", poke_interval=0).expand(generation_id=["g"])', "is 0;"),
        (
            'KlingGenerationSensor.partial(task_id="w").expand(generation_id=["g"], timeout=[-1])',
            "timeout=-1",
        ),
        (
            'KlingDownloadOperator.partial(task_id="d", path="clip.mp4").expand(generation_id=["g", "h"])',
            "all mapped tasks would be saved",
        ),
        ("task.kling_generate(poke_interval=-1)(lambda a: a).expand(a=['x'])", "-1"),
    ],
)
def test_so_are_those_of_the_other_operators(airflow: RealAirflow, body: str, said: str) -> None:
    error = airflow.import_error(body)

    assert "AirflowFailException" in error
    assert said in error


@pytest.mark.parametrize(
    "body",
    [
        task(FINE),
        task(f'{FINE}, duration="5", cfg_scale="0.5"'),
        task(f'{FINE}, duration="{{{{ params.seconds }}}}"'),
        task('prompt="{{ x }}", image="{{ y }}", parameters="{{ z }}"'),
        task('model="{{ m }}", prompt="x", duration=7'),
        task(f'{FINE}, parameters=dict(cfg_scale="{{{{ c }}}}")'),
        task(f'{FINE}, model="kling/of-tomorrow", duration=7, parameters=dict(glitter=True)'),
        task(f"{FINE}, poke_interval=timedelta(seconds=30), timeout=timedelta(hours=1), uncertain_grace=0"),
        f'up = {task(FINE)}\nKlingGenerationSensor(task_id="wait", generation_id=up.output, timeout=0)',
        'KlingDownloadOperator(task_id="d", generation_id="g", path="out/{{ ds }}/{generation_id}.mp4")',
        'KlingGenerateOperator.partial(task_id="g").expand(prompt=["a"], image=["{{ x }}"])',
        f'KlingGenerateOperator.partial(task_id="g", {FINE}, path="{{{{ ti.map_index }}}}.mp4")'
        ".expand(duration=[5, 10])",
        f'KlingGenerateOperator.partial(task_id="g", {FINE}).expand(path=["a.mp4", "b.mp4"])',
        'KlingGenerationSensor.partial(task_id="w").expand(generation_id=["g"], poke_interval=[5, 10])',
        f'KlingGenerateOperator.partial(task_id="g", image="{IMAGE}").expand_kwargs([dict(prompt="a")])',
        'KlingGenerateOperator.partial(task_id="g", prompt="a").expand('
        'image=task(task_id="t")(lambda: ["x"])())',
        'KlingGenerateOperator.partial(task_id="g").expand_kwargs(task(task_id="t")(lambda: [{}])())',
        'KlingGenerateOperator.partial(task_id="g", prompt="a", image="b").expand(model=["kling/of-tomorrow"])',
    ],
)
def test_what_is_right_or_not_known_yet_passes(airflow: RealAirflow, body: str) -> None:
    assert airflow.import_error(body) == ""


def test_parsing_asks_nobody_and_reads_no_picture(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    parsed = airflow.parse(task('prompt="x", image="/nowhere/at/all.jpg"'))

    assert parsed["import_errors"] == ""
    assert vendor.journal == []

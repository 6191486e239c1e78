"""The request of a generation is found by its id, however the id comes from the task that made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import RealAirflow, Run

MAKE = """
MODEL = "klingai/v2.5-turbo/pro/text-to-video"
OTHER = "kling-video/v1.6/standard/text-to-video"
make = KlingGenerateOperator.partial(task_id="make", model=MODEL, duration=5).expand(
    prompt=["Boat 0.", "Boat 1.", "Boat 2."]
)
other = KlingGenerateOperator(task_id="other", model=OTHER, prompt="A ship.", duration=5)

def saving(name, **more):
    return dict(task_id=name, path="{folder}/" + name + "/{{model}}/{{generation_id}}.mp4", sidecar=True, **more)
"""
ROUTES = {
    "all": "KlingDownloadOperator.partial(**saving('all')).expand(generation_id=make.output)",
    "concatenated": (
        "KlingDownloadOperator.partial(**saving('concatenated')).expand("
        "generation_id=ids.concat(list_of(other.output)))"
    ),
    "zipped": (
        "KlingDownloadOperator.partial(**saving('zipped')).expand_kwargs("
        "ids.zip(letters).map(lambda pair: {'generation_id': pair[0]}))"
    ),
    "reversed": "KlingDownloadOperator.partial(**saving('reversed')).expand(generation_id=backwards(make.output))",
    "odd": "KlingDownloadOperator.partial(**saving('odd')).expand(generation_id=every_other(make.output))",
    "chosen": "KlingDownloadOperator(**saving('chosen'), generation_id=last(make.output))",
    "indexed": "other >> KlingDownloadOperator(**saving('indexed'), generation_id=\"{{ ti.xcom_pull(task_ids='other') }}\")",
}


def red_lines(run: Run) -> list[str]:
    """What the log shows in red; not that Airflow itself finds the end of a list of XComs that way."""
    red = ("[error", "[critical", " ERROR ", "Traceback")
    return [
        line for line in run.log.splitlines() if any(map(line.__contains__, red)) and "offset=" not in line
    ]


def saved(run: Run, folder: Path, route: str) -> dict[str, Any]:
    """Of each video of a route its prompt and the name of its folder, as its sidecar says."""
    beside = {}
    for path in (folder / route).rglob("*.json"):
        said = json.loads(path.read_text())
        asked = said["request"] or {}
        beside[said["generation_id"]] = (path.parent.name, said["model"], asked.get("prompt"))
    return beside


def test_by_whatever_way_the_ids_come(airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path) -> None:
    run = airflow.run(
        MAKE.format(folder=tmp_path)
        + """
@task
def listed(values):
    return list(values)

@task
def list_of(value):
    return [value]

@task
def backwards(values):
    return list(values)[::-1]

@task
def every_other(values):
    return list(values)[1::2]

@task
def last(values):
    return list(values)[-1]

ids = listed(make.output)
letters = listed.override(task_id="letters")("xyz")

def not_the_first(pair):
    from airflow.providers.common.compat.sdk import AirflowSkipException
    if pair[1] == "x":
        raise AirflowSkipException("not this one")
    return {"generation_id": pair[0]}

KlingDownloadOperator.partial(**saving("filtered")).expand_kwargs(ids.zip(letters).map(not_the_first))
"""
        + "\n".join(ROUTES.values())
    )

    assert {
        name: task.state for name, task in run.tasks.items() if task.state not in ("success", "skipped")
    } == {}
    first, second, third = (run[f"make[{index}]"].xcom["return_value"] for index in range(3))
    other = run["other"].xcom["return_value"]
    one, two, three = (
        {
            each: (
                "klingai-v2.5-turbo-pro-text-to-video",
                "klingai/v2.5-turbo/pro/text-to-video",
                f"Boat {index}.",
            )
        }
        for index, each in enumerate((first, second, third))
    )
    ship = {
        other: (
            "kling-video-v1.6-standard-text-to-video",
            "kling-video/v1.6/standard/text-to-video",
            "A ship.",
        )
    }
    assert {route: saved(run, tmp_path, route) for route in (*ROUTES, "filtered")} == {
        "all": one | two | three,
        "filtered": two | three,
        "concatenated": one | two | three | ship,
        "zipped": one | two | three,
        "reversed": one | two | three,
        "odd": two,
        "chosen": three,
        "indexed": ship,
    }
    assert len(vendor.generations) == 4
    assert red_lines(run) == []


def test_of_variants_and_in_mapped_groups(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    run = airflow.run(
        MAKE.format(folder=tmp_path)
        + """
from airflow.providers.common.compat.sdk import task_group

@task.kling_generate(model=OTHER)
def variants():
    return [{"prompt": f"Ship {number}.", "duration": 5} for number in range(2)]

KlingDownloadOperator.partial(**saving("of_variants")).expand(generation_id=variants())

@task_group
def each_of_them(prompt):
    made = KlingGenerateOperator(task_id="made", model=OTHER, prompt=prompt, duration=5)
    wait = KlingGenerationSensor(task_id="wait", generation_id=made.output, poke_interval=1)
    wait >> KlingDownloadOperator(
        task_id="save", generation_id=made.output, sidecar=True, path="FOLDER/group/{model}/{generation_id}.mp4"
    )

each_of_them.expand(prompt=["Car 0.", "Car 1."])
""".replace("FOLDER", str(tmp_path))
    )

    assert run.state == "success", run.log[-5000:]
    model = "kling-video/v1.6/standard/text-to-video"
    folder = model.replace("/", "-")
    assert saved(run, tmp_path, "of_variants") == {
        each: (folder, model, f"Ship {index}.")
        for index, each in enumerate(run["variants"].xcom["return_value"])
    }
    assert saved(run, tmp_path, "group") == {
        run[f"each_of_them.made[{index}]"].xcom["return_value"]: (folder, model, f"Car {index}.")
        for index in range(2)
    }
    assert red_lines(run) == []


def test_a_generation_of_elsewhere_is_saved_and_nothing_is_called_an_error(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    """Its request is unknown here: the path says so, the sidecar has null, and the log has no red line."""
    made = airflow.run(MAKE.format(folder=tmp_path))
    elsewhere = made["other"].xcom["return_value"]
    run = airflow.run(
        MAKE.format(folder=tmp_path)
        + f"""
@task.short_circuit(ignore_downstream_trigger_rules=False)
def no():
    return False

left_out = KlingGenerateOperator(task_id="left_out", model=OTHER, prompt="A car.", duration=5)
no() >> left_out
wait = KlingGenerationSensor(task_id="wait", generation_id={elsewhere!r}, trigger_rule="all_done")
wait.set_upstream([make, other, left_out])
wait >> KlingDownloadOperator(**saving("elsewhere"), generation_id={elsewhere!r})
"""
    )

    assert run.state == "success", run.log[-5000:]
    assert run["left_out"].state == "skipped"
    assert saved(run, tmp_path, "elsewhere") == {elsewhere: ("unknown-model", None, None)}
    assert red_lines(run) == []

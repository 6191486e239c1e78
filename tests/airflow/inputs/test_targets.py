"""Where a video is to go, as people write it: what can be saved is saved, and what cannot costs nothing."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
from pathlib import Path

import pytest

from airflow_provider_kling.api.paths import LONGEST_SAFE_NAME
from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import ROOT, VERSION, RealAirflow, Run

MODEL = "klingai/v2.5-turbo/pro/text-to-video"
"""A model whose generation ids are a UUID, a colon and the model, slashes and all."""
REQUEST = f'model="{MODEL}", prompt="A boat.", duration=5'


def accepted(vendor: EmulatorThread) -> int:
    return sum(entry.accepted for entry in vendor.journal)


def tasks(paths: dict[str, str], **more: str) -> str:
    """A task for each path, by its name."""
    further = "".join(f", {name}={value}" for name, value in more.items())
    return "\n".join(
        f'KlingGenerateOperator(task_id="{name}", {REQUEST}, path={path!r}{further})'
        for name, path in paths.items()
    )


def states(run: Run) -> dict[str, str | None]:
    return {name: task.state for name, task in run.tasks.items()}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_ids_with_slashes_name_folders_files_and_sidecars(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    run = airflow.run(
        tasks(
            {
                "folder": f"{tmp_path}/folder/",
                "middle": f"{tmp_path}/middle/{{generation_id}}/film.mp4",
                "both": f"{tmp_path}/both/{{model}}/{{client_request_id}}-{{generation_id}}.mp4",
                "bare": f"{tmp_path}/bare/film_{{generation_id}}",
                "uri": f"file://{tmp_path}/uri/{{generation_id}}.MP4",
            },
            sidecar="True",
        )
    )

    assert set(states(run).values()) == {"success"}, run.log[-5000:]
    for name, task in run.tasks.items():
        assert f":{MODEL}" in task.xcom["generation_id"], "the emulator gives the ids that this model has"
        saved = Path(task.xcom["path"].removeprefix("file://"))
        assert saved.stat().st_size == task.xcom["video"]["size"]
        beside = [each for each in saved.parent.iterdir() if each.suffix == ".json"]
        assert [json.loads(each.read_text())["generation_id"] for each in beside] == [
            task.xcom["generation_id"]
        ]
        # a folder, the file, and for "both" the model: an id's slashes make no more of them
        assert len(saved.relative_to(tmp_path / name).parts) == (2 if name in ("middle", "both") else 1)
    assert accepted(vendor) == len(run.tasks)


def test_a_name_as_long_as_any_is_saved_and_a_byte_more_costs_nothing(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    most = 255 - len(".mp4")
    with_id = most - LONGEST_SAFE_NAME
    fit = {
        "plain": f"{tmp_path}/{'a' * most}.mp4",
        "accents": f"{tmp_path}/{'é' * (most // 2)}.mp4",
        "id": f"{tmp_path}/{'b' * with_id}{{generation_id}}.mp4",
        "folder": f"{tmp_path}/{'c' * 255}/",
    }
    too_long = {
        "plain_1": f"{tmp_path}/{'d' * (most + 1)}.mp4",
        "accents_1": f"{tmp_path}/{'é' * (most // 2 + 1)}.mp4",
        "id_1": f"{tmp_path}/{'e' * (with_id + 1)}{{generation_id}}.mp4",
        "folder_1": f"{tmp_path}/{'f' * 256}/",
        "emoji": f"{tmp_path}/{'🎬' * 64}/film.mp4",
    }
    # ".json" is a byte longer than ".mp4"
    with_sidecar = {
        f"{name}_sidecar": path.replace("/a", "/g") for name, path in fit.items() if name != "folder"
    }
    run = airflow.run(
        tasks(fit)
        + "\n"
        + tasks(too_long, retries="2")
        + "\n"
        + tasks({name: path for name, path in with_sidecar.items() if "accents" not in name}, sidecar="True")
    )

    refused = {*too_long, "plain_sidecar", "id_sidecar"}
    assert states(run) == {name: "failed" if name in refused else "success" for name in run.tasks}, run.log[
        -5000:
    ]
    assert accepted(vendor) == len(fit)
    assert len(files(tmp_path)) == len(fit)
    assert run.log.count("longer than 255 bytes") >= len(refused)


def test_where_nothing_can_be_written_nothing_is_paid(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    (tmp_path / "taken.mp4").write_text("another film")
    (tmp_path / "settings.json").write_text('{"colour": "red"}')
    (tmp_path / "file").touch()
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nowhere" / "film.mp4")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    places = {
        "read_only": "/sys/kling/{generation_id}.mp4",
        "no_file_system": "/proc/kling/",
        "taken": f"{tmp_path}/taken.mp4",
        "sidecar_taken": f"{tmp_path}/settings.mp4",
        "below_a_file": f"{tmp_path}/file/",
        "link_to_nothing": f"{tmp_path}/link.mp4",
        "folder": f"{tmp_path}/folder.mp4",
        "pipe": f"{tmp_path}/pipe.mp4",
        "device": "/dev/null",
        "none": f"{tmp_path}/{{{{ none }}}}.mp4",
        "none_in_a_name": f"{tmp_path}/{{{{ params.get('nothing') }}}}/film.mp4",
        "list": f"{tmp_path}/{{{{ ['a', 'b'] }}}}.mp4",
        "climbs": f"{tmp_path}/{{{{ '..' }}}}/film.mp4",
        "nobody": "~nobody-of-that-name/film.mp4",
        "not_set": "$KLING_IS_NOT_SET/film.mp4",
        "empty": "{{ '' }}",
        "nul": f"{tmp_path}/{{{{ 'a\\0b' }}}}/",
        "half": f"{tmp_path}/{{{{ '\\ud83d' }}}}/",
        "unknown_storage": "s4://bucket/film.mp4",
        "no_connection": "s3://no-such-connection@bucket/film.mp4",
        "file_with_host": "file://{{ 'server' }}/film.mp4",
    }
    before = files(tmp_path)
    run = airflow.run(tasks(places, sidecar="True", retries="2"))

    # what Airflow itself cannot store fails before the task begins; a connection may be there later
    later = {"nul", "half", "no_connection"}
    assert {name: state for name, state in states(run).items() if name not in later} == dict.fromkeys(
        places.keys() - later, "failed"
    ), run.log[-5000:]
    assert {run[name].state for name in later} <= {"failed", "up_for_retry"}
    assert accepted(vendor) == 0
    assert [entry.path for entry in vendor.journal if entry.method == "POST"] == []
    assert files(tmp_path) == before
    for name in places.keys() - later:
        assert run[name].tries == 1, name


def test_an_edited_prompt_at_a_fixed_path_is_not_paid_where_the_first_video_stands(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    run = airflow.run(tasks({"generate": f"{tmp_path}/film.mp4"}))
    assert run.state == "success", run.log[-3000:]
    first = (tmp_path / "film.mp4").read_bytes()

    run.rewrite(**{"A boat.": "A ship."}).clear("generate").go_on()

    assert run["generate"].state == "failed"
    assert "another file is there" in run.log
    assert "Nothing was submitted by this attempt" in run.log
    assert accepted(vendor) == 1

    run.rewrite(**{"film.mp4'": "film.mp4', overwrite=True"}).clear("generate").go_on()

    assert run.state == "success", run.log[-3000:]
    assert accepted(vendor) == 2
    assert (tmp_path / "film.mp4").read_bytes() != first
    assert files(tmp_path) == ["film.mp4"]


def test_home_and_other_variables_mean_what_they_mean_in_a_shell(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    paths = {
        "tilde": "~/films/1.mp4",
        "variable": "$HOME/films/2.mp4",
        "braces": "${HOME}/films/3.mp4",
        "own": "$KLING_MEDIA/{generation_id}/4.mp4",
    }
    media = tmp_path / "media"
    run = airflow.run(tasks(paths, sidecar="True"), HOME=str(tmp_path), KLING_MEDIA=str(media))

    assert set(states(run).values()) == {"success"}, run.log[-3000:]
    assert {path.name for path in (tmp_path / "films").iterdir()} == {
        f"{number}.{suffix}" for number in (1, 2, 3) for suffix in ("mp4", "json")
    }
    assert Path(run["own"].xcom["path"]).is_relative_to(media)
    assert not (ROOT / "~").exists()
    assert not list(airflow.home.glob("[~$]*"))


MOUNT = """
import builtins, errno, io, os
from pathlib import Path

MOUNT = {mount!r}

def refusing(call):
    def refuse(path, *args, **kwargs):
        if str(path).startswith(MOUNT):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return call(path, *args, **kwargs)
    return refuse

for name in ("rename", "replace", "link", "unlink", "chmod", "utime"):
    setattr(os, name, refusing(getattr(os, name)))
plain_open = io.open

def once(path, mode="r", *args, **kwargs):
    # a file that is there is neither written again nor extended
    again = "a" in mode or "+" in mode or ("w" in mode and os.path.exists(path))
    if isinstance(path, (str, os.PathLike)) and str(path).startswith(MOUNT) and again:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    return plain_open(path, mode, *args, **kwargs)

io.open = builtins.open = once
"""


def test_a_mounted_bucket_gets_each_file_once(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    """One that renames, links, removes and reopens nothing, as the task's process sees it."""
    mount = tmp_path / "mount"
    mount.mkdir()
    run = airflow.run(
        MOUNT.format(mount=str(mount))
        + tasks({"fixed": f"{mount}/film.mp4", "folder": f"{mount}/films/"}, sidecar="True")
    )

    assert set(states(run).values()) == {"success"}, run.log[-5000:]
    for task in run.tasks.values():
        saved = Path(task.xcom["path"])
        assert saved.stat().st_size == task.xcom["video"]["size"]
        assert (
            json.loads(saved.with_suffix(".json").read_text())["generation_id"] == task.xcom["generation_id"]
        )
    assert accepted(vendor) == 2
    # what was tried cannot be removed there: it is empty and hidden
    left = [path for path in mount.rglob("*") if path.is_file() and path.name.startswith(".")]
    assert all(path.stat().st_size <= 1 for path in left)


UNDATED = ("kling_product_pictures", "kling_text_to_video", "kling_all_in_one", "kling_variants")


@pytest.mark.skipif(VERSION < (3, 0), reason="each run has a logical date there")
@pytest.mark.parametrize("name", UNDATED)
def test_an_example_runs_without_a_logical_date(
    airflow: RealAirflow, vendor: EmulatorThread, name: str
) -> None:
    """As REST and assets start a run: ``{{ ds }}`` has no value in it."""
    shutil.rmtree(airflow.output, ignore_errors=True)
    run = airflow.test(ROOT / "dags" / f"{name}.py", dated=False)

    assert run.state == "success", run.log[-5000:]
    saved = list(airflow.output.rglob("*.mp4"))
    assert accepted(vendor) == len(saved) > 0


@pytest.mark.skipif(VERSION < (3, 0), reason="each run has a logical date there")
def test_a_path_with_a_date_in_a_run_without_one_costs_nothing(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    paths = {
        name: f"{tmp_path}/{{{{ {value} }}}}/film.mp4"
        for name, value in {
            "ds": "ds",
            "nodash": "ds_nodash",
            "date": "logical_date",
            "interval": "data_interval_start",
            "formatted": "logical_date | ds",
        }.items()
    }
    file = tmp_path / "undated.py"
    file.write_text(
        "from airflow.sdk import DAG\n"
        "from airflow_provider_kling.operators.kling import KlingGenerateOperator\n"
        'with DAG("undated", schedule=None) as dag:\n' + textwrap.indent(tasks(paths), "    ")
    )
    run = airflow.test(file, dated=False)

    assert states(run) == dict.fromkeys(paths, "failed"), run.log[-5000:]
    assert accepted(vendor) == 0
    assert files(tmp_path) == ["undated.py"]

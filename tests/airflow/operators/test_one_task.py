"""Generate, wait and land in one task: path, sidecar, cost, budget, assets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from airflow_provider_kling.api.paths import safe_name
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.airflow.real_airflow import REMEMBERS, ROOT, RealAirflow

PICTURE = ROOT / "dags" / "pictures" / "mug.jpg"
REQUEST = f'image="{PICTURE}", prompt="Steam rises.", duration=5'


def submits(vendor: EmulatorThread) -> int:
    return sum(entry.accepted for entry in vendor.journal)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return tmp_path / "videos"


@pytest.fixture
def poor_vendor() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(balance=0.2)) as emulator:
        yield emulator


def test_it_saves_and_says_so(airflow: RealAirflow, vendor: EmulatorThread, videos: Path) -> None:
    run = airflow.run(f"""
    KlingGenerateOperator(
        task_id="generate", {REQUEST}, sidecar=True,
        path="{videos}/{{{{ dag.dag_id }}}}/{{generation_id}}.mp4",
    )
    """)

    assert run.state == "success", run.log[-3000:]
    xcom = run["generate"].xcom
    generation_id = xcom["return_value"]
    assert xcom["path"] == f"{videos}/{run.dag_id}/{generation_id}.mp4"
    assert Path(xcom["path"]).stat().st_size == xcom["video"]["size"]
    assert xcom["generation"]["id"] == generation_id
    assert xcom["video_url"].startswith("http")
    assert xcom["cost"] == {"credits": 580_000, "usd": 0.29, "source": "usage", "usd_source": "ledger"}
    beside = Path(xcom["path"]).with_suffix(".json")
    assert sorted(beside.parent.iterdir()) == [beside, Path(xcom["path"])]
    said = json.loads(beside.read_text())
    assert said["generation_id"] == generation_id
    assert said["client_request_id"] == xcom["client_request_id"]
    assert said["request"]["image_url"]["source"] == str(PICTURE)
    assert len(said["request"]["image_url"]["sha256"]) == 64
    assert said["cost"] == xcom["cost"]
    assert said["video"]["sha256"] == xcom["video"]["sha256"]
    assert "base64" not in beside.read_text()


def test_deferred_it_takes_two_segments(
    patient_airflow: RealAirflow, slow_vendor: EmulatorThread, videos: Path
) -> None:
    run = patient_airflow.test(f"""
    KlingGenerateOperator(
        task_id="generate", {REQUEST}, deferrable=True, poke_interval=5, sidecar=True,
        path="{videos}/{{client_request_id}}.mp4",
    )
    """)

    assert run.state == "success", run.log[-3000:]
    assert "in the triggerer" in run.log
    xcom = run["generate"].xcom
    assert xcom["path"] == f"{videos}/{safe_name(xcom['client_request_id'])}.mp4"
    assert Path(xcom["path"]).is_file()
    assert Path(xcom["path"]).with_suffix(".json").is_file()
    assert xcom["cost"]["usd"] == 0.29
    assert submits(slow_vendor) == 1


def test_a_generation_that_is_not_known_everywhere_yet_is_waited_for(
    patient_airflow: RealAirflow, slow_vendor: EmulatorThread
) -> None:
    """It was submitted a moment ago, and is paid for: a 404 does not end its wait."""
    slow_vendor.faults.add("poll", 404, times=3)
    run = patient_airflow.test(f"""
    KlingGenerateOperator(
        task_id="generate", {REQUEST}, wait_for_completion=True, deferrable=True, poke_interval=5
    )
    """)

    assert run.state == "success", run.log[-3000:]
    assert "Status check before deferring failed; deferring anyway" in run.log
    assert submits(slow_vendor) == 1


def test_a_retry_after_a_failed_save_saves_the_same_generation(
    airflow: RealAirflow, vendor: EmulatorThread, videos: Path
) -> None:
    vendor.faults.add("cdn", 404, times=5)
    run = airflow.run(f"""
    KlingGenerateOperator(task_id="generate", {REQUEST}, path="{videos}/")
    """)
    assert run["generate"].state == "failed"
    assert "path" not in run["generate"].xcom

    run.clear("generate").go_on()

    assert run.state == "success", run.log[-3000:]
    assert submits(vendor) == 1
    assert [path.stem for path in videos.iterdir()] == [run["generate"].xcom["return_value"]]


def test_an_image_of_another_format_is_converted(
    airflow: RealAirflow, vendor: EmulatorThread, videos: Path, tmp_path: Path
) -> None:
    image = tmp_path / "mug.webp"
    Image.new("RGB", (640, 480), "teal").save(image)
    run = airflow.run(f"""
    KlingGenerateOperator(
        task_id="generate", image="{image}", prompt="Steam rises.", duration=5, convert_image=True, path="{videos}/"
    )
    """)

    assert run.state == "success", run.log[-3000:]
    assert "is converted from WEBP, 640 x 480, to JPEG, 640 x 480" in run.log
    assert submits(vendor) == 1


def test_a_picture_that_is_gone_by_then_is_not_missed(
    airflow: RealAirflow, vendor: EmulatorThread, videos: Path, tmp_path: Path
) -> None:
    """An inbox that is emptied while the landing fails: the generation needs no picture any more."""
    picture = tmp_path / "inbox.jpg"
    picture.write_bytes(PICTURE.read_bytes())
    vendor.faults.add("cdn", 404, times=5)
    run = airflow.run(f"""
    KlingGenerateOperator(
        task_id="generate", image="{picture}", prompt="Steam rises.", duration=5, path="{videos}/"
    )
    """)
    assert run["generate"].state == "failed"
    picture.unlink()

    run.clear("generate").go_on()

    if not REMEMBERS:
        assert "does not exist on this worker" in run.log
        return
    assert run.state == "success", run.log[-3000:]
    assert "does not need the image any more" in run.log
    assert submits(vendor) == 1
    assert [path.stem for path in videos.iterdir()] == [run["generate"].xcom["return_value"]]

    run.rewrite(**{"Steam rises.": "Steam falls."}).clear("generate").go_on()

    assert run["generate"].state == "failed"
    assert "inbox.jpg does not exist on this worker" in run.log
    assert submits(vendor) == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("s4://bucket/clip.mp4", "s4"),
        ("FILE/clip.mp4", "NotADirectoryError"),
        ("FOLDER", "is a directory"),
    ],
)
def test_where_no_video_can_land_is_noticed_before_anything_is_paid(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path, path: str, said: str
) -> None:
    (tmp_path / "file").touch()
    path = path.replace("FILE", f"{tmp_path}/file").replace("FOLDER", str(tmp_path))
    run = airflow.run(f"""
    KlingGenerateOperator(task_id="generate", {REQUEST}, path="{path}")
    """)

    assert run["generate"].state == "failed", run.log[-3000:]
    assert f"No video can be saved at '{path}'" in run.log
    assert said in run.log
    assert "Nothing was submitted by this attempt" in run.log
    assert submits(vendor) == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('path="{videos}/../x.mp4"', "climbs out"),
        ('path="{videos}/{{nonsense}}.mp4"', "not a placeholder"),
        ('path="file://{videos}/%2e%2e/x.mp4"', "climbs out"),
        ('path="file://videos/x.mp4"', "three slashes"),
        ('path=__import__("pathlib").Path("{videos}/{{{{ ds }}}}/x.mp4")', "given as text"),
        ('path=__import__("pathlib").Path("{videos}/")', "name a file"),
        ("max_cost_usd=0", "above 0"),
        ('max_cost_usd="cheap"', "above 0"),
    ],
)
def test_what_cannot_be_is_an_import_error(
    airflow: RealAirflow, videos: Path, arguments: str, expected: str
) -> None:
    assert expected in airflow.import_error(
        f'KlingGenerateOperator(task_id="generate", {REQUEST}, {arguments.format(videos=videos)})'
    )
    assert expected in airflow.import_error(
        f'KlingGenerateOperator.partial(task_id="generate", {REQUEST}, {arguments.format(videos=videos)})'
        ".expand(cfg_scale=[0.1, 0.2])"
    )


def test_a_rendered_path_is_checked_before_anything_is_paid(
    airflow: RealAirflow, vendor: EmulatorThread, videos: Path
) -> None:
    run = airflow.run(f"""
    KlingGenerateOperator(task_id="generate", {REQUEST}, path="{videos}/{{{{ '..' }}}}/x.mp4", retries=3)
    """)

    assert run["generate"].state == "failed"
    assert "climbs out" in run.log
    assert submits(vendor) == 0


def test_paths_of_every_kind_are_read_and_written(
    airflow: RealAirflow, vendor: EmulatorThread, videos: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "mug #1? 100%25.jpg"
    odd.write_bytes(PICTURE.read_bytes())
    run = airflow.run(f"""
    from pathlib import Path
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    asked = dict(prompt="Steam rises.", duration=5, sidecar=True)
    objects = ObjectStoragePath("file://{videos}")
    generate = KlingGenerateOperator(
        task_id="object", image=ObjectStoragePath("file://{odd}"), **asked,
        path=objects / "{{{{ dag.dag_id }}}}" / "{{generation_id}}.mp4",
    )
    KlingGenerateOperator(
        task_id="path", image=Path({str(odd)!r}), **asked, path=Path("{videos}/path/{{generation_id}}.mp4")
    )
    KlingGenerateOperator(
        task_id="uri", image={odd.as_uri()!r}, **asked, path="file://{videos}/uri/{{{{ ds }}}}/%23 #?%25.mp4"
    )
    KlingDownloadOperator(task_id="again", generation_id=generate.output, path=Path("{videos}/again.mp4"))
    KlingDownloadOperator(task_id="anew", generation_id=generate.output, path=objects / "{{{{ ds }}}}.mp4")
    """)

    assert run.state == "success", run.log[-3000:]
    ids = {name: run[name].xcom.get("generation_id") for name in ("object", "path", "uri")}
    paths = {name: Path(task.xcom["path"]) for name, task in run.tasks.items()}
    assert paths["object"] == videos / run.dag_id / f"{ids['object']}.mp4"
    assert paths["path"] == videos / "path" / f"{ids['path']}.mp4"
    assert paths["uri"] == videos / "uri" / paths["anew"].stem / "# #?%.mp4"
    assert paths["again"] == videos / "again.mp4"
    assert paths["anew"].parent == videos
    saved = [each for each in videos.rglob("*") if each.is_file()]
    beside = [paths[name].with_suffix(".json") for name in ids]
    assert sorted(saved) == sorted([*paths.values(), *beside])
    digests = {run[name].xcom["request"]["parameters"]["image_url"]["sha256"] for name in ids}
    assert len(digests) == 1


def test_a_path_object_that_names_no_file_is_refused_before_anything_is_paid(
    airflow: RealAirflow, vendor: EmulatorThread, videos: Path
) -> None:
    run = airflow.run(f"""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    KlingGenerateOperator(
        task_id="generate", {REQUEST}, retries=3, path=ObjectStoragePath("file://{videos}/{{{{ ds }}}}/")
    )
    """)

    assert run["generate"].state == "failed"
    assert "name a file" in run.log
    assert submits(vendor) == 0


def test_above_the_limit_nothing_is_paid_and_the_figures_are_said(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    run = airflow.run(f"""
    KlingGenerateOperator(task_id="generate", {REQUEST}, max_cost_usd="{{{{ 0.25 }}}}", retries=3)
    """)

    assert run["generate"].state == "failed"
    assert "would cost about 0.29 USD (5 s at 0.058 USD a second)" in run.log
    assert "the limit is 0.25 USD" in run.log
    assert submits(vendor) == 0
    priced = [entry for entry in vendor.journal if entry.path == "/v1/models"]
    assert len(priced) == 1
    assert not priced[0].authorization


def test_the_connection_s_limit_holds_where_the_task_names_none(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    connection = json.loads(airflow.env["AIRFLOW_CONN_KLING_DEFAULT"]) | {"extra": {"max_cost_usd": 0.1}}
    limited = {"AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection)}
    run = airflow.run(
        f"""
    KlingGenerateOperator(task_id="too_dear", {REQUEST})
    KlingGenerateOperator(task_id="allowed", {REQUEST}, max_cost_usd=0.29)
    """,
        **limited,
    )

    assert (run["too_dear"].state, run["allowed"].state) == ("failed", "success"), run.log[-3000:]
    assert "the limit is 0.1 USD" in run.log
    assert submits(vendor) == 1


def test_where_no_price_is_known_and_a_limit_is_set_nothing_is_paid(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    run = airflow.run("""
    KlingGenerateOperator(
        task_id="generate", model="klingai/avatar-pro", image="https://example.com/a.png",
        parameters={"audio_url": "https://example.com/a.mp3"}, max_cost_usd=100, retries=3,
    )
    """)

    assert run["generate"].state == "failed"
    assert "is unknown" in run.log
    assert "the limit is 100 USD" in run.log
    assert submits(vendor) == 0


def test_a_balance_that_does_not_cover_it_is_seen_before(
    airflow: RealAirflow, poor_vendor: EmulatorThread
) -> None:
    connection = {"conn_type": "kling", "host": poor_vendor.url, "password": poor_vendor.api_key}
    run = airflow.run(
        f"""
    KlingGenerateOperator(task_id="generate", {REQUEST}, check_balance=True, retries=3)
    """,
        AIRFLOW_CONN_KLING_DEFAULT=json.dumps(connection),
    )

    assert run["generate"].state == "failed"
    assert "the account's balance is 0.2 USD" in run.log
    assert [entry.call for entry in poor_vendor.journal if entry.method == "POST"] == []


def test_an_outlet_asset_s_event_has_the_facts_and_no_signed_url(
    airflow: RealAirflow, vendor: EmulatorThread, videos: Path
) -> None:
    run = airflow.run(f"""
    from airflow.providers.common.compat.sdk import Asset, AssetAlias
    videos, alias = Asset("x-test://videos"), AssetAlias("each_video")

    generate = KlingGenerateOperator(
        task_id="generate", {REQUEST}, path="{videos}/", outlets=[videos, alias]
    )
    download = KlingDownloadOperator(
        task_id="download", generation_id=generate.output, path="{videos}/again.mp4", outlets=[videos]
    )

    @task(inlets=[videos, alias])
    def read(inlet_events):
        return [dict(each.extra) for key in (videos, alias) for each in inlet_events[key]]

    generate >> download >> read()
    """)

    assert run.state == "success", run.log[-3000:]
    generated, downloaded, aliased = run["read"].xcom["return_value"]
    xcom = run["generate"].xcom
    assert (
        generated
        == aliased
        == {
            "generation_id": xcom["return_value"],
            "model": "kling-video/v1.6/standard/image-to-video",
            "path": xcom["path"],
            "duration": 5.0,
            "cost": xcom["cost"],
        }
    )
    assert downloaded == {
        "generation_id": xcom["return_value"],
        "model": "kling-video/v1.6/standard/image-to-video",
        "path": f"{videos}/again.mp4",
        "duration": 5.0,
    }


def test_a_file_name_of_any_kind_becomes_an_asset(
    airflow: RealAirflow, vendor: EmulatorThread, videos: Path
) -> None:
    directory = f"{videos}/vidéos #1? 100%"
    run = airflow.run(f"""
    from airflow.providers.common.compat.sdk import AssetAlias
    alias = AssetAlias("video_of_any_name")

    generate = KlingGenerateOperator(
        task_id="generate", {REQUEST}, path="{directory}/{{generation_id}}.mp4", sidecar=True, outlets=[alias]
    )

    @task(inlets=[alias])
    def read(inlet_events):
        return [getattr(each, "asset", each).uri for each in inlet_events[alias]]

    generate >> read()
    """)

    assert run.state == "success", run.log[-3000:]
    path = f"{directory}/{run['generate'].xcom['return_value']}.mp4"
    assert run["generate"].xcom["path"] == path
    (uri,) = run["read"].xcom["return_value"]
    assert uri == f"file://{videos}/vid%C3%A9os%20%231%3F%20100%25/{Path(path).name}"
    assert sorted(each.name for each in Path(directory).iterdir()) == sorted(
        [Path(path).name, f"{Path(path).stem}.json"]
    )


def test_hook_level_lineage_has_the_picture_and_the_video(
    airflow: RealAirflow, vendor: EmulatorThread, videos: Path, tmp_path: Path
) -> None:
    """Through Airflow's own collector, which collects where a plugin reads it."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "reading.py").write_text("""
from airflow.providers.common.compat.sdk import AirflowPlugin, HookLineageReader

class Reading(AirflowPlugin):
    name = "reading"
    hook_lineage_readers = [HookLineageReader]
""")
    script = f"""
import json
from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector
from airflow_provider_kling.hooks.kling import KlingHook

hook = KlingHook()
model = "kling-video/v1.6/standard/image-to-video"
request = hook.prepare(model, {{"prompt": "x"}}, image="{PICTURE}")
generation = hook.get_conn().submit(request)
hook.download(generation.id, "{videos}/clip.mp4")
seen = get_hook_lineage_collector().collected_assets
print(json.dumps([[[each.asset.uri, each.context is hook] for each in side] for side in (seen.inputs, seen.outputs)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=airflow.environment()
        | airflow.env
        | {"AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [
        [[f"file://{PICTURE}", True]],
        [[f"file://{videos}/clip.mp4", True]],
    ]

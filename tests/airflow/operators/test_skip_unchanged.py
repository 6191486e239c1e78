"""``skip_unchanged``: a nightly run pays only for what changed, and no file of somebody else is replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from airflow_provider_kling.operators.kling import KlingGenerateOperator
from airflow_provider_kling.version_compat import AirflowFailException
from tests.airflow.real_airflow import RealAirflow, Run
from tests.media_samples import picture

TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"
IMAGE_MODEL = "kling-video/v1.6/standard/image-to-video"


def clip(path: Path, prompt: str = "A cat.", **arguments: object) -> str:
    given = {"model": TEXT_MODEL, "prompt": prompt, "duration": 5, "path": str(path), **arguments}
    told = ", ".join(f"{name}={value!r}" for name, value in {"skip_unchanged": True, **given}.items())
    return f"""
    from airflow.providers.common.compat.sdk import Asset
    videos = Asset("x-test://videos")

    @task(inlets=[videos], trigger_rule="all_done")
    def read(inlet_events):
        events = list(inlet_events[videos])
        return events[-1].extra if events else None

    KlingGenerateOperator(task_id="clip", poke_interval=1, outlets=[videos], {told}) >> read()
    """


def accepted(vendor: EmulatorThread) -> int:
    return vendor.stats["accepted"]


def nightly(pictures: Path, videos: Path) -> str:
    return f"""
    from pathlib import Path

    @task
    def find():
        return [
            {{"image": str(each), "path": "{videos}/" + each.stem + ".mp4"}}
            for each in sorted(Path("{pictures}").glob("*.png"))
        ]

    KlingGenerateOperator.partial(
        task_id="clip", prompt="It turns.", duration=5, skip_unchanged=True, poke_interval=1, deferrable=False,
    ).expand_kwargs(find())
    """


def reused(run: Run) -> list[bool]:
    return [bool(run[f"clip[{n}]"].xcom.get("reused")) for n in range(3)]


def test_a_nightly_run_pays_for_what_changed(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    pictures, videos = tmp_path / "pictures", tmp_path / "videos"
    pictures.mkdir()
    for n in range(3):
        (pictures / f"{n}.png").write_bytes(picture("PNG", size=(320, 320 + n)))
    first = airflow.run(nightly(pictures, videos))
    assert first.state == "success", first.log[-4000:]
    assert (accepted(vendor), reused(first)) == (3, [False] * 3)
    before = {path.name: path.read_bytes() for path in videos.iterdir()}

    (pictures / "1.png").write_bytes(picture("PNG", size=(320, 400)))
    second = airflow.run(nightly(pictures, videos))
    assert second.state == "success", second.log[-4000:]
    assert (accepted(vendor), reused(second)) == (4, [True, False, True])
    after = {path.name: path.read_bytes() for path in videos.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"1.mp4", "1.json"}


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_same_xcoms_at_no_cost(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path, deferrable: bool
) -> None:
    text = clip(tmp_path / "cat.mp4", deferrable=deferrable)
    first, second = airflow.run(text), airflow.run(text)
    assert second.state == "success", second.log[-4000:]
    assert accepted(vendor) == 1
    made, kept = first["clip"].xcom, second["clip"].xcom
    assert kept.keys() - made.keys() == {"reused"}
    assert made.keys() - kept.keys() <= {"video_url"}  # it expires; the video is there
    for key in ("return_value", "generation_id", "client_request_id", "path", "video"):
        assert kept[key] == made[key], key
    assert kept["request"]["parameters"] == made["request"]["parameters"]
    assert (kept["cost"]["usd"], kept["cost"]["credits"]) == (0, 0)
    assert kept["reused"] is True
    event = second["read"].xcom["return_value"]
    assert (event["reused"], event["cost"]["usd"], event["path"]) == (True, 0, made["path"])
    assert "reused" not in first["read"].xcom["return_value"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_another_request_replaces_the_file_when_its_video_is_complete(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path, deferrable: bool
) -> None:
    path = tmp_path / "cat.mp4"
    assert airflow.run(clip(path)).state == "success"
    old, sidecar = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())

    refused = airflow.run(clip(path, "A dog. [emulator: moderation]", deferrable=deferrable))
    assert refused["clip"].state == "failed"
    assert path.read_bytes() == old

    vendor.faults.add("cdn", 404, times=5)
    late = airflow.run(clip(path, "A dog.", deferrable=deferrable, retries=1))
    assert late["clip"].state == "up_for_retry", late.log[-4000:]
    assert path.read_bytes() == old
    vendor.faults.clear()
    late.go_on()
    assert late.state == "success", late.log[-4000:]
    assert path.read_bytes() != old
    new = json.loads(path.with_suffix(".json").read_text())
    assert (new["request"]["prompt"], sidecar["request"]["prompt"]) == ("A dog.", "A cat.")
    assert accepted(vendor) == 3  # that which was refused is free
    assert [each.name for each in tmp_path.iterdir() if each.suffix not in (".mp4", ".json")] == []


def test_a_file_of_somebody_else_is_left_alone(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    (tmp_path / "bare.mp4").write_bytes(b"mine")
    assert airflow.run(clip(tmp_path / "edited.mp4")).state == "success"
    (tmp_path / "edited.mp4").write_bytes((tmp_path / "edited.mp4").read_bytes()[:-1] + b"!")
    for name, why in (("bare", "no sidecar tells"), ("edited", "it was changed since it was saved")):
        content = (tmp_path / f"{name}.mp4").read_bytes()
        for prompt in ("A cat.", "A dog."):
            run = airflow.run(clip(tmp_path / f"{name}.mp4", prompt, retries=2))
            assert (run["clip"].state, run["clip"].tries) == ("failed", 1)
            assert why in run.log
        assert (tmp_path / f"{name}.mp4").read_bytes() == content
    assert accepted(vendor) == 1


def test_a_retry_that_finds_its_own_video_tells_what_it_cost(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    run = airflow.run(clip(tmp_path / "cat.mp4"))
    usd = run["clip"].xcom["cost"]["usd"]
    run.clear("clip").go_on()
    assert run.state == "success", run.log[-4000:]
    assert accepted(vendor) == 1
    assert run["clip"].xcom["cost"]["usd"] in (usd, 0)  # 0 where the store forgets what was submitted


@pytest.mark.parametrize(
    "path", [None, "/videos/", "/videos/{generation_id}.mp4", "/v/{client_request_id}.mp4"]
)
def test_a_path_that_the_generation_names_is_refused_when_the_dag_is_parsed(path: str | None) -> None:
    with pytest.raises(AirflowFailException, match="skip_unchanged needs a path"):
        KlingGenerateOperator(
            task_id="clip",
            model=TEXT_MODEL,
            prompt="A cat.",
            path=path,
            skip_unchanged=True,
            kling_conn_id="k",
        )


def test_a_list_of_requests_is_refused_before_anything_is_paid(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    run = airflow.run(f"""
    @task.kling_generate(model="{TEXT_MODEL}", skip_unchanged=True, path="{tmp_path}/clip.mp4")
    def clip():
        return ["A cat.", "A dog."]

    clip()
    """)
    assert run["clip"].state == "failed"
    assert "Several videos cannot all be saved at" in run.log
    assert accepted(vendor) == 0

"""KlingGenerateBatchOperator in real Airflow: many requests in one task, each paid once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.airflow.real_airflow import RealAirflow, Run
from tests.media_samples import picture

TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"


def batch(folder: Path, requests: object = "", **arguments: object) -> str:
    given = {
        "requests": requests,
        "path": f"{folder}/",
        "model": TEXT_MODEL,
        "poke_interval": 1,
        "deferrable": False,
    }
    given |= arguments
    told = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return f"""
    from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator

    KlingGenerateBatchOperator(task_id="batch", {told})
    """


def rows(count: int) -> list[dict[str, Any]]:
    return [{"key": f"clip {n}", "prompt": f"Clip {n}."} for n in range(count)]


def manifest(run: Run) -> dict[str, dict[str, Any]]:
    lines = Path(run["batch"].xcom["batch"]["manifest"]).read_text().splitlines()
    return {line["key"]: line for line in map(json.loads, lines)}


def accepted(vendor: EmulatorThread) -> int:
    return vendor.stats["accepted"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_each_row_becomes_a_video(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path, deferrable: bool
) -> None:
    run = airflow.run(batch(tmp_path, rows(5), max_active=2, deferrable=deferrable))

    assert run.state == "success", run.log[-4000:]
    summary = run["batch"].xcom["return_value"]
    assert (summary["total"], summary["saved"], summary["failed"]) == (5, 5, 0)
    lines = manifest(run)
    assert [line["status"] for line in lines.values()] == ["saved"] * 5
    assert len({line["generation_id"] for line in lines.values()}) == 5
    for line in lines.values():
        assert Path(line["path"]).stat().st_size == line["video"]["size"]
        assert line["request"]["parameters"]["prompt"]  # the tab in Airflow's UI shows it
    assert accepted(vendor) == 5
    assert summary["cost_usd"] > 0


def test_a_csv_file_with_columns_of_its_own(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    source = tmp_path / "campaign.csv"
    source.write_text('\ufeffname,text,seconds\ncat,"A cat, ""running"".",5\ndog,A dog.\u00a0,10\n', "utf-8")
    columns = {"key": "name", "prompt": "text", "duration": "seconds"}
    run = airflow.run(batch(tmp_path / "out", str(source), columns=columns))

    assert run.state == "success", run.log[-4000:]
    assert sorted(manifest(run)) == ["cat", "dog"]
    assert [each["prompt"] for each in map(vars_of, vendor.generations)] == [
        'A cat, "running".',
        "A dog.\u00a0",
    ]


def vars_of(generation: dict[str, Any]) -> dict[str, Any]:
    return generation["parameters"] if "parameters" in generation else generation["request"]


def test_bad_rows_are_all_named_before_anything_is_spent(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    bad = [
        {"key": "fine", "prompt": "A cat."},
        {"prompt": "No key."},
        {"key": "fine", "prompt": "Again."},
        {"key": "seven", "prompt": "A dog.", "duration": 7},
        {"key": "typo", "promt": "A dog."},
    ]
    run = airflow.run(batch(tmp_path, bad))

    assert run["batch"].state == "failed"
    for words in (
        "4 of 5 rows cannot be submitted",
        "Row 2 (row 2): it has no 'key'",
        "Row 3 (fine): its key 'fine' is in the batch already",
        "Row 4 (seven): 'duration'",
        "Row 5 (typo):",
    ):
        assert words in run.log, words
    assert accepted(vendor) == 0


def test_bad_rows_can_be_skipped(airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path) -> None:
    bad = [{"key": "fine", "prompt": "A cat."}, {"key": "seven", "prompt": "A dog.", "duration": 7}]
    run = airflow.run(batch(tmp_path, bad, on_invalid="skip"))

    assert run.state == "success", run.log[-4000:]
    assert {key: line["status"] for key, line in manifest(run).items()} == {
        "fine": "saved",
        "seven": "invalid",
    }
    assert accepted(vendor) == 1


def test_moderation_does_not_stop_a_batch(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    requests = [*rows(3), {"key": "bad", "prompt": "A dog. [emulator: moderation]"}]
    run = airflow.run(batch(tmp_path, requests, max_failures=1))

    assert run.state == "success", run.log[-4000:]
    statuses = {key: line["status"] for key, line in manifest(run).items()}
    assert statuses == {"clip 0": "saved", "clip 1": "saved", "clip 2": "saved", "bad": "failed"}


def test_too_many_failures_fail_the_task_when_all_others_are_saved(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    run = airflow.run(batch(tmp_path, [{"key": "bad", "prompt": "A dog. [emulator: moderation]"}, *rows(2)]))

    assert run["batch"].state == "failed"
    assert "1 of 3 rows failed, and max_failures allows 0. 2 videos are saved." in run.log
    assert {line["status"] for line in manifest(run).values()} == {"saved", "failed"}


@pytest.mark.parametrize("deferrable", [True, False])
def test_no_more_rows_are_submitted_after_too_many_failures_if_so_wanted(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path, deferrable: bool
) -> None:
    requests = [{"key": "bad", "prompt": "A dog. [emulator: moderation]"}, *rows(2)]
    run = airflow.run(batch(tmp_path, requests, max_active=1, on_error="fail", deferrable=deferrable))

    assert run["batch"].state == "failed"
    assert "1 of 3 rows failed, and max_failures allows 0." in run.log
    assert [line["status"] for line in manifest(run).values()] == ["failed", "pending", "pending"]
    assert accepted(vendor) == 1


def test_only_what_changed_is_made_again(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    pictures, videos = tmp_path / "pictures", tmp_path / "videos"
    pictures.mkdir()
    for n in range(4):
        (pictures / f"{n}.png").write_bytes(picture("PNG", size=(320, 320 + n)))
    image_model = "kling-video/v1.6/standard/image-to-video"
    text = batch(videos, f"{pictures}/", model=image_model, prompt="It turns.", skip_unchanged=True)
    first = airflow.run(text)
    assert first.state == "success", first.log[-4000:]
    assert accepted(vendor) == 4
    before = {path.name: path.read_bytes() for path in videos.glob("*.mp4")}

    (pictures / "2.png").write_bytes(picture("PNG", size=(320, 400)))
    second = airflow.run(text)
    assert second.state == "success", second.log[-4000:]
    assert accepted(vendor) == 5
    summary = second["batch"].xcom["batch"]
    assert (summary["saved"], summary["reused"]) == (1, 3)
    lines = manifest(second)
    assert (lines["0"]["reused"], lines["0"]["cost"]["usd"]) == (True, 0.0)
    after = {path.name: path.read_bytes() for path in videos.glob("*.mp4")}
    assert [name for name in sorted(before) if before[name] != after[name]] == ["2.mp4"]


def test_a_file_of_somebody_else_is_never_replaced(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    (tmp_path / "clip-0_x.mp4").touch()
    for name in ("clip 0", "clip 1"):
        from airflow_provider_kling.api.paths import safe_name

        (tmp_path / f"{safe_name(name)}.mp4").write_bytes(b"mine")
    run = airflow.run(batch(tmp_path, rows(3), skip_unchanged=True))

    assert run["batch"].state == "failed"
    assert "2 of 3 rows cannot be submitted" in run.log
    assert accepted(vendor) == 0


def test_an_empty_balance_pauses_the_batch(started_airflow: RealAirflow, tmp_path: Path) -> None:
    with EmulatorThread(EmulatorOptions(balance=0.7)) as poor:  # a generation costs about 0.29 USD
        connection = {"conn_type": "kling", "host": poor.url, "password": poor.api_key}
        text = batch(tmp_path, rows(4), max_active=1)
        run = started_airflow.run(text, AIRFLOW_CONN_KLING_DEFAULT=json.dumps(connection))

        assert run["batch"].state == "failed", run.log[-4000:]
        assert "The batch stopped:" in run.log
        assert "2 of 4 videos are saved, 2 rows were not submitted." in run.log
        assert "A retry continues with the rest." in run.log
        assert poor.stats["accepted"] == 2


def test_a_lost_answer_is_searched_for(airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path) -> None:
    vendor.faults.add("submit", "reset-after", times=1)
    run = airflow.run(batch(tmp_path, rows(3), uncertain_grace=1))

    assert run.state == "success", run.log[-4000:]
    assert "the vendor may have accepted its submit" in run.log
    assert accepted(vendor) == 3


def test_a_cleared_batch_makes_nothing_again(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    run = airflow.run(batch(tmp_path, rows(3)))
    first = manifest(run)
    run.clear("batch").go_on()

    assert run.state == "success", run.log[-4000:]
    second = manifest(run)
    assert {key: line["generation_id"] for key, line in first.items()} == {
        key: line["generation_id"] for key, line in second.items()
    }
    assert accepted(vendor) == 3


def test_the_decorator(airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path) -> None:
    run = airflow.run(f"""
    @task.kling_batch(path="{tmp_path}/", model="{TEXT_MODEL}", poke_interval=1)
    def clips():
        return [{{"key": name, "prompt": f"A {{name}}."}} for name in ("cat", "dog")]

    clips()
    """)

    assert run.state == "success", run.log[-4000:]
    assert run["clips"].xcom["batch"]["saved"] == 2
    assert accepted(vendor) == 2


def test_a_taken_place_is_seen_before_it_is_paid(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    (tmp_path / "taken.mp4").write_bytes(b"mine")
    requests = [{"key": name, "prompt": f"A {name}."} for name in ("taken", "free")]
    run = airflow.run(batch(tmp_path, requests, max_failures=1))

    assert run.state == "success", run.log[-4000:]
    assert {key: line["status"] for key, line in manifest(run).items()} == {
        "taken": "failed",
        "free": "saved",
    }
    assert (tmp_path / "taken.mp4").read_bytes() == b"mine"
    assert accepted(vendor) == 1


def test_a_limit_on_the_cost_holds_for_the_whole_batch(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    probe = airflow.run(batch(tmp_path / "probe", rows(1)))
    usd = probe["batch"].xcom["batch"]["cost_usd"]
    run = airflow.run(batch(tmp_path / "real", rows(5), max_cost_usd=usd * 2.5))

    assert run["batch"].state == "failed"
    assert accepted(vendor) == 1 + 2
    assert "exceeds the batch's limit" in run.log
    assert "2 of 5 videos are saved, 3 rows were not submitted" in run.log


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], "The batch has no rows"),
        ("/nowhere/rows.jsonl", "does not exist"),
        ("/nowhere/rows.txt", "neither a .jsonl nor a .csv file"),
    ],
)
def test_a_batch_of_nothing_says_so(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path, requests: object, words: str
) -> None:
    run = airflow.run(batch(tmp_path, requests))
    assert run["batch"].state == "failed"
    assert words in run.log
    assert accepted(vendor) == 0

"""A file of rows that changes while its batch runs, between attempts, and before a clear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.batches.life import BatchLife, arguments, manifest


def write(path: Path, **prompts: str) -> None:
    lines = [json.dumps({"key": key, "prompt": prompt}) for key, prompt in prompts.items()]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("how", ["after a deferral", "before a retry"])
def test_what_was_submitted_is_saved_and_what_is_new_is_submitted(
    frozen_vendor: EmulatorThread, tmp_path: Path, how: str
) -> None:
    source = tmp_path / "rows.jsonl"
    write(source, a="A.", b="B.", c="C.", d="D.")
    accepted = frozen_vendor.stats["accepted"]
    life = BatchLife(frozen_vendor, arguments(tmp_path / "out", str(source)), run_id=how)
    assert life.attempt() == "deferred"  # a, b and c are in flight
    write(source, new="N.", b="B changed.", d="D.")
    if how == "before a retry":
        life.outcome = "killed"
    assert life.to_the_end() == "success", life.error

    lines = {line["key"]: line for line in manifest(life)}
    assert {key: line["status"] for key, line in lines.items()} == dict.fromkeys(
        ["new", "b", "d", "a", "c"], "saved"
    )
    assert frozen_vendor.stats["accepted"] - accepted == 5
    said = "\n".join(life.log)
    assert "Row a is not among the rows any more" in said
    assert "Row 2 (b) is another one since it was submitted" in said
    assert "The rows changed since" in said
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 5


def test_a_clear_submits_what_changed_since(frozen_vendor: EmulatorThread, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    write(source, a="A.", b="B.")
    given = arguments(tmp_path / "out", str(source), skip_unchanged=True)
    life = BatchLife(frozen_vendor, given, run_id="clear")
    assert life.to_the_end() == "success"
    first = {line["key"]: line["generation_id"] for line in manifest(life)}
    write(source, a="A.", b="B changed.")
    life.attempt(cleared=True)
    assert life.to_the_end() == "success", life.error
    second = {line["key"]: line["generation_id"] for line in manifest(life)}
    assert (second["a"], second["b"] != first["b"]) == (first["a"], True)
    said = json.loads((tmp_path / "out" / "b.json").read_text())
    assert (said["generation_id"], said["request"]["prompt"]) == (second["b"], "B changed.")


def test_a_clear_stops_at_what_changed_if_so_wanted(frozen_vendor: EmulatorThread, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    write(source, a="A.", b="B.")
    given = arguments(tmp_path / "out", str(source), on_changed_request="fail", overwrite=True)
    life = BatchLife(frozen_vendor, given, run_id="stop")
    assert life.to_the_end() == "success"
    accepted = frozen_vendor.stats["accepted"]
    write(source, a="A.", b="B changed.")
    life.attempt(cleared=True)
    assert life.to_the_end() == "failed"
    assert "on_changed_request='fail'" in life.error
    assert frozen_vendor.stats["accepted"] == accepted


def test_a_file_that_was_edited_while_its_new_video_was_made_is_left_alone(
    frozen_vendor: EmulatorThread, tmp_path: Path
) -> None:
    source, video = tmp_path / "rows.jsonl", tmp_path / "out" / "a.mp4"
    write(source, a="A.")
    given = arguments(tmp_path / "out", str(source), skip_unchanged=True)
    assert BatchLife(frozen_vendor, given, run_id="first").to_the_end() == "success"
    write(source, a="A changed.")
    life = BatchLife(frozen_vendor, given, run_id="second")
    assert life.attempt() == "deferred"
    video.write_bytes(video.read_bytes() + b"cut by an editor")
    edited = video.read_bytes()
    assert life.go_on(life.wait()) == "failed"
    assert "a.mp4" in life.error
    assert video.read_bytes() == edited

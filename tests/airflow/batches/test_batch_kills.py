"""Batches whose workers are killed at random points: nothing is paid twice, no video is lost."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.batches.life import BatchLife, arguments, manifest, rows
from tests.media_samples import picture

ROWS = 6
SEEDS = 100


def assert_paid_once(
    frozen_vendor: EmulatorThread, life: BatchLife, before: set[str], count: int = ROWS
) -> None:
    """Each row has one generation and one video, and the manifest tells what is there."""
    made = {each["id"] for each in frozen_vendor.generations} - before
    lines = manifest(life)
    assert len(made) == count, "paid twice" if len(made) > count else "not made"
    assert {line["generation_id"] for line in lines} == made
    assert [line["status"] for line in lines] == ["saved"] * count
    for line in lines:
        content = Path(line["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == line["video"]["sha256"]
        said = json.loads(Path(line["path"]).with_suffix(".json").read_text())
        assert said["generation_id"] == line["generation_id"]
    folder = Path(lines[0]["path"]).parent
    assert len(list(folder.glob("*.mp4"))) == count
    assert (life.xcom["batch"]["saved"], life.xcom["batch"]["finished"]) == (count, True)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_workers_and_triggerers_that_are_killed_anywhere(
    frozen_vendor: EmulatorThread, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    before = {each["id"] for each in frozen_vendor.generations}
    deferrable = seed % 4 != 0
    life = BatchLife(
        frozen_vendor,
        arguments(tmp_path, rows(ROWS), deferrable=deferrable),
        has_store=seed % 2 == 0,
        run_id=f"{seed}",
    )
    kills = dice.randint(1, 5)
    for _ in range(60):
        at = dice.randint(1, 60 if deferrable else 150) if kills > 0 else None
        if life.outcome in ("", "killed", "retry"):
            life.attempt(kill_at=at, cleared=life.number > 0 and dice.random() < 0.2)
        elif life.outcome == "deferred":
            event = life.wait()
            if dice.random() < 0.3:  # the triggerer was killed before it could tell
                event = life.wait()
            life.go_on(event, kill_at=at)
        else:
            break
        kills -= life.outcome == "killed"
        if life.outcome == "killed" and dice.random() < 0.5:
            frozen_vendor.clock.advance(dice.choice([1, 30, 600]))
    assert life.outcome == "success", life.error
    assert_paid_once(frozen_vendor, life, before)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("deferrable", [True, False])
def test_each_point_of_a_batch_of_one(
    frozen_vendor: EmulatorThread, tmp_path: Path, deferrable: bool
) -> None:
    """One kill at each boundary of the first part, one life for each."""
    probe = BatchLife(
        frozen_vendor, arguments(tmp_path / "probe", rows(1), deferrable=deferrable), run_id="probe"
    )
    assert probe.to_the_end() == "success"
    probe = BatchLife(
        frozen_vendor, arguments(tmp_path / "again", rows(1), deferrable=deferrable), run_id="again"
    )
    probe.attempt()
    for at in range(1, probe.boundaries + 1):
        before = {each["id"] for each in frozen_vendor.generations}
        given = arguments(tmp_path / f"{at}", rows(1), deferrable=deferrable)
        life = BatchLife(frozen_vendor, given, run_id=f"{deferrable} {at}")
        assert life.attempt(kill_at=at) == "killed"
        assert life.to_the_end() == "success", (at, life.error)
        assert_paid_once(frozen_vendor, life, before, 1)


def test_lost_answers_are_searched_for_by_the_triggerer(
    frozen_vendor: EmulatorThread, tmp_path: Path
) -> None:
    before = {each["id"] for each in frozen_vendor.generations}
    frozen_vendor.faults.add("submit", "reset-after", times=4)
    life = BatchLife(frozen_vendor, arguments(tmp_path, rows(ROWS), max_active=ROWS), run_id="lost")
    assert life.attempt() == "deferred"
    assert len(life.triggers[0]["searches"]) == 4
    assert life.to_the_end() == "success", life.error
    assert_paid_once(frozen_vendor, life, before)


def test_a_clear_of_a_finished_batch_costs_nothing_and_asks_nothing(
    frozen_vendor: EmulatorThread, tmp_path: Path
) -> None:
    life = BatchLife(frozen_vendor, arguments(tmp_path, rows(ROWS)), run_id="cleared")
    assert life.to_the_end() == "success"
    calls = frozen_vendor.stats["calls"]
    assert life.attempt(cleared=True) == "success"
    assert frozen_vendor.stats["calls"] == calls


def test_two_runs_onto_one_folder_do_not_mix(frozen_vendor: EmulatorThread, tmp_path: Path) -> None:
    before = {each["id"] for each in frozen_vendor.generations}
    first = BatchLife(frozen_vendor, arguments(tmp_path, rows(3), skip_unchanged=True), run_id="first")
    other = [{"key": f"other {n}", "prompt": "Other."} for n in range(3)]
    second = BatchLife(frozen_vendor, arguments(tmp_path, other, skip_unchanged=True), run_id="second")
    assert first.attempt() == second.attempt() == "deferred"
    assert first.to_the_end() == second.to_the_end() == "success"
    assert len({each["id"] for each in frozen_vendor.generations} - before) == 6
    assert first.xcom["batch"]["manifest"] != second.xcom["batch"]["manifest"]
    names = [{line["key"] for line in manifest(life)} for life in (first, second)]
    assert names == [{f"clip {n}" for n in range(3)}, {f"other {n}" for n in range(3)}]


def test_a_nightly_run_over_400_pictures_of_which_10_changed_pays_for_10(
    frozen_vendor: EmulatorThread, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(400):
        (pictures / f"{number:03}.png").write_bytes(picture("PNG", size=(300 + number, 300)))
    given = {
        "requests": f"{pictures}/",
        "path": f"{tmp_path}/clips/",
        "model": "kling-video/v1.6/standard/image-to-video",
        "prompt": "It turns.",
        "duration": 5,
        "max_active": 200,
        "skip_unchanged": True,
    }
    nights = [BatchLife(frozen_vendor, given, run_id=f"night {number}") for number in range(2)]
    accepted = frozen_vendor.stats["accepted"]
    assert nights[0].to_the_end() == "success", nights[0].error
    assert frozen_vendor.stats["accepted"] - accepted == 400
    before = {path.name: path.read_bytes() for path in (tmp_path / "clips").glob("*.mp4")}
    for number in range(0, 400, 40):
        (pictures / f"{number:03}.png").write_bytes(picture("PNG", size=(300, 301 + number)))
    assert nights[1].to_the_end() == "success", nights[1].error
    assert frozen_vendor.stats["accepted"] - accepted == 410
    summary = nights[1].xcom["batch"]
    assert (summary["saved"], summary["reused"]) == (10, 390)
    assert 0 < summary["cost_usd"] < nights[0].xcom["batch"]["cost_usd"] / 39
    after = {path.name: path.read_bytes() for path in (tmp_path / "clips").glob("*.mp4")}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{number:03}.mp4" for number in range(0, 400, 40)}

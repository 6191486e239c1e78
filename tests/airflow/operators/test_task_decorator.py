"""``@task.kling_generate``: what a function may return, and that each variant is paid once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_kling.api.download.verify import probe
from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import RealAirflow

TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"


def submits(vendor: EmulatorThread) -> int:
    return sum(entry.accepted for entry in vendor.journal)


def test_a_prompt(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    run = airflow.run(f"""
    @task.kling_generate(model="{TEXT_MODEL}", duration=5)
    def tell(animal):
        return f"A {{animal}} runs."

    tell("cat")
    """)

    assert run.state == "success", run.log[-3000:]
    tell = run["tell"]
    assert tell.xcom["return_value"] == tell.xcom["generation_id"]
    assert tell.xcom["request"]["parameters"] == {"prompt": "A cat runs.", "duration": 5}


def test_a_mapping_of_arguments_and_of_the_vendor_s_parameters(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    run = airflow.run(f"""
    @task.kling_generate(duration=5, parameters={{"negative_prompt": "blur"}})
    def tell():
        return {{"model": "{TEXT_MODEL}", "prompt": "A cat.", "duration": 10, "aspect_ratio": "1:1"}}

    tell()
    """)

    assert run.state == "success", run.log[-3000:]
    asked = run["tell"].xcom["request"]
    assert asked["model"] == TEXT_MODEL
    assert asked["parameters"] == {
        "prompt": "A cat.",
        "duration": 10,
        "aspect_ratio": "1:1",
        "negative_prompt": "blur",
    }


def test_variants_are_generations_of_their_own_and_each_is_paid_once(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    vendor.faults.add("cdn", 404, times=15)
    run = airflow.run(f"""
    @task.kling_generate(model="{TEXT_MODEL}", path="{tmp_path}/videos/", duration=5)
    def tell():
        return ["A cat.", "A cat.", {{"prompt": "A dog."}}]

    tell()
    """)
    assert run["tell"].state == "failed", run.log[-3000:]
    paid = submits(vendor)
    assert paid == 3
    vendor.faults.clear()

    run.clear("tell").go_on()

    assert run.state == "success", run.log[-3000:]
    assert submits(vendor) == paid
    tell = run["tell"].xcom
    ids = tell["return_value"]
    assert len(set(ids)) == 3
    assert tell["path"] == [f"{tmp_path}/videos/{each}.mp4" for each in ids]
    assert [Path(each).is_file() for each in tell["path"]] == [True] * 3
    assert [cost["usd"] for cost in tell["cost"]] == [0.29] * 3


def test_variants_are_waited_for_in_the_triggerer_together(
    patient_airflow: RealAirflow, slow_vendor: EmulatorThread, tmp_path: Path
) -> None:
    run = patient_airflow.run(f"""
    from airflow.providers.common.compat.sdk import Asset, AssetAlias
    outlets = [Asset("x-test://variants"), AssetAlias("each_variant")]

    @task.kling_generate(
        model="{TEXT_MODEL}", duration=5, deferrable=True, poke_interval=1, path="{tmp_path}/videos/",
        outlets=outlets,
    )
    def tell():
        return ["A cat.", {{"prompt": "A dog. [emulator: slow=25]", "duration": 10}}, "A bird."]

    @task(inlets=outlets)
    def read(inlet_events):
        return [[event.extra for event in inlet_events[each]] for each in outlets]

    tell() >> read()
    """)

    assert run.state == "success", run.log[-3000:]
    tell = run["tell"].xcom
    ids = tell["return_value"]
    assert [each["parameters"]["prompt"][:6] for each in slow_vendor.generations] == [
        "A cat.",
        "A dog.",
        "A bird",
    ]
    assert ids == [each["id"] for each in slow_vendor.generations]
    assert [each["charged"] for each in slow_vendor.generations] == [True] * 3
    assert submits(slow_vendor) == 3
    assert run.log.count(f"Waiting for generations {', '.join(ids)} in the triggerer") == 1
    assert len(re.findall("Waiting for generations .* in the triggerer", run.log)) in (1, 2)
    assert tell["path"] == [f"{tmp_path}/videos/{each}.mp4" for each in ids]
    assert [each["generation_id"] for each in tell["video"]] == ids
    assert [round(probe(Path(each), generation_id="").duration) for each in tell["path"]] == [5, 10, 5]
    assert [each["id"] for each in tell["generation"]] == ids
    assert len(tell["video_url"]) == len(tell["cost"]) == 3
    (together,), each_alone = run["read"].xcom["return_value"]
    assert together["generation_id"] == ids
    assert together["path"] == tell["path"]
    assert together["cost"] == tell["cost"]
    assert sorted(each["path"] for each in each_alone) == sorted(tell["path"])


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_variant_that_fails_keeps_no_other_from_its_video(
    patient_airflow: RealAirflow, slow_vendor: EmulatorThread, tmp_path: Path, deferrable: bool
) -> None:
    run = patient_airflow.run(f"""
    @task.kling_generate(
        model="{TEXT_MODEL}", duration=5, deferrable={deferrable}, poke_interval=1, path="{tmp_path}/videos/",
        retries=2,
    )
    def tell():
        return [
            "A cat.", "A dog. [emulator: moderation]", "A bird. [emulator: slow=25]",
            "A fish. [emulator: moderation]",
        ]

    tell()
    """)

    assert run["tell"].state == "failed", run.log[-3000:]
    assert run["tell"].tries == 1  # nothing changes by another one
    cat, dog, bird, fish = (each["id"] for each in slow_vendor.generations)
    tell = run["tell"].xcom
    assert sorted(each.stem for each in (tmp_path / "videos").glob("*.mp4")) == sorted((cat, bird))
    assert tell["path"] == [f"{tmp_path}/videos/{cat}.mp4", None, f"{tmp_path}/videos/{bird}.mp4", None]
    assert [each and each["id"] for each in tell["generation"]] == [cat, None, bird, None]
    assert [each and each["generation_id"] for each in tell["failure"]] == [None, dog, None, fish]
    assert "2 of 4 variants failed; all others were waited for and saved." in run.log
    assert f"[1] Generation {dog}" in run.log
    assert f"[3] Generation {fish}" in run.log
    assert submits(slow_vendor) == 4


def test_a_retry_saves_what_an_previous_attempt_could_not_beside_one_that_moderation_refused(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    vendor.faults.add("cdn", 404, times=5)
    run = airflow.run(f"""
    @task.kling_generate(model="{TEXT_MODEL}", duration=5, path="{tmp_path}/videos/", retries=2, uncertain_grace=1)
    def tell():
        return ["A dog. [emulator: moderation]", "A cat."]

    tell()
    """)
    assert run["tell"].state == "up_for_retry", run.log[-3000:]
    assert not (tmp_path / "videos").exists() or not list((tmp_path / "videos").glob("*.mp4"))

    run.go_on()

    assert run["tell"].state == "failed", run.log[-3000:]
    _, cat = (each["id"] for each in vendor.generations)
    assert [each.stem for each in (tmp_path / "videos").iterdir()] == [cat]
    assert "1 of 2 variants failed; all others were waited for and saved." in run.log
    assert submits(vendor) == 2


def test_a_variant_that_is_not_accepted_keeps_no_other_from_its_video(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    run = airflow.run(f"""
    @task.kling_generate(model="{TEXT_MODEL}", duration=5, path="{tmp_path}/videos/")
    def tell():
        return ["A dog.", {{"model": "kling/of-tomorrow", "prompt": "A cat."}}, "A bird."]

    tell()
    """)

    assert run["tell"].state == "failed", run.log[-3000:]
    assert run["tell"].xcom["generation_id"][1] is None
    saved = [each["id"] for each in vendor.generations]
    assert len(saved) == 2
    assert sorted(each.stem for each in (tmp_path / "videos").iterdir()) == sorted(saved)
    assert "1 of 3 variants failed" in run.log


def test_all_variants_must_be_within_the_budget_before_the_first_is_submitted(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    run = airflow.run(f"""
    @task.kling_generate(model="{TEXT_MODEL}", max_cost_usd=0.3)
    def tell():
        return [{{"prompt": "A cat.", "duration": 5}}, {{"prompt": "A dog.", "duration": 10}}]

    tell()
    """)

    assert run["tell"].state == "failed"
    assert "0.58 USD" in run.log
    assert submits(vendor) == 0


def test_what_is_no_part_of_a_request_goes_to_the_decorator(
    airflow: RealAirflow, vendor: EmulatorThread
) -> None:
    run = airflow.run("""
    @task.kling_generate(duration=5)
    def tell():
        return {"prompt": "A cat.", "image": "https://pictures.example/cat.jpg", "max_cost_usd": 0.01}

    tell()
    """)

    assert run["tell"].state == "failed"
    assert "tell returned max_cost_usd, which is no part of a request" in run.log
    assert submits(vendor) == 0


def test_variants_that_would_land_on_one_path_are_refused_before_they_are_paid(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path
) -> None:
    run = airflow.run(f"""
    @task.kling_generate(model="{TEXT_MODEL}", path="{tmp_path}/clip.mp4")
    def tell():
        return ["A cat.", "A dog."]

    tell()
    """)

    assert run["tell"].state == "failed"
    assert "Several videos cannot all be saved at" in run.log
    assert submits(vendor) == 0


def test_what_is_no_request_is_refused(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    run = airflow.run(f"""
    @task.kling_generate(model="{TEXT_MODEL}", retries=3)
    def tell():
        return 7

    tell()
    """)

    assert run["tell"].state == "failed"
    assert "tell returned int" in run.log
    assert submits(vendor) == 0


def test_it_maps(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    run = airflow.run(f"""
    @task.kling_generate(model="{TEXT_MODEL}")
    def tell(animal):
        return f"A {{animal}}."

    tell.expand(animal=["cat", "dog"])
    """)

    assert run.state == "success", run.log[-3000:]
    assert [run[f"tell[{n}]"].xcom["request"]["parameters"]["prompt"] for n in (0, 1)] == ["A cat.", "A dog."]

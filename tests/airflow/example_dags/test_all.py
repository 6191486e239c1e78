"""The example DAGs import clean and run to the end, in real Airflow, against the emulator."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import pytest
from PIL import Image

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import ROOT, VERSION, RealAirflow

NEEDS = {"kling_human_choice": (3, 1)}
"""The first Airflow that has what an example is about; on older ones its file holds no DAG."""
DAGS = sorted((ROOT / "dags").glob("kling_*.py"))


@pytest.fixture(autouse=True)
def _empty_output(started_airflow: RealAirflow) -> None:
    shutil.rmtree(started_airflow.output, ignore_errors=True)


def length_and_shape(path: str | Path) -> tuple[int, int, int]:
    """Seconds, width and height of a video, by its frames; raises unless every one of them decodes."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for _ in container.decode(stream))
        assert stream.codec_context.name == "h264"
        return round(frames / float(stream.average_rate or 1)), stream.width, stream.height


def videos(airflow: RealAirflow) -> list[Path]:
    found = [path for path in airflow.output.rglob("*") if path.is_file()]
    assert all(path.suffix == ".mp4" for path in found)
    return sorted(found)


def accepted(vendor: EmulatorThread) -> list[str]:
    return [generation["id"] for generation in vendor.generations]


@pytest.mark.parametrize("dag_file", DAGS, ids=lambda path: path.stem)
def test_it_imports_clean(airflow: RealAirflow, dag_file: Path) -> None:
    parsed = airflow.ask("parse", {}, dag_file=str(dag_file))

    assert parsed["import_errors"] == ""
    assert list(parsed["dags"]) == ([] if NEEDS.get(dag_file.stem, VERSION) > VERSION else [dag_file.stem])
    assert "arning" not in airflow.last_output


def test_quickstart(patient_airflow: RealAirflow, slow_vendor: EmulatorThread) -> None:
    run = patient_airflow.test(ROOT / "dags" / "kling_quickstart.py")

    (generation_id,) = accepted(slow_vendor)
    assert run.state == "success"
    assert run["generate"].xcom["return_value"] == run["generate"].xcom["generation_id"] == generation_id
    assert run["wait"].xcom["return_value"]["status"] == "completed"
    assert "in the triggerer" in run.log
    assert run["download"].xcom["return_value"] == str(patient_airflow.output / f"{generation_id}.mp4")
    assert [length_and_shape(path)[0] for path in videos(patient_airflow)] == [5]
    assert slow_vendor.stats["charges"] == 1


def test_all_in_one(patient_airflow: RealAirflow, slow_vendor: EmulatorThread) -> None:
    run = patient_airflow.test(ROOT / "dags" / "kling_all_in_one.py")

    (generation_id,) = accepted(slow_vendor)
    assert run.state == "success"
    assert run["generate"].xcom["return_value"] == generation_id
    assert run["generate"].xcom["generation"]["status"] == "completed"
    assert "in the triggerer" in run.log
    assert [(path.stem, length_and_shape(path)[0]) for path in videos(patient_airflow)] == [
        (generation_id, 5)
    ]


def test_product_pictures(patient_airflow: RealAirflow, slow_vendor: EmulatorThread) -> None:
    run = patient_airflow.test(ROOT / "dags" / "kling_product_pictures.py")

    assert run.state == "success"
    assert len(accepted(slow_vendor)) == 2
    assert {path.stem for path in videos(patient_airflow)} == set(accepted(slow_vendor))
    assert [length_and_shape(path)[0] for path in videos(patient_airflow)] == [5, 5]
    for index in range(2):
        generation_id = run[f"generate[{index}]"].xcom["return_value"]
        assert run[f"wait[{index}]"].xcom["return_value"]["id"] == generation_id
        path = run[f"download[{index}]"].xcom["return_value"]
        assert path.endswith(f"{generation_id}.mp4")
        _, width, height = length_and_shape(path)
        with Image.open(run[f"generate[{index}]"].rendered["image"]) as picture:
            assert width / height == pytest.approx(picture.width / picture.height, rel=0.02)


def test_variants(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    run = airflow.test(ROOT / "dags" / "kling_variants.py")

    assert run.state == "success"
    assert sorted(each["parameters"]["cfg_scale"] for each in vendor.generations) == [0.3, 0.5, 0.5, 0.8]
    assert {path.stem for path in videos(airflow)} == set(accepted(vendor))
    assert {path.parent.name for path in videos(airflow)} == {"variants"}
    assert len(videos(airflow)) == 4
    assert run["generate[0]"].shown_as == "Steam rises from the mug. (cfg 0.3)"


def test_text_to_video(airflow: RealAirflow, vendor: EmulatorThread) -> None:
    run = airflow.test(ROOT / "dags" / "kling_text_to_video.py")

    assert run.state == "success"
    (generation,) = vendor.generations
    assert generation["parameters"]["duration"] == 4
    assert generation["model"] == run["wait"].xcom["return_value"]["model"]
    (path,) = videos(airflow)
    seconds, width, height = length_and_shape(path)
    assert seconds == 4
    assert width * 16 == height * 9

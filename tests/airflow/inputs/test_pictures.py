"""Pictures that the vendor does not take, in real runs: converted on request, and still the same request."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, features

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import REMEMBERS, ROOT, RealAirflow
from tests.media_samples import picture

HEIC = ROOT / "tests" / "unit" / "api" / "media" / "boat.heic"
MIB = 1024 * 1024


def animated() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (640, 480), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def oversized() -> bytes:
    """A PNG of noise, a little above 50 MB."""
    file = io.BytesIO()
    noise = Image.effect_noise((4300, 4200), 100)
    Image.merge("RGB", [noise, noise.rotate(90, expand=True).resize(noise.size), noise]).save(
        file, "PNG", compress_level=0
    )
    return file.getvalue()


def heic() -> bytes:
    pytest.importorskip("pi_heif", reason="needs the extra heic")
    return HEIC.read_bytes()


def avif() -> bytes:
    if not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    return picture("AVIF")


KINDS: dict[str, Callable[[], bytes]] = {
    "webp": lambda: picture("WEBP"),
    "transparent.webp": lambda: picture("WEBP", mode="RGBA"),
    "avif": avif,
    "heic": heic,
    "gif": animated,
    "tiff": lambda: picture("TIFF"),
    "bmp": lambda: picture("BMP"),
    "png": oversized,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_converted_and_stays_the_same_request(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path, kind: str
) -> None:
    content = KINDS[kind]()
    image = tmp_path / f"boat.{kind}"
    image.write_bytes(content)
    run = airflow.run(f"""
    KlingGenerateOperator(
        task_id="generate", image="{image}", prompt="The boat sails.", duration=5, convert_image=True,
        path="{tmp_path}/videos/",
    )
    """)

    assert run.state == "success", run.log[-5000:]
    assert "is converted from" in run.log
    digest = hashlib.sha256(content).hexdigest()
    asked = run["generate"].xcom["request"]["parameters"]["image_url"]
    assert (asked["source"], asked["sha256"]) == (str(image), digest)
    (generation,) = vendor.generations
    sent = generation["parameters"]["image_url"]
    assert sent.startswith("sha256:")
    assert digest not in sent, "what is sent is another file"
    assert len(list((tmp_path / "videos").iterdir())) == 1

    run.clear("generate").go_on()

    assert run.state == "success", run.log[-3000:]
    assert len(vendor.generations) == 1
    if REMEMBERS:
        assert run["generate"].xcom["generation_id"] == generation["id"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_being_asked_nothing_is_converted_nor_paid(
    airflow: RealAirflow, vendor: EmulatorThread, tmp_path: Path, kind: str
) -> None:
    image = tmp_path / f"boat.{kind}"
    image.write_bytes(KINDS[kind]())
    run = airflow.run(f"""
    KlingGenerateOperator(task_id="generate", image="{image}", prompt="The boat sails.", duration=5, retries=2)
    """)

    assert (run["generate"].state, run["generate"].tries) == ("failed", 1), run.log[-3000:]
    assert "convert_image" in run.log
    assert vendor.journal == []

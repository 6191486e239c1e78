"""Whatever input is refused before a submit: the emulator has accepted nothing by then, and was sent nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_kling.api.catalog.models import MODELS
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError, Money
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from airflow_provider_kling.hooks.prepare_request import prepare
from tests.media_samples import m4a, mp4, picture

TEXT = "kling-video/v1.6/standard/text-to-video"
IMAGE = "kling-video/v1.6/standard/image-to-video"
AVATAR = "klingai/avatar-standard"
NEW = "klingai/video-v9-image-to-video"
URL = "https://example.com/a.png"


@pytest.fixture(scope="module")
def vendor() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(frozen_clock=True, unknown_models=True)) as emulator:
        yield emulator


def submit(vendor: EmulatorThread, model: str, parameters: dict[str, Any], image: Any = None) -> str:
    """What an operator does with a request, without Airflow."""
    with KlingClient(Settings(vendor.api_key, vendor.url)) as client:
        return client.submit(prepare(model, parameters, image=image, account="a")).id


def refused(vendor: EmulatorThread, model: str, parameters: dict[str, Any], image: Any = None) -> str:
    """What is said of a request that must be refused; nothing of it reaches the vendor."""
    before = len(vendor.journal)
    with pytest.raises(InvalidRequestError) as caught:
        submit(vendor, model, parameters, image)
    assert vendor.journal[before:] == []
    assert vendor.generations == []
    assert caught.value.money is Money.NOT_SPENT
    return str(caught.value)


BAD_PARAMETERS = [
    (TEXT, {"prompt": "A boat.", "duration": 7}),
    (TEXT, {"prompt": "A boat.", "duration": "five"}),
    (TEXT, {"prompt": "A boat.", "cfg_scale": 2}),
    (TEXT, {"prompt": "A boat.", "cfg_scale": float("nan")}),
    (TEXT, {"prompt": "A boat.", "aspect_ratio": "4:3"}),
    (TEXT, {"prompt": "A boat.", "duratoin": 5}),
    (TEXT, {"prompt": "A boat.", "image_url": URL}),
    (TEXT, {"prompt": ["A boat."]}),
    (TEXT, {"prompt": 3.5}),
    (TEXT, {}),
    (IMAGE, {"prompt": "A boat."}),
    (IMAGE, {"prompt": "A boat.", "image_url": 5}),
    ("", {"prompt": "A boat."}),
    (" ", {"prompt": "A boat."}),
    (f"{TEXT} ", {"prompt": "A boat."}),
    ("None", {"prompt": "A boat."}),
    (
        "klingai/video-v3-standard-text-to-video",
        {"prompt": "A boat.", "multi_prompt": [{"prompt": "A", "duration": 5}]},
    ),
    ("klingai/kling-video-v1.6-standard-effects", {"effect_scene": "hug", "image_url": [URL]}),
]


@pytest.mark.parametrize(("model", "parameters"), BAD_PARAMETERS, ids=str)
def test_parameters(vendor: EmulatorThread, model: str, parameters: dict[str, Any]) -> None:
    assert refused(vendor, model, parameters)


@pytest.mark.parametrize("model", MODELS)
def test_a_name_that_no_model_has(vendor: EmulatorThread, model: str) -> None:
    assert "no_such_name" in refused(vendor, model, {"no_such_name": 1})


NOT_MEANT = (
    "None",
    "None, None",
    "['a boat']",
    "{'a': 1}",
    "LazyXComSequence([1 item])",
    "{{ params.x }}",
    "nan",
)


@pytest.mark.parametrize("text", [*NOT_MEANT, "a\0b", "a\ud83d", "b'a boat'", "<class 'str'>", "range(0, 3)"])
@pytest.mark.parametrize("model", [TEXT, NEW])
def test_texts(vendor: EmulatorThread, model: str, text: str) -> None:
    assert refused(vendor, model, {"prompt": text})
    assert refused(vendor, model, {"prompt": "A boat.", "negative_prompt": text})


@given(place=st.sampled_from(["prompt", "style", "deep", "list"]), text=st.sampled_from(NOT_MEANT))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_texts_wherever_they_stand(vendor: EmulatorThread, place: str, text: str) -> None:
    parameters: dict[str, Any] = {"deep": {"er": {"est": text}}, "list": ["A boat.", [text]]}
    assert refused(vendor, NEW, {"prompt": "A boat.", place: parameters.get(place, text)})


BAD_PICTURES = {
    "empty": b"",
    "text": b"no picture",
    "cut short": picture("PNG")[:60],
    "too small": picture("PNG", (64, 64)),
    "too wide": picture("PNG", (1600, 300)),
    "webp": picture("WEBP"),
    "gif": picture("GIF"),
    "tiff": picture("TIFF"),
    "film": mp4(1),
    "sound": m4a(),
    "page": b"<html><body>Log in</body></html>",
    "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_pictures(vendor: EmulatorThread, tmp_path: Path, name: str) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(BAD_PICTURES[name])
    inline = "data:image/png;base64," + base64.b64encode(BAD_PICTURES[name]).decode()
    for given_ in (str(file), file, file.as_uri(), inline):
        refused(vendor, IMAGE, {"prompt": "A boat."}, image=given_)
    if name not in ("webp", "gif", "tiff", "too small", "too wide"):  # an unknown model may take these
        refused(vendor, NEW, {"prompt": "A boat.", "start_image": str(file)})


@pytest.mark.parametrize(
    "given_",
    [
        *("/no/such.png", "no-such.png", "~/no-such.png", "file:///no/such.png", "file://host/a.png", ""),
        *(
            "ftp://example.com/a.png",
            "data:image/png;base64,",
            "data:,",
            "https://",
            "/",
            "None",
            "['a.png']",
        ),
    ],
)
def test_places_of_pictures(vendor: EmulatorThread, given_: str) -> None:
    refused(vendor, IMAGE, {"prompt": "A boat."}, image=given_)
    if given_:
        refused(vendor, NEW, {"prompt": "A boat.", "image_tail": given_})


@pytest.mark.parametrize("content", [b"", b"no sound", picture("PNG")])
def test_sounds(vendor: EmulatorThread, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "voice.mp3").write_bytes(content)
    refused(vendor, AVATAR, {"image_url": URL, "audio_url": str(tmp_path / "voice.mp3")})
    refused(vendor, NEW, {"prompt": "A boat.", "audios": [str(tmp_path / "voice.mp3")]})


def test_and_what_is_right_is_accepted(vendor: EmulatorThread, tmp_path: Path) -> None:
    """Or the tests above would pass with a vendor that accepts nothing."""
    (tmp_path / "a.png").write_bytes(picture("PNG"))
    vendor.reset()
    submit(vendor, TEXT, {"prompt": "A boat."})
    submit(vendor, IMAGE, {"prompt": "A boat."}, image=tmp_path / "a.png")
    submit(vendor, NEW, {"prompt": "A boat.", "start_image": str(tmp_path / "a.png")})
    assert sum(entry.accepted for entry in vendor.journal) == len(vendor.generations) == 3
    vendor.reset()


def test_what_only_the_vendor_refuses_is_not_accepted_either(vendor: EmulatorThread) -> None:
    vendor.reset()
    vendor.faults.add("submit", 400, times=1)
    with pytest.raises(KlingError) as caught:
        submit(vendor, TEXT, {"prompt": "A boat."})
    assert caught.value.money is Money.NOT_SPENT
    assert vendor.generations == []
    vendor.reset()

"""Media of models that this version does not know, under whatever name they are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.catalog.media_names import kind_by_name, map_unknown
from airflow_provider_kling.api.catalog.parameter import MediaPlace

IMAGES = [
    *(
        "image",
        "images",
        "image_url",
        "image_urls",
        "image_list",
        "start_image",
        "start_image_url",
        "end_image",
    ),
    *("image_tail", "tail_image_url", "keyframes", "key_frames", "first_frame", "last_image", "imageTail"),
    *("reference_images", "frontal_image_url", "image_1", "first_frame_image"),
]
OTHERS = {"videos": "video", "video_url": "video", "audios": "audio", "audio_urls": "audio", "mask": "mask"}
NO_MEDIA = [
    *(
        "prompt",
        "image_count",
        "video_length",
        "frame_rate",
        "image_fidelity",
        "generate_audio",
        "audio_language",
    ),
    *("cfg_scale", "duration", "video_id", "mask_id", "keep_audio"),
]


@pytest.mark.parametrize("name", IMAGES)
def test_names_of_images(name: str) -> None:
    assert kind_by_name(name) == "image"


@pytest.mark.parametrize("name", OTHERS)
def test_names_of_other_media(name: str) -> None:
    assert kind_by_name(name) == OTHERS[name]


@pytest.mark.parametrize("name", NO_MEDIA)
def test_names_of_no_media(name: str) -> None:
    assert kind_by_name(name) is None


def found_in(parameters: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}

    def fetch(place: MediaPlace, value: str) -> str:
        found[place.path] = place.kind
        return "sent"

    map_unknown(parameters, fetch)
    return found


@given(
    st.sampled_from([*IMAGES, *OTHERS]),
    st.sampled_from(["mug.png", "/data/mug.png", "s3://b/mug", "~/m.jpg"]),
)
def test_a_path_under_a_name_of_media_is_never_sent_as_text(name: str, value: str) -> None:
    kind = OTHERS.get(name, "image")
    assert found_in({name: value}) == {name: kind}
    assert found_in({name: [value, value]}) == {f"{name}[0]": kind, f"{name}[1]": kind}
    assert found_in({name: [{"url": value, "at": 1}]}) == {f"{name}[0].url": kind}


@given(st.text(min_size=1, max_size=20), st.sampled_from(["image/png", "video/mp4", "audio/mpeg"]))
def test_a_data_uri_is_found_under_any_name(name: str, mime: str) -> None:
    uri = f"data:{mime};base64,AAAA"
    assert found_in({name: uri}) == {name: mime.partition("/")[0]}
    assert list(found_in({"x": {"y": [{name: uri}]}}).values()) == [mime.partition("/")[0]]


def test_paths_under_names_that_tell_nothing() -> None:
    assert found_in({"subject": "/data/mug.png", "other": Path("mug.jpg")}) == {
        "subject": "image",
        "other": "image",
    }
    assert found_in({"subject": "s3://bucket/clip.mp4"}) == {"subject": "video"}


def test_text_options_and_numbers_stay() -> None:
    parameters = {
        "prompt": "See /data/mug.png on the table",
        "audio": "on",
        "sound": "auto",
        "generate_audio": "true",
        "image_count": 3,
        "callback": "https://example.com/x.png",
        "images": [],
        "image": None,
    }
    assert found_in(parameters) == {}

"""Where the reference picture goes, and where media stand in a request."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_kling.api.catalog.models import MODELS, Model
from airflow_provider_kling.api.catalog.parameter_types import PENDING
from airflow_provider_kling.api.catalog.validation import MediaPlace, map_media, with_image
from airflow_provider_kling.api.exceptions import InvalidRequestError

SEED = "kling-video/v1.6/standard/image-to-video"
TEXT = "kling-video/v1.6/standard/text-to-video"
FRAMES = "kling-video/v1.6/pro/image-to-video"
SEVERAL = "kling-video/v1.6/standard/multi-image-to-video"
EFFECTS = "klingai/kling-video-v1.6-pro-effects"
V3_IMAGE = "klingai/video-v3-pro-image-to-video"
REFERENCES = "klingai/video-o1-reference-to-video"
URL = "https://example.com/cat.png"


@pytest.mark.parametrize(
    ("model_id", "image", "expected"),
    [
        (SEED, URL, {"image_url": URL}),
        (SEED, PENDING, {"image_url": PENDING}),
        (SEED, None, {}),
        (SEVERAL, URL, {"image_list": [URL]}),
        (SEVERAL, (URL, URL), {"image_list": [URL, URL]}),
        (SEVERAL, PENDING, {"image_list": PENDING}),
        (EFFECTS, URL, {"image_url": URL}),
        (EFFECTS, [URL, URL], {"image_url": [URL, URL]}),
        (REFERENCES, "cat.png", {"image_list": ["cat.png"]}),
        ("klingai/video-o1-video-to-video-edit", URL, {"image_list": [URL]}),
        ("klingai/video-v3-motion-control", URL, {"image_url": URL}),
        ("new-model", URL, {"image_url": URL}),
        (TEXT, None, {}),
    ],
)
def test_an_image_goes_where_the_model_wants_it(model_id: str, image: Any, expected: dict[str, Any]) -> None:
    assert with_image(model_id, {"prompt": "x"}, image) == {"prompt": "x", **expected}


def test_an_image_replaces_a_none() -> None:
    assert with_image(SEED, {"image_url": None}, URL) == {"image_url": URL}


def test_an_image_for_a_model_that_takes_none_is_refused_with_all_else() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        with_image(TEXT, {"prompt": "x", "duration": 7}, URL)
    assert caught.value.problems == (
        f"{TEXT} takes no reference picture: use an image-to-video model, or leave the image out.",
        f"'duration' of {TEXT} must be 5 or 10, not 7.",
    )


@pytest.mark.parametrize("model_id", [SEED, "new-model"])
def test_an_image_given_twice_is_refused(model_id: str) -> None:
    with pytest.raises(InvalidRequestError, match="is given twice"):
        with_image(model_id, {"image_url": URL, "prompt": "x"}, URL)


def numbered(place: MediaPlace, value: str) -> str:
    return f"{place.kind} at {place.path} was {value}"


def test_media_of_a_known_model_are_replaced_in_place() -> None:
    parameters = {
        "image_url": "a.png",
        "prompt": "a.png",
        "elements": [
            {"frontal_image_url": "b.png", "reference_image_urls": ["c.png", PENDING]},
            {"reference_image_urls": ["d.png"], "video_url": "e.mp4"},
        ],
        "tail_image_url": None,
    }
    assert map_media(V3_IMAGE, parameters, numbered) == {
        "image_url": "image at image_url was a.png",
        "prompt": "a.png",
        "elements": [
            {
                "frontal_image_url": "image at elements[0].frontal_image_url was b.png",
                "reference_image_urls": [
                    "image at elements[0].reference_image_urls[0] was c.png",
                    PENDING,
                ],
            },
            {
                "reference_image_urls": ["image at elements[1].reference_image_urls[0] was d.png"],
                "video_url": "video at elements[1].video_url was e.mp4",
            },
        ],
        "tail_image_url": None,
    }


def test_masks_and_sounds_are_media() -> None:
    mask = {"mask": "m.png", "trajectories": [{"x": 1, "y": 2}]}
    mapped = map_media(FRAMES, {"static_mask": "s.png", "dynamic_masks": [mask]}, numbered)
    assert mapped == {
        "static_mask": "mask at static_mask was s.png",
        "dynamic_masks": [
            {
                "mask": "mask at dynamic_masks[0].mask was m.png",
                "trajectories": [{"x": 1, "y": 2}],
            }
        ],
    }
    assert map_media("klingai/avatar-pro", {"audio_url": "a.mp3"}, numbered) == {
        "audio_url": "audio at audio_url was a.mp3"
    }


def test_media_of_an_unknown_model_go_by_their_names() -> None:
    kinds: dict[str, str] = {}

    def note(place: MediaPlace, value: str) -> str:
        kinds[place.path] = place.kind
        return "replaced"

    mapped = map_media(
        "new-model",
        {
            "image_url": "x",
            "style_image_urls": ["x", PENDING, 7],
            "image_list": ["x"],
            "static_mask": "x.png",
            "video_url": "x.mp4",
            "audio_url": None,
            "prompt": "x",
            "callback_url": "https://example.com/hook",
            "deep": [{"mask": "x.png", "note": "x"}],
        },
        note,
    )
    assert kinds == {
        "image_url": "image",
        "style_image_urls[0]": "image",
        "image_list[0]": "image",
        "static_mask": "mask",
        "video_url": "video",
        "deep[0].mask": "mask",
    }
    assert mapped["prompt"] == "x"
    assert mapped["callback_url"] == "https://example.com/hook"
    assert mapped["style_image_urls"] == ["replaced", PENDING, 7]
    assert mapped["deep"] == [{"mask": "replaced", "note": "x"}]


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_mapping_media_to_themselves_changes_nothing(model: Model) -> None:
    parameters: dict[str, Any] = {"prompt": "x"}
    if model.image_parameter is not None:
        parameters = with_image(model.id, parameters, URL)
    assert map_media(model.id, parameters, lambda place, value: value) == parameters

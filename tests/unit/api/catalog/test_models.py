"""The table of models: what holds for all of them, and facts of each family."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator

import pytest

from airflow_provider_kling.api.catalog.models import MODELS, Model, find_model
from airflow_provider_kling.api.catalog.parameter_types import (
    Boolean,
    Choice,
    Integer,
    ListOf,
    Media,
    Number,
    ObjectOf,
    Parameter,
    Text,
)
from airflow_provider_kling.api.catalog.validation import inspect
from airflow_provider_kling.api.polling.schedule import USUAL_SECONDS

SEED = "kling-video/v1.6/standard/image-to-video"


def model(model_id: str) -> Model:
    found = find_model(model_id)
    assert found is not None
    return found


def kinds(parameter: Parameter) -> Iterator[Parameter]:
    yield parameter
    if isinstance(parameter, ListOf):
        yield from kinds(parameter.item)
    if isinstance(parameter, ObjectOf):
        for field in parameter.fields.values():
            yield from kinds(field)


every_model = pytest.mark.parametrize("each", MODELS.values(), ids=MODELS)


def test_models_without_a_page_of_the_vendor_say_so() -> None:
    assert sorted(name for name, each in MODELS.items() if not each.documented) == [
        "kling-video/v1.5/pro/image-to-video",
        "kling-video/v1.5/pro/text-to-video",
        "kling-video/v1.5/standard/image-to-video",
        "klingai/video-v2-6-motion-control",
    ]


def test_a_model_that_nobody_knows_is_not_found() -> None:
    assert find_model("kling-video/v9/image-to-video") is None


@every_model
def test_what_is_required_is_a_parameter(each: Model) -> None:
    assert MODELS[each.id] is each
    assert each.required <= each.parameters.keys()
    assert not each.ignored & each.parameters.keys()


@every_model
def test_every_model_takes_a_prompt_or_makes_an_effect(each: Model) -> None:
    assert ("prompt" in each.parameters) != ("effect_scene" in each.parameters)


@every_model
def test_the_image_parameter_takes_images(each: Model) -> None:
    if each.image_parameter is None:
        assert each.id.endswith("text-to-video")
        assert not any(isinstance(kind, Media) for kind in each.parameters.values())
    else:
        assert Media in map(type, kinds(each.parameters[each.image_parameter]))


@every_model
def test_media_parameters_are_named_as_media(each: Model) -> None:
    for name, parameter in each.parameters.items():
        assert isinstance(parameter, Media) == (
            (name.endswith("_url") or name == "static_mask") and not isinstance(parameter, ListOf)
        )


@every_model
def test_limits_and_defaults_agree(each: Model) -> None:
    for parameter in each.parameters.values():
        for kind in kinds(parameter):
            if isinstance(kind, Integer | Number) and None not in (kind.minimum, kind.maximum):
                assert kind.minimum < kind.maximum  # type: ignore[operator]  # neither is None
            if isinstance(kind, ListOf) and kind.max_items is not None:
                assert kind.min_items < kind.max_items
            if isinstance(kind, Choice):
                assert len(set(kind.names)) == len(kind.names) > 1
            if isinstance(kind, ObjectOf):
                assert kind.required <= kind.fields.keys()


@every_model
def test_the_vendors_defaults_are_allowed_values(each: Model) -> None:
    problems = inspect(each.id, each.defaults).problems
    assert not [problem for problem in problems if "must be" in problem]


@every_model
def test_the_usual_time_is_between_one_minute_and_ten(each: Model) -> None:
    assert 60 < each.usual_seconds < 600


def test_the_usual_time_of_a_model_without_example_is_the_median_of_the_examples() -> None:
    published = [each.usual_seconds for each in MODELS.values() if each.usual_seconds != 194]
    assert len(published) > 10
    assert statistics.median(published) == pytest.approx(USUAL_SECONDS, rel=0.25)


def test_image_to_video_models_ignore_the_aspect_ratio_and_no_others() -> None:
    ignoring = {name for name, each in MODELS.items() if each.ignored == {"ratio", "aspect_ratio"}}
    assert ignoring == {
        name
        for name in MODELS
        if name.endswith("image-to-video") and not name.endswith("multi-image-to-video")
    }
    assert all(not each.ignored for name, each in MODELS.items() if name not in ignoring)


def test_the_seed_model() -> None:
    seed = model(SEED)
    assert seed.required == {"image_url", "prompt"}
    assert set(seed.parameters) == {
        *("image_url", "prompt", "negative_prompt", "cfg_scale", "duration", "provider")
    }
    assert seed.defaults == {"duration": 5}
    assert seed.usual_seconds == 122
    assert seed.image_parameter == "image_url"


@pytest.mark.parametrize(
    ("model_id", "required", "some_parameters", "defaults"),
    [
        (
            "kling-video/v1/pro/image-to-video",
            {"image_url"},
            {"tail_image_url", "static_mask", "dynamic_masks", "camera_control"},
            {"duration": 5},
        ),
        (
            "kling-video/v1/standard/text-to-video",
            {"prompt"},
            {"camera_control", "advanced_camera_control"},
            {"aspect_ratio": "16:9"},
        ),
        (
            "kling-video/v1.6/standard/multi-image-to-video",
            {"image_list"},
            {"negative_prompt"},
            {"aspect_ratio": "16:9", "duration": 5},
        ),
        (
            "kling-video/v2.1/standard/image-to-video",
            {"image_url"},
            {"static_mask"},
            {"duration": 5},
        ),
        (
            "klingai/v2-master-text-to-video",
            {"prompt"},
            {"provider", "advanced_camera_control"},
            {"aspect_ratio": "16:9"},
        ),
        ("klingai/v2.5-turbo/pro/text-to-video", {"prompt"}, {"cfg_scale"}, {"duration": 5}),
        ("klingai/avatar-pro", {"image_url", "audio_url"}, {"prompt", "provider"}, {}),
        (
            "klingai/kling-video-v1.6-pro-effects",
            {"image_url", "effect_scene"},
            set(),
            {"duration": 5},
        ),
        (
            "klingai/video-o1-image-to-video",
            {"image_url", "prompt"},
            {"last_image_url"},
            {"duration": 5},
        ),
        (
            "klingai/video-o1-video-to-video-edit",
            {"prompt", "video_url"},
            {"image_list", "elements"},
            {"keep_audio": False},
        ),
        (
            "klingai/video-v2-6-pro-motion-control",
            {"image_url", "video_url"},
            {"prompt"},
            {"keep_audio": True, "mode": "std", "character_orientation": "video"},
        ),
        (
            "klingai/video-v2-6-pro-image-to-video",
            {"image_url", "prompt"},
            {"negative_prompt"},
            {"generate_audio": True, "duration": 5},
        ),
        (
            "klingai/video-v3-pro-image-to-video",
            {"image_url"},
            {"multi_prompt", "tail_image_url", "elements"},
            {"generate_audio": True, "shot_type": "customize", "duration": 5},
        ),
        (
            "klingai/video-v3-standard-turbo-text-to-video",
            set(),
            {"prompt", "multi_prompt"},
            {"aspect_ratio": "16:9", "duration": 5},
        ),
    ],
)
def test_facts_of_each_family(
    model_id: str, required: set[str], some_parameters: set[str], defaults: dict[str, object]
) -> None:
    each = model(model_id)
    assert each.required == required
    assert some_parameters <= each.parameters.keys()
    assert each.defaults == defaults


def test_limits_of_masks_images_and_prompts() -> None:
    masks = model("kling-video/v1/pro/image-to-video").parameters["dynamic_masks"]
    assert isinstance(masks, ListOf)
    assert masks.max_items == 6
    assert isinstance(masks.item, ObjectOf)
    path = masks.item.fields["trajectories"]
    assert isinstance(path, ListOf)
    assert (path.min_items, path.max_items) == (2, 77)
    for model_id, expected in {
        "kling-video/v1.6/standard/multi-image-to-video": (2, 4),
        "klingai/video-o1-reference-to-video": (1, 7),
        "klingai/video-o1-video-to-video-edit": (1, 7),
        "klingai/video-o1-video-to-video-reference": (1, 4),
    }.items():
        images = model(model_id).parameters["image_list"]
        assert isinstance(images, ListOf)
        assert (images.min_items, images.max_items) == expected
    for model_id, longest in {
        SEED: None,
        "klingai/avatar-standard": 2500,
        "klingai/video-v2-6-pro-text-to-video": 2500,
        "klingai/video-v3-turbo-pro-text-to-video": 3072,
    }.items():
        prompt = model(model_id).parameters["prompt"]
        assert isinstance(prompt, Text)
        assert prompt.max_length == longest


def test_the_scenes_of_the_effects() -> None:
    for quality in ("standard", "pro"):
        effects = model(f"klingai/kling-video-v1.6-{quality}-effects")
        scenes = effects.parameters["effect_scene"]
        assert isinstance(scenes, Choice)
        assert len(scenes.names) == 80
        assert {"hug", "heart_gesture_1", "let's_ride", "expansion"} <= set(scenes.names)


def test_only_v3_knows_prompts_by_shot_and_audio_is_on_by_default() -> None:
    for each in MODELS.values():
        is_v3 = "video-v3-" in each.id and "motion" not in each.id
        assert ("multi_prompt" in each.parameters) == is_v3
        audio = each.parameters.get("generate_audio")
        assert audio is None or (isinstance(audio, Boolean) and audio.default is True)


@every_model
def test_rules_hold_for_every_model_with_their_parameters(each: Model) -> None:
    def refused(because: str, **parameters: object) -> bool:
        return any(because in problem for problem in inspect(each.id, parameters).problems)

    shots = "'prompt' and 'multi_prompt'"
    assert refused(f"needs exactly one of {shots}") == ("multi_prompt" in each.parameters)
    two = {"prompt": "a cat", "multi_prompt": ["a cat"]}
    assert refused(f"takes exactly one of {shots}", **two) == ("multi_prompt" in each.parameters)
    assert refused("takes 'tail_image_url' only", tail_image_url="tail.png") == (
        {"tail_image_url", "generate_audio"} <= each.parameters.keys()
    )
    elements = each.parameters.get("elements")
    takes_videos = elements is not None and any(
        isinstance(kind, Media) and kind.kind == "video" for kind in kinds(elements)
    )
    filmed = [{"video_url": "a.mp4"}, {"video_url": "b.mp4"}]
    assert refused("in at most one of 'elements'", elements=filmed) == takes_videos
    assert refused("takes 2 pictures", effect_scene="hug", image_url="one.png") == (
        "effect_scene" in each.parameters
    )


def test_the_catalogue_is_cheap_to_import() -> None:
    code = """
import sys
import airflow_provider_kling.api.catalog.validation
print(*{name.partition(".")[0] for name in sys.modules})
"""
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"airflow", "requests", "aiohttp", "pydantic", "attrs", "jsonschema", "difflib"}
    assert heavy.isdisjoint(loaded)

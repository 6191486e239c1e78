"""Requests judged whole: every problem at once, nothing raised, nothing secret in a message."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from airflow_provider_kling.api.catalog.validation import inspect, map_media, validate, with_image
from airflow_provider_kling.api.exceptions import InvalidRequestError
from airflow_provider_kling.api.generation import GenerationRequest

SEED = "kling-video/v1.6/standard/image-to-video"
TEXT = "kling-video/v1.6/standard/text-to-video"
FRAMES = "kling-video/v1.6/pro/image-to-video"
SEVERAL = "kling-video/v1.6/standard/multi-image-to-video"
EFFECTS = "klingai/kling-video-v1.6-pro-effects"
V3_TEXT = "klingai/video-v3-standard-text-to-video"
REFERENCES = "klingai/video-o1-reference-to-video"
URL = "https://example.com/cat.png"


def problems(model_id: str, **parameters: Any) -> tuple[str, ...]:
    return tuple(inspect(model_id, parameters).problems)


def test_a_right_request_is_normalised() -> None:
    verdict = inspect(
        SEED,
        {
            "prompt": "a cat",
            "image_url": URL,
            "duration": "5",
            "cfg_scale": "0.5",
            "provider": "KlingAI",
            "negative_prompt": None,
        },
    )
    assert verdict.problems == []
    assert verdict.warnings == []
    assert verdict.parameters == {
        "prompt": "a cat",
        "image_url": URL,
        "duration": 5,
        "cfg_scale": 0.5,
        "provider": "klingai",
    }


def test_defaults_are_not_sent() -> None:
    verdict = inspect(V3_TEXT, {"prompt": "a cat"})
    assert verdict.parameters == {"prompt": "a cat"}
    assert not verdict.problems


def test_every_problem_is_named_at_once() -> None:
    assert problems(SEED, duration=7, negativ_prompt="x", cfg_scale="2", image_url=URL) == (
        f"'duration' of {SEED} must be 5 or 10, not 7.",
        f"{SEED} has no parameter 'negativ_prompt'; did you mean 'negative_prompt'?",
        f"'cfg_scale' of {SEED} must be a number from 0 to 1, not '2'.",
        f"{SEED} needs the parameter 'prompt' (text).",
    )


def test_an_error_names_every_problem_and_that_nothing_was_spent() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        validate(GenerationRequest(SEED, {"duration": 7, "image_url": URL}))
    message = str(caught.value)
    assert "2 problems" in message
    assert "(1) 'duration'" in message
    assert "(2) " in message
    assert "No money was spent." in message
    assert len(caught.value.problems) == 2


def test_a_single_problem_is_the_message() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        validate(GenerationRequest(TEXT, {"prompt": "a cat", "duration": 7}))
    assert caught.value.what == f"'duration' of {TEXT} must be 5 or 10, not 7."


def test_of_very_many_problems_the_message_shows_the_first() -> None:
    points = [{"x": "left"}] * 30
    masks = [{"mask": "mask.png", "trajectories": points}]
    with pytest.raises(InvalidRequestError) as caught:
        validate(GenerationRequest(FRAMES, {"image_url": URL, "dynamic_masks": masks}))
    assert len(caught.value.problems) == 60
    assert "(20) " in caught.value.what
    assert "(21) " not in caught.value.what
    assert caught.value.what.endswith(" And 40 more.")


def test_a_valid_request_comes_back_as_it_should_be_sent() -> None:
    request, warnings = validate(
        GenerationRequest(SEED, {"prompt": "a cat", "image_url": URL, "ratio": "1:1", "duration": "10"})
    )
    assert request.body() == {
        "model": SEED,
        "prompt": "a cat",
        "image_url": URL,
        "duration": 10,
    }
    assert len(warnings) == 1


def test_the_callers_parameters_are_left_alone() -> None:
    parameters = {"image_list": [URL, URL], "duration": "5", "prompt": None}
    before = copy.deepcopy(parameters)
    inspect(SEVERAL, parameters)
    map_media(SEVERAL, parameters, lambda place, value: "x")
    with_image(SEED, parameters, URL)
    assert parameters == before


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_a_required_prompt_must_not_be_blank(blank: str) -> None:
    assert problems(TEXT, prompt=blank) == (f"'prompt' of {TEXT} must not be empty.",)
    assert problems(FRAMES, image_url=URL, prompt=blank) == ()


@pytest.mark.parametrize("name", ["ratio", "aspect_ratio"])
def test_a_ratio_without_effect_is_a_warning_and_not_sent(name: str) -> None:
    verdict = inspect(SEED, {"prompt": "a cat", "image_url": URL, name: "no ratio at all"})
    assert verdict.problems == []
    assert name not in verdict.parameters
    (warning,) = verdict.warnings
    assert warning.startswith(f"'{name}' has no effect with {SEED} and is not sent")
    assert not inspect(SEED, {"prompt": "x", "image_url": URL, name: None}).warnings


def test_an_aspect_ratio_with_effect_is_sent() -> None:
    verdict = inspect(TEXT, {"prompt": "a cat", "aspect_ratio": "9:16"})
    assert verdict.parameters["aspect_ratio"] == "9:16"
    assert problems(TEXT, prompt="a cat", ratio="9:16") == (
        f"{TEXT} has no parameter 'ratio'; did you mean 'aspect_ratio'?",
    )


def test_a_typo_in_a_scene_gets_the_nearest_scene_and_no_further_complaint() -> None:
    (problem,) = problems(EFFECTS, effect_scene="heart_gestur", image_url=[URL, URL])
    assert problem.endswith("did you mean 'heart_gesture'?")


def test_nested_problems_name_their_place() -> None:
    assert problems(
        REFERENCES,
        prompt="a cat",
        elements=[
            {"frontal_image_url": URL, "reference_image_urls": [URL]},
            {"frontal_image": URL, "reference_image_urls": [URL, ""]},
        ],
    ) == (
        f"'elements[1]' of {REFERENCES} has no field 'frontal_image'; did you mean 'frontal_image_url'?",
        f"'elements[1].reference_image_urls[1]' of {REFERENCES} must be the URL, path or data URI"
        " of an image, not ''.",
        f"'elements[1]' of {REFERENCES} needs the field 'frontal_image_url'"
        " (the URL, path or data URI of an image).",
    )


def test_masks_have_limits() -> None:
    point = {"x": 1, "y": "2"}
    mask = {"mask": "mask.png", "trajectories": [point] * 77}
    verdict = inspect(FRAMES, {"image_url": URL, "dynamic_masks": [mask] * 6})
    assert verdict.problems == []
    assert verdict.parameters["dynamic_masks"][0]["trajectories"][0] == {"x": 1, "y": 2}
    assert "a list of at most 6" in problems(FRAMES, image_url=URL, dynamic_masks=[mask] * 7)[0]
    for count in (1, 78):
        short = {"mask": "mask.png", "trajectories": [point] * count}
        (problem,) = problems(FRAMES, image_url=URL, dynamic_masks=[short])
        assert "'dynamic_masks[0].trajectories'" in problem
        assert f"a list of 2 to 77, each an object with the fields x, y, not a list of {count}" in (problem)


def test_no_message_holds_base64_or_a_signature() -> None:
    content = "QUJD" * 100
    found = problems(
        EFFECTS,
        image_url={"data": content},
        effect_scene=f"data:image/png;base64,{content}",
        duration=content,
        prompt=content,
        **{content: "https://h/?signature=SECRET"},
    ) + problems(TEXT, prompt=7.5, cfg_scale="https://h/v.mp4?ksSecret=SECRET")
    assert len(found) == 7
    assert not any("QUJDQUJD" in problem or "SECRET" in problem for problem in found)


def test_an_unknown_model_is_a_warning_with_the_nearest_name() -> None:
    verdict = inspect("kling-video/v1.6/standart/image-to-video", {"new": 1, "old": None})
    assert verdict.problems == []
    assert verdict.parameters == {"new": 1}
    (warning,) = verdict.warnings
    assert "passed on unchecked" in warning
    assert warning.endswith(f"did you mean '{SEED}'?")


def test_an_unknown_model_like_no_other_gets_no_suggestion() -> None:
    (warning,) = inspect("###", {}).warnings
    assert warning.endswith("unchecked.")


@pytest.mark.parametrize("model_id", [SEED, "new-model"])
@pytest.mark.parametrize("parameters", [None, [], "prompt", 7])
def test_parameters_that_are_no_object(model_id: str, parameters: Any) -> None:
    verdict = inspect(model_id, parameters)
    assert verdict.parameters == {}
    (problem,) = verdict.problems
    assert "must be an object" in problem


@pytest.mark.parametrize("model_id", [None, 7, ["x"], {}])
def test_a_model_that_is_no_text(model_id: Any) -> None:
    (problem,) = inspect(model_id, {"prompt": "x"}).problems
    assert problem.startswith("The model must be the id of a model, not ")


def test_a_second_model_among_the_parameters() -> None:
    assert problems(TEXT, prompt="x", model=TEXT) == ()
    assert "model" not in inspect(TEXT, {"prompt": "x", "model": TEXT}).parameters
    for model_id in (TEXT, "new-model"):
        (problem,) = problems(model_id, prompt="x", model=SEED)
        assert problem == f"The parameters name another model, '{SEED}', than '{model_id}'."


def test_numbers_that_json_cannot_hold_are_refused() -> None:
    for number in (math.nan, math.inf, -math.inf, "nan", 10**400):
        assert problems(TEXT, prompt="x", cfg_scale=number)

"""Rules between parameters, and what they say of values that are not known yet."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_kling.api.catalog.parameter_types import PENDING
from airflow_provider_kling.api.catalog.validation import inspect

SEED = "kling-video/v1.6/standard/image-to-video"
FRAMES = "kling-video/v1.6/pro/image-to-video"
EFFECTS = "klingai/kling-video-v1.6-pro-effects"
V3_IMAGE = "klingai/video-v3-pro-image-to-video"
V3_TEXT = "klingai/video-v3-standard-text-to-video"
TURBO = "klingai/video-v3-turbo-pro-text-to-video"
URL = "https://example.com/cat.png"


def problems(model_id: str, **parameters: Any) -> tuple[str, ...]:
    return tuple(inspect(model_id, parameters).problems)


def test_v3_takes_exactly_one_of_prompt_and_multi_prompt() -> None:
    assert problems(V3_TEXT, prompt="a cat") == ()
    assert problems(V3_TEXT, multi_prompt=["a cat", "a dog"]) == ()
    assert problems(V3_TEXT) == (
        f"{V3_TEXT} needs exactly one of 'prompt' and 'multi_prompt', and none is given.",
    )
    assert problems(V3_TEXT, prompt="a cat", multi_prompt=["a dog"]) == (
        f"{V3_TEXT} takes exactly one of 'prompt' and 'multi_prompt',"
        " and 'prompt' and 'multi_prompt' are given.",
    )
    assert problems(V3_TEXT, prompt="a cat", multi_prompt=None) == ()
    assert "and 'prompt' is empty" in problems(V3_TEXT, prompt=" ")[0]
    assert "and 'multi_prompt' is empty" in problems(V3_TEXT, multi_prompt=[])[0]


def test_v3_turbo_takes_shots_with_their_own_length() -> None:
    verdict = inspect(TURBO, {"multi_prompt": [{"prompt": "a cat", "duration": "3"}]})
    assert verdict.problems == []
    assert verdict.parameters == {"multi_prompt": [{"prompt": "a cat", "duration": 3}]}
    assert "must be an object" in problems(TURBO, multi_prompt=["a cat"])[0]
    assert "'multi_prompt[0].prompt'" in problems(TURBO, multi_prompt=[{"prompt": ""}])[0]
    assert inspect(TURBO, {"prompt": "x", "multi_prompt": None}, as_sent=True).problems == []
    assert inspect(V3_TEXT, {"prompt": "x", "multi_prompt": None}, as_sent=True).problems


@pytest.mark.parametrize("audio", [None, True, "true"])
def test_a_tail_image_needs_silence(audio: Any) -> None:
    found = problems(V3_IMAGE, prompt="x", image_url=URL, tail_image_url=URL, generate_audio=audio)
    assert len(found) == 1
    assert "takes 'tail_image_url' only with generate_audio=False" in found[0]
    assert ("which is its default" in found[0]) == (audio is None)


def test_a_tail_image_without_audio_is_right() -> None:
    for silent in (False, "False"):
        parameters = {"tail_image_url": URL, "generate_audio": silent}
        assert problems(V3_IMAGE, prompt="x", image_url=URL, **parameters) == ()
    assert problems(FRAMES, image_url=URL, tail_image_url=URL) == ()


def test_at_most_one_element_has_a_video() -> None:
    plain = {"reference_image_urls": [URL]}
    filmed = {**plain, "video_url": "clip.mp4"}
    base = {"prompt": "x", "image_url": URL}
    assert problems(V3_IMAGE, **base, elements=[filmed, plain, {**plain, "video_url": None}]) == ()
    assert problems(V3_IMAGE, **base, elements=[filmed, plain, filmed]) == (
        f"{V3_IMAGE} takes 'video_url' in at most one of 'elements', not in 'elements[0]' and 'elements[2]'.",
    )


@pytest.mark.parametrize(
    ("scene", "allowed"),
    [
        ("hug", {2}),
        ("kiss", {2}),
        ("heart_gesture", {2}),
        ("heart_gesture_1", {1}),
        ("fight", {1, 2}),
        ("squish", {1}),
    ],
)
def test_effects_take_as_many_pictures_as_they_have_people(scene: str, allowed: set[int]) -> None:
    for count in range(4):
        found = problems(EFFECTS, effect_scene=scene, image_url=[URL] * count)
        assert (found == ()) == (count in allowed)
    assert (problems(EFFECTS, effect_scene=scene, image_url=URL) == ()) == (1 in allowed)


def test_pending_counts_as_present() -> None:
    assert problems(SEED, prompt=PENDING, image_url=PENDING, duration=PENDING) == ()
    assert problems(V3_TEXT, multi_prompt=PENDING) == ()
    assert problems(SEED, prompt=PENDING) == (
        f"{SEED} needs the parameter 'image_url' (the URL, path or data URI of an image).",
    )
    assert inspect(SEED, PENDING).problems == []


def test_pending_is_never_the_reason_of_a_problem() -> None:
    assert problems(V3_TEXT, prompt="a cat", multi_prompt=PENDING) == ()
    image = {"prompt": "x", "image_url": URL}
    assert problems(V3_IMAGE, **image, tail_image_url=URL, generate_audio=PENDING) == ()
    assert problems(V3_IMAGE, **image, elements=[PENDING, {"reference_image_urls": PENDING}]) == ()
    assert problems(EFFECTS, effect_scene=PENDING, image_url=[URL, URL, URL]) == ()
    assert problems(EFFECTS, effect_scene="hug", image_url=PENDING) == ()
    assert problems(EFFECTS, effect_scene="hug", image_url=[PENDING, URL]) == ()


def test_what_is_known_beside_pending_is_judged() -> None:
    assert problems(SEED, prompt=PENDING, image_url=URL, duration=7) == (
        f"'duration' of {SEED} must be 5 or 10, not 7.",
    )
    found = problems(EFFECTS, effect_scene="hug", image_url=[PENDING])
    assert "takes 2 pictures" in found[0]


def test_a_pending_model_lets_everything_pass() -> None:
    verdict = inspect(PENDING, {"anything": 1, "nothing": None})
    assert verdict.parameters == {"anything": 1}
    assert verdict.problems == verdict.warnings == []

"""How problems of a request are worded."""

from __future__ import annotations

import pytest

from airflow_provider_kling.api.catalog.problems import Problems, did_you_mean, listed


def test_a_refusal_names_the_place_what_is_allowed_and_what_was_given() -> None:
    problems = Problems("m")
    problems.refuse("duration", 7, "5 or 10")
    problems.refuse("", 3, "an object", "; give a mapping")
    problems.add("m needs a prompt")
    problems.warn("Is this right?")
    assert problems.problems == [
        "'duration' of m must be 5 or 10, not 7.",
        "The parameters of m must be an object, not 3; give a mapping.",
        "m needs a prompt.",
    ]
    assert problems.warnings == ["Is this right?"]


def test_names_are_listed_with_or() -> None:
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a or b", "a, b or c"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("promt", "prompt"), ("IMAGE_URL", "image_url"), ("image", "image_url"), ("zzz", None)],
)
def test_the_nearest_known_name_is_suggested(name: str, meant: str | None) -> None:
    said = did_you_mean(name, ["prompt", "image_url"])
    assert said == ("" if meant is None else f"; did you mean '{meant}'?")

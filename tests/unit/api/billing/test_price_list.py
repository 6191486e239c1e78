"""What a request will cost, by price lists in both of the vendor's forms."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.billing.price_list import (
    PriceList,
    Pricing,
    Rate,
    estimate,
    read_pricing,
    video_seconds,
)
from airflow_provider_kling.api.generation import GenerationRequest

IMAGE_MODEL = "kling-video/v1.6/standard/image-to-video"
SOUND_MODEL = "klingai/video-v2-6-pro-text-to-video"
NO_DEFAULT_MODEL = "kling-video/v1/standard/text-to-video"


def fixed(*units: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "fixed", "units": list(units)}


def unit(name: str, price: Any, per: Any = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "price": price, "per": per, **more}


def variants(*pairs: tuple[dict[str, Any], float], unit: str = "second") -> dict[str, Any]:
    listed = [{"when": when, "price": price, "unit": unit, "per": 1} for when, price in pairs]
    return {"kind": "variants", "dimensions": [], "variants": listed}


def usd(pricing: Any, model: str = IMAGE_MODEL, **parameters: Any) -> float | None:
    found = estimate(GenerationRequest(model, parameters), read_pricing(pricing))
    return None if found is None else found.usd


def test_a_price_a_second_is_multiplied_by_the_duration() -> None:
    assert usd(fixed(unit("second", 0.058, measure="video")), duration=10) == 0.58
    assert usd(fixed(unit("seconds", 5.8, per=100)), duration="10") == 0.58


def test_a_duration_that_is_not_given_is_the_model_s_default() -> None:
    assert usd(fixed(unit("second", 0.1))) == 0.5
    assert usd(fixed(unit("second", 0.1)), NO_DEFAULT_MODEL) is None
    assert usd(fixed(unit("second", 0.1)), "klingai/too-new") is None
    assert usd(fixed(unit("second", 0.1)), "klingai/too-new", duration=3) == pytest.approx(0.3)


def test_a_price_a_video_is_not_multiplied_and_several_units_add_up() -> None:
    assert usd(fixed(unit("video", 0.4)), duration=10) == 0.4
    assert usd(fixed(unit("video", 0.4), unit("second", 0.1)), duration=10) == 1.4


@pytest.mark.parametrize("name", ["video", "Videos", "second", "generation"])
def test_a_unit_that_is_measured_in_seconds_is_charged_for_each(name: str) -> None:
    assert usd(fixed(unit(name, 0.1, measure="second")), duration=10) == 1.0
    assert usd(fixed(unit(name, 0.1, measure="Seconds ")), duration=10) == 1.0


def test_a_unit_that_is_measured_by_the_piece_is_charged_once() -> None:
    assert usd(fixed(unit("generation", 0.4, measure="video")), duration=10) == 0.4
    for nothing in (None, ""):
        assert usd(fixed(unit("video", 0.4, measure=nothing)), duration=10) == 0.4


def test_the_figures_are_said() -> None:
    found = estimate(
        GenerationRequest(IMAGE_MODEL, {"duration": 10}),
        read_pricing(fixed(unit("video", 0.4), unit("second", 0.1))),
    )
    assert found is not None
    assert found.how == "0.4 USD a video and 10 s at 0.1 USD a second"


@pytest.mark.parametrize(
    "pricing",
    [
        None,
        "free",
        [],
        {},
        {"kind": "auction"},
        fixed(),
        fixed(unit("token", 0.1)),
        fixed(unit("second", 0.1), unit("token", 0.1)),
        fixed(unit("second", 0.1), {"name": "video"}),
        fixed(unit("video", 0.1, measure="frame")),
        fixed(unit("second", 0.1, measure="megapixel")),
        fixed(unit("audio", 0.1, measure="second")),
        fixed(unit("video", 0.1, measure=60)),
        fixed(unit("video", 0.1, measure={"unit": "second"})),
        fixed(unit("second", None)),
        fixed(unit("second", -1)),
        fixed(unit("second", "much")),
        fixed(unit("second", 0.1, per=0)),
        variants(),
        variants(({"generate_audio": True}, 0.1)),
        {"kind": "variants", "variants": [{"when": {}, "price": 0.1}]},
        variants(({}, 0.1), unit="token"),
    ],
)
def test_what_cannot_be_understood_whole_is_no_price(pricing: Any) -> None:
    assert usd(pricing, duration=5) is None


def test_the_variant_that_fits_applies_and_defaults_count() -> None:
    sound = variants(({"generate_audio": False}, 0.07), ({"generate_audio": True}, 0.14))
    assert usd(sound, SOUND_MODEL, generate_audio=False, duration=10) == 0.7
    assert usd(sound, SOUND_MODEL, generate_audio=True, duration=10) == 1.4
    assert usd(sound, SOUND_MODEL) == 0.7  # with sound, for 5 s: both by default


def test_the_most_specific_variant_applies_whatever_the_order() -> None:
    general, special, other = (
        ({"mode": "pro"}, 0.2),
        ({"mode": "pro", "generate_audio": True}, 0.3),
        ({"mode": "std", "generate_audio": True}, 0.9),
    )
    for order in ((general, special, other), (special, other, general)):
        assert usd(variants(*order), duration=1, mode="pro", generate_audio=True) == 0.3
        assert usd(variants(*order), duration=1, mode="pro", generate_audio=False) == 0.2
    assert usd(variants(({}, 0.1), general), duration=1, mode="std") == 0.1


def test_of_equally_specific_variants_the_dearest_counts() -> None:
    tie = variants(({"mode": "pro"}, 0.2), ({"generate_audio": True}, 0.3))
    assert usd(tie, duration=1, mode="pro", generate_audio=True) == 0.3


def test_values_fit_however_they_are_written() -> None:
    by_length = variants(({"duration": "5"}, 0.35), ({"duration": 10}, 0.7), unit="generation")
    assert usd(by_length, duration=5) == 0.35
    assert usd(by_length, duration="10") == 0.7
    assert usd(variants(({"mode": ["std", "PRO"]}, 0.1)), duration=1, mode="pro") == 0.1
    assert usd(variants(({"generate_audio": "true"}, 0.1)), duration=1, generate_audio=True) == 0.1
    assert usd(variants(({"generate_audio": True}, 0.1)), duration=1, generate_audio=1) is None


def test_shots_with_lengths_of_their_own_count_where_they_are_longer() -> None:
    shots = [{"prompt": "a", "duration": 4}, {"prompt": "b", "duration": 5}]
    assert video_seconds({"duration": 5, "multi_prompt": shots}) == 9
    assert video_seconds({"duration": 15, "multi_prompt": shots}) == 15
    assert video_seconds({"multi_prompt": ["a", "b"]}) is None


NAMES = st.sampled_from(["kind", "units", "variants", "when", "name", "unit", "price", "per", "measure"])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(NAMES, each),
)


@given(JSON)
def test_no_answer_breaks_it(value: Any) -> None:
    for pricing in (value, {"kind": "fixed", "units": value}, {"kind": "variants", "variants": value}):
        found = usd(pricing, duration=5)
        assert found is None or found >= 0


def test_the_list_keeps_what_has_an_etag() -> None:
    prices, pricing = PriceList(), Pricing(units=(Rate("second", 1.0),))
    prices.learn("https://a", "model", "W/1", pricing)
    assert prices.etag("https://a", "model") == "W/1"
    assert prices.known("https://a", "model") == pricing
    assert prices.etag("https://b", "model") is None

    prices.learn("https://a", "model", None, pricing)
    assert prices.etag("https://a", "model") is None

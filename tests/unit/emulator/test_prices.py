from __future__ import annotations

import pytest

from airflow_provider_kling.api.catalog.models import MODELS
from airflow_provider_kling.emulator.prices import catalogue, price_of, pricing, video_seconds

FIXED = "kling-video/v1.6/standard/image-to-video"
SOUND = "klingai/video-v3-pro-image-to-video"


def test_a_fixed_price_multiplies_by_the_seconds():
    rate = pricing(FIXED)["units"][0]["price"]
    assert price_of(FIXED, {"duration": 10}).usd == pytest.approx(rate * 10)
    assert price_of(FIXED, {}).usd == pytest.approx(rate * 5)


def test_sound_costs_more_and_is_what_the_vendor_assumes():
    silent, sound = (variant["price"] for variant in pricing(SOUND)["variants"])
    assert price_of(SOUND, {"generate_audio": False}).usd == pytest.approx(silent * 5)
    assert price_of(SOUND, {"generate_audio": True}).usd == pytest.approx(sound * 5)
    assert price_of(SOUND, {}).usd == pytest.approx(sound * 5)
    assert silent < sound


def test_credits_are_two_million_a_dollar():
    price = price_of(FIXED, {"duration": 5})
    assert price.credits == round(price.usd * 2_000_000)


@pytest.mark.parametrize("model_id", sorted(MODELS))
def test_every_model_has_a_price_in_one_of_the_two_forms(model_id: str):
    quoted = pricing(model_id)
    if quoted["kind"] == "variants":
        assert quoted["dimensions"] == ["generate_audio"]
        assert "generate_audio" in MODELS[model_id].parameters
        prices = [variant["price"] for variant in quoted["variants"]]
    else:
        prices = [unit["price"] for unit in quoted["units"]]
    assert all(0.01 < price < 1 for price in prices)


def test_models_with_sound_are_the_ones_priced_by_it():
    by_sound = {model["id"] for model in catalogue() if model["pricing"]["kind"] == "variants"}
    assert by_sound == {name for name, m in MODELS.items() if "generate_audio" in m.parameters}


def test_the_length_is_five_seconds_where_none_is_asked():
    assert (video_seconds({}), video_seconds({"duration": 10})) == (5, 10)

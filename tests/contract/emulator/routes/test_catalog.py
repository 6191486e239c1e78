"""The emulator's public catalogue."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from airflow_provider_kling.api.catalog.models import MODELS
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread

MODEL = "klingai/video-v3-pro-image-to-video"


@pytest.fixture(scope="module")
def emulator() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(queued_seconds=2, generating_seconds=8)) as emulator:
        yield emulator


def get(emulator: EmulatorThread, path: str, **headers: str) -> requests.Response:
    return requests.get(emulator.url + path, headers=headers, timeout=10)


def test_all_models_without_prices_by_default(emulator):
    body = get(emulator, "/v1/models").json()
    assert body["object"] == "list"
    assert {model["id"] for model in body["data"]} == set(MODELS)
    assert not any("pricing" in model for model in body["data"])


@pytest.mark.parametrize("wanted", [MODEL, MODEL.upper(), f"x,{MODEL}", f"x&id={MODEL}"])
def test_a_model_with_its_price_without_a_key(emulator, wanted: str):
    (model,) = get(emulator, f"/v1/models?id={wanted}&include=pricing").json()["data"]
    assert model["id"] == MODEL
    assert model["pricing"]["kind"] == "variants"


def test_an_unknown_model_is_an_empty_list(emulator):
    assert get(emulator, "/v1/models?id=none&include=pricing,nonsense").json()["data"] == []


def test_the_etag_spares_the_answer(emulator):
    path = f"/v1/models?id={MODEL}&include=pricing"
    first = get(emulator, path)
    again = get(emulator, path, **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    other = get(emulator, "/v1/models", **{"If-None-Match": first.headers["ETag"]})
    assert other.status_code == 200


def test_metrics_tell_how_long_the_emulator_takes(emulator):
    body = get(emulator, f"/models/metrics?aliases={MODEL}").json()
    (model,) = body["models"]
    assert model["alias"] == MODEL
    assert model["metrics"]["duration_ms"] == {"p50": 10000, "p75": 10000, "p90": 10000, "p99": 10000}
    assert body["window_seconds"] == 300


def test_metrics_of_a_realistic_emulator_are_the_models_own():
    with EmulatorThread(EmulatorOptions(realistic=True)) as emulator:
        body = get(emulator, "/models/metrics").json()
    assert {model["alias"] for model in body["models"]} == set(MODELS)
    for model in body["models"]:
        duration = model["metrics"]["duration_ms"]
        assert duration["p50"] == round(1000 * MODELS[model["alias"]].usual_seconds)
        assert duration["p50"] < duration["p75"] < duration["p90"] < duration["p99"]


def test_metrics_take_aliases_whole_and_nothing_else(emulator):
    assert get(emulator, f"/models/metrics?aliases={MODEL},x").json()["models"] == []
    assert get(emulator, f"/models/metrics?model={MODEL}").status_code == 400

"""Prices, ledger and logs of the emulator, read by both clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_kling.api.billing.cost import check_budget, cost_of, estimate_of, pricing_of
from airflow_provider_kling.api.billing.price_list import PRICES, PriceList
from airflow_provider_kling.api.catalog.models import MODELS
from airflow_provider_kling.api.exceptions import BudgetError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from airflow_provider_kling.emulator.options import AnswerStyle
from tests.contract.drivers import DRIVERS, Driver

MODEL = "kling-video/v1.6/standard/text-to-video"
SOUND_MODEL = "klingai/video-v2-6-pro-text-to-video"


def started(**options: Any) -> EmulatorThread:
    return EmulatorThread(EmulatorOptions(frozen_clock=True, log_lag=0, log_in_flight_after=0, **options))


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with started() as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: EmulatorThread) -> EmulatorThread:
    shared.reset()
    PRICES._known.clear()
    return shared


@pytest.fixture(params=DRIVERS, ids=lambda each: each.name)
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[EmulatorThread], Driver]]:
    made: list[Driver] = []

    def driver(emulator: EmulatorThread) -> Driver:
        made.append(request.param(Settings(emulator.api_key, base_url=emulator.url), emulator.clock))
        return made[-1]

    yield driver
    for each in made:
        each.close()


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (MODEL, {"prompt": "a cat"}),
        (MODEL, {"prompt": "a cat", "duration": 10}),
        (SOUND_MODEL, {"prompt": "a cat", "generate_audio": False}),
        (SOUND_MODEL, {"prompt": "a cat", "generate_audio": True, "duration": 10}),
        (SOUND_MODEL, {"prompt": "a cat"}),
        ("klingai/video-v3-pro-text-to-video", {"prompt": "a cat", "duration": 15}),
    ],
)
def test_the_estimate_is_what_is_charged(
    emulator: EmulatorThread, make: Callable[..., Driver], model: str, parameters: dict[str, Any]
) -> None:
    driver, request = make(emulator), GenerationRequest(model, parameters)
    known = driver.run(estimate_of(driver.calls, request))
    submitted = driver.run(driver.calls.submit(request))
    emulator.clock.advance(60)
    done = driver.run(driver.calls.get_generation(submitted.id))

    cost = driver.run(cost_of(driver.calls, done, since=emulator.clock.now() - 120))

    assert known is not None
    assert (cost.source, cost.usd_source) == ("usage", "ledger")
    assert cost.usd == pytest.approx(known.usd)
    assert cost.credits == emulator.generations[0]["credits"]


def test_older_answers_tell_their_usage_too(make: Callable[..., Driver]) -> None:
    with started(answers=AnswerStyle.OLD, charge_lag=3600) as emulator:
        driver, request = make(emulator), GenerationRequest(MODEL, {"prompt": "a cat"})
        submitted = driver.run(driver.calls.submit(request))
        emulator.clock.advance(60)
        done = driver.run(driver.calls.get_generation(submitted.id))

        cost = driver.run(cost_of(driver.calls, done, since=emulator.clock.now() - 120, request=request))

    assert (cost.credits, cost.source) == (580_000, "usage")
    assert (cost.usd, cost.usd_source) == (0.29, "estimate")


def test_each_model_of_the_catalogue_has_a_price(
    emulator: EmulatorThread, make: Callable[..., Driver]
) -> None:
    driver, prices = make(emulator), PriceList()
    for model in MODELS:
        assert driver.run(pricing_of(driver.calls, model, prices)) is not None, model
    assert driver.run(pricing_of(driver.calls, "klingai/of-tomorrow", prices)) is None


def test_what_is_known_is_asked_by_its_etag_and_without_a_key(
    emulator: EmulatorThread, make: Callable[..., Driver]
) -> None:
    driver, prices = make(emulator), PriceList()
    first, second = (driver.run(pricing_of(driver.calls, MODEL, prices)) for _ in range(2))

    assert first == second
    asked = [entry for entry in emulator.journal if entry.path == "/v1/models"]
    assert [entry.status for entry in asked] == [200, 304]
    assert not any(entry.authorization for entry in asked)


def test_a_balance_that_does_not_cover_it(make: Callable[..., Driver]) -> None:
    with started(balance=0.2) as emulator:
        driver = make(emulator)
        with pytest.raises(BudgetError, match=r"about 0\.29 USD .*balance is 0\.2 USD"):
            driver.run(
                check_budget(driver.calls, [GenerationRequest(MODEL, {"duration": 5})], check_balance=True)
            )


def test_all_rows_of_the_logs_are_read_with_their_cost(
    emulator: EmulatorThread, make: Callable[..., Driver]
) -> None:
    driver = make(emulator)
    for number in range(120):
        request = GenerationRequest(MODEL, {"prompt": "a cat"})
        driver.run(driver.calls.submit(request, f"airflow:dag:task:{number}:0:x"))
    emulator.clock.advance(60)
    rows: list[Any] = []

    driver.run(driver.calls.find_row(rows.append, since=emulator.clock.now() - 3600))  # type: ignore[arg-type]  # appends give None

    assert len({row.inference_id for row in rows}) == 120
    assert {(row.model, row.usd, row.credits) for row in rows} == {(MODEL, 0.29, 580_000)}
    assert all(row.created is not None for row in rows)

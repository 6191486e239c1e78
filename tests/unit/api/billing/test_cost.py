"""What is checked before a submit, and what is said of the cost after it, without a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_kling.api.billing.cost import check_budget, cost_of, estimate_of
from airflow_provider_kling.api.billing.price_list import PRICES
from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.exceptions import BudgetError, ConnectionLostError, Money
from airflow_provider_kling.api.generation import Generation, GenerationRequest, GenerationStatus
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.messages import (
    Call,
    ConnectionLost,
    FailureReason,
    Flow,
    HttpRequest,
    HttpResponse,
    Send,
)

MODEL = "kling-video/v1.6/standard/image-to-video"
REQUEST = GenerationRequest(MODEL, {"duration": 5})
NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _no_prices_known() -> None:
    PRICES._known.clear()


class Vendor:
    """Answers by the kind of call; what is not named is not answered."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {Call(name): answer for name, answer in answers.items()}
        self.asked: list[HttpRequest] = []

    def drive(self, flow: Flow[Any]) -> Any:
        reply: Any = None
        while True:
            try:
                effect = flow.send(reply)
            except StopIteration as end:
                return end.value
            reply = self._answer(effect.request) if isinstance(effect, Send) else None

    def _answer(self, request: HttpRequest) -> HttpResponse | ConnectionLost:
        self.asked.append(request)
        answer = self.answers.get(request.call)
        if answer is None:
            return ConnectionLost(FailureReason.REFUSED, "api.example.com")
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, HttpResponse):
            return answer
        return HttpResponse(200, {"etag": '"1"'}, json.dumps(answer).encode())


def prices(usd: float = 0.058) -> dict[str, Any]:
    pricing = {"kind": "fixed", "units": [{"name": "second", "price": usd, "per": 1}]}
    return {"data": [{"id": MODEL, "pricing": pricing}]}


def ledger(*ids: str, cursor: str | None = None) -> dict[str, Any]:
    entries = [{"reference_id": each, "amount": {"usd": 0.29, "credits": 580_000}} for each in ids]
    return {"data": entries, "pagination": {"next_cursor": cursor, "has_more": cursor is not None}}


def generation(credits: float | None = None) -> Generation:
    return Generation("gen-1", GenerationStatus.COMPLETED, "completed", credits_used=credits)


@pytest.fixture
def calls() -> VendorCalls:
    now = lambda: NOW  # noqa: E731
    return VendorCalls(Endpoints(Settings("the-key"), now), now=now, rng=lambda: 0.5)


def told(
    calls: VendorCalls, vendor: Vendor, credits: float | None = None, request: Any = REQUEST
) -> dict[str, Any]:
    cost: dict[str, Any] = vendor.drive(
        cost_of(calls, generation(credits), since=NOW - 60, request=request)
    ).as_dict()
    return cost


def test_credits_of_the_answer_and_usd_of_the_ledger(calls: VendorCalls) -> None:
    vendor = Vendor(ledger=ledger("other", "gen-1"))
    assert told(calls, vendor, 580_001) == {
        "credits": 580_001,
        "usd": 0.29,
        "source": "usage",
        "usd_source": "ledger",
    }


def test_both_of_the_ledger_where_the_answer_says_nothing(calls: VendorCalls) -> None:
    vendor = Vendor(ledger=[ledger("a", cursor="next"), ledger("gen-1")])
    assert told(calls, vendor) == {
        "credits": 580_000,
        "usd": 0.29,
        "source": "ledger",
        "usd_source": "ledger",
    }
    assert ("cursor", "next") in vendor.asked[1].params


def test_the_estimate_where_nothing_is_booked(calls: VendorCalls) -> None:
    vendor = Vendor(ledger=ledger("other"), prices=prices())
    assert told(calls, vendor) == {
        "credits": None,
        "usd": 0.29,
        "source": "estimate",
        "usd_source": "estimate",
    }
    assert told(calls, vendor, 7)["source"] == "usage"


def test_no_rate_is_made_up(calls: VendorCalls) -> None:
    nothing = {"credits": None, "usd": None, "source": None, "usd_source": None}
    assert told(calls, Vendor(ledger=ledger()), request=None) == nothing
    assert told(calls, Vendor(ledger=ledger()), 7, request=None) == {
        "credits": 7,
        "usd": None,
        "source": "usage",
        "usd_source": None,
    }


def test_trouble_with_the_figures_never_fails_a_paid_generation(calls: VendorCalls) -> None:
    assert told(calls, Vendor(), 7)["credits"] == 7


def test_the_ledger_is_not_read_without_end(calls: VendorCalls) -> None:
    vendor = Vendor(ledger=[ledger("a", cursor=str(page)) for page in range(50)])
    told(calls, vendor, 7, request=None)
    assert len(vendor.asked) == 5


def test_no_key_goes_with_the_question_for_prices(calls: VendorCalls) -> None:
    vendor = Vendor(prices=prices())
    vendor.drive(estimate_of(calls, REQUEST))
    (asked,) = vendor.asked
    assert "the-key" not in str(asked.headers) + str(asked.params)
    assert dict(asked.params) == {"id": MODEL, "include": "pricing"}


def test_a_price_that_still_holds_is_not_sent_again(calls: VendorCalls) -> None:
    vendor = Vendor(prices=[prices(), HttpResponse(304), prices(0.1)])
    assert [vendor.drive(estimate_of(calls, REQUEST)).usd for _ in range(3)] == [0.29, 0.29, 0.5]
    assert [each.headers.get("If-None-Match") for each in vendor.asked] == [None, '"1"', '"1"']


def check(calls: VendorCalls, vendor: Vendor, **limits: Any) -> Any:
    return vendor.drive(check_budget(calls, [REQUEST], **limits))


def test_without_a_budget_nothing_is_asked(calls: VendorCalls) -> None:
    vendor = Vendor()
    assert (
        check(
            calls,
            vendor,
        )
        is None
    )
    assert vendor.asked == []


def test_the_limit_itself_is_within_it(calls: VendorCalls) -> None:
    check(calls, Vendor(prices=prices()), max_usd=0.29)


def test_above_the_limit(calls: VendorCalls) -> None:
    with pytest.raises(BudgetError, match=r"about 0\.29 USD \(5 s at 0\.058 .*limit is 0\.28 USD") as caught:
        check(calls, Vendor(prices=prices()), max_usd=0.28)
    assert caught.value.money is Money.NOT_SPENT


@pytest.mark.parametrize("listed", [[], [{"id": MODEL}], [{"id": "another", "pricing": {}}]])
def test_no_price_and_a_limit(calls: VendorCalls, listed: list[Any]) -> None:
    with pytest.raises(BudgetError, match=r"is unknown.* limit is 9 USD"):
        check(calls, Vendor(prices={"data": listed}), max_usd=9)


def test_a_price_list_that_does_not_answer_costs_nothing(calls: VendorCalls) -> None:
    with pytest.raises(ConnectionLostError) as caught:
        check(calls, Vendor(), max_usd=9)
    assert caught.value.money is Money.NOT_SPENT


@pytest.mark.parametrize(
    ("balance", "priced", "covered"),
    [(0.29, True, True), (0.28, True, False), (0, False, False), (1, False, True)],
)
def test_the_balance(calls: VendorCalls, balance: float, priced: bool, covered: bool) -> None:
    vendor = Vendor(prices=prices() if priced else {"data": []}, balance={"current_balance": balance})
    if covered:
        check(calls, vendor, check_balance=True)
        return
    with pytest.raises(BudgetError, match=f"balance is {balance:g} USD"):
        check(calls, vendor, check_balance=True)


def test_the_balance_covers_all_that_is_submitted_together(calls: VendorCalls) -> None:
    vendor = Vendor(prices=prices(), balance={"current_balance": 0.86})
    vendor.drive(check_budget(calls, [REQUEST] * 2, check_balance=True))
    with pytest.raises(BudgetError, match=r"These 3 generations would cost about 0\.87 USD together"):
        vendor.drive(check_budget(calls, [REQUEST] * 3, check_balance=True))


def test_one_above_the_limit_keeps_all_from_being_submitted(calls: VendorCalls) -> None:
    longer = GenerationRequest(MODEL, {"duration": 10})
    with pytest.raises(BudgetError, match=r"about 0\.58 USD .* limit is 0\.3 USD"):
        Vendor(prices=prices()).drive(check_budget(calls, [REQUEST, longer], max_usd=0.3))

"""What a generation may cost, asked before it is submitted, and what it did cost, asked after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from airflow_provider_kling.api.billing.price_list import (
    PRICES,
    Estimate,
    PriceList,
    Pricing,
    estimate,
    read_pricing,
)
from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.exceptions import BudgetError, KlingError, Money
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.retry import RetryPolicy
from airflow_provider_kling.api.transport.messages import Flow
from airflow_provider_kling.api.transport.response_parsing import Charge

log = logger(__name__)

MOST_LEDGER_PAGES: Final = 5
"""Pages of the ledger that are searched for one charge; it is among the newest entries."""

COST_RETRIES: Final = RetryPolicy(attempts=2)
"""For a figure that is good to have, and not worth a long wait on a worker."""

Source = Literal["usage", "ledger", "estimate"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a generation cost, each figure from the best source that has it.

    The vendor publishes no rate between credits and USD, so neither is computed from the other.

    :param credits: charged; None where only an estimate is known.
    :param usd: in USD; None if unknown.
    :param source: where ``credits`` comes from, and ``usd`` where there are none: ``usage`` (the
        answer about the generation), ``ledger`` (the account's), ``estimate`` (the price list).
        None where nothing is known.
    :param usd_source: where ``usd`` comes from.
    """

    credits: float | None
    usd: float | None
    source: Source | None
    usd_source: Source | None

    @classmethod
    def best(cls, generation: Generation, charge: Charge | None, estimate_usd: float | None) -> Cost:
        """The cost of a generation: by its own usage, else the ledger, else the price list.

        :param charge: of the account's ledger for it.
        :param estimate_usd: by the price list.
        """
        credits, usd = generation.credits_used, estimate_usd
        source: Source = "usage"
        usd_source: Source = "estimate"
        if charge is not None and credits is None:
            credits, source = charge.credits, "ledger"
        if charge is not None and charge.usd is not None:
            usd, usd_source = charge.usd, "ledger"
        told = None if usd is None else usd_source
        return cls(credits, usd, told if credits is None else source, told)

    def as_dict(self) -> dict[str, Any]:
        """The plain form that goes to XCom."""
        return {name: getattr(self, name) for name in self.__slots__}


def check_budget(
    calls: VendorCalls,
    requests: Sequence[GenerationRequest],
    *,
    max_usd: float | None = None,
    check_balance: bool = False,
) -> Flow[None]:
    """Ask the price list, and the balance, before a submit; free.

    :param requests: what is to be submitted, all of it.
    :param max_usd: limit for one generation, in USD; None for no limit.
    :param check_balance: whether the account's balance must cover it.
    :raises BudgetError: with the figures; nothing was submitted.
    :raises KlingError: the vendor did not tell; nothing was submitted.
    """
    if not requests or (max_usd is None and not check_balance):
        return
    known = []
    try:
        for request in requests:
            known.append((yield from estimate_of(calls, request)))
            if max_usd is not None:
                _check_limit(request.model, known[-1], max_usd)
        if check_balance:
            _check_balance(requests, known, (yield from calls.get_balance()))
    except KlingError as error:
        raise error.with_money(Money.NOT_SPENT) from error.__cause__
    for price in known:
        if price is not None:
            log.info("It will cost about %s USD when it completes (%s).", f"{price.usd:g}", price.how)


def _check_limit(model: str, known: Estimate | None, limit: float) -> None:
    if known is None:
        raise BudgetError(
            f"The cost of this generation of {model} is unknown: the vendor's price list has no price that "
            f"fits the request, and the limit is {limit:g} USD.",
            advice="Give the parameters that the price depends on (duration, for example), or run the task "
            "without max_cost_usd, and without that of the connection.",
        )
    if known.usd > limit:
        raise BudgetError(
            f"This generation of {model} would cost about {known.usd:g} USD ({known.how}), and the limit "
            f"is {limit:g} USD.",
            advice="Raise max_cost_usd, or ask for less, and clear the task.",
        )


def _check_balance(
    requests: Sequence[GenerationRequest], known: Sequence[Estimate | None], balance: float
) -> None:
    prices = [price for price in known if price is not None]
    usd = round(sum(price.usd for price in prices), 6)
    if balance > 0 and usd <= balance:
        return
    costs = f"about {usd:g} USD" if prices else "an unknown amount"
    if len(requests) > 1:
        what = f"These {len(requests)} generations would cost {costs} together"
    else:
        what = f"This generation of {requests[0].model} would cost {costs}"
        if prices:
            what += f" ({prices[0].how})"
    raise BudgetError(
        f"{what}, and the account's balance is {balance:g} USD.",
        advice="Top up the AI/ML API account, then clear the task.",
    )


def pricing_of(calls: VendorCalls, model: str, prices: PriceList = PRICES) -> Flow[Pricing | None]:
    """Ask what a model costs; what this process knows is used as long as the vendor says so.

    :return: None where the vendor names no price, or none that this version understands.
    :raises KlingError: the vendor did not tell.
    """
    base_url = calls.endpoints.settings.base_url
    asking = calls.endpoints.prices(model, prices.etag(base_url, model))
    answer = yield from calls.read(asking, lambda reply: calls.endpoints.read_prices(reply, model))
    if answer is None:
        return prices.known(base_url, model)
    etag, value = answer
    pricing = read_pricing(value)
    prices.learn(base_url, model, etag, pricing)
    return pricing


def estimate_of(calls: VendorCalls, request: GenerationRequest) -> Flow[Estimate | None]:
    """What a request will cost, by the vendor's price list; None where that cannot tell.

    :raises KlingError: the vendor did not tell.
    """
    return estimate(request, (yield from pricing_of(calls, request.model)))


def cost_of(
    calls: VendorCalls, generation: Generation, *, since: float, request: GenerationRequest | None = None
) -> Flow[Cost]:
    """What a completed generation cost: by its own usage, else the ledger, else the price list.

    Never fails for want of an answer, as the generation is paid for whatever comes of it.

    :param since: epoch seconds; it was charged after then.
    :param request: what was asked for, without which there is no estimate.
    """
    found = yield from charges_of(calls, [generation.id], since=since)
    charge = found.get(generation.id)
    usd = None if charge is None else charge.usd
    if usd is None and request is not None:
        known = yield from _unless_trouble(estimate_of(calls, request))
        return Cost.best(generation, charge, known.usd if known else None)
    return Cost.best(generation, charge, None)


def charges_of(
    calls: VendorCalls, generation_ids: Iterable[str], *, since: float
) -> Flow[Mapping[str, Charge]]:
    """What the account was charged for generations, as far as the newest pages of its ledger tell.

    Never fails for want of an answer.

    :param since: epoch seconds; they were charged after then.
    """
    found: dict[str, Charge] = {}
    yield from _unless_trouble(_find_charges(calls, set(generation_ids), since, found))
    return found


def _unless_trouble(asking: Flow[Any]) -> Flow[Any]:
    try:
        return (yield from asking)
    except KlingError as error:
        log.warning("Could not look up part of the generation's cost: %s", error.what)
        return None


def _find_charges(calls: VendorCalls, wanted: set[str], since: float, found: dict[str, Charge]) -> Flow[None]:
    cursor = None
    for _ in range(MOST_LEDGER_PAGES):
        asking = calls.endpoints.ledger(start=since, cursor=cursor)
        charges, cursor = yield from calls.read(asking, calls.endpoints.read_ledger, retries=COST_RETRIES)
        for charge in charges:
            if charge.reference_id in wanted:
                found.setdefault(charge.reference_id, charge)
        if cursor is None or len(found) == len(wanted):
            return

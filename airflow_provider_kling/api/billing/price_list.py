"""What a request will cost, by the vendor's own live price list.

The vendor documents two kinds of prices (August 2026): ``fixed``, a list of units that are all
charged, and ``variants``, of which the one applies whose ``when`` fits the request. A price is USD
for ``per`` units; the unit ``second`` counts the video's seconds. What a unit's ``measure`` means
is documented nowhere: it must be a word that is known, and a second in either place counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from airflow_provider_kling.api.catalog.models import find_model
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.transport.response_parsing import mapping, number, text

_SECOND: Final = "second"
_ONE_A_GENERATION: Final = frozenset({"video", "generation", "request", "item", "unit"})
_MODELS_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of a unit.

    :param unit: lower case, singular; ``second`` or ``video``, for example.
    :param usd: for ``per`` units.
    :param when: parameter -> value that a request must have for it.
    """

    unit: str
    usd: float
    per: float = 1.0
    when: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pricing:
    """What a model costs.

    :param units: all of them are charged (kind ``fixed``).
    :param variants: one of them is charged (kind ``variants``).
    """

    units: tuple[Rate, ...] = ()
    variants: tuple[Rate, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request will cost, when it completes.

    :param usd: in USD.
    :param how: how that came about, for a message: ``5 s at 0.058 USD a second``.
    """

    usd: float
    how: str


@dataclass(slots=True)
class PriceList:
    """The prices that this process knows, with the ETags to ask whether they still hold."""

    _known: OrderedDict[tuple[str, str], tuple[str, Pricing | None]] = field(default_factory=OrderedDict)

    def etag(self, base_url: str, model: str) -> str | None:
        """The ETag of what is known of a model at a vendor's address; None where nothing is."""
        known = self._known.get((base_url, model))
        return known[0] if known else None

    def known(self, base_url: str, model: str) -> Pricing | None:
        """What is known of a model's price."""
        return self._known[base_url, model][1]

    def learn(self, base_url: str, model: str, etag: str | None, pricing: Pricing | None) -> None:
        """Keep an answer; one without an ETag cannot be asked about, and is not kept."""
        self._known.pop((base_url, model), None)
        if etag:
            self._known[base_url, model] = etag, pricing
        while len(self._known) > _MODELS_KEPT:
            self._known.popitem(last=False)


PRICES: Final = PriceList()
"""This process's."""


def read_pricing(value: Any) -> Pricing | None:
    """Read a ``pricing`` object; None where there is none, or none that this version understands.

    Half an understanding would be a wrong price: one unit or variant that cannot be read makes the
    whole price unknown.
    """
    pricing = mapping(value)
    if pricing.get("kind") == "fixed":
        units = _objects(pricing.get("units"))
        rates = [_rate(each, "name") for each in units]
        known = tuple(rate for rate in rates if rate is not None)
        return Pricing(units=known) if known and len(known) == len(rates) else None
    if pricing.get("kind") == "variants":
        variants = [
            replace(rate, when=mapping(each.get("when")))
            for each in _objects(pricing.get("variants"))
            if (rate := _rate(each, "unit")) is not None
        ]
        whole = variants and len(variants) == len(_objects(pricing.get("variants")))
        return Pricing(variants=tuple(variants)) if whole else None
    return None


def estimate(request: GenerationRequest, pricing: Pricing | None) -> Estimate | None:
    """What a request will cost; None where the price list cannot tell.

    Parameters that are not given count with the model's documented defaults. Of variants the most
    specific one that fits applies, and of equally specific ones the most expensive.

    :param request: validated, so that its values have the documented types.
    """
    if pricing is None:
        return None
    given = with_defaults(request.model, request.parameters)
    charges = [_charge(rate, given) for rate in _charged_rates(pricing, given)]
    known = [charge for charge in charges if charge is not None]
    if not known or len(known) < len(charges):
        return None
    if pricing.variants:
        known = [max(known)]
    return Estimate(round(sum(usd for usd, _ in known), 6), " and ".join(how for _, how in known))


def with_defaults(model_id: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What the vendor makes of a request: parameters that are not given have the documented defaults."""
    model = find_model(model_id)
    return {**(model.defaults if model else {}), **parameters}


def _charged_rates(pricing: Pricing, given: Mapping[str, Any]) -> list[Rate]:
    fitting = [variant for variant in pricing.variants if _fits(variant.when, given)]
    most = max((len(variant.when) for variant in fitting), default=0)
    return [*pricing.units, *(variant for variant in fitting if len(variant.when) == most)]


def video_seconds(parameters: Mapping[str, Any]) -> float | None:
    """Seconds of video that a request asks for; None where that depends on other things.

    Shots of a ``multi_prompt`` have lengths of their own; the longer of the two counts.
    """
    shots = [number(mapping(shot).get("duration")) for shot in _objects(parameters.get("multi_prompt"))]
    told = [number(parameters.get("duration")), sum(filter(None, shots)) or None]
    return max((seconds for seconds in told if seconds is not None), default=None)


def _charge(rate: Rate, given: Mapping[str, Any]) -> tuple[float, str] | None:
    per = "" if rate.per == 1 else f"{rate.per:g} "
    if rate.unit == _SECOND:
        seconds = video_seconds(given)
        if seconds is None:
            return None
        plural = "s" if rate.per != 1 else ""
        return seconds * rate.usd / rate.per, f"{seconds:g} s at {rate.usd:g} USD a {per}{rate.unit}{plural}"
    if rate.unit in _ONE_A_GENERATION:
        return rate.usd / rate.per, f"{rate.usd:g} USD a {per}{rate.unit}"
    return None


def _rate(value: Mapping[str, Any], name: str) -> Rate | None:
    unit, usd, per = text(value.get(name)), number(value.get("price")), number(value.get("per", 1))
    if unit is None or usd is None or usd < 0 or per is None or per <= 0:
        return None
    unit, measure = _word(unit), value.get("measure")
    if measure:
        measure = _word(measure) if isinstance(measure, str) else ""
        if not {unit, measure} <= {_SECOND, *_ONE_A_GENERATION}:
            return None
        # A video measured in seconds, or a second of video: charged for each second.
        unit = _SECOND if measure == _SECOND else unit
    return Rate(unit, usd, per)


def _word(text: str) -> str:
    return text.strip().lower().removesuffix("s")


def _fits(when: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return all(name in given and _same(value, given[name]) for name, value in when.items())


def _same(one: Any, other: Any) -> bool:
    """Equal, however it is written: the vendor's samples send numbers as text too."""
    if isinstance(one, list):  # any of these
        return any(_same(each, other) for each in one)
    if isinstance(one, bool) or isinstance(other, bool):
        return str(one).lower() == str(other).lower()
    if (a := number(one)) is not None and (b := number(other)) is not None:
        return a == b
    return str(one).lower() == str(other).lower()


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []

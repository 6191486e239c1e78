"""What holds for every model and for requests of any shape."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_kling.api.catalog.models import MODELS, Model
from airflow_provider_kling.api.catalog.parameter_sets import PICTURES_BY_SCENE
from airflow_provider_kling.api.catalog.parameter_types import (
    PENDING,
    Boolean,
    Choice,
    Integer,
    ListOf,
    Media,
    Number,
    ObjectOf,
    Parameter,
    Text,
)
from airflow_provider_kling.api.catalog.validation import MediaPlace, inspect, map_media

URL = "https://example.com/cat.png"


def values(kind: Parameter) -> st.SearchStrategy[Any]:
    """Values that the kind allows, also as templates render them."""
    match kind:
        case Text():
            longest = 20 if kind.max_length is None else min(20, kind.max_length)
            return st.text("abc äö?", min_size=1, max_size=longest).filter(str.strip)
        case Integer():
            if kind.choices:
                numbers = st.sampled_from(kind.choices)
            else:
                numbers = st.integers(
                    -(2**53) if kind.minimum is None else kind.minimum,
                    2**53 if kind.maximum is None else kind.maximum,
                )
            return numbers.flatmap(lambda n: st.sampled_from([n, str(n), float(n)]))
        case Number():
            return st.floats(kind.minimum, kind.maximum, allow_nan=False).flatmap(
                lambda n: st.sampled_from([n, str(n)])
            )
        case Boolean():
            return st.sampled_from([True, False, "true", "False"])
        case Choice():
            names = st.sampled_from(kind.names)
            return names.map(str.upper) | names if kind.any_case else names
        case Media():
            return st.sampled_from(["https://example.com/a", "data:image/png;base64,AAAA"])
        case ListOf():
            most = 3 if kind.max_items is None else min(kind.max_items, 4)
            return st.lists(values(kind.item), min_size=kind.min_items, max_size=most)
        case ObjectOf():
            return objects(kind.fields, kind.required)
        case _:
            raise AssertionError(kind)


def objects(fields: Any, required: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {name: values(kind) for name, kind in fields.items() if name in required},
        optional={name: values(kind) for name, kind in fields.items() if name not in required},
    )


@st.composite
def right_requests(draw: st.DrawFn, model: Model) -> dict[str, Any]:
    """Requests that the model takes, made so and not by asking the code under test."""
    request = draw(objects(model.parameters, model.required))
    if "multi_prompt" in model.parameters:
        one = draw(st.sampled_from(["prompt", "multi_prompt"]))
        request.pop("prompt", None)
        request.pop("multi_prompt", None)
        request[one] = draw(values(model.parameters[one]).filter(bool))
    if "generate_audio" in model.parameters and "tail_image_url" in request:
        request["generate_audio"] = draw(st.sampled_from([False, "false"]))
    for element in request.get("elements", [])[1:]:
        element.pop("video_url", None)
    if "effect_scene" in request:
        count = draw(st.sampled_from(PICTURES_BY_SCENE[request["effect_scene"]]))
        request["image_url"] = ["https://example.com/a"] * count
    return request


def keep(place: MediaPlace, value: str) -> str:
    return value


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["true", "5", "NaN", "hug", URL, "data:;base64,", PENDING, 10**400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
few = settings(  # examples for each of the models
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@every_model
@few
@given(data=st.data())
def test_right_requests_pass_and_reading_them_again_changes_nothing(
    model: Model, data: st.DataObject
) -> None:
    request = data.draw(right_requests(model))
    for as_sent in (False, True):
        verdict = inspect(model.id, request, as_sent=as_sent)
        assert verdict.problems == verdict.warnings == []
        assert verdict.parameters.keys() == request.keys()
        again = inspect(model.id, verdict.parameters, as_sent=as_sent)
        assert vars(again) == vars(verdict)
        assert repr(again.parameters) == repr(verdict.parameters)


@every_model
@few
@given(data=st.data())
def test_any_part_of_a_right_request_may_be_pending(model: Model, data: st.DataObject) -> None:
    request = data.draw(right_requests(model))
    name = data.draw(st.sampled_from(sorted(request)))
    if isinstance(request[name], list) and request[name] and data.draw(st.booleans()):
        request[name][0] = PENDING
    else:
        request[name] = PENDING
    assert inspect(model.id, request).problems == []


@pytest.mark.parametrize("model", [each for each in MODELS.values() if each.required], ids=attrgetter("id"))
@few
@given(data=st.data())
def test_a_request_without_something_required_is_refused(model: Model, data: st.DataObject) -> None:
    request = data.draw(right_requests(model))
    missing = data.draw(st.sampled_from(sorted(model.required)))
    request[missing] = None
    assert any(f"'{missing}'" in problem for problem in inspect(model.id, request).problems)


@every_model
@few
@given(data=st.data())
def test_json_of_any_shape_is_reported_and_never_raises(model: Model, data: st.DataObject) -> None:
    known = st.sampled_from([*model.parameters, "ratio", "model"])
    parameters = data.draw(st.dictionaries(known | st.text(max_size=9), json_values) | json_values)
    for as_sent in (False, True):
        verdict = inspect(model.id, parameters, as_sent=as_sent)
        assert all(isinstance(each, str) and each for each in verdict.problems)
        assert not any("\n" in each for each in verdict.problems)
        if isinstance(parameters, dict) and not verdict.problems:
            again = inspect(model.id, verdict.parameters, as_sent=as_sent)
            assert again.problems == again.warnings == []
            assert again.parameters == verdict.parameters
    if isinstance(parameters, dict):
        map_media(model.id, parameters, keep)
        map_media("new-model", parameters, keep)


@few
@given(model_id=json_values, parameters=json_values)
def test_any_model_id_and_parameters_are_reported_and_never_raise(model_id: Any, parameters: Any) -> None:
    verdict = inspect(model_id, parameters)
    if model_id is not PENDING and not isinstance(model_id, str):
        assert verdict.problems

"""Checks a request whole before it is sent, and finds the media in it.

Nothing here does I/O. The same check serves while a DAG is parsed (what is not known yet is
:data:`~.parameter_types.PENDING`), before a submit, and on the receiving side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_provider_kling.api.catalog.media_names import kind_by_name, map_unknown
from airflow_provider_kling.api.catalog.models import MODELS, Model, find_model
from airflow_provider_kling.api.catalog.parameter_types import (
    PENDING,
    Fetch,
    ListOf,
    MediaPlace,
    ObjectOf,
)
from airflow_provider_kling.api.catalog.problems import Problems, did_you_mean
from airflow_provider_kling.api.catalog.texts import judge_texts
from airflow_provider_kling.api.exceptions import InvalidRequestError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.redaction import shown

__all__ = [
    "Fetch",
    "MediaPlace",
    "inspect",
    "invalid_request",
    "map_media",
    "validate",
    "with_image",
]

_USUAL_IMAGE_PARAMETER: Final = "image_url"  # of unknown models

_SHOWN_PROBLEMS: Final = 20


def inspect(model_id: object, parameters: object, *, as_sent: bool = False) -> Problems:
    """Check parameters against what the model takes; reports everything at once, raises nothing.

    A model that is not in the catalogue is no problem, because the vendor has new ones faster than
    this package: its parameters pass unchecked, with one warning.

    :param model_id: the vendor's model id, or PENDING.
    :param parameters: as the vendor names them; any value, or a part of one, can be PENDING.
    :param as_sent: judge the body as the vendor receives it: media are http(s) URLs or data URIs,
        null only where it is documented. Otherwise media may also be paths and storage URIs.
    """
    model = find_model(model_id) if isinstance(model_id, str) else None
    findings = Problems(model.id if model else f"model {shown(model_id)}", as_sent)
    given: dict[str, Any] = {}
    if isinstance(parameters, Mapping):
        given = {name: value for name, value in parameters.items() if name != "model"}
        _check_repeated_model(model_id, parameters.get("model"), findings)
    elif parameters is not PENDING:
        findings.refuse("", parameters, "an object")
    if not as_sent:
        judge_texts(model_id, "model", findings, "model".__eq__)
        judge_texts(given, "", findings, _needs_a_value if model is None else None)
    if model is not None and isinstance(parameters, Mapping):
        given = _read(model, given, findings)
    else:
        _judge_model_id(model_id, model, findings)
        given = {name: value for name, value in given.items() if value is not None}
    findings.parameters = given
    return findings


def _needs_a_value(name: str) -> bool:
    """Whether an empty text may be paid for unnoticed: of a model whose requirements are not known."""
    return name == "prompt" or kind_by_name(name) is not None


def _check_repeated_model(model_id: object, repeated: object, findings: Problems) -> None:
    # a request's body holds the model beside the parameters, where a second one would replace it
    if repeated is not None and PENDING not in (model_id, repeated) and repeated != model_id:
        findings.add(f"The parameters name another model, {shown(repeated)}, than {shown(model_id)}")


def _judge_model_id(model_id: object, model: Model | None, findings: Problems) -> None:
    if isinstance(model_id, str) and model is None:
        findings.warn(
            f"{shown(model_id)} is not a model that this version knows, so its parameters are"
            f" passed on unchecked{did_you_mean(model_id, MODELS)}"
        )
        if model_id != model_id.strip():
            findings.add(f"The model {shown(model_id)} has spaces around it")
    elif not isinstance(model_id, str) and model_id is not PENDING:
        findings.add(f"The model must be the id of a model, not {shown(model_id)}")


def _read(model: Model, given: dict[str, Any], findings: Problems) -> dict[str, Any]:
    for name in sorted(model.ignored & given.keys()):
        if given.pop(name) is not None:
            findings.warn(
                f"'{name}' has no effect with {model.id} and is not sent: the video takes the"
                " aspect ratio of its reference picture"
            )
    sent: dict[str, Any] = ObjectOf(model.parameters, model.required).read(given, "", findings)
    for rule in model.rules:
        for sentence in rule(sent, model.defaults):
            findings.add(f"{model.id} {sentence}")
    return sent


def validate(request: GenerationRequest) -> tuple[GenerationRequest, Sequence[str]]:
    """The request as it should be sent, and the warnings about it.

    :raises InvalidRequestError: naming every problem at once.
    """
    found = inspect(request.model, request.parameters)
    if found.problems:
        raise invalid_request(found.problems)
    return GenerationRequest(request.model, found.parameters), found.warnings


def invalid_request(problems: Sequence[str]) -> InvalidRequestError:
    """The one error for all problems of a request.

    :param problems: sentences, at least one; its message shows the first of very many, its
        ``problems`` has them all.
    """
    if len(problems) == 1:
        return InvalidRequestError(problems[0], problems=problems)
    shown_problems = problems[:_SHOWN_PROBLEMS]
    numbered = [f"({number}) {each}" for number, each in enumerate(shown_problems, start=1)]
    if len(problems) > _SHOWN_PROBLEMS:
        numbered.append(f"And {len(problems) - _SHOWN_PROBLEMS} more.")
    return InvalidRequestError(
        f"The request has {len(problems)} problems: {' '.join(numbered)}", problems=problems
    )


def with_image(model_id: str, parameters: Mapping[str, Any], image: Any) -> dict[str, Any]:
    """The parameters with the reference picture under the name that the model has for it.

    :param image: a URL, path or storage URI; for models that take several pictures also a list of
        them, and one is made a list. None changes nothing.
    :raises InvalidRequestError: where the model takes no picture, or ``parameters`` hold it
        already; names every other problem of the request as well.
    """
    if image is None:
        return dict(parameters)
    model = find_model(model_id)
    name = model.image_parameter if model else _USUAL_IMAGE_PARAMETER
    if name is None:
        takers = "use an image-to-video model, or leave the image out"
        problem = f"{model_id} takes no reference picture: {takers}."
    elif parameters.get(name) is not None:
        problem = f"{shown(name)} of {model_id} is given twice: as image and in parameters."
    else:
        return {**parameters, name: _listed_if_wanted(model, name, image)}
    raise invalid_request((problem, *inspect(model_id, parameters).problems))


def _listed_if_wanted(model: Model | None, name: str, image: Any) -> Any:
    kind = model.parameters[name] if model else None
    if not isinstance(kind, ListOf) or kind.or_one or image is PENDING:
        return image
    return list(image) if isinstance(image, list | tuple) else [image]


def map_media(model_id: str, parameters: Mapping[str, Any], fetch: Fetch) -> dict[str, Any]:
    """The parameters with every media value replaced, nested ones too.

    For a model that is not in the catalogue, see :func:`.map_unknown`.

    :param fetch: gets the place and the value as text, returns what stands there instead. It is not
        asked about PENDING values, nor about what is no text and no path.
    """
    model = find_model(model_id)
    if model is None:
        return map_unknown(parameters, fetch)
    mapped = ObjectOf(model.parameters, model.required).map_media(parameters, "", fetch)
    return dict(mapped)

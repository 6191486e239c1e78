"""What is known of a task's arguments when the DAG is parsed, and its check before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow_provider_kling.compat import AirflowFailException, OperatorPartial
from airflow_provider_kling.operators.inline import reveal

if TYPE_CHECKING:
    from airflow_provider_kling.api.parameter import Pending

Choice = TypeVar("Choice", bound=str)
NAMED_PARAMETERS: Final = ("prompt", "duration", "negative_prompt", "cfg_scale")
"""The operator's arguments that are parameters of the vendor under the same name."""
_TEMPLATE_MARKS: Final = ("{{", "{%", "{#")


def request_parameters(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The vendor's parameters among an operator's arguments.

    :raises AirflowFailException: one is given twice, or ``parameters`` is no mapping.
    """
    further = arguments.get("parameters") or {}
    if not isinstance(further, Mapping):
        raise AirflowFailException(
            f"parameters must be a mapping of the vendor's names to values, not {type(further).__name__}."
        )
    named = {name: arguments[name] for name in NAMED_PARAMETERS if arguments.get(name) is not None}
    if twice := sorted(named.keys() & further.keys()):
        raise AirflowFailException(
            f"{', '.join(twice)}: given twice, as an argument of the operator and in parameters."
        )
    return {**named, **further}


def known(value: Any) -> Any | Pending:
    """The value, with PENDING for each part of it that is only known when the task runs.

    Plain values and paths are known; templates, XComs and everything else that Airflow resolves are not.
    """
    from airflow_provider_kling.api.parameter import PENDING

    value = reveal(value)
    if isinstance(value, str):
        return PENDING if any(mark in value for mark in _TEMPLATE_MARKS) else value
    if value is None or isinstance(value, bool | int | float | os.PathLike) or hasattr(value, "protocol"):
        return value
    if isinstance(value, dict):
        return {key: known(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [known(each) for each in value]
    return PENDING


def check_known(arguments: Mapping[str, Any], *, complete: bool) -> None:
    """Check what is known of a request; the rest is checked when the task runs.

    :param arguments: the operator's arguments, as given.
    :param complete: False where further arguments come from ``expand``.
    :raises AirflowFailException: naming every problem at once.
    """
    from airflow_provider_kling.api.catalog import find_model
    from airflow_provider_kling.api.errors import InvalidRequestError
    from airflow_provider_kling.api.generation import GenerationRequest
    from airflow_provider_kling.api.parameter import PENDING
    from airflow_provider_kling.api.validation import validate, with_image

    model_id = known(arguments.get("model"))
    further = known(arguments.get("parameters"))
    if model_id is PENDING or further is PENDING:
        return
    parameters = request_parameters(
        {**{n: known(arguments.get(n)) for n in NAMED_PARAMETERS}, "parameters": further}
    )
    try:
        parameters = with_image(model_id, parameters, known(arguments.get("image")))
        if not complete:
            model = find_model(model_id)
            missing = model.parameters.keys() - parameters.keys() if model else ()
            parameters.update(dict.fromkeys(missing, PENDING))
        validate(GenerationRequest(model_id, parameters))
    except InvalidRequestError as error:
        raise AirflowFailException(str(error)) from None


def check_path_if_known(path: Any) -> None:
    """Check a target path, where it is known when the DAG is parsed.

    :raises AirflowFailException: an unknown placeholder, or a path that climbs out of itself.
    """
    from airflow_provider_kling.api.errors import InvalidRequestError
    from airflow_provider_kling.api.paths import check_path

    if not isinstance(path, str) or known(path) != path:
        return
    try:
        check_path(path)
    except InvalidRequestError as error:
        raise AirflowFailException(str(error)) from None


def checked_choice(name: str, value: Choice, *allowed: Choice) -> Choice:
    """One of a few words.

    :raises AirflowFailException: it is another one.
    """
    if value not in allowed:
        raise AirflowFailException(
            f"{name}={value!r} is not allowed: give {' or '.join(map(repr, allowed))}."
        )
    return value


class CheckedPartial(OperatorPartial):
    """``.partial(...)`` of KlingGenerateOperator that checks also what ``expand`` is given as plain lists."""

    @classmethod
    def of(cls, plain: OperatorPartial) -> CheckedPartial:
        """The same as Airflow's own, checked from here on."""
        checked = cls(operator_class=plain.operator_class, kwargs=plain.kwargs, params=plain.params)
        plain._expand_called = True  # or Airflow warns that it was never mapped
        check_known(checked.given, complete=False)
        return checked

    @property
    def given(self) -> dict[str, Any]:
        """What ``partial`` was given, and the model it stands for."""
        return {"model": vars(self.operator_class)["default_model"], **self.kwargs}

    def expand(self, **mapped: Any) -> Any:
        """Map over lists; each value that is known by now is checked."""
        for name, values in mapped.items():
            for value in values if isinstance(values, list | tuple) else ():
                check_known({**self.given, name: value}, complete=False)
        return super().expand(**mapped)

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> Any:
        """Map over a list of arguments; each that is known by now is checked."""
        for each in kwargs if isinstance(kwargs, list | tuple) else ():
            if isinstance(each, Mapping):
                check_known({**self.given, **each}, complete=True)
        return super().expand_kwargs(kwargs, strict=strict)

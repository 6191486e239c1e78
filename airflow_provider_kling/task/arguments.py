"""What is known of a task's arguments when the DAG is parsed, and its check before anything runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from airflow_provider_kling.task.inline_media import hide, is_template, reveal, tell_masker
from airflow_provider_kling.task.mapped_paths import same_path_for_all
from airflow_provider_kling.version_compat import (
    AirflowFailException,
    OperatorPartial,
    validate_mapping_kwargs,
)

if TYPE_CHECKING:
    from airflow_provider_kling.api.catalog.parameter import Pending

REQUEST_ARGUMENTS: Final = (
    "model",
    "prompt",
    "image",
    "duration",
    "negative_prompt",
    "cfg_scale",
    "parameters",
)
"""The operators' arguments that make a request."""
NAMED_PARAMETERS: Final = ("prompt", "duration", "negative_prompt", "cfg_scale")
"""The operator's arguments that are parameters of the vendor under the same name."""
DEFAULT_TIMEOUT: Final = 2 * 3600.0
"""Seconds. Published generations took up to 431 s; 68 minutes have been met in the wild."""
_MAY_HOLD_MEDIA: Final = ("image", "parameters")


class ArgumentField:
    """An operator's argument that is changed whenever it is set, also when it is rendered.

    :param change: what is kept of the value that is given: :func:`as_text`, or :func:`.hide` for one that may
        hold pictures.
    """

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self._change = change

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else instance.__dict__.get(self._name)

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = self._change(value)


def as_text(value: Any) -> Any:
    """An argument that is text: a number that a template rendered to is the text it was.

    A DAG with ``render_template_as_native_obj=True`` makes a number of ``789392067490349060`` and ``2024``.
    What gives access in it is told to Airflow's masker, for the logs and the page of rendered templates.
    """
    tell_masker(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def request_parameters(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The vendor's parameters among an operator's arguments.

    :raises InvalidRequestError: one is given twice, or ``parameters`` is no mapping.
    """
    from airflow_provider_kling.api.catalog.validation import invalid_request

    further = arguments.get("parameters") or {}
    if not isinstance(further, Mapping):
        what = f"parameters must be a mapping of the vendor's names to values, not {type(further).__name__}"
        raise invalid_request([f"{what}; a template renders to text, so put templates into the values."])
    named = {name: arguments[name] for name in NAMED_PARAMETERS if arguments.get(name) is not None}
    if twice := sorted(named.keys() & further.keys()):
        names = ", ".join(twice)
        raise invalid_request([f"{names}: given twice, as an argument of the operator and in parameters."])
    return {**named, **further}


def known(value: Any) -> Any | Pending:
    """The value, with PENDING for each part of it that is only known when the task runs.

    Plain values and paths are known; templates, XComs and everything else that Airflow resolves are not.
    """
    from airflow_provider_kling.api.catalog.parameter import PENDING

    value = reveal(value)
    if isinstance(value, str):
        return PENDING if is_template(value) else value
    if value is None or isinstance(value, bool | int | float | os.PathLike) or hasattr(value, "protocol"):
        return value
    if isinstance(value, dict):
        return {key: known(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [known(each) for each in value]
    return PENDING


Check = Callable[[Any], Any]
"""Takes an argument as it was given and returns it as it is used; raises AirflowFailException."""


class CheckedWhenParsed:
    """An operator's base that says what is wrong with arguments while a DAG is parsed."""

    ui_color = "#e8e4ff"
    argument_checks: ClassVar[Mapping[str, Check]] = {}
    """What each argument must be that is no part of a request."""

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Map the task over lists, see ``expand``; what is known of its arguments is checked at once."""
        return CheckedPartial.of(super().partial(**kwargs))  # type: ignore[misc]  # of BaseOperator

    @classmethod
    def problems_when_parsed(cls, given: Mapping[str, Any], *, complete: bool) -> Sequence[str]:
        """Every problem that is known by now, a sentence each.

        :param given: arguments; a part of them may come later, from a template, an XCom or ``expand``.
        :param complete: False where further arguments come from ``expand``.
        """
        from airflow_provider_kling.api.catalog.parameter import PENDING

        problems = []
        for name, check in cls.argument_checks.items():
            value = given.get(name, PENDING)
            if value is not PENDING and not hasattr(value, "iter_references"):  # an XCom comes later
                try:
                    check(value)
                except AirflowFailException as error:
                    problems.append(str(error))
        return problems


def request_problems(arguments: Mapping[str, Any], *, complete: bool) -> Sequence[str]:
    """What is wrong with what is known of a request; the rest is checked when the task runs.

    :param arguments: the operator's arguments, as given.
    :param complete: False where further arguments come from ``expand``.
    """
    from airflow_provider_kling.api.catalog.models import find_model
    from airflow_provider_kling.api.catalog.parameter import PENDING
    from airflow_provider_kling.api.catalog.validation import inspect, with_image
    from airflow_provider_kling.api.exceptions import InvalidRequestError

    model_id = known(arguments.get("model"))
    further = known(arguments.get("parameters"))
    if model_id is PENDING or further is PENDING:
        return ()
    try:
        named = {name: known(arguments.get(name)) for name in NAMED_PARAMETERS}
        parameters = request_parameters({**named, "parameters": further})
        parameters = with_image(model_id, parameters, known(arguments.get("image")))
    except InvalidRequestError as error:
        return error.problems
    if not complete:
        model = find_model(model_id)
        missing = model.parameters.keys() - parameters.keys() if model else ()
        parameters.update(dict.fromkeys(missing, PENDING))
    return inspect(model_id, parameters).problems


def refuse(problems: Sequence[str]) -> None:
    """Fail the parsing of the DAG, naming every problem at once.

    :raises AirflowFailException: there are any.
    """
    from airflow_provider_kling.api.catalog.validation import invalid_request

    if problems:
        raise AirflowFailException(str(invalid_request(problems)))


def check_path_if_known(path: Any) -> None:
    """Check a target path, where it is known when the DAG is parsed.

    :raises AirflowFailException: see :func:`.check_path`.
    """
    from airflow_provider_kling.api.exceptions import InvalidRequestError
    from airflow_provider_kling.api.paths import check_path

    later = known(path) != path or (hasattr(path, "protocol") and is_template(str(path)))
    if path is None or later:  # of path objects, Airflow renders ObjectStoragePath alone
        return
    try:
        check_path(path)
    except InvalidRequestError as error:
        raise AirflowFailException(str(error)) from None


def unclear_target(arguments: Mapping[str, Any]) -> Sequence[str]:
    """What is wrong with a path for ``skip_unchanged``, which looks there before there is a generation.

    :param arguments: the operator's, as given.
    """
    if not arguments.get("skip_unchanged") or "path" not in arguments:
        return ()
    path = known(arguments["path"])
    if path is None:
        return ("skip_unchanged needs a path.",)
    if isinstance(path, str | os.PathLike) and is_named_later(str(path)):
        return (
            "skip_unchanged needs a path that is known before a generation: one without {generation_id} and "
            "{client_request_id}, that names a file.",
        )
    return ()


def is_named_later(path: str) -> bool:
    """Whether a path gets its name from the generation."""
    own = "{generation_id}" in path or "{client_request_id}" in path
    return own or (path.endswith("/") and "{key}" not in path)


def check_limit_if_known(usd: Any) -> None:
    """Check a limit on the cost, where it is known when the DAG is parsed.

    :raises AirflowFailException: it is no number of USD above 0.
    """
    from airflow_provider_kling.api.catalog.parameter import PENDING
    from airflow_provider_kling.api.settings import checked_limit

    if usd == "" or known(usd) is PENDING:
        return
    try:
        checked_limit(usd)
    except ValueError as error:
        raise AirflowFailException(f"max_cost_usd: {error}") from None


def checked_interval(poke_interval: float | timedelta | None) -> float | None:
    """A poll interval in seconds; None for the adaptive schedule.

    :raises AirflowFailException: it is not allowed.
    """
    from airflow_provider_kling.api.polling.schedule import Schedule

    if poke_interval is None:
        return None
    if isinstance(poke_interval, timedelta):
        poke_interval = poke_interval.total_seconds()
    try:
        return Schedule.fixed(poke_interval).interval
    except ValueError as error:
        raise AirflowFailException(f"poke_interval cannot be used: {error}") from None


def checked_seconds(name: str, value: float | timedelta, least: float = 1.0) -> float:
    """A time span in seconds.

    :raises AirflowFailException: it is not a number from ``least`` to a week.
    """
    from airflow_provider_kling.api.retry import checked_span

    try:
        return checked_span(name, value.total_seconds() if isinstance(value, timedelta) else value, least)
    except ValueError as error:
        raise AirflowFailException(f"{error}, or a timedelta.") from None


def checked_choice(name: str, *allowed: str) -> Check:
    """A check for one of a few words."""

    def check(value: Any) -> Any:
        if value not in allowed:
            from airflow_provider_kling.api.redaction import shown

            raise AirflowFailException(
                f"{name}={shown(value)} is not allowed: give {' or '.join(map(repr, allowed))}."
            )
        return value

    return check


def _checked_grace(value: Any) -> float | None:
    return None if value is None else checked_seconds("uncertain_grace", value, least=0.0)


SUBMIT_CHECKS: Final[Mapping[str, Check]] = {
    "poke_interval": checked_interval,
    "timeout": lambda value: checked_seconds("timeout", value),
    "on_changed_request": checked_choice("on_changed_request", "submit", "fail"),
    "on_uncertain_submit": checked_choice("on_uncertain_submit", "resubmit", "fail"),
    "on_clear": checked_choice("on_clear", "reuse", "regenerate"),
    "uncertain_grace": _checked_grace,
    "max_cost_usd": check_limit_if_known,
}
"""What the arguments must be that operators share which submit and wait."""


def _kept(name: str, value: Any) -> Any:
    """The argument as Airflow may store it with the DAG."""
    return hide(value) if name in _MAY_HOLD_MEDIA else value


def _kept_of_each(arguments: Any) -> Any:
    if not isinstance(arguments, Mapping):
        return arguments  # an XCom
    return {name: _kept(name, value) for name, value in arguments.items()}


class CheckedPartial(OperatorPartial):
    """``.partial(...)`` that checks also what ``expand`` is given as plain lists."""

    @classmethod
    def of(cls, plain: OperatorPartial) -> CheckedPartial:
        """The same as Airflow's own, checked from here on."""
        kwargs = _kept_of_each(plain.kwargs)
        checked = cls(operator_class=plain.operator_class, kwargs=kwargs, params=plain.params)
        plain._expand_called = True  # or Airflow warns that it was never mapped
        refuse(checked._operator.problems_when_parsed(checked.kwargs, complete=False))
        return checked

    @property
    def _operator(self) -> type[CheckedWhenParsed]:
        return cast("type[CheckedWhenParsed]", self.operator_class)

    def expand(self, **mapped: Any) -> Any:
        """Map over lists; each value that is known by now is checked."""
        from airflow_provider_kling.api.catalog.parameter import PENDING

        later = dict.fromkeys(mapped, PENDING)
        lists = {name: each if isinstance(each, list | tuple) else None for name, each in mapped.items()}
        self._check(
            {"": later}
            | {
                f"{name}[{index}]": {**later, name: value}
                for name, values in mapped.items()
                for index, value in enumerate(values if isinstance(values, list | tuple) else ())
            },
            same_path_for_all(self.kwargs.get("path"), lists),
        )
        return super().expand(**_kept_of_each(mapped))

    def expand_kwargs(self, kwargs: Any, *, strict: bool = True) -> Any:
        """Map over a list of arguments; each that is known by now is checked."""
        path = self.kwargs.get("path")
        if isinstance(kwargs, list | tuple):
            given = {
                f"expand_kwargs[{i}]": each for i, each in enumerate(kwargs) if isinstance(each, Mapping)
            }
            paths = [each.get("path", path) for each in given.values()]
            own_params = any("params" in each for each in given.values())
            self._check(given, same_path_for_all(None, {"path": paths}, params_differ=own_params))
            kwargs = [_kept_of_each(each) for each in kwargs]
        else:
            self._check({}, same_path_for_all(path, {"": None}))
        return super().expand_kwargs(kwargs, strict=strict)

    def _check(self, expanded: Mapping[str, Mapping[str, Any]], one_path: str) -> None:
        """Name every problem of every task instance, those that all of them share once."""
        self._expand_called = True  # also where it is refused, or Airflow warns that it never was
        shared: Sequence[str] = ()
        found = [one_path] if one_path else []
        for place, given in expanded.items():
            try:
                validate_mapping_kwargs(self.operator_class, "partial", dict(given))
                problems = self._operator.problems_when_parsed({**self.kwargs, **given}, complete=True)
            except TypeError as error:
                problems = (f"{str(error).partition('() ')[2]}.",)
            if not place:
                shared = problems
                found += problems
            else:
                found += [f"In {place}: {problem}" for problem in problems if problem not in shared]
        refuse(found)

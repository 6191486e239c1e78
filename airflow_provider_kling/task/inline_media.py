"""Pictures that a user gives inline, kept out of what Airflow shows and stores of a task's arguments."""

from __future__ import annotations

from typing import Any

from airflow_provider_kling.api.paths import TEMPLATE_MARKS


class InlineMedia:
    """A data URI that shows its type and length only.

    :param value: the data URI.
    """

    def __init__(self, value: str) -> None:
        self.value = value

    def __str__(self) -> str:
        return f"{self.value.partition(',')[0]},… ({len(self.value)} characters)"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InlineMedia) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


class InlineMediaField:
    """An operator's argument in which data URIs are hidden whenever it is set, rendered ones too."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else instance.__dict__.get(self._name)

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = hide(value)


def is_template(text: str) -> bool:
    """Whether Airflow may make another text of it when the task runs."""
    return any(mark in text for mark in TEMPLATE_MARKS)


def hide(value: Any) -> Any:
    """The value with each data URI in it hidden; one that is still a template is set again when rendered."""
    if isinstance(value, str) and value.lstrip()[:5].lower() == "data:" and not is_template(value):
        return InlineMedia(value.strip())
    return _each(value, hide)


def reveal(value: Any) -> Any:
    """The value with each hidden data URI as it was."""
    return value.value if isinstance(value, InlineMedia) else _each(value, reveal)


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: change(each) for key, each in value.items()}
    if isinstance(value, list):
        return [change(each) for each in value]
    return tuple(map(change, value)) if type(value) is tuple else value

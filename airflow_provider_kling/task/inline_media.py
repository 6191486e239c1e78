"""Pictures given inline and URLs that give access, kept out of what Airflow shows and stores of arguments."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_kling.api.paths import TEMPLATE_MARKS

_SHORTEST: Final = 12  # characters of a text that can hold a URL with a user, a signature, or content
_MOST_LOOKED_AT: Final = 20_000
_LONGEST_SHOWN: Final = 200


class InlineMedia:
    """A data URI that shows its type and length only, or a URL that shows no password and no signature.

    :param value: the data URI or URL.
    """

    def __init__(self, value: str) -> None:
        self.value = value

    def __str__(self) -> str:
        if _is_data(self.value):
            return f"{self.value.partition(',')[0][:100]},… ({len(self.value)} characters)"
        return _shown(self.value)[:_LONGEST_SHOWN]

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InlineMedia) and self.value == other.value

    def __hash__(self) -> int:
        return hash(self.value)


def is_template(text: str) -> bool:
    """Whether Airflow may make another text of it when the task runs."""
    return any(mark in text for mark in TEMPLATE_MARKS)


def hide(value: Any) -> Any:
    """The value with each data URI, each URL that gives access and all other content hidden.

    What is still a template is set again when it is rendered.
    """
    if isinstance(value, str) and not is_template(value):
        if _is_data(value):
            return InlineMedia(value.strip())
        if _shown(value) != value[:_MOST_LOOKED_AT]:
            tell_masker(value)
            return InlineMedia(value)
    return _each(value, hide)


def tell_masker(value: Any) -> None:
    """Have Airflow mask the passwords, tokens and signatures in an argument wherever they turn up."""
    if not isinstance(value, str) or _shown(value) == value[:_MOST_LOOKED_AT]:
        return
    from airflow.providers.common.compat.sdk import mask_secret

    from airflow_provider_kling.api.redaction import secrets_in

    for secret in secrets_in(value):
        mask_secret(secret)


def _is_data(value: str) -> bool:
    return value.lstrip()[:5].lower() == "data:"


def _shown(value: str) -> str:
    if len(value) < _SHORTEST:  # most arguments; a DAG file need not wait for more
        return value
    from airflow_provider_kling.api.redaction import hide_secrets

    return hide_secrets(value[:_MOST_LOOKED_AT])


def reveal(value: Any) -> Any:
    """The value with each hidden data URI as it was."""
    return value.value if isinstance(value, InlineMedia) else _each(value, reveal)


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: change(each) for key, each in value.items()}
    if isinstance(value, list):
        return [change(each) for each in value]
    return tuple(map(change, value)) if type(value) is tuple else value

"""Parameters of a query, read as strictly as the vendor reads them."""

from __future__ import annotations

import datetime as dt
import re

from airflow_provider_kling.emulator.vendor import bad_query


def read_moment(text: str, name: str) -> float:
    """An ISO 8601 time as epoch seconds; one without a zone is UTC."""
    try:
        moment = dt.datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        raise bad_query(f"{name} is not an ISO 8601 time: {text[:40]!r}") from None


def read_integer(text: str | None, name: str, default: int, least: int, most: int | None) -> int:
    """A bounded integer; ``default`` where the parameter is absent."""
    if text is None:
        return default
    value = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
    if value < least or (most is not None and value > most):
        most_text = "or more" if most is None else f"to {most}"
        raise bad_query(f"{name} is an integer, {least} {most_text}")
    return value


def read_word(text: str | None, name: str, allowed: frozenset[str]) -> str | None:
    """One of the allowed words; None where the parameter is absent."""
    if text is not None and text not in allowed:
        raise bad_query(f"{name} is one of {', '.join(sorted(allowed))}")
    return text

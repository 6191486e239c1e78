"""The one check that a value is a number within bounds."""

from __future__ import annotations

from typing import Any, TypeGuard


def within(value: Any, least: float, most: float) -> TypeGuard[float]:
    """Whether a value is a number from ``least`` to ``most``; a boolean and a NaN are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most

"""What counts as a number within bounds."""

from __future__ import annotations

import math

import pytest

from airflow_provider_kling.api.bounds import within


@pytest.mark.parametrize("value", [1, 1.0, 5, 10, 10.0])
def test_numbers_from_the_least_to_the_most_are_within(value: object) -> None:
    assert within(value, 1, 10)


@pytest.mark.parametrize("value", [0.999, 10.001, True, math.nan, math.inf, "5", None, [5]])
def test_anything_else_is_not(value: object) -> None:
    assert not within(value, 1, 10)

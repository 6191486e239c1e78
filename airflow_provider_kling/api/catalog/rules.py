"""Rules between parameters of one model.

A rule reads parameters that were parsed already and yields what cannot be right, in sentences
without the model's name. What is pending may still turn out right, so no rule ever objects to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_kling.api.catalog.parameter import PENDING

Rule = Callable[[Mapping[str, Any], Mapping[str, Any]], Iterator[str]]
"""Gets the parameters (without None values) and what the vendor assumes for those not given."""


def exactly_one(*names: str) -> Rule:
    """One of the parameters has to be given, and not more than one."""
    wanted = f"exactly one of {' and '.join(map(repr, names))}"

    def rule(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
        there = [name for name in names if name in given]
        known = [name for name in there if given[name] is not PENDING]
        if len(known) > 1:
            yield f"takes {wanted}, and {' and '.join(map(repr, known))} are given"
        elif not there:
            yield f"needs {wanted}, and none is given"
        elif there == known and _is_empty(given[there[0]]):
            yield f"needs {wanted}, and '{there[0]}' is empty"

    return rule


def only_with(name: str, other: str, value: bool) -> Rule:
    """A parameter may only be given while another one is true, or false."""

    def rule(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
        actual = given.get(other, defaults.get(other))
        if given.get(name, PENDING) is PENDING or actual is not (not value):
            return
        origin = "" if other in given else ", which is its default"
        yield f"takes '{name}' only with {other}={value}, not with {other}={actual}{origin}"

    return rule


def at_most_one_with(name: str, field: str) -> Rule:
    """Of the objects in a list, at most one may have the field."""

    def rule(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
        items = given.get(name)
        having = [
            f"'{name}[{i}]'"
            for i, item in enumerate(items if isinstance(items, list) else ())
            if isinstance(item, Mapping) and item.get(field, PENDING) is not PENDING
        ]
        if len(having) > 1:
            yield f"takes '{field}' in at most one of '{name}', not in {' and '.join(having)}"

    return rule


def pictures_by_scene(scene: str, pictures: str, counts: Mapping[str, tuple[int, ...]]) -> Rule:
    """An effect shows one person or two, and takes as many pictures.

    :param counts: the numbers of pictures that each scene takes.
    """

    def rule(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
        chosen, images = given.get(scene), given.get(pictures)
        allowed = counts.get(chosen) if isinstance(chosen, str) else None
        if allowed is None or not isinstance(images, str | list):
            return
        count = len(images) if isinstance(images, list) else 1
        if count not in allowed:
            plural = "" if allowed == (1,) else "s"
            yield (
                f"takes {' or '.join(map(str, allowed))} picture{plural} in '{pictures}'"
                f" for the {scene} '{chosen}', not {count}"
            )

    return rule


def _is_empty(value: object) -> bool:
    return not value.strip() if isinstance(value, str) else value == []

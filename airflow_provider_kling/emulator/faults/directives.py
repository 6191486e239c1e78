"""What a prompt can ask of the emulator: ``[emulator: ...]`` in its text.

=========================  ====================================================================
``moderation``             the generation ends in ``error`` when it leaves the queue
``fail``                   it ends in ``error`` when it should have completed
``stall``                  it never ends
``slow=SECONDS``           it is ``generating`` for so long
``expired-url``            each video URL is already expired when it is given out
a fault rule               for this generation alone, in the form of :mod:`.rules`, for example
                           ``[emulator: submit:429:retry_after=2]`` or
                           ``[emulator: poll:503:times=3]``
=========================  ====================================================================
"""

from __future__ import annotations

import contextlib
import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_kling.emulator.faults.rules import FaultRule

_DIRECTIVE = re.compile(r"\[emulator:\s*([^\]]*?)\s*\]")
MARK = b"[emulator:"
"""What a request's body contains when a prompt may hold a directive."""


class GenerationOutcome(enum.Enum):
    """How a generation ends."""

    COMPLETE = "complete"
    FAIL = "fail"
    MODERATION = "moderation"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Directives:
    """What a request's prompts ask of the emulator.

    :param outcome: how the generation ends.
    :param generating_seconds: how long it is ``generating``; None for the emulator's usual.
    :param expired_url: video URLs are expired when given out.
    :param faults: the text of fault rules.
    :param problems: directives that nobody understands.
    """

    outcome: GenerationOutcome = GenerationOutcome.COMPLETE
    generating_seconds: float | None = None
    expired_url: bool = False
    faults: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def read_directives(parameters: Mapping[str, Any]) -> Directives:
    """Find the directives in ``prompt`` and in the prompts of ``multi_prompt``."""
    outcome = GenerationOutcome.COMPLETE
    seconds: float | None = None
    expired = False
    faults: list[str] = []
    problems: list[str] = []
    for text in _DIRECTIVE.findall(prompt_text(parameters)):
        name, _, value = text.partition("=")
        if text in ("fail", "moderation", "stall"):
            outcome = GenerationOutcome(text)
        elif text == "expired-url":
            expired = True
        elif name == "slow" and (seconds := _seconds(value)) is not None:
            continue
        else:
            try:
                FaultRule.parse(text)
            except ValueError as error:
                problems.append(f"emulator directive {text!r} is not known: {error}")
            else:
                faults.append(text)
    return Directives(outcome, seconds, expired, tuple(faults), tuple(problems))


def submit_faults(body: bytes) -> list[FaultRule]:
    """The fault rules for the submit itself that a request's body asks for."""
    rules = []
    for text in _DIRECTIVE.findall(body.decode(errors="replace")):
        if text.startswith("submit:"):
            with contextlib.suppress(ValueError):  # read_directives refuses it, with its reason
                rules.append(FaultRule.parse(text))
    return rules


def prompt_text(parameters: Mapping[str, Any]) -> str:
    """All prompts of a request, as one text."""
    shots = parameters.get("multi_prompt")
    parts = [parameters.get("prompt")]
    if isinstance(shots, list):
        parts += [shot.get("prompt") if isinstance(shot, dict) else shot for shot in shots]
    return " ".join(part for part in parts if isinstance(part, str))


def caption(parameters: Mapping[str, Any]) -> str:
    """What is written under the video: the prompts without directives, or the effect."""
    text = " ".join(_DIRECTIVE.sub(" ", prompt_text(parameters)).split())
    return text or str(parameters.get("effect_scene") or "Kling emulator")


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value >= 0 and math.isfinite(value) else None

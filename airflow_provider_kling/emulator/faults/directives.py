"""Directives that a prompt can give to the emulator: ``[emulator: ...]`` in its text.

=========================  ====================================================================
``moderation``             the generation ends in ``error`` when it leaves the queue
``fail``                   it ends in ``error`` when it should have completed
``fail=detail``            the same, with an error of that shape; also ``moderation=detail``
``reason=TEXT``            what its error says
``stall``                  it never ends
``slow=SECONDS``           it is ``generating`` for so long
``expired-url``            each video URL has already expired when it is returned
``completed=WORD``         another word for one of its statuses
``log=twice``              how often the request log lists it: once, twice, failed-first, never
a fault rule               for this generation alone, in the form of :mod:`.rules`, for example
                           ``[emulator: submit:429:retry_after=2]`` or
                           ``[emulator: poll:503:times=3]``
=========================  ====================================================================
"""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kling.emulator.faults.rules import FaultRule
from airflow_provider_kling.emulator.options import STATUSES, ErrorShape, LogRows, read_option

_DIRECTIVE = re.compile(r"\[emulator:\s*([^\]]*?)\s*\]")
_ENDINGS = ("fail", "moderation")
_LONGEST_SECONDS = 1e9
MARK = b"[emulator:"
"""The text in a request's body that tells that a prompt may hold a directive."""


class GenerationOutcome(enum.Enum):
    """How a generation ends."""

    COMPLETE = "complete"
    FAIL = "fail"
    MODERATION = "moderation"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Directives:
    """The directives of a request's prompts.

    :param outcome: how the generation ends.
    :param generating_seconds: how long it is ``generating``; None for the emulator's usual.
    :param expired_url: video URLs have already expired when they are returned.
    :param faults: the text of fault rules.
    :param words: other words for its statuses.
    :param error_shape: how its error is written; None as the emulator's options say.
    :param reason: what its error says; None for the emulator's usual.
    :param log_rows: how often the request log lists it; None as the emulator's options say.
    :param problems: directives that do not exist or cannot be read.
    """

    outcome: GenerationOutcome = GenerationOutcome.COMPLETE
    generating_seconds: float | None = None
    expired_url: bool = False
    faults: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    error_shape: ErrorShape | None = None
    reason: str | None = None
    log_rows: LogRows | None = None
    problems: tuple[str, ...] = ()


def read_directives(parameters: Mapping[str, Any]) -> Directives:
    """Find the directives in ``prompt`` and in the prompts of ``multi_prompt``."""
    found: dict[str, Any] = {}
    words: dict[str, str] = {}
    faults: list[str] = []
    problems: list[str] = []
    for text in _DIRECTIVE.findall(prompt_text(parameters)):
        name, _, value = text.partition("=")
        try:
            if name in _ENDINGS:
                found["outcome"] = GenerationOutcome(name)
                if value:
                    found["error_shape"] = read_option(value, ErrorShape)
            elif name == "stall" and not value:
                found["outcome"] = GenerationOutcome.STALL
            elif name == "expired-url" and not value:
                found["expired_url"] = True
            elif name == "slow":
                found["generating_seconds"] = _seconds(value)
            elif name == "reason" and value:
                found["reason"] = value
            elif name == "log":
                found["log_rows"] = read_option(value, LogRows)
            elif name in STATUSES and value:
                words[name] = value
            else:
                FaultRule.parse(text)
                faults.append(text)
        except ValueError as error:
            problems.append(f"emulator directive {text!r} is not known: {error}")
    return Directives(**found, words=words, faults=tuple(faults), problems=tuple(problems))


def submit_faults(body: bytes) -> list[FaultRule]:
    """The fault rules for the submit itself, from the directives in a request's body."""
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


def _seconds(text: str) -> float:
    seconds: float = read_option(text, float)
    if not 0 <= seconds <= _LONGEST_SECONDS:
        raise ValueError(f"is 0 to {_LONGEST_SECONDS:.0f} seconds")
    return seconds

"""What is wrong with a request, collected and put in words that may go to a log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from airflow_provider_kling.api.redaction import shown

_LONGEST_NAME: Final = 60
"""Characters of a name that are compared with the known ones."""


class Problems:
    """What is found of one request: collected while it is read, and then what :func:`.inspect` answers.

    :param model: the model, as the messages call it.
    :param as_sent: judge the request as it travels (media are URLs or data URIs, null only where
        the vendor documents it) and not as a user writes it.
    """

    def __init__(self, model: str, as_sent: bool = False) -> None:
        self.model: Final = model
        self.as_sent: Final = as_sent
        self.problems: Final[list[str]] = []
        """What cannot be right, a sentence each; empty when the request may be sent."""
        self.warnings: Final[list[str]] = []
        """What is worth knowing and keeps nothing from being sent, a sentence each."""
        self.parameters: dict[str, Any] = {}
        """What should be sent: numbers and booleans read from text, parameters without effect and None values
        left out. Where there are problems, what they are about is as given."""

    def refuse(self, path: str, value: object, allowed: str, hint: str = "") -> None:
        """The value at ``path`` is not allowed.

        :param allowed: what is, in words that follow "must be".
        :param hint: what to do, in words that end the sentence.
        """
        what = self.subject(path) if path else f"The parameters of {self.model}"
        self.add(f"{what} must be {allowed}, not {shown(value)}{hint}")

    def subject(self, path: str) -> str:
        """The model, or the part of its parameters at ``path``, as the subject of a sentence."""
        return f"{shown(path)} of {self.model}" if path else self.model

    def add(self, sentence: str) -> None:
        """Add a problem in the words of the caller, once."""
        if (stopped := _stopped(sentence)) not in self.problems:
            self.problems.append(stopped)

    def warn(self, sentence: str) -> None:
        """Add something to know that does not keep the request from being sent."""
        self.warnings.append(_stopped(sentence))


def _stopped(sentence: str) -> str:
    return sentence if sentence.endswith((".", "?")) else f"{sentence}."


def listed(names: Iterable[object]) -> str:
    """``a, b or c``."""
    *head, tail = [str(name) for name in names]
    return f"{', '.join(head)} or {tail}" if head else tail


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` with the nearest known name, or nothing where none is near."""
    import difflib  # only wanted when something is wrong; no DAG file waits for it

    folded = {other.lower(): other for other in known}
    asked = name[:_LONGEST_NAME].lower()
    near = [other for other in folded if f"_{asked}_" in f"_{other}_"]  # one of its words
    near = near or difflib.get_close_matches(asked, folded, n=1)
    return f"; did you mean '{folded[near[0]]}'?" if near else ""

"""What every kind of parameter has in common, and the value that is not known yet."""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from airflow_provider_kling.api.catalog.problems import Problems

MediaKind = Literal["image", "mask", "video", "audio"]


class Pending(enum.Enum):
    """The type of :data:`PENDING`; an enum stays one object when it is copied or pickled."""

    PENDING = "PENDING"

    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = Pending.PENDING
"""A value that is not known yet: a template before rendering, the result of another task.

Stands for any value or a part of one. It counts as present, and is never the reason of a problem:
what it turns out to be is checked once it is known.
"""


class MediaPlace(NamedTuple):
    """Where in the parameters a picture, mask, video or sound stands.

    :param path: for example ``image_url`` or ``elements[0].frontal_image_url``.
    :param kind: ``image``, ``mask``, ``video`` or ``audio``.
    """

    path: str
    kind: MediaKind


Fetch = Callable[[MediaPlace, str], Any]
"""Gets a media value as the user gave it, returns what shall stand in its place."""


class Parameter(abc.ABC):
    """One parameter of a model; immutable by convention and by its ``Final`` attributes.

    Plain classes, because every parsed DAG file would pay for the making of eight dataclasses.

    :param default: what the vendor documents to assume where it is not given; None where it
        documents nothing. It is never sent in the user's name.
    :param nullable: the vendor documents that it takes ``null``.
    """

    __slots__ = ("default", "nullable")

    def __init__(self, *, default: Any = None, nullable: bool = False) -> None:
        self.default: Final = default
        self.nullable: Final = nullable

    @abc.abstractmethod
    def allowed(self, as_sent: bool = False) -> str:
        """What it may be, in words that follow "must be"."""

    def read(self, value: Any, path: str, findings: Problems) -> Any:
        """What to send for ``value``; what is wrong with it goes to ``findings``.

        :param path: where the value stands, for example ``elements[0].frontal_image_url``.
        """
        return PENDING if value is PENDING else self._read(value, path, findings)

    @abc.abstractmethod
    def _read(self, value: Any, path: str, findings: Problems) -> Any: ...

    def is_blank(self, value: object) -> bool:
        """True for a value that is as good as none where one is required."""
        return False

    def map_media(self, value: Any, path: str, fetch: Fetch) -> Any:
        """``value`` with its media replaced; what is not of the right shape stays."""
        return value

    def refuse(self, value: Any, path: str, findings: Problems, hint: str = "") -> Any:
        """Report that ``value`` is not allowed, and leave it as it is."""
        findings.refuse(path, value, self.allowed(findings.as_sent), hint)
        return value

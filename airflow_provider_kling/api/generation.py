"""Value objects: what is asked of the vendor, and what it answers about a generation."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


class GenerationStatus(enum.StrEnum):
    """Where a generation stands.

    The vendor documents ``queued``, ``generating``, ``completed`` and ``error``. Other names have
    been met on the same API and are read as their nearest documented one. A name nobody knows is
    ``unknown``, which counts as still working: only the deadline ends such a wait.
    """

    QUEUED = "queued"
    GENERATING = "generating"
    COMPLETED = "completed"
    ERROR = "error"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, raw: str) -> GenerationStatus:
        """Read the vendor's word, whatever its case."""
        return _STATUSES.get(raw.strip().lower(), cls.UNKNOWN)

    @property
    def is_final(self) -> bool:
        """True when the vendor will not change it any more."""
        return self in (GenerationStatus.COMPLETED, GenerationStatus.ERROR)


_STATUSES = {
    "queued": GenerationStatus.QUEUED,
    "waiting": GenerationStatus.QUEUED,
    "pending": GenerationStatus.QUEUED,
    "generating": GenerationStatus.GENERATING,
    "active": GenerationStatus.GENERATING,
    "processing": GenerationStatus.GENERATING,
    "in_progress": GenerationStatus.GENERATING,
    "completed": GenerationStatus.COMPLETED,
    "succeeded": GenerationStatus.COMPLETED,
    "error": GenerationStatus.ERROR,
    "failed": GenerationStatus.ERROR,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a generation ended in ``error``, in the vendor's words.

    :param name: the vendor's name of the error; empty where it gave none.
    :param message: the vendor's message, made one line.
    """

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Generation:
    """What the vendor says about one generation.

    :param id: the generation id; opaque.
    :param status: where it stands.
    :param raw_status: the vendor's own word for it.
    :param video_url: signed URL of the MP4, which expires; None until completed. Kept out of ``repr``.
    :param duration: length of the video in seconds, where the vendor says it.
    :param video_size: exact length of the video file in bytes, where the vendor says it.
    :param failure: why it failed; None unless the status is ``error``.
    :param credits_used: credits charged, where the vendor says it.
    :param model: the model, where it is known; the vendor's answers do not name it.
    """

    id: str
    status: GenerationStatus
    raw_status: str
    video_url: str | None = field(default=None, repr=False)
    duration: float | None = None
    video_size: int | None = None
    failure: Failure | None = None
    credits_used: float | None = None
    model: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The plain form that goes to XCom: ``id``, ``status`` and what else is known."""
        facts = {
            "id": self.id,
            "status": str(self.status),
            "video_url": self.video_url,
            "duration": self.duration,
            "credits_used": self.credits_used,
            "model": self.model,
        }
        return {key: value for key, value in facts.items() if value is not None}


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What to generate: a model and its parameters, as the vendor names them.

    :param model: the vendor's model id.
    :param parameters: everything else of the request's body, for example
        ``{"prompt": "...", "image_url": "https://...", "duration": 5}``.
    """

    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def body(self) -> dict[str, Any]:
        """The JSON body of the submit; a medium that is read from a file is a :class:`.DataUri` in it."""
        return {"model": self.model, **self.parameters}

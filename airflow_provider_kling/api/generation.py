"""Value objects: what is asked of the vendor, and what it answers about a generation."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final


class GenerationStatus(enum.StrEnum):
    """Where a generation stands.

    The vendor documents ``queued``, ``generating``, ``completed`` and ``error``. Other words have been met
    on the same API and on Kling's own, and are read as the nearest documented one; so is a word that holds
    one of them, such as ``task_failed``. An unlisted word is ``unknown``, and counts as still
    working: to wait until the deadline costs time alone, while to take a working generation for failed
    would pay for a second one. A video's URL beside an unknown word says that it is completed.
    """

    QUEUED = "queued"
    GENERATING = "generating"
    COMPLETED = "completed"
    ERROR = "error"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, raw: str) -> GenerationStatus:
        """Read the vendor's word, whatever its case."""
        if (known := _STATUSES.get(raw)) is not None:
            return known
        words = _WORD.findall(_CAMEL_CASE.sub(" ", raw[:_LONGEST_STATUS]).lower())
        exact = _STATUSES.get("".join(words))
        if exact is not None or not words:
            return exact or cls.UNKNOWN
        # the last word says it, as in "task_failed" or, before its reason, "rejected by moderation"; not so
        # in "retrying after error" or "not completed"
        reason = next((place for place, word in enumerate(words) if word in _REASON_FOLLOWS), len(words))
        told = words[:reason]
        said = {_STATUSES[word] for word in told if word in _STATUSES}
        ends = bool(told) and told[-1] in _STATUSES and len(said) == 1 and _TURNS.isdisjoint(words)
        return said.pop() if ends else cls.UNKNOWN

    @property
    def is_final(self) -> bool:
        """True when the vendor will not change it any more."""
        return self in (GenerationStatus.COMPLETED, GenerationStatus.ERROR)


_LONGEST_STATUS: Final = 100
_WORD = re.compile(r"[a-z]+")
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TURNS: Final = frozenset(
    (
        "not",
        "no",
        "non",
        "never",
        "partially",
        "partly",
        "almost",
        "retrying",
        "retry",
        "from",
        "after",
        "until",
    )
)
"""Words that turn the meaning of the one that follows."""
_REASON_FOLLOWS: Final = frozenset(("by", "due", "because", "with", "to", "permanently", "finally"))
"""Words after which a status that has been said is explained only."""


def _all(words: str, status: GenerationStatus) -> dict[str, GenerationStatus]:
    return dict.fromkeys(words.split(), status)


_STATUSES: Final[dict[str, GenerationStatus]] = {
    **_all("queued queueing queuing waiting pending submitted scheduled", GenerationStatus.QUEUED),
    **_all("accepted created", GenerationStatus.QUEUED),
    **_all("generating active processing inprogress progress running working", GenerationStatus.GENERATING),
    **_all("started starting rendering uploading", GenerationStatus.GENERATING),
    **_all(
        "completed complete succeeded succeed success successful finished done", GenerationStatus.COMPLETED
    ),
    **_all("error errored failed fail failure rejected refused denied blocked", GenerationStatus.ERROR),
    **_all("moderated flagged banned censored filtered nsfw declined disapproved", GenerationStatus.ERROR),
    **_all(
        "cancelled canceled aborted terminated stopped interrupted killed crashed", GenerationStatus.ERROR
    ),
    **_all("expired timeout timedout invalid faulted exception deleted lost", GenerationStatus.ERROR),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a generation ended in ``error``, in the vendor's words.

    :param name: the vendor's name of the error; empty where it gave none.
    :param message: the vendor's message, made one line.
    """

    name: str
    message: str


_HOPELESS = re.compile(
    r"moderat|nsfw|nudity|sexual|violen|violat|safety|sensitiv|prohibit|inappropriate|harmful|illegal"
    r"|copyright|celebrit|public figure|content.?polic|usage polic|guideline|risk.?control|not allowed"
    r"|forbidden|flagged|invalid|validation|bad.?request|unsupported|not support|unprocessable|parameter"
    r"|value.?error|missing|required|too (?:long|short|large|small|big)|must (?:be|have)|exceeds"
    r"|aspect.?ratio|resolution|corrupt|decode|could not (?:detect|find)|detection.?error"
    r"|no (?:face|person|human|subject|speech)|(?:face|person|speech) (?:was )?not (?:found|detected)"
    r"|unsafe|not safe|explicit|real person|trademark|blurry|\bblocked\b|can(?:not|'t) generate|input.?image"
    r"|(?:prompt|image) is empty|valid url|(?:cannot|unable to|could not) (?:identify|process) (?:the )?image"
    r"|\bbalance\b|\bcredits?\b|\bfunds?\b",
    re.IGNORECASE,
)
_PASSING = re.compile(
    r"time.?out|timed out|temporar|internal|unavailable|overload|\bbusy\b|capacity|again later|upstream"
    r"|rate.?limit|too many requests|concurren|network|connection|server error|unexpected|\bqueue"
    r"|gateway|\bworker\b|heartbeat|time limit|missing output|generated video|invalid.?response"
    r"|out of memory",
    re.IGNORECASE,
)


def is_hopeless(failure: Failure) -> bool:
    """Whether the same request would fail again: rejected by moderation, or for what it asks.

    The vendor documents no list of names, so both its name and its message are read. Words for trouble that
    passes win over words for a bad request: "the moderation service timed out" says nothing about the
    request. An unlisted reason counts as temporary too: a failed generation is not charged and the
    task's own retries bound how often it is submitted again, while giving up would lose the night's video.
    """
    said = f"{failure.name} {failure.message}"
    return bool(_HOPELESS.search(said)) and not _PASSING.search(said)


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
    :param described: model and parameters, each medium as its source and checksum: what a log, an XCom or a
        file may hold of the request. Like the next one it is empty where nobody prepared the request; see
        :meth:`.KlingHook.prepare`.
    :param fingerprint: tells it from other requests, and who pays; see :func:`.fingerprint`.
    """

    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    described: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    fingerprint: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    @property
    def request(self) -> GenerationRequest:
        """Itself, for code that expects of :meth:`.KlingHook.prepare` something that has the request."""
        return self

    def body(self) -> dict[str, Any]:
        """The JSON body of the submit; a medium that is read from a file is a :class:`.DataUri` in it."""
        return {"model": self.model, **self.parameters}

"""The emulator's options, the same for the command line and for tests."""

from __future__ import annotations

import contextlib
import enum
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from airflow_provider_kling.api.settings import is_loopback

DEFAULT_KEY = "kling-emulator-key"


class AnswerStyle(enum.StrEnum):
    """Which of the vendor's answer shapes is used for a generation."""

    DOCUMENTED = "documented"
    """What the vendor's schema lists: ``duration`` and ``credits_used`` where they are known."""
    PUBLISHED = "published"
    """What the vendor's published examples hold, which is less: no ``duration``, no ``meta``."""
    OLD = "old"
    """Variants that clients have met in practice: absent or null keys, ``tokens_used``, a string as the
    error, the duration at the top, and other words for the statuses."""


class IdStyle(enum.StrEnum):
    """What a generation id looks like."""

    PUBLISHED = "published"
    """The form in which the vendor publishes ids of the request's model: one of the next three."""
    NANO = "nano"
    """21 characters, ``-`` and ``_`` among them: ``vIvy_TKgZ0vwl7ZYG6Hy0``."""
    DIGITS = "digits"
    """18 digits: ``789392067490349060``."""
    UUID_MODEL = "uuid-model"
    """A UUID, a colon and a model with slashes: ``<uuid>:klingai/v2.5-turbo/pro/image-to-video``."""
    UUID = "uuid"
    """A UUID alone."""


class ErrorShape(enum.StrEnum):
    """How an error is written, in a generation's ``error`` and in the body of a refused request."""

    DOCUMENTED = "documented"
    """A generation: ``{"name", "message"}``. A refusal: ``{"message", "path", ...}``."""
    DETAIL = "detail"
    """``{"detail": [{"loc", "msg", "type", "input"}]}``: models that run elsewhere."""
    NESTED = "nested"
    """The documented form inside of ``{"error": {...}}``."""
    LIST = "list"
    """The entries of ``detail``, without an object around them."""
    TEXT = "text"
    """The reason alone."""
    ERROR_MSG = "error-msg"
    """``{"error_code", "error_msg"}``."""
    REASON = "reason"
    """``{"code", "reason"}``."""


class LogRows(enum.StrEnum):
    """How often the request log lists one accepted submit."""

    ONCE = "once"
    TWICE = "twice"
    """The same row again, as when an analytics pipeline delivers it a second time."""
    FAILED_FIRST = "failed-first"
    """A failed row of the same client request id, then the accepted one."""
    NEVER = "never"


class LogModels(enum.StrEnum):
    """Which name of the model a row of the request log carries."""

    SENT = "sent"
    """The one that the request named."""
    ALIASED = "aliased"
    """Another "source/alias" of the same model: a filter for the name that was sent misses it."""


STATUSES = ("queued", "generating", "completed", "error")
"""The vendor's documented statuses."""
_LONGEST = 3_000_000_000.0
"""Seconds; a longer time is taken for a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """How an emulator behaves.

    Each value may be text, as from a command line or an environment variable: ``"5"``, ``"true"``.

    :param host: address to listen on; anything but loopback needs ``allow_remote``.
    :param port: TCP port; 0 takes a free one.
    :param keys: API keys, each with an account of its own.
    :param balance: USD that each account starts with.
    :param queued_seconds: how long a generation is ``queued``.
    :param generating_seconds: how long it is ``generating`` after that.
    :param realistic: take the model's usual time instead, a tenth of it in the queue.
    :param spread: standard deviation of the logarithm of those times; 0 for none. The vendor's
        published durations have 0.5.
    :param url_lifetime: seconds until a signed video URL expires.
    :param submit_status: status of the answer to a submit: 201 or 200, the vendor uses both.
    :param answers: documented, published or old answer shapes.
    :param errors: how errors are written; None as the vendor publishes it for the model.
    :param statuses: other words for the documented statuses, as ``generating=in_progress``.
    :param ids: what generation ids look like.
    :param unknown_models: take requests for models that this package does not know, unchecked, as the
        vendor has new models before any package knows them.
    :param concurrency: how many generations an account may have under way; one more submit is a
        429. None for no limit.
    :param seed: makes ids and spread repeatable; None takes fresh randomness. A fault rule with a
        probability has a seed of its own.
    :param log_lag: seconds until a row of ``/v2/logs`` can be seen at all.
    :param log_in_flight_after: seconds after acceptance from which a generation in flight is
        listed; None lists it only when it is final.
    :param log_rows: how often the log lists an accepted submit.
    :param log_models: which name of the model the log's rows carry.
    :param charge_lag: seconds from ``completed`` until the charge is in the ledger.
    :param offline_pictures: draw a placeholder for a picture URL that cannot be fetched.
    :param picture_timeout: seconds for fetching one picture.
    :param video_bytes: pad videos to at least this many bytes (an MP4 ``free`` box), to test
        large downloads; None leaves them as rendered.
    :param faults: fault rules in the text form of the command line, in force from the start.
    :param frozen_clock: only ``advance`` moves the clock.
    :param journal_size: how many requests the journal keeps; the oldest are dropped first.
    :param tls_certificate: PEM file of a certificate; with it, the emulator speaks https.
    :param tls_key: PEM file of its key; None where the certificate's file holds it.
    :param allow_remote: listen on other addresses than loopback, and answer to any host name and page.
    :param advertise: ``host`` or ``host:port`` by which clients reach it, for example
        ``host.docker.internal``; None for the address it listens on.
    :param cdn_host: host name in video URLs; None for another name of the same machine:
        ``localhost`` for a client of ``127.0.0.1``, and the other way around.
    :param cdn_port: a port of its own for the videos, 0 for a free one; None for the same port.
    :param request_seconds: within which the head of a request, and then its body, must arrive.
    """

    host: str = "127.0.0.1"
    port: int = 0
    keys: tuple[str, ...] = (DEFAULT_KEY,)
    balance: float = 1000.0
    queued_seconds: float = 1.0
    generating_seconds: float = 5.0
    realistic: bool = False
    spread: float = 0.0
    url_lifetime: float = 3600.0
    submit_status: int = 201
    answers: AnswerStyle = AnswerStyle.DOCUMENTED
    errors: ErrorShape | None = None
    statuses: tuple[str, ...] = ()
    ids: IdStyle = IdStyle.PUBLISHED
    unknown_models: bool = False
    concurrency: int | None = None
    seed: int | None = None
    log_lag: float = 1.0
    log_in_flight_after: float | None = 2.0
    log_rows: LogRows = LogRows.ONCE
    log_models: LogModels = LogModels.SENT
    charge_lag: float = 0.0
    offline_pictures: bool = False
    picture_timeout: float = 10.0
    video_bytes: int | None = None
    faults: tuple[str, ...] = ()
    frozen_clock: bool = False
    journal_size: int = 100_000
    tls_certificate: str | None = None
    tls_key: str | None = None
    allow_remote: bool = False
    advertise: str | None = None
    cdn_host: str | None = None
    cdn_port: int | None = None
    request_seconds: float = 30.0

    def __post_init__(self) -> None:
        problems = []
        kinds = get_type_hints(type(self))
        for field in fields(self):
            try:
                object.__setattr__(
                    self, field.name, read_option(getattr(self, field.name), kinds[field.name])
                )
            except ValueError as error:
                problems.append(f"{field.name} {error}")
        if not problems:
            problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))

    def words(self) -> dict[str, str]:
        """The words for the documented statuses: ``{"generating": "in_progress"}``."""
        return dict(text.split("=", 1) for text in self.statuses)

    def _problems(self) -> Iterator[str]:
        for name in _SECONDS:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _LONGEST:
                yield f"{name} must not be negative, nor more than {_LONGEST:.0f}, got {value!r}"
        if not 0 <= self.spread <= 5:
            yield f"spread is 0 to 5, got {self.spread!r}"
        for name in ("concurrency", "video_bytes", "journal_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name} is at least 1, got {value!r}"
        if not self.keys or any(
            not key or not key.isascii() or not key.isprintable() or " " in key for key in self.keys
        ):
            yield "keys: at least one, each of ASCII characters without a space"
        if len(set(self.keys)) != len(self.keys):
            yield "keys: two accounts cannot share a key"
        for text in self.statuses:
            stage, equals, word = text.partition("=")
            if stage not in STATUSES or not equals or not word:
                yield f"statuses are STATUS=WORD with one of {', '.join(STATUSES)}, got {text!r}"
        if self.submit_status not in (200, 201):
            yield f"submit_status is 200 or 201, got {self.submit_status!r}"
        for name in ("port", "cdn_port"):
            if not 0 <= (getattr(self, name) or 0) <= 65535:
                yield f"{name} is 0 to 65535, got {getattr(self, name)!r}"
        for name in ("advertise", "cdn_host"):
            value = getattr(self, name)
            if value is not None and not _HOST.fullmatch(value):
                yield f"{name} is a host name or address, with a port or without, got {value!r}"
        if not self.allow_remote and not is_loopback(self.host):
            yield (
                f"host {self.host!r} is not a loopback address: the emulator is no server for a "
                "network, and anybody who reaches it controls it; allow_remote lets it be"
            )


_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_SECONDS = (
    "queued_seconds",
    "generating_seconds",
    "url_lifetime",
    "log_lag",
    "log_in_flight_after",
    "charge_lag",
    "picture_timeout",
    "request_seconds",
)


def read_option(value: Any, kind: Any) -> Any:
    """A value of the kind that an option has, read from text where it is text.

    :param kind: ``int``, ``float``, ``bool``, ``str``, an enum, ``tuple[str, ...]``, or one of them or None.
    :raises ValueError: with what is expected, to be read after the option's name.
    """
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return None
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is tuple:
        items = (value,) if isinstance(value, str) else value
        if not isinstance(items, tuple | list) or not all(isinstance(item, str) for item in items):
            raise ValueError(f"is a list of texts, got {value!r}")
        return tuple(items)
    if kind is bool:
        truth = {"true": True, "false": False}.get(str(value).lower())
        if truth is None:
            raise ValueError(f"is true or false, got {value!r}")
        return truth
    if kind is str:
        if not isinstance(value, str):
            raise ValueError(f"is text, got {value!r}")
        return value
    if issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"is one of {', '.join(kind)}, got {value!r}") from None
    return _number(value, kind)


def _number(value: Any, kind: type[int] | type[float]) -> int | float:
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = kind(value)
    if not math.isfinite(number) or (isinstance(value, float) and number != value) or abs(number) >= 1e30:
        noun = "an integer" if kind is int else "a finite number"
        raise ValueError(f"is {noun}, got {repr(value)[:40] if isinstance(value, str) else 'something else'}")
    return number

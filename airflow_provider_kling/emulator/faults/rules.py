"""Fault rules: what goes wrong, with which calls, how often."""

from __future__ import annotations

import enum
import random
import re
import threading
from dataclasses import dataclass, field, fields
from typing import Any

from airflow_provider_kling.emulator.journal import CallKind

ANY = "any"


class FaultKind(enum.StrEnum):
    """What can go wrong.

    The first group keeps a submit from being accepted, unless a rule says ``accepted=true``. The
    second spoils the answer to a request that was served. The third is about a video's bytes.
    """

    S400 = "400"
    S401 = "401"
    S403 = "403"
    S404 = "404"
    S429 = "429"
    S500 = "500"
    S502 = "502"
    S503 = "503"
    S504 = "504"
    HTML = "html"
    REDIRECT = "redirect"
    RESET_BEFORE = "reset-before"
    STALL_BEFORE = "stall-before"

    RESET_AFTER = "reset-after"
    STALL_AFTER = "stall-after"
    TRUNCATED_JSON = "truncated-json"
    EMPTY_BODY = "empty-body"
    WRONG_TYPES = "wrong-types"
    MISSING_ID = "missing-id"
    UNREADABLE_BODY = "unreadable-body"
    UNKNOWN_STATUS = "unknown-status"
    HUGE_BODY = "huge-body"
    SLOW_DRIP = "slow-drip"
    DROP_CLIENT_REQUEST_ID = "drop-client-request-id"

    EXPIRED = "expired"
    SHORT_BODY = "short-body"
    RESET_AT = "reset-at"
    WRONG_LENGTH = "wrong-length"
    CHANGED_ETAG = "changed-etag"
    NOT_A_VIDEO = "not-a-video"
    S416 = "416"
    SLOW = "slow"

    @property
    def refuses(self) -> bool:
        """Whether the request is not served at all."""
        return self in _REFUSES

    @property
    def on_cdn_only(self) -> bool:
        """Whether it is about the bytes of a video."""
        return self in _CDN


_REFUSES = frozenset(list(FaultKind)[: list(FaultKind).index(FaultKind.RESET_AFTER)])
_CDN = frozenset(list(FaultKind)[list(FaultKind).index(FaultKind.EXPIRED) :])
_NOT_ON_CDN = frozenset(
    {
        FaultKind.TRUNCATED_JSON,
        FaultKind.WRONG_TYPES,
        FaultKind.MISSING_ID,
        FaultKind.UNREADABLE_BODY,
        FaultKind.UNKNOWN_STATUS,
        FaultKind.DROP_CLIENT_REQUEST_ID,
    }
)
_CALLS = frozenset({ANY, *CallKind} - {CallKind.CONTROL, CallKind.UNKNOWN})


@dataclass(slots=True, kw_only=True)
class FaultRule:
    """One rule.

    :param call: the kind of call it is for, or ``any``.
    :param kind: what goes wrong.
    :param times: how often; None for always.
    :param after: how many matching requests pass first.
    :param probability: of each further matching request, 0 to 1.
    :param seed: makes the probability repeatable.
    :param generation_id: only requests about this generation.
    :param retry_after: of a 429 or 5xx: seconds, or ``date:SECONDS`` for an HTTP date so far
        ahead; None sends no header.
    :param message: the error's message; ``balance`` takes the one about an empty account.
    :param url: where ``redirect`` points; None is this server under another host name.
    :param status: of the redirect.
    :param seconds: how long ``slow-drip`` takes over an answer.
    :param at: byte of the answer at which ``reset-at`` breaks.
    :param size: bytes of ``huge-body``, or bytes a second of ``slow``.
    :param accepted: True serves a refused submit all the same: it makes a generation, and its
        answer is lost.
    """

    call: str
    kind: FaultKind
    times: int | None = 1
    after: int = 0
    probability: float = 1.0
    seed: int | None = None
    generation_id: str | None = None
    retry_after: str | None = None
    message: str | None = None
    url: str | None = None
    status: int = 307
    seconds: float = 30.0
    at: int = 1000
    size: int | None = None
    accepted: bool = False
    id: int = 0
    seen: int = 0
    hits: int = 0
    _random: random.Random = field(default_factory=random.Random, repr=False)

    def __post_init__(self) -> None:
        self.kind = FaultKind(self.kind)
        if self.call not in _CALLS:
            raise ValueError(f"call {self.call!r} is none of {', '.join(sorted(_CALLS))}")
        if self.kind.on_cdn_only and self.call != CallKind.CDN:
            raise ValueError(f"fault {self.kind} is for the call 'cdn', not {self.call!r}")
        if self.kind in _NOT_ON_CDN and self.call == CallKind.CDN:
            raise ValueError(f"fault {self.kind} is not for the call 'cdn'")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is 0 to 1, got {self.probability}")
        if (self.times is not None and self.times < 1) or self.after < 0 or self.at < 0:
            raise ValueError("times is at least 1, after and at at least 0")
        if self.retry_after is not None and not _RETRY_AFTER.fullmatch(self.retry_after):
            raise ValueError(f"retry_after is SECONDS or date:SECONDS, got {self.retry_after!r}")
        self._random.seed(self.seed)

    @classmethod
    def parse(cls, text: str) -> FaultRule:
        """Read the text form ``call:kind[=at]:option=value...``, for example ``poll:503:times=3``.

        ``times`` may be ``always``.

        :raises ValueError: saying what is wrong.
        """
        # A colon separates where an option's name follows, so that a URL can be a value.
        head, *options = re.split(r":(?=[a-z_]+=)", text.strip())
        call, colon, kind = head.partition(":")
        if not colon:
            raise ValueError(f"a fault rule is call:kind, as in 'poll:503', got {text!r}")
        kind, _, at = kind.partition("=")
        values = {name: value for name, _, value in (option.partition("=") for option in options)}
        if at:
            values["at"] = at
        return cls.build(call, kind, **values)

    @classmethod
    def build(cls, call: str, kind: str, **options: Any) -> FaultRule:
        """Make a rule from options that may be text.

        :raises ValueError: an unknown kind or option, or a value that does not fit.
        """
        try:
            known = FaultKind(str(kind))
        except ValueError:
            raise ValueError(f"kind {kind!r} is none of {', '.join(FaultKind)}") from None
        read: dict[str, Any] = {}
        for name, value in options.items():
            if name not in _OPTIONS:
                raise ValueError(f"option {name!r} is none of {', '.join(sorted(_OPTIONS))}")
            try:
                read[name] = _OPTIONS[name](value)
            except (KeyError, TypeError, ValueError):
                raise ValueError(f"option {name} cannot be {value!r}") from None
        return cls(call=str(call), kind=known, **read)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of the control plane."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("_")}

    def strikes(self) -> bool:
        """Count a matching request, and say whether this one goes wrong."""
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.hits >= self.times):
            return False
        if self.probability < 1 and self._random.random() >= self.probability:
            return False
        self.hits += 1
        return True


def _times(value: Any) -> int | None:
    return None if value in (None, "always", "null") else int(value)


def _truth(value: Any) -> bool:
    known = {"true": True, "false": False}
    return value if isinstance(value, bool) else known[str(value).lower()]


def _optional_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _optional_integer(value: Any) -> int | None:
    return None if value is None else int(value)


_RETRY_AFTER = re.compile(r"(date:)?\d+(\.\d+)?")
_OPTIONS: dict[str, Any] = {
    "times": _times,
    "after": int,
    "probability": float,
    "seed": _optional_integer,
    "generation_id": _optional_text,
    "retry_after": _optional_text,
    "message": _optional_text,
    "url": _optional_text,
    "status": int,
    "seconds": float,
    "at": int,
    "size": _optional_integer,
    "accepted": _truth,
}


class Faults:
    """The rules in force; the first that strikes wins. Callable from any thread."""

    def __init__(self) -> None:
        self._rules: list[FaultRule] = []
        self._number = 0
        self._lock = threading.Lock()

    def add(self, call: str, kind: str | int, **options: Any) -> FaultRule:
        """Put a rule in force; the options are those of :class:`FaultRule`."""
        return self.enforce(FaultRule.build(call, str(kind), **options))

    def enforce(self, rule: FaultRule) -> FaultRule:
        """Put a rule in force, and give it its number."""
        with self._lock:
            self._number += 1
            rule.id = self._number
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Drop all rules."""
        with self._lock:
            self._rules.clear()

    def rules(self) -> list[FaultRule]:
        """The rules in force, spent ones among them, in the order they were added."""
        with self._lock:
            return list(self._rules)

    def strike(self, call: CallKind, generation_id: str | None) -> FaultRule | None:
        """The rule that hits this request; None lets it pass."""
        if not self._rules:
            return None
        with self._lock:
            for rule in self._rules:
                if rule.call not in (ANY, call):
                    continue
                if rule.generation_id not in (None, generation_id):
                    continue
                if rule.strikes():
                    return rule
        return None

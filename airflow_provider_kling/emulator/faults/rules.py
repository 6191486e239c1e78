"""Fault rules: which fault, for which calls, how often."""

from __future__ import annotations

import enum
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from airflow_provider_kling.emulator.journal import CallKind
from airflow_provider_kling.emulator.options import ErrorShape, read_option

ANY = "any"


class FaultKind(enum.StrEnum):
    """The kinds of faults.

    With the first group a submit is not accepted, unless a rule says ``accepted=true``. The second
    group corrupts the answer to a request that was served. The third affects a video's bytes. The last
    kind picks one of the others at random.
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
    S520 = "520"
    S521 = "521"
    S522 = "522"
    S523 = "523"
    S524 = "524"
    S525 = "525"
    S526 = "526"
    HTML = "html"
    FIREWALL = "firewall"
    REDIRECT = "redirect"
    RESET_BEFORE = "reset-before"
    STALL_BEFORE = "stall-before"

    RESET_AFTER = "reset-after"
    STALL_AFTER = "stall-after"
    DELAY = "delay"
    TRUNCATED_JSON = "truncated-json"
    EMPTY_BODY = "empty-body"
    WRONG_TYPES = "wrong-types"
    MISSING_ID = "missing-id"
    NULL_KEYS = "null-keys"
    ABSENT_KEYS = "absent-keys"
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

    RANDOM = "random"

    @property
    def refuses(self) -> bool:
        """Whether the request is not served at all."""
        return self in _REFUSES

    @property
    def on_cdn_only(self) -> bool:
        """Whether it is about the bytes of a video."""
        return self in _CDN

    @property
    def from_cloudflare(self) -> bool:
        """Whether the vendor's gateway answers in its place."""
        return FaultKind.S520 <= self <= FaultKind.S526


_KINDS = list(FaultKind)
_REFUSES = frozenset(_KINDS[: _KINDS.index(FaultKind.RESET_AFTER)])
_CDN = frozenset(_KINDS[_KINDS.index(FaultKind.EXPIRED) : _KINDS.index(FaultKind.RANDOM)])
_NOT_ON_CDN = frozenset(
    {
        FaultKind.TRUNCATED_JSON,
        FaultKind.WRONG_TYPES,
        FaultKind.MISSING_ID,
        FaultKind.NULL_KEYS,
        FaultKind.ABSENT_KEYS,
        FaultKind.UNREADABLE_BODY,
        FaultKind.UNKNOWN_STATUS,
        FaultKind.DROP_CLIENT_REQUEST_ID,
    }
)
NEVER_REACHED = frozenset({FaultKind.S521, FaultKind.S523, FaultKind.S525, FaultKind.S526})
"""Cloudflare's statuses for a request that never reached the vendor."""
_RANDOM_KINDS = (
    FaultKind.S429,
    FaultKind.S500,
    FaultKind.S502,
    FaultKind.S503,
    FaultKind.S504,
    FaultKind.S520,
    FaultKind.S522,
    FaultKind.HTML,
    FaultKind.RESET_BEFORE,
    FaultKind.RESET_AFTER,
    FaultKind.DELAY,
)
_RANDOM_JSON_KINDS = (*_RANDOM_KINDS, FaultKind.TRUNCATED_JSON, FaultKind.EMPTY_BODY)
_RANDOM_CDN_KINDS = (*_RANDOM_KINDS, FaultKind.RESET_AT, FaultKind.SHORT_BODY, FaultKind.EXPIRED)
_CALLS = frozenset({ANY, *CallKind} - {CallKind.CONTROL, CallKind.UNKNOWN})
_LONGEST_SECONDS = 1e6
_MOST_BYTES = 1 << 32


@dataclass(slots=True, kw_only=True)
class FaultRule:
    """One rule.

    :param call: the kind of call it is for, or ``any``.
    :param kind: what goes wrong.
    :param times: how often; None for always, which is the default of a rule with ``lasts``.
    :param lasts: seconds of the emulator's clock after which the rule ends; None for never.
    :param after: how many matching requests pass first.
    :param probability: of each further matching request, 0 to 1.
    :param seed: makes the probability repeatable.
    :param generation_id: only requests about this generation.
    :param retry_after: of a refusal: seconds, or ``date:SECONDS`` for an HTTP date so far
        ahead; None sends no header.
    :param message: the error's message; ``free-tier`` takes the documented one of the hourly limit,
        ``balance``, ``concurrency``, ``key-limit`` and ``scope`` the emulator's usual ones.
    :param shape: how the error's body is written; None as the emulator's options say.
    :param url: where ``redirect`` points; None is this server under another host name.
    :param status: of ``redirect`` (307), ``html`` (502) or ``firewall`` (403).
    :param word: the status that ``unknown-status`` tells.
    :param names: keys that ``null-keys`` and ``absent-keys`` are about, for example ``video.url``; all
        but ``id`` and ``status`` where none are named.
    :param seconds: how long ``slow-drip`` takes over an answer (30), or how late ``delay`` answers (5).
    :param at: byte of the answer at which ``reset-at`` breaks.
    :param size: bytes of ``huge-body``, or bytes a second of ``slow``.
    :param accepted: True accepts the submit in spite of the error answer: it makes a generation.
    """

    call: str
    kind: FaultKind
    times: int | None = 1
    lasts: float | None = None
    after: int = 0
    probability: float = 1.0
    seed: int | None = None
    generation_id: str | None = None
    retry_after: str | None = None
    message: str | None = None
    shape: ErrorShape | None = None
    url: str | None = None
    status: int | None = None
    word: str = "meditating"
    names: tuple[str, ...] = ()
    seconds: float | None = None
    at: int = 1000
    size: int | None = None
    accepted: bool = False
    id: int = 0
    seen: int = 0
    hits: int = 0
    until: float | None = None
    _random: random.Random = field(default_factory=random.Random, repr=False)

    def __post_init__(self) -> None:
        self.kind = FaultKind(self.kind)
        if self.call not in _CALLS:
            raise ValueError(f"call {self.call!r} is none of {', '.join(sorted(_CALLS))}")
        if self.kind.on_cdn_only and self.call != CallKind.CDN:
            raise ValueError(f"fault {self.kind} is for the call 'cdn', not {self.call!r}")
        if self.kind in _NOT_ON_CDN and self.call == CallKind.CDN:
            raise ValueError(f"fault {self.kind} is not for the call 'cdn'")
        if self.accepted and self.kind in NEVER_REACHED:
            raise ValueError(f"a {self.kind} says that the vendor was never reached: nothing is accepted")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability is 0 to 1, got {self.probability}")
        if (self.times is not None and self.times < 1) or self.after < 0 or self.at < 0:
            raise ValueError("times is at least 1, after and at at least 0")
        for name in ("seconds", "lasts"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= _LONGEST_SECONDS:
                raise ValueError(f"{name} is 0 to {_LONGEST_SECONDS:.0f}, got {value}")
        if self.size is not None and not 1 <= self.size <= _MOST_BYTES:
            raise ValueError(f"size is 1 to {_MOST_BYTES}, got {self.size}")
        if self.status is not None and self.status not in _STATUSES.get(self.kind, ()):
            raise ValueError(f"status {self.status} is not for {self.kind}")
        if self.retry_after is not None and not _RETRY_AFTER.fullmatch(self.retry_after):
            raise ValueError(f"retry_after is SECONDS or date:SECONDS, got {self.retry_after!r}")
        if self.url is not None and not _URL.fullmatch(self.url):
            raise ValueError("url is an absolute or relative URL in ASCII")
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
            if name == "times" and value in ("always", "null"):
                value = None
            elif name == "names" and isinstance(value, str):
                value = value.split(",")
            elif name == "retry_after" and isinstance(value, int | float):
                value = str(value)
            try:
                read[name] = read_option(value, _OPTIONS[name])
            except ValueError as error:
                raise ValueError(f"option {name} {error}") from None
        if read.get("lasts") is not None:
            read.setdefault("times", None)
        return cls(call=str(call), kind=known, **read)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of the control plane."""
        return {f.name: getattr(self, f.name) for f in fields(self) if not f.name.startswith("_")}

    def strikes(self) -> bool:
        """Count a matching request, and decide whether the fault is applied to it."""
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.hits >= self.times):
            return False
        if self.probability < 1 and self._random.random() >= self.probability:
            return False
        self.hits += 1
        return True

    def chosen(self, call: CallKind) -> FaultRule:
        """What ``random`` does to a request; the rule itself where it is another kind."""
        if self.kind is not FaultKind.RANDOM:
            return self
        on_cdn = call is CallKind.CDN
        kind = self._random.choice(_RANDOM_CDN_KINDS if on_cdn else _RANDOM_JSON_KINDS)
        # Short enough for a client to sit it out, and somewhere in a video of any size.
        return FaultRule(call=call, kind=kind, seconds=1.0, at=self._random.randrange(20_000))


_STATUSES = {
    FaultKind.REDIRECT: range(300, 400),
    FaultKind.HTML: range(200, 600),
    FaultKind.FIREWALL: range(200, 600),
}
_RETRY_AFTER = re.compile(r"(date:)?[0-9]{1,9}(\.[0-9]{1,9})?")
_URL = re.compile(r"[!-~]{1,2000}")
_OPTIONS: dict[str, Any] = {
    name: kind
    for name, kind in get_type_hints(FaultRule).items()
    if name not in ("call", "kind", "id", "seen", "hits", "until", "_random")
}


class Faults:
    """The active rules; the first that matches is applied. Callable from any thread.

    :param now: the clock for ``lasts``, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._rules: list[FaultRule] = []
        self._number = 0
        self._lock = threading.Lock()

    def add(self, call: str, kind: str | int, **options: Any) -> FaultRule:
        """Add a rule; the options are those of :class:`FaultRule`."""
        return self.enforce(FaultRule.build(call, str(kind), **options))

    def enforce(self, rule: FaultRule) -> FaultRule:
        """Add a rule, and give it its number."""
        with self._lock:
            self._number += 1
            rule.id = self._number
            rule.until = None if rule.lasts is None else self._now() + rule.lasts
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Drop all rules."""
        with self._lock:
            self._rules.clear()

    def rules(self) -> list[FaultRule]:
        """All rules in the order they were added, also those that are used up."""
        with self._lock:
            return list(self._rules)

    def strike(self, call: CallKind, generation_id: str | None) -> FaultRule | None:
        """The rule to apply to this request; None for no fault."""
        if not self._rules:
            return None
        with self._lock:
            now = self._now()
            for rule in self._rules:
                if rule.until is not None and now >= rule.until:
                    continue
                if rule.call not in (ANY, call):
                    continue
                if rule.generation_id not in (None, generation_id):
                    continue
                if rule.strikes():
                    return rule.chosen(call)
        return None

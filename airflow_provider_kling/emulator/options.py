"""What can be set on an emulator; the CLI and the tests set the same things."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass

DEFAULT_KEY = "kling-emulator-key"


class AnswerStyle(enum.StrEnum):
    """Which of the vendor's answer shapes a generation is told in."""

    DOCUMENTED = "documented"
    OLD = "old"
    """What code in the wild has met: absent or null keys, ``tokens_used``, a string as the error,
    the duration at the top, and other words for the statuses."""


class IdStyle(enum.StrEnum):
    """What a generation id looks like; the vendor publishes examples of all three."""

    NANO = "nano"
    UUID = "uuid"
    UUID_MODEL = "uuid-model"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """How an emulator behaves.

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
    :param answers: documented or old answer shapes.
    :param ids: what generation ids look like.
    :param seed: makes ids and spread repeatable; None takes fresh randomness. A fault rule with a
        probability has a seed of its own.
    :param log_lag: seconds until a row of ``/v2/logs`` can be seen at all.
    :param log_in_flight_after: seconds after acceptance from which a generation in flight is
        listed; None lists it only when it is final.
    :param charge_lag: seconds from ``completed`` until the charge is in the ledger.
    :param offline_pictures: draw a placeholder for a picture URL that cannot be fetched.
    :param picture_timeout: seconds for fetching one picture.
    :param video_bytes: pad videos to at least this many bytes (an MP4 ``free`` box), to test
        large downloads; None leaves them as rendered.
    :param faults: fault rules in the text form of the command line, in force from the start.
    :param frozen_clock: the clock moves by ``advance`` alone.
    :param journal_size: how many requests the journal remembers; the oldest go first.
    :param tls_certificate: PEM file of a certificate; with it, the emulator speaks https.
    :param tls_key: PEM file of its key; None where the certificate's file holds it.
    :param allow_remote: listen on other addresses than loopback.
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
    ids: IdStyle = IdStyle.NANO
    seed: int | None = None
    log_lag: float = 1.0
    log_in_flight_after: float | None = 2.0
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

    def __post_init__(self) -> None:
        problems = [
            f"{name} must not be negative, got {getattr(self, name)!r}"
            for name in ("queued_seconds", "generating_seconds", "spread", "log_lag", "charge_lag")
            if getattr(self, name) < 0
        ]
        if not self.keys or any(not key or not key.isascii() or " " in key for key in self.keys):
            problems.append("keys: at least one, each of ASCII characters without a space")
        if len(set(self.keys)) != len(self.keys):
            problems.append("keys: two accounts cannot share a key")
        if self.submit_status not in (200, 201):
            problems.append(f"submit_status is 200 or 201, got {self.submit_status!r}")
        if not 0 <= self.port <= 65535:
            problems.append(f"port is 0 to 65535, got {self.port!r}")
        if not self.allow_remote and not is_loopback(self.host):
            problems.append(
                f"host {self.host!r} is not a loopback address: the emulator is no server for a "
                "network, and anybody who reaches it controls it; allow_remote lets it be"
            )
        if problems:
            raise ValueError("; ".join(problems))


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

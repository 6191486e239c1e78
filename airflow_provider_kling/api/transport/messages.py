"""What travels: a request to make, a pause to keep, and what came back.

These are the effects and replies of the flows in :mod:`~airflow_provider_kling.api.calls`. They
hold no socket, so that a decision can be tested without one.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar

from airflow_provider_kling.api.transport.body import JsonBody

T = TypeVar("T")

LONGEST_REPLY: Final = 4 * 1024 * 1024
"""Bytes of an API answer that are read at most; the longest real ones (100 log rows) have some 50 kB."""
LONGEST_POLL: Final = 256 * 1024
"""Bytes of an answer about a generation, a hundred times the longest real one: the triggerer reads thousands
of them on one event loop, where 4 MiB of JSON take up to half a second each (measured)."""

MOST_RECEIVED: Final = 2 * LONGEST_REPLY + 1024 * 1024
"""Bytes of an API answer, headers and framing included."""
MOST_INFORMATIONAL: Final = 16
"""Answers with a status of 1xx that may come before the real one."""
SLOWEST_SENDING: Final = 64 * 1024
"""Bytes a second: a request whose body is sent more slowly is given up."""
CONTENT_LENGTH: Final = re.compile(r"[0-9]{1,18}")
"""What a ``Content-Length`` must be to be believed."""


class Call(enum.StrEnum):
    """The vendor's endpoints, by what they are for."""

    SUBMIT = "submit"
    POLL = "poll"
    BALANCE = "balance"
    LOGS = "logs"
    METRICS = "metrics"
    PRICES = "prices"
    LEDGER = "ledger"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request, ready to send.

    :param call: which endpoint.
    :param headers: all headers, the key among them. Kept out of ``repr``.
    :param body: JSON, encoded; in pieces where it holds pictures. Kept out of ``repr``.
    :param kept: what a driver made of it, to send it again at less cost: a poll is sent many times.
    """

    call: Call
    method: str
    url: str
    params: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | JsonBody | None = field(default=None, repr=False)
    kept: list[Any] = field(default_factory=list, repr=False, compare=False)

    @property
    def longest_reply(self) -> int:
        """Bytes of its answer that are read at most."""
        return LONGEST_POLL if self.call is Call.POLL else LONGEST_REPLY


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One answer, read whole.

    :param headers: with names in lower case.
    :param truncated: True when the body was longer than anybody should read, and was cut.
    :param encoding: what the body is encoded with although that was not requested; it was not read then.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    truncated: bool = False
    encoding: str = ""


def body_encoding(headers: Mapping[str, str]) -> str:
    """What a body is encoded with; empty for nothing, which is all that anybody asks for."""
    encoding = headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def has_readable_length(headers: Mapping[str, str]) -> bool:
    """Whether a ``Content-Length``, where there is one, is a length that an answer can have."""
    length = headers.get("content-length")
    return length is None or CONTENT_LENGTH.fullmatch(length.strip()) is not None


def sending_seconds(request: HttpRequest) -> float:
    """Seconds that the body of a request may take in addition to what a small one may."""
    return len(request.body) / SLOWEST_SENDING if request.body else 0.0


class FailureReason(enum.Enum):
    """Why no answer came: a sentence, whether the request can have arrived, whether it may pass.

    Trouble that will be the same until a person acts (a certificate that is not trusted) does not
    pass; a retry of the call would only delay the message.
    """

    DNS = ("the host name could not be resolved", False, True)
    REFUSED = ("the connection was refused", False, True)
    UNREACHABLE = ("no connection could be made", False, True)
    CONNECT_TIMEOUT = ("no connection was made within the connect time-out", False, True)
    PROXY = ("the proxy could not be used", False, True)
    CERTIFICATE = ("the certificate is not trusted", False, False)
    TLS = ("no TLS connection could be agreed on", False, False)
    PROXY_UNUSABLE = ("the proxy is of a kind that cannot be used", False, False)
    FORBIDDEN_ADDRESS = ("the address must not be connected to", False, False)
    UNSENDABLE = ("the request could not be put on the wire", False, False)
    READ_TIMEOUT = ("no answer came within the read time-out", True, True)
    SLOW = (
        "the answer was not complete within the read time-out",
        True,
        True,
    )
    BROKEN = ("the connection broke before the whole answer was read", True, True)

    def __init__(self, sentence: str, maybe_sent: bool, passing: bool) -> None:
        self.sentence = sentence
        self.maybe_sent = maybe_sent
        self.passing = passing


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """No answer.

    :param why: what is known of the cause.
    :param host: host (and port) that was asked.
    :param detail: what the cause says of itself, such as OpenSSL's reason to refuse a certificate.
    """

    why: FailureReason
    host: str
    detail: str = field(default="", compare=False)

    @property
    def reason(self) -> str:
        """One sentence without a full stop, fit for a log."""
        return f"{self.why.sentence}{self.detail and ': '}{self.detail} ({self.host})"


@dataclass(frozen=True, slots=True)
class Send:
    """Effect: make this request; the reply is an :class:`HttpResponse` or :class:`ConnectionLost`.

    :param at_most: seconds for the whole exchange, where it has less than the settings' time-outs give it.
    """

    request: HttpRequest
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Effect: wait this many seconds; the reply is None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SaveRecord:
    """Effect: store this where it survives a crash, before continuing; the reply is None.

    :param record: plain JSON.
    """

    record: Mapping[str, Any]


Effect: TypeAlias = Send | Sleep | SaveRecord
Reply: TypeAlias = HttpResponse | ConnectionLost | None
Flow: TypeAlias = Generator[Effect, Reply, T]

Memory: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Stores the record of a :class:`SaveRecord`."""


def forget(record: Mapping[str, Any]) -> None:
    """The memory of those who have none."""

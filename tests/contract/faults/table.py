"""The faults of the fault matrix: how each is done, and to which calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

CALLS: Final = ("submit", "poll", "logs", "download")
_NO_ROW_ID = "the rows of the logs have no such key"
_VIDEO = "a video has neither JSON nor a status"


@dataclass(frozen=True)
class Fault:
    """A row.

    :param rule: kind and options of the emulator's fault rule; None where HTTP does not begin.
    :param download: the same for a video's bytes, where it is another one.
    :param address: attribute of :class:`~tests.contract.faults.world.World` with the address that fails.
    :param slow: whether a time-out runs out.
    :param not_for: calls that it makes no sense for, and why.
    """

    name: str
    rule: str | None = None
    download: str | None = None
    address: str | None = None
    slow: bool = False
    not_for: Mapping[str, str] = field(default_factory=dict)


FAULTS: Final = (
    Fault("host name does not resolve", address="nameless"),
    Fault("connection refused", address="refusing"),
    Fault("connect time-out", address="deaf", slow=True),
    Fault("certificate not trusted", address="untrusted"),
    Fault("no TLS at the port", address="plain"),
    Fault("read time-out, not accepted", "stall-before", slow=True),
    Fault("read time-out, accepted", "stall-after", slow=True),
    Fault("connection reset, not accepted", "reset-before"),
    Fault("connection reset, accepted", "reset-after", download="reset-at=5000"),
    Fault("400", "400"),
    Fault("401", "401"),
    Fault("403", "403"),
    Fault("403, out of credits", "403:message=balance", not_for={"download": "the CDN sells nothing"}),
    Fault("404", "404"),
    Fault("429", "429"),
    Fault("429, `Retry-After: 20`", "429:retry_after=20"),
    Fault("500", "500"),
    Fault("502", "502"),
    Fault("503", "503"),
    Fault("504, not accepted", "504"),
    Fault(
        "504, accepted",
        "504:accepted=true",
        not_for=dict.fromkeys(CALLS[1:], "only a submit is accepted"),
    ),
    Fault("HTML of a gateway (502)", "html"),
    Fault("truncated JSON; a cut-off video", "truncated-json", download="short-body"),
    Fault("empty body", "empty-body", not_for={"download": "a video cut off at its first byte: see there"}),
    Fault("wrong types; HTML instead of a video", "wrong-types", download="not-a-video"),
    Fault("missing id", "missing-id", not_for={"logs": _NO_ROW_ID, "download": _VIDEO}),
    Fault(
        "unreadable body, id in `x-inference-id`",
        "unreadable-body",
        not_for={"download": _VIDEO},
    ),
    Fault("unknown status", "unknown-status", not_for={"logs": _NO_ROW_ID, "download": _VIDEO}),
    Fault("huge body; more than announced", "huge-body:size=6000000", download="wrong-length"),
    Fault("slow drip", "slow-drip:seconds=20", download="slow-drip:seconds=0.6", slow=True),
    Fault("redirect to another host", "redirect", download="redirect"),
)

"""The journal: an entry for each request, so that a test can assert what was really sent."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass
from typing import Any


class CallKind(enum.StrEnum):
    """The kind of call that a request is; fault rules select by it."""

    SUBMIT = "submit"
    POLL = "poll"
    LOGS = "logs"
    BILLING = "billing"
    MODELS = "models"
    METRICS = "metrics"
    CDN = "cdn"
    UNKNOWN = "unknown"
    CONTROL = "control"
    """The emulator's own ``/_emulator`` routes: not in the journal, and no fault touches them."""


# A signed URL works for whoever has it: its secret parts are nobody's test data.
_SIGNATURE = frozenset({"cacheKey", "ksSecret"})


@dataclass(slots=True)
class JournalEntry:
    """One request.

    :param number: counts from 1 in the order of arrival.
    :param time: epoch seconds of the emulator's clock.
    :param query: without the signature of a video URL.
    :param status: of the answer; None before it, and where none was sent.
    :param authorization: whether the request carried an ``Authorization`` header.
    :param client_request_id: what the request sent, valid or not.
    :param generation_id: the generation it made or asked about.
    :param connection: number of the TCP connection it came on, from 1.
    :param accepted: True for a submit that made a generation.
    :param fault: the kind of the fault that was applied; None for none.
    """

    number: int
    time: float
    method: str
    path: str
    call: CallKind
    query: tuple[tuple[str, str], ...]
    authorization: bool
    connection: int
    client_request_id: str | None = None
    generation_id: str | None = None
    status: int | None = None
    accepted: bool = False
    fault: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form of the control plane."""
        return {name: getattr(self, name) for name in self.__slots__}


class Journal:
    """The latest requests, and counts of all since the last reset.

    :param size: how many entries are kept.
    """

    def __init__(self, size: int) -> None:
        self._entries: deque[JournalEntry] = deque(maxlen=size)
        self.clear()

    def clear(self) -> None:
        """Clear the entries; connections keep their numbers, as they are still open."""
        self._entries.clear()
        self._number = 0
        self.calls = dict.fromkeys(CallKind, 0)

    def open(
        self,
        *,
        time: float,
        method: str,
        path: str,
        call: CallKind,
        query: list[tuple[str, str]],
        authorization: bool,
        connection: int,
        client_request_id: str | None,
    ) -> JournalEntry:
        """Add an entry when a request arrives; its answer is filled in later."""
        self._number += 1
        self.calls[call] += 1
        entry = JournalEntry(
            number=self._number,
            time=time,
            method=method,
            path=path,
            call=call,
            query=tuple(pair for pair in query if pair[0] not in _SIGNATURE),
            authorization=authorization,
            connection=connection,
            client_request_id=client_request_id,
        )
        self._entries.append(entry)
        return entry

    def entries(self) -> list[JournalEntry]:
        """Oldest first."""
        return list(self._entries)

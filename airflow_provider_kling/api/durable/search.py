"""Searching the vendor's request log for submits, by their client request ids; without I/O.

The logs have no filter for a client request id, lag behind, list a job in flight late, list only the
requests of the key that asks, and compare a model exactly with the name in the row, which need not be the
one that was sent. So a submit counts as not found only when a search that began after its grace read every
row since it was sent, of all models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.exceptions import KlingError, NotFoundError, Recovery, SubmitUncertainError
from airflow_provider_kling.api.redaction import logger, shown
from airflow_provider_kling.api.retry import CLOCK_SKEW, RetryPolicy
from airflow_provider_kling.api.transport.endpoints import LogRow
from airflow_provider_kling.api.transport.messages import Flow, Sleep

log = logger(__name__)

SEARCH_PAUSES: Final = (5.0, 10.0, 15.0, 30.0, 60.0)
"""Seconds between searches; the last one repeats until the grace is over."""
QUEUE_PAUSE: Final = 5.0
"""Seconds after which a queue sees who has come to it."""
RECENT: Final = 86_400.0
"""Seconds; searches that reach further back than this are made after the others, and by themselves."""
UNREADABLE_FOR: Final = 1800.0
"""Seconds beyond the grace for which logs that cannot be read are tried again."""
BRIEF_PAGES: Final = 10
"""Pages that a brief search reads at most."""
MOST_MODELS: Final = 20
"""Models that one query names at most; beyond them the logs of all models are read at once."""


@dataclass(frozen=True, slots=True)
class SubmitSearch:
    """What to search for: the submits of one work.

    :param names: client request ids that they may carry.
    :param model: the model asked for.
    :param since: epoch seconds by our clock; they were sent after then.
    :param until: epoch seconds; only a search that begins later can tell that none was accepted.
    """

    names: tuple[str, ...]
    model: str
    since: float
    until: float

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"names": list(self.names), "model": self.model, "since": self.since, "until": self.until}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> SubmitSearch:
        """From plain JSON.

        :raises ValueError: it is none of ours.
        """
        try:
            names = tuple(map(str, plain["names"]))
            search = cls(names, str(plain["model"]), float(plain["since"]), float(plain["until"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a search for a submit: {shown(repr(error))}") from None
        if not names or not math.isfinite(search.since) or not math.isfinite(search.until):
            raise ValueError("a search for a submit without names or times")
        return search


class _Matches:
    """The row that tells of each search, collected from rows that come newest first.

    The newest client request id counts. Of its rows, one that did not fail is preferred: the same submit may
    be listed as refused first and accepted later.
    """

    def __init__(self, searches: Sequence[SubmitSearch], passed_over: set[str]) -> None:
        self.rows: dict[SubmitSearch, LogRow] = {}
        self._searches = {name: each for each in searches for name in each.names}
        self._open = set(searches)
        self._passed_over = passed_over

    def take(self, row: LogRow) -> bool:
        """Read a row.

        :return: whether every search has its row.
        """
        if row.client_request_id is None or row.inference_id is None:
            return False
        search = self._searches.get(row.client_request_id)
        if search is None or row.inference_id in self._passed_over:
            return False
        known = self.rows.get(search)
        if known is None or _replaces(known, row):
            self.rows[search] = row
            if not row.failed:
                self._open.discard(search)
        elif _is_another(known, row):
            log.warning(
                "The vendor's request log lists submit %s twice: as generation %s and as generation %s. Both "
                "are billed when they complete; the task continues with the first.",
                row.client_request_id,
                known.inference_id,
                row.inference_id,
            )
        return not self._open


def _replaces(known: LogRow, row: LogRow) -> bool:
    return known.failed and not row.failed and row.client_request_id == known.client_request_id


def _is_another(known: LogRow, row: LogRow) -> bool:
    same = row.client_request_id == known.client_request_id
    return same and not row.failed and row.inference_id != known.inference_id


def look(
    calls: VendorCalls, searches: Sequence[SubmitSearch], passed_over: set[str], *, briefly: bool = False
) -> Flow[dict[SubmitSearch, LogRow | None]]:
    """Search the logs once, for any number of works.

    :param passed_over: ids in the logs that are no generations: refused requests are listed too. It is
        added to.
    :param briefly: whether to give up at the first trouble, and where there are many pages.
    :return: the row of each work that was found, and None for each that is certainly not there; a work
        that is missing may still turn up.
    :raises SubmitUncertainError: the logs cannot be read.
    """
    began = calls.now()
    answers: dict[SubmitSearch, LogRow | None] = {}
    ended = [each for each in searches if each.until <= began]
    models = tuple(sorted({each.model for each in searches}))
    rounds: list[tuple[tuple[str, ...], Sequence[SubmitSearch]]] = [(models, searches), ((), ended)]
    if len(models) > MOST_MODELS:
        rounds = [((), searches)]
    try:
        for filtered, wanted in rounds:
            left = [each for each in wanted if each not in answers]
            while left:
                rows = yield from _read(calls, left, filtered, passed_over, briefly)
                left = []
                for search, row in rows.items():
                    if row.failed and not (yield from _is_generation(calls, row)):
                        assert row.inference_id is not None
                        passed_over.add(row.inference_id)
                        left.append(search)
                    else:
                        answers[search] = row
    except KlingError as error:
        raise _unreadable(error, searches) from error
    for search in ended:
        answers.setdefault(search, None)
    return answers


def search_logs(calls: VendorCalls, search: SubmitSearch) -> Flow[LogRow | None]:
    """Search the logs for the submits of one work, until they are found or their grace is over.

    :return: the row that tells of it; None where none was accepted, as far as this key's logs tell.
    :raises SubmitUncertainError: the logs cannot be read.
    """
    passed_over: set[str] = set()
    pauses = search_pauses()
    while True:
        answers = yield from look(calls, [search], passed_over)
        if search in answers:
            return answers[search]
        left = max(0.0, search.until - calls.now())
        log.info(
            "Submit %s is not in the vendor's request log yet, which can lag; searching for another %.0f s.",
            search.names[0],
            left,
        )
        yield Sleep(min(next(pauses), left))


class SearchQueue:
    """One search for all who wait for one on the same account.

    :param found: called with each finished search and its row; None where none was accepted.
    :param failed: called with each search that cannot be answered, and why.
    """

    def __init__(
        self,
        found: Callable[[SubmitSearch, LogRow | None], None],
        failed: Callable[[SubmitSearch, SubmitUncertainError], None],
    ) -> None:
        self._found = found
        self._failed = failed
        self._due: dict[SubmitSearch, tuple[float, Iterator[float]]] = {}

    def __len__(self) -> int:
        return len(self._due)

    def add(self, search: SubmitSearch) -> None:
        """Wait for a search; it is made with the next one, within :data:`QUEUE_PAUSE` seconds."""
        self._due.setdefault(search, (-math.inf, search_pauses()))

    def discard(self, search: SubmitSearch) -> None:
        """Wait no longer."""
        self._due.pop(search, None)

    def run(self, calls: VendorCalls) -> Flow[None]:
        """Search until no wait is left.

        While the logs cannot be read everybody keeps waiting, :data:`UNREADABLE_FOR` seconds beyond the
        grace at most.

        :raises SubmitUncertainError: the key may not read the logs.
        """
        passed_over: set[str] = set()
        while self._due:
            began = calls.now()
            if began < min(due for due, _ in self._due.values()):
                yield Sleep(QUEUE_PAUSE)
                continue
            # One that reaches far back, as of a run that was cleared after weeks, may need more pages than
            # are read. The others do not wait for it.
            recent = [each for each in self._due if each.since >= began - RECENT]
            for searches in (recent, [each for each in self._due if each not in recent]):
                if searches:
                    yield from self._look(calls, searches, passed_over)
            for search, (_, pauses) in self._due.items():
                due = began + next(pauses)
                self._due[search] = min(due, max(search.until, began + QUEUE_PAUSE)), pauses

    def _look(
        self, calls: VendorCalls, searches: Sequence[SubmitSearch], passed_over: set[str]
    ) -> Flow[None]:
        """Search once, and tell who has an answer now."""
        began = calls.now()
        try:
            answers = yield from look(calls, searches, passed_over)
        except SubmitUncertainError as error:
            if error.recovery is Recovery.GIVE_UP:
                raise
            for search in searches:
                if search in self._due and began >= search.until + UNREADABLE_FOR:
                    self.discard(search)
                    self._failed(search, error)
        else:
            for search, row in answers.items():
                if search in self._due:
                    self.discard(search)
                    self._found(search, row)


def search_pauses() -> Iterator[float]:
    """Seconds from each search to the next, without end."""
    yield from SEARCH_PAUSES
    while True:
        yield SEARCH_PAUSES[-1]


def _read(
    calls: VendorCalls,
    searches: Sequence[SubmitSearch],
    models: Sequence[str],
    passed_over: set[str],
    briefly: bool,
) -> Flow[Mapping[SubmitSearch, LogRow]]:
    matches = _Matches(searches, passed_over)
    take: Callable[[LogRow], bool] = matches.take
    since = min(each.since for each in searches) - CLOCK_SKEW
    if briefly:
        yield from calls.find_row(
            take, models=models, since=since, most_pages=BRIEF_PAGES, retries=RetryPolicy(attempts=1)
        )
    else:
        yield from calls.find_row(take, models=models, since=since)
    return matches.rows


def _is_generation(calls: VendorCalls, row: LogRow) -> Flow[bool]:
    """Whether a failed row is a generation that failed, and not a request that was refused."""
    assert row.inference_id is not None
    try:
        yield from calls.get_generation(row.inference_id)
    except NotFoundError:
        return False
    return True


def _unreadable(error: KlingError, searches: Sequence[SubmitSearch]) -> SubmitUncertainError:
    names = [name for each in searches for name in each.names]
    return not_searched(error.what, error, client_request_id=min(names, default=None))


def not_searched(
    why: str, error: KlingError | None = None, *, client_request_id: str | None = None
) -> SubmitUncertainError:
    """The error for a submit of which the vendor's request log could not tell.

    :param why: what happened, a sentence.
    :param error: which ended the search; None for one that may pass.
    """
    hopeless = error is not None and error.recovery is Recovery.GIVE_UP
    advice = error.advice if error is not None else ""
    return SubmitUncertainError(
        f"The vendor's request log could not be searched for an earlier submit. {why}",
        advice=f"Nothing more was submitted; the next attempt searches again. {advice}".rstrip(),
        recovery=Recovery.GIVE_UP if hopeless else Recovery.RETRY_TASK,
        client_request_id=client_request_id,
    )

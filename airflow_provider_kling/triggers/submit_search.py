"""KlingSubmitSearchTrigger searches the vendor's logs for submits whose answers were lost."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import Context
from dataclasses import replace
from typing import Any, Final
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.durable.search import UNREADABLE_FOR, SearchQueue, SubmitSearch, not_searched
from airflow_provider_kling.api.durable.submit import PendingSearch
from airflow_provider_kling.api.exceptions import KlingError, Recovery, SubmitUncertainError
from airflow_provider_kling.api.polling.learned_durations import LearningSchedule
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.redaction import clean, key_mark, shown
from airflow_provider_kling.api.transport.endpoints import LogRow
from airflow_provider_kling.api.transport.messages import Flow
from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.triggers.kling import EARLIEST_EVENT, EVENT_SCHEMA, OVERDUE

SEARCHED: Final = "submit search"
"""What tells this trigger's event from another one's."""


class KlingSubmitSearchTrigger(BaseTrigger):
    """Waits until it is known whether the vendor accepted submits whose answers were lost.

    All who wait on the same connection share one search. Takes whatever it is given; what cannot be read
    fails the task when this runs.

    :param searches: each as :meth:`.PendingSearch.as_dict` wrote it, with its ``variant``.
    :param kling_conn_id: the connection that submitted.
    :param later: arguments of newer versions, which this one leaves alone.
    """

    def __init__(
        self,
        searches: Sequence[Mapping[str, Any]] = (),
        kling_conn_id: str = DEFAULT_CONNECTION_ID,
        **later: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's is untyped
        self.searches = list(searches) if isinstance(searches, list | tuple) else searches
        self.kling_conn_id = kling_conn_id
        self.later = later

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments; no key and nothing of the request among them."""
        return (
            "airflow_provider_kling.triggers.submit_search.KlingSubmitSearchTrigger",
            {"searches": self.searches, "kling_conn_id": self.kling_conn_id, **self.later},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Search until every submit is found, or is certainly not there; then yield the one event."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            answers = await find_submits(self.kling_conn_id, self.searches)
            event = {"schema": EVENT_SCHEMA, "kind": SEARCHED, "answers": answers}
        except KlingError as error:
            event = _failed(error)
        if (early := EARLIEST_EVENT - (loop.time() - begun)) > 0:
            await asyncio.sleep(early)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Say what may have been paid; Airflow 3.3 and newer."""
        self.log.warning(
            "The search for an uncertain submit ended: the task was stopped or cleared, or another triggerer "
            "took it over. The submit may have been accepted, and is then billed. The next attempt of the "
            "task searches for it before it submits anything."
        )


class _ConnectionSearch:
    """All who wait for a search of one connection's logs."""

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._waiting: defaultdict[SubmitSearch, list[asyncio.Future[tuple[LogRow | None, str]]]] = (
            defaultdict(list)
        )
        self._queue = SearchQueue(self._found, self._failed)
        self._api_key = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def in_use(self) -> bool:
        return bool(self._waiting)

    async def find(self, search: SubmitSearch) -> tuple[LogRow | None, str]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[LogRow | None, str]] = loop.create_future()
        self._waiting[search].append(future)
        self._queue.add(search)
        if self._task is None or self._task.done():
            # Nothing of the search belongs to the trigger that happens to come first.
            self._task = loop.create_task(self._serve(), context=Context())
        longest = max(0.0, search.until - time.time()) + UNREADABLE_FOR + OVERDUE
        try:
            async with asyncio.timeout(longest):
                return await future
        except TimeoutError:
            why = f"It gave no answer that tells for {longest / 60:.0f} minutes."
            raise not_searched(why, client_request_id=search.names[0]) from None
        finally:
            self._waiting[search].remove(future)
            if not self._waiting[search]:
                del self._waiting[search]
                self._queue.discard(search)

    async def _serve(self) -> None:
        """Search through the shared poller of the connection until no wait is left."""
        from airflow_provider_kling.triggers.shared_pollers import ConnectionChangedError, SharedPollers

        pollers = SharedPollers.of_this_loop()
        while self._queue:
            try:
                pending = await pollers.enter(
                    self._conn_id, self._begin, model=None, schedule=Schedule.adaptive(), at_most=math.inf
                )
                try:
                    await pending.future
                except KlingError as error:
                    if not await pollers.is_outdated(pending, error, at_most=0.0):
                        raise
                except ConnectionChangedError:
                    pass  # the next round has the new one
                finally:
                    await pollers.leave(pending)
            except Exception as error:
                self._fail_all(error)

    def _begin(self, calls: VendorCalls, _: LearningSchedule) -> Flow[None]:
        self._api_key = calls.endpoints.settings.api_key
        return self._queue.run(calls)

    def _found(self, search: SubmitSearch, row: LogRow | None) -> None:
        for future in self._waiting.get(search, ()):
            if not future.done():
                future.set_result((row, self._api_key))

    def _failed(self, search: SubmitSearch, error: BaseException) -> None:
        for future in self._waiting.get(search, ()):
            if not future.done():
                future.set_exception(error)

    def _fail_all(self, error: Exception) -> None:
        if not isinstance(error, SubmitUncertainError):
            known = error if isinstance(error, KlingError) else None
            error = not_searched(known.what if known else f"{clean(repr(error))}.", known)
        for search in list(self._waiting):
            self._queue.discard(search)
            self._failed(search, error)


_SEARCHES: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _ConnectionSearch]]] = (
    WeakKeyDictionary()
)
"""The search of each connection, by event loop."""


async def _find(conn_id: str, search: SubmitSearch) -> tuple[LogRow | None, str]:
    """Wait until a submit is found, or is certainly not there, with all who wait on the same connection.

    :return: the row that tells of it, and the API key that was searched with.
    :raises SubmitUncertainError: the logs could not be read.
    :raises KlingError: the connection cannot be used.
    """
    connections = _SEARCHES.setdefault(asyncio.get_running_loop(), {})
    shared = connections.get(conn_id)
    if shared is None:
        shared = connections[conn_id] = _ConnectionSearch(conn_id)
    try:
        return await shared.find(search)
    finally:
        if not shared.in_use:
            connections.pop(conn_id, None)


async def find_submits(conn_id: str, searches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Search for submits until each is found, or is certainly not there.

    :param searches: see :class:`KlingSubmitSearchTrigger`.
    :return: for each its answer, see :meth:`.PendingSearch.as_dict`, with its ``variant``.
    :raises KlingError: they cannot be searched for.
    """
    try:
        pending = {each.get("variant"): PendingSearch.from_dict(each) for each in searches}
    except (AttributeError, TypeError, ValueError, KlingError) as error:
        raise SubmitUncertainError(f"The search for a submit cannot be read: {error!r}.") from error
    told = await asyncio.gather(*(_find(conn_id, each.search) for each in pending.values()))
    return [
        {"variant": variant, **replace(each, row=row, key_mark=key_mark(api_key, each.salt)).as_dict()}
        for (variant, each), (row, api_key) in zip(pending.items(), told, strict=True)
    ]


def _failed(error: KlingError) -> dict[str, Any]:
    return {
        "schema": EVENT_SCHEMA,
        "kind": SEARCHED,
        "error": {"message": str(error), "recovery": error.recovery.name},
    }


def is_search_event(event: Any) -> bool:
    """Whether an event is this trigger's."""
    return isinstance(event, Mapping) and event.get("kind") == SEARCHED


def read_search_event(event: Mapping[str, Any]) -> dict[int | None, PendingSearch]:
    """The answers in an event, by variant.

    :raises SubmitUncertainError: there are none; nothing more was submitted.
    """
    failure = event.get("error")
    if isinstance(failure, Mapping):
        recovery = failure.get("recovery")
        known = isinstance(recovery, str) and recovery in Recovery.__members__
        raise SubmitUncertainError(
            str(failure.get("message")),
            is_whole=True,
            recovery=Recovery[recovery] if known and isinstance(recovery, str) else Recovery.RETRY_TASK,
        )
    if event.get("schema") != EVENT_SCHEMA:
        raise _unreadable_event(f"schema {shown(event.get('schema'))}")
    return read_answers(event.get("answers"))


def read_answers(answers: Any) -> dict[Any, PendingSearch]:
    """Read what :func:`find_submits` returned, by variant.

    :raises SubmitUncertainError: it cannot be read; nothing more was submitted.
    """
    try:
        if any("row" not in each for each in answers):
            raise ValueError("a search without its answer")
        return {each.get("variant"): PendingSearch.from_dict(each) for each in answers}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unreadable_event(str(error)) from None


def _unreadable_event(why: str) -> SubmitUncertainError:
    return SubmitUncertainError(
        f"The event of the search for a submit cannot be read ({why}): the triggerer may run another version "
        "of the provider.",
        advice="Install the same version on workers and triggerers. Nothing more was submitted; the next "
        "attempt searches again.",
    )

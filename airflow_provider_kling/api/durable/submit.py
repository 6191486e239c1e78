"""A generation is paid once: submit, or re-attach to what a previous attempt submitted.

The order is what makes it safe. The intent is remembered before the submit and the generation id
right after its answer, so that a crash between any two steps leaves either nothing that was sent,
or a trace from which the next attempt finds the generation in the vendor's request log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from airflow_provider_kling.api.billing.cost import Budget
from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.catalog.models import schedule_for
from airflow_provider_kling.api.durable.attempt import AttemptKind, TaskAttempt
from airflow_provider_kling.api.durable.decision import (
    Action,
    Decision,
    SubmitPolicy,
    Unknown,
    decide,
    usual_grace,
)
from airflow_provider_kling.api.durable.identity import Fingerprint, client_request_id
from airflow_provider_kling.api.durable.record import NOTHING, Record
from airflow_provider_kling.api.durable.search import SubmitSearch, look, search_logs
from airflow_provider_kling.api.exceptions import (
    KlingError,
    Money,
    NotFoundError,
    StoppedError,
    SubmitUncertainError,
)
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.redaction import key_mark
from airflow_provider_kling.api.transport.endpoints import LogRow
from airflow_provider_kling.api.transport.messages import Flow, SaveRecord


@dataclass(frozen=True, slots=True)
class SubmitInput:
    """One generation that a task wants.

    :param request: model and parameters, ready to send.
    :param fingerprint: of the request and the account.
    :param attempt: which attempt of which task instance asks.
    :param policy: what the user chose.
    :param budget: checked before each submit, and not where a previous one is used.
    :param described: model and parameters, each medium as its source and checksum; what a log, an XCom or
        a file may hold of the request.
    :param unready: why the request cannot be sent, where only a previous submit can be used.
    :param preflight: tries what will be needed after paying, once it is decided that this attempt pays and
        before it does; takes the client request id of the submit, and raises a :class:`.KlingError`.
    """

    request: GenerationRequest
    fingerprint: Fingerprint
    attempt: TaskAttempt
    policy: SubmitPolicy = field(default_factory=SubmitPolicy)
    budget: Budget = field(default_factory=Budget)
    described: Mapping[str, Any] = field(default_factory=dict)
    unready: KlingError | None = None
    preflight: Callable[[str], None] = field(default=lambda client_request_id: None)


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """The generation that a task continues with.

    :param record: what is remembered of it; always with an id.
    :param reattached: True where a previous submit is used, at no further cost.
    :param generation: how it stands, where that is known.
    """

    record: Record
    reattached: bool
    generation: Generation | None = None

    @property
    def generation_id(self) -> str:
        """The generation id."""
        assert self.record.generation_id is not None
        return self.record.generation_id


@dataclass(frozen=True, slots=True)
class PendingSearch:
    """A submit that only the vendor's request log can confirm, to be searched for elsewhere.

    It is plain JSON on its way, so that the attempt can continue in another process.

    :param search: what to search for.
    :param record: what is known of the submit; None where there is no record.
    :param kind: why the task runs; after a submit of this attempt it is a retry.
    :param complete: see :func:`.decide`.
    :param submits: how many submits this attempt has made.
    """

    search: SubmitSearch
    record: Record | None
    kind: AttemptKind
    complete: bool
    submits: int

    @property
    def salt(self) -> str:
        """What the :func:`.key_mark` of the key that searches belongs to."""
        return self.record.identity if self.record else ""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "search": self.search.as_dict(),
            "record": self.record.encode() if self.record else None,
            "kind": self.kind.name,
            "complete": self.complete,
            "submits": self.submits,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> PendingSearch:
        """From plain JSON.

        :raises ValueError: it is none of ours.
        :raises UnusableRecordError: its record cannot be read.
        """
        search = SubmitSearch.from_dict(plain.get("search") or {})
        kind, submits = str(plain.get("kind")), plain.get("submits")
        if kind not in AttemptKind.__members__ or not isinstance(submits, int):
            raise ValueError("not a pending search of a submit")
        record = Record.decode(plain.get("record"))
        return cls(search, record, AttemptKind[kind], plain.get("complete") is True, submits)


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """What a :class:`PendingSearch` came to.

    :param row: what the logs tell of the submit; None where it is not in them.
    :param key_mark: of the key that was searched with, salted with :attr:`PendingSearch.salt`.
    """

    pending: PendingSearch
    row: LogRow | None
    key_mark: str

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        row = self.row
        facts = None
        if row is not None:
            facts = [row.client_request_id, row.inference_id, row.failed, row.model, row.created]
        return {"pending": self.pending.as_dict(), "row": facts, "key_mark": self.key_mark}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> SearchAnswer:
        """From plain JSON.

        :raises ValueError: it is none of ours.
        """
        pending, facts = PendingSearch.from_dict(plain.get("pending") or {}), plain.get("row")
        if facts is not None and not (isinstance(facts, list) and len(facts) == _ROW_FACTS):
            raise ValueError("not the answer of a search for a submit")
        row = None if facts is None else LogRow(*facts)
        if row is not None and not (row.client_request_id and row.inference_id):
            raise ValueError("a row without ids")
        return cls(pending, row, str(plain.get("key_mark") or ""))


log = logging.getLogger(__name__)

_ROW_FACTS: Final = 5
MOST_SUBMITS: Final = 3
"""Submits of one attempt at most, if each one is uncertain and on_uncertain_submit is 'resubmit'."""


def _uncertain(search: SubmitSearch) -> SubmitUncertainError:
    return SubmitUncertainError(
        f"It is not certain whether the vendor accepted submit {search.names[0]} of {search.model}, the last "
        f"of {MOST_SUBMITS} that this attempt made; it is not in the vendor's request log.",
        advice="The next attempt searches for it again before it submits.",
        client_request_id=search.names[0],
    )


class DurableSubmit:
    """Obtains one generation for one work.

    :param calls: the conversations with the vendor.
    :param wanted: the generation that the task wants.
    :param on_decision: told each decision, the record that it was made by, and how its generation stands.
    """

    def __init__(
        self,
        calls: VendorCalls,
        wanted: SubmitInput,
        on_decision: Callable[[Decision, Record | None, Generation | Unknown], None] | None = None,
    ) -> None:
        self._calls = calls
        self._input = wanted
        self._on_decision = on_decision

    def submit_or_reattach(
        self, stored: Any = None, *, elsewhere: bool = False, answer: SearchAnswer | None = None
    ) -> Flow[SubmitResult | PendingSearch]:
        """Submit, or re-attach to what a previous attempt submitted.

        :param stored: what was remembered last, as plain JSON; None for nothing.
        :param elsewhere: whether the vendor's request log is searched elsewhere if that can take long; then
            this ends with a :class:`PendingSearch`, and is started again with its answer.
        :param answer: the result of the search; ``stored`` is not read then.
        :raises StoppedError: a person has to decide; nothing was submitted.
        :raises UnusableRecordError: the record cannot be read; nothing was submitted.
        :raises KlingError: the submit was refused, or the vendor could not be asked.
        """
        wanted = self._input
        record, kind, complete = self._known(None if answer else stored)
        began: float | None = None
        stands: Generation | Unknown = Unknown.NOT_ASKED
        looked_up = Unknown.NOT_ASKED
        submits = 0
        uncertain: SubmitUncertainError | None = None
        searched_with: str | None = None
        if answer is not None:
            pending = answer.pending
            record, kind, complete, submits = pending.record, pending.kind, pending.complete, pending.submits
            searched_with = answer.key_mark
            if submits:
                uncertain = _uncertain(pending.search)
            if answer.row is None:
                looked_up = Unknown.NOT_FOUND
            else:
                record = self._found(answer.row, record)
                yield SaveRecord(record.encode())
        while True:
            decision = decide(
                record,
                wanted.fingerprint,
                kind,
                wanted.policy,
                complete=complete,
                stands=stands,
                looked_up=looked_up,
                key_changed=self._key_changed(record, searched_with),
            )
            if self._on_decision is not None:
                self._on_decision(decision, record, stands)
            if decision.action is Action.STOP:
                raise StoppedError(
                    decision.reason,
                    generation_id=record.generation_id if record else None,
                    client_request_id=record.client_request_id if record else None,
                )
            if decision.action is Action.SUBMIT and uncertain is not None and submits >= MOST_SUBMITS:
                raise uncertain
            log.info("%s", decision.reason)
            if decision.action is Action.ASK:
                assert record is not None
                assert record.generation_id is not None
                stands = yield from self._ask(record.generation_id)
            elif decision.action is Action.LOOK_UP:
                search = self._search_for(record, began)
                searched_with = None
                row: LogRow | None = None
                if search is not None:
                    if elsewhere:
                        answers = {} if began is not None else (yield from self._look_briefly(search))
                        if search not in answers:
                            return PendingSearch(search, record, kind, complete, submits)
                        row = answers[search]
                    else:
                        row = yield from search_logs(self._calls, search)
                if row is None:
                    looked_up = Unknown.NOT_FOUND
                else:
                    record = self._found(row, record)
                    stands, looked_up = Unknown.NOT_ASKED, Unknown.NOT_ASKED
                    yield SaveRecord(record.encode())
            elif decision.action is Action.SUBMIT:
                if wanted.unready is not None:
                    raise wanted.unready
                yield from wanted.budget.check(self._calls, [wanted.request])
                before, record = record, self._intent(record, decision)
                if submits == 0:
                    wanted.preflight(record.client_request_id)
                submits += 1
                try:
                    return (yield from self._submit(record))
                except SubmitUncertainError as error:
                    log.warning("%s", error)
                    uncertain, began = error, self._calls.now()
                except KlingError as error:
                    # Certainly refused: what was known before is what is known now.
                    yield SaveRecord(before.encode() if before else NOTHING)
                    if uncertain is not None:
                        raise error.with_money(Money.MAY_BE_SPENT) from error.__cause__
                    raise
                # From here on this attempt knows all that can have been submitted, and it is no longer
                # the person's clear that asks for more.
                kind, complete = AttemptKind.RETRY, True
                stands, looked_up = Unknown.NOT_ASKED, Unknown.NOT_ASKED
            else:
                assert record is not None
                assert isinstance(stands, Generation)
                if record.attempt < wanted.attempt.first_number:  # what the clear asked for is done
                    record = replace(record, attempt=wanted.attempt.number)
                    yield SaveRecord(record.encode())
                return SubmitResult(record, reattached=True, generation=stands)

    def submit_regardless(self) -> Flow[SubmitResult]:
        """Submit whatever previous attempts did: for those who want a new video on each attempt."""
        log.info("Submitting without regard to previous attempts (durable=False); each attempt is billed.")
        yield from self._input.budget.check(self._calls, [self._input.request])
        intent = self.intent(count=int(self._calls.now()))
        self._input.preflight(intent.client_request_id)
        generation = yield from self._calls.submit(self._input.request, intent.client_request_id)
        return SubmitResult(
            replace(intent, generation_id=generation.id), reattached=False, generation=generation
        )

    def intent(self, count: int = 0) -> Record:
        """The record of a submit that is about to be made.

        :param count: how often this work was deliberately resubmitted before.
        """
        wanted = self._input
        return Record(
            identity=wanted.attempt.identity.digest,
            client_request_id=client_request_id(wanted.attempt.identity, wanted.fingerprint, count),
            model=wanted.request.model,
            fingerprint=wanted.fingerprint.digest,
            parts=wanted.fingerprint.parts,
            count=count,
            intended_at=self._calls.now(),
            attempt=wanted.attempt.number,
            key_mark=self._key_mark(wanted.attempt.identity.digest),
        )

    def _grace(self) -> float:
        chosen = self._input.policy.uncertain_grace
        if chosen is not None:
            return chosen
        return usual_grace(schedule_for(None, self._input.request.model).usual_seconds)

    def _key_mark(self, identity: str) -> str:
        return key_mark(self._calls.endpoints.settings.api_key, identity)

    def _key_changed(self, record: Record | None, searched_with: str | None) -> bool:
        """Whether the record's submit was made with another key than the logs are searched with.

        :param searched_with: the mark of the key that the search elsewhere used; None for our own.
        """
        if record is None or not record.key_mark:
            return False
        return record.key_mark != (searched_with or self._key_mark(record.identity))

    def _known(self, stored: Any) -> tuple[Record | None, AttemptKind, bool]:
        """The record, why the task runs, and whether the record tells all that was submitted.

        Stores forget: Airflow 3.4 empties the task's store when the task is cleared, 3.3 on success or by
        age where it is told to, and older versions have none. So that nothing is stored means that nothing
        was sent only in the very first attempt. A record of another task, as after a database was
        restored or copied, says nothing of this one.
        """
        attempt = self._input.attempt
        record = Record.decode(stored)
        if record is None:
            return None, attempt.kind, stored is not None or attempt.kind is AttemptKind.FIRST
        if record.identity == attempt.identity.digest:
            # Also in a retry, where the first attempt after a clear came to nothing.
            cleared = record.attempt < attempt.first_number
            return record, AttemptKind.CLEAR if cleared else AttemptKind.RETRY, True
        log.warning(
            "Ignoring a stored record that belongs to another task (submit %s); searching the vendor's "
            "request log for this task's own submits before submitting anything.",
            record.client_request_id,
        )
        return None, attempt.kind, False

    def _intent(self, before: Record | None, decision: Decision) -> Record:
        return self.intent((before.count if before else 0) + (1 if decision.anew else 0))

    def _submit(self, intent: Record) -> Flow[SubmitResult]:
        log.info("Submitting to %s as %s.", intent.model, intent.client_request_id)
        generation = yield from self._calls.submit(
            self._input.request,
            intent.client_request_id,
            lambda: SaveRecord(replace(intent, intended_at=self._calls.now()).encode()),
        )
        log.info("The vendor accepted it as generation %s.", generation.id)
        record = replace(intent, generation_id=generation.id)
        yield SaveRecord(record.encode())
        return SubmitResult(record, reattached=False, generation=generation)

    def _ask(self, generation_id: str) -> Flow[Generation | Unknown]:
        try:
            return (yield from self._calls.get_generation(generation_id))
        except NotFoundError:
            return Unknown.NOT_FOUND

    def _search_for(self, record: Record | None, began: float | None) -> SubmitSearch | None:
        """What to search for in the vendor's request log; None where there can be nothing.

        :param began: epoch seconds from which the grace counts; None for when it was sent, as far as that
            is known.
        """
        names = self._names(record)
        if not names:
            return None
        now, attempt = self._calls.now(), self._input.attempt
        pending = record is not None and record.generation_id is None
        sent_at = record.intended_at if record and pending else attempt.previous_until
        return SubmitSearch(
            names=tuple(names),
            model=record.model if record else self._input.request.model,
            since=min(record.intended_at if record and pending else attempt.previous_since, now),
            until=(began or min(sent_at, now)) + self._grace(),
        )

    def _look_briefly(self, search: SubmitSearch) -> Flow[Mapping[SubmitSearch, LogRow | None]]:
        """Search once, here: most often it is found, and no wait is needed."""
        try:
            return (yield from look(self._calls, [search], set(), briefly=True))
        except SubmitUncertainError as error:
            log.info("The vendor's request log could not be searched at once: %s", error.what)
            return {}

    def _found(self, row: LogRow, record: Record | None) -> Record:
        """The record of a submit that was found in the vendor's logs."""
        assert row.client_request_id is not None
        log.info(
            "Found submit %s in the vendor's request log: generation %s.",
            row.client_request_id,
            row.inference_id,
        )
        # A request that renders differently by now was asked for under another name.
        named = self._names(record).get(row.client_request_id) or self.intent()
        found = replace(named, client_request_id=row.client_request_id, generation_id=row.inference_id)
        pending = record is not None and record.generation_id is None
        if not pending and row.created is not None:
            found = replace(found, intended_at=row.created)
        return found

    def _names(self, record: Record | None) -> Mapping[str, Record]:
        """Client request ids to search for, with the record each stands for."""
        if record is not None and record.generation_id is None:
            return {record.client_request_id: record}
        counts = range(record.count + 1 if record else 0, self._input.attempt.most_attempts * MOST_SUBMITS)
        return {each.client_request_id: each for each in map(self.intent, counts)}

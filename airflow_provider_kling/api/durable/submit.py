"""A generation is paid once: submit, or re-attach to what a previous attempt submitted.

The order is what makes it safe. The intent is remembered before the submit and the generation id
right after its answer, so that a crash between any two steps leaves either nothing that was sent,
or a trace from which the next attempt finds the generation in the vendor's request log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, get_args

from airflow_provider_kling.api.billing.cost import check_budget
from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.catalog.models import schedule_for
from airflow_provider_kling.api.durable.attempt import AttemptKind, TaskAttempt
from airflow_provider_kling.api.durable.decision import (
    Decision,
    NotFound,
    SubmitPolicy,
    decide,
    usual_grace,
)
from airflow_provider_kling.api.durable.identity import client_request_id
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
from airflow_provider_kling.api.redaction import key_mark, logger
from airflow_provider_kling.api.transport.endpoints import LogRow
from airflow_provider_kling.api.transport.messages import Flow, SaveRecord


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
    """A submit that only the vendor's request log can confirm, searched for elsewhere; later with its answer.

    It is plain JSON on its way, so that the attempt can continue in another process.

    :param search: what to search for.
    :param record: what is known of the submit; None where there is no record.
    :param kind: why the task runs; after a submit of this attempt it is a retry.
    :param complete: see :func:`.decide`.
    :param submits: how many submits this attempt has made.
    :param row: the answer: what the logs tell of the submit; None where it is not in them.
    :param key_mark: of the key that was searched with, salted with :attr:`salt`.
    """

    search: SubmitSearch
    record: Record | None
    kind: AttemptKind
    complete: bool
    submits: int
    row: LogRow | None = None
    key_mark: str = ""

    @property
    def salt(self) -> str:
        """What the :func:`.key_mark` of the key that searches belongs to."""
        return self.record.identity if self.record else ""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, with the answer where there is one."""
        plain = {
            "search": self.search.as_dict(),
            "record": self.record.encode() if self.record else None,
            "kind": self.kind,
            "complete": self.complete,
            "submits": self.submits,
        }
        if not self.key_mark:
            return plain
        facts, row = None, self.row
        if row is not None:
            facts = [row.client_request_id, row.inference_id, row.failed, row.model, row.created]
        return {**plain, "row": facts, "key_mark": self.key_mark}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> PendingSearch:
        """From plain JSON.

        :raises ValueError: it is none of ours.
        :raises UnusableRecordError: its record cannot be read.
        """
        search = SubmitSearch.from_dict(plain.get("search") or {})
        kind: Any = plain.get("kind")
        submits, facts = plain.get("submits"), plain.get("row")
        if kind not in get_args(AttemptKind) or not isinstance(submits, int):
            raise ValueError("not a pending search of a submit")
        if facts is not None and not (isinstance(facts, list) and len(facts) == _ROW_FACTS):
            raise ValueError("not the answer of a search for a submit")
        row = None if facts is None else LogRow(*facts)
        if row is not None and not (row.client_request_id and row.inference_id):
            raise ValueError("a row without ids")
        return cls(
            search,
            Record.decode(plain.get("record")),
            kind,
            plain.get("complete") is True,
            submits,
            row,
            str(plain.get("key_mark") or ""),
        )


log = logger(__name__)

_ROW_FACTS: Final = 5
MOST_SUBMITS: Final = 3
"""Submits of one attempt at most, if each one is uncertain and on_uncertain_submit is 'resubmit'."""


def _uncertain(search: SubmitSearch) -> SubmitUncertainError:
    return SubmitUncertainError(
        f"Submit {search.names[0]} of {search.model}, the last of {MOST_SUBMITS} that this attempt made, "
        "got no usable answer and is not in the vendor's request log.",
        advice="The next attempt searches for it again before it submits.",
        client_request_id=search.names[0],
    )


OnDecision: TypeAlias = Callable[[Decision, Record | None, Generation | NotFound | None], None]
"""Is told each decision, the record that it was made by, and how its generation stands."""


@dataclass(frozen=True, slots=True)
class DurableSubmit:
    """Obtains one generation that a task wants.

    :param calls: the conversations with the vendor.
    :param request: ready to send, with its fingerprint.
    :param attempt: which attempt of which task instance asks.
    :param policy: what the user chose.
    :param unready: why the request cannot be sent, where only a previous submit can be used.
    :param preflight: tries what will be needed after paying, once it is decided that this attempt pays and
        before it does; takes the client request id of the submit, and raises a :class:`.KlingError`.
    """

    calls: VendorCalls
    request: GenerationRequest
    attempt: TaskAttempt
    policy: SubmitPolicy = field(default_factory=SubmitPolicy)
    unready: KlingError | None = None
    preflight: Callable[[str], None] = field(default=lambda client_request_id: None)

    def submit_or_reattach(
        self,
        stored: Any = None,
        *,
        elsewhere: bool = False,
        answer: PendingSearch | None = None,
        on_decision: OnDecision | None = None,
    ) -> Flow[SubmitResult | PendingSearch]:
        """Submit, or re-attach to what a previous attempt submitted.

        :param stored: what was remembered last, as plain JSON; None for nothing.
        :param elsewhere: whether the vendor's request log is searched elsewhere if that can take long; then
            this ends with a :class:`PendingSearch`, and is started again with its answer.
        :param answer: that search with its answer; ``stored`` is not read then.
        :raises StoppedError: a person has to decide; nothing was submitted.
        :raises UnusableRecordError: the record cannot be read; nothing was submitted.
        :raises KlingError: the submit was refused, or the vendor could not be asked.
        """
        record, kind, complete = self._known(None if answer else stored)
        began: float | None = None
        stands: Generation | NotFound | None = None
        not_in_logs = False
        submits = 0
        uncertain: SubmitUncertainError | None = None
        searched_with: str | None = None
        if answer is not None:
            record, kind, complete, submits = answer.record, answer.kind, answer.complete, answer.submits
            searched_with = answer.key_mark
            if submits:
                uncertain = _uncertain(answer.search)
            if answer.row is not None:
                record = self._found(answer.row, record)
                yield SaveRecord(record.encode())
            elif self._searched_with_another_key(answer):
                log.warning(
                    "The triggerer searched the vendor's request log with another API key than this worker's "
                    "and found nothing; searching again with the worker's key."
                )
                elsewhere, searched_with = False, None
            else:
                not_in_logs, complete = True, complete or self.attempt.replaced
        while True:
            decision = decide(
                record,
                self.request.fingerprint,
                kind,
                self.policy,
                complete=complete,
                stands=stands,
                not_in_logs=not_in_logs,
                key_changed=self._key_changed(record, searched_with),
            )
            if on_decision is not None:
                on_decision(decision, record, stands)
            if decision.action == "stop":
                raise StoppedError(
                    decision.reason,
                    generation_id=record.generation_id if record else None,
                    client_request_id=record.client_request_id if record else None,
                )
            if decision.action == "submit" and uncertain is not None and submits >= MOST_SUBMITS:
                raise uncertain
            log.info("%s", decision.reason)
            if decision.action == "ask":
                assert record is not None
                assert record.generation_id is not None
                stands = yield from self._ask(record.generation_id)
            elif decision.action == "search":
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
                        row = yield from search_logs(self.calls, search)
                if row is None:
                    not_in_logs, complete = True, complete or self.attempt.replaced
                else:
                    record = self._found(row, record)
                    stands, not_in_logs = None, False
                    yield SaveRecord(record.encode())
            elif decision.action == "submit":
                before, sent = record, False
                try:
                    if self.unready is not None:
                        raise self.unready
                    yield from self._check_budget()
                    record = self._intent(record, decision)
                    if submits == 0:
                        self.preflight(record.client_request_id)
                    submits += 1
                    sent = True
                    return (yield from self._submit(record))
                except SubmitUncertainError as error:
                    log.warning("%s", error)
                    uncertain, began = error, self.calls.now()
                except KlingError as error:
                    if sent:  # certainly refused: what was known before is what is known now
                        yield SaveRecord(before.encode() if before else NOTHING)
                    if not_in_logs:  # an earlier submit, which the log does not tell of, may be billed yet
                        raise error.with_money(Money.MAY_BE_SPENT) from error.__cause__
                    raise
                # From here on this attempt knows all that can have been submitted, and it is no longer
                # the person's clear that asks for more.
                kind, complete = "retry", True
                stands, not_in_logs = None, False
            else:
                assert record is not None
                assert isinstance(stands, Generation)
                if record.attempt < self.attempt.first_number:  # what the clear asked for is done
                    record = replace(record, attempt=self.attempt.number)
                    yield SaveRecord(record.encode())
                return SubmitResult(record, reattached=True, generation=stands)

    def submit_regardless(self) -> Flow[SubmitResult]:
        """Submit whatever previous attempts did: for those who want a new video on each attempt."""
        log.info("Submitting without regard to previous attempts (durable=False); each attempt is billed.")
        yield from self._check_budget()
        intent = self.intent(count=int(self.calls.now()))
        self.preflight(intent.client_request_id)
        generation = yield from self.calls.submit(self.request, intent.client_request_id)
        return SubmitResult(
            replace(intent, generation_id=generation.id), reattached=False, generation=generation
        )

    def intent(self, count: int = 0) -> Record:
        """The record of a submit that is about to be made.

        :param count: how often this work was deliberately resubmitted before.
        """
        request, identity = self.request, self.attempt.identity
        return Record(
            identity=identity,
            client_request_id=client_request_id(self.attempt, request.fingerprint, count),
            model=request.model,
            fingerprint=request.fingerprint,
            count=count,
            intended_at=self.calls.now(),
            attempt=self.attempt.number,
            key_mark=self._key_mark(identity),
        )

    def _check_budget(self) -> Flow[None]:
        policy = self.policy
        return check_budget(
            self.calls, [self.request], max_usd=policy.max_cost_usd, check_balance=policy.check_balance
        )

    def _grace(self) -> float:
        chosen = self.policy.uncertain_grace
        if chosen is not None:
            return chosen
        return usual_grace(schedule_for(None, self.request.model).usual_seconds)

    def _key_mark(self, identity: str) -> str:
        return key_mark(self.calls.endpoints.settings.api_key, identity)

    def _key_changed(self, record: Record | None, searched_with: str | None) -> bool:
        """Whether the record's submit was made with another key than the logs are searched with.

        :param searched_with: the mark of the key that the search elsewhere used; None for our own.
        """
        if record is None or not record.key_mark:
            return False
        return record.key_mark != (searched_with or self._key_mark(record.identity))

    def _searched_with_another_key(self, answer: PendingSearch) -> bool:
        """Whether a search elsewhere could not find what this worker may find: the logs are those of a key.

        The connection of a triggerer may come from another place, or have changed meanwhile.
        """
        own = self._key_mark(answer.salt)
        sent_with = answer.record.key_mark if answer.record else ""
        return answer.key_mark != own and sent_with in ("", own)

    def _known(self, stored: Any) -> tuple[Record | None, AttemptKind, bool]:
        """The record, why the task runs, and whether the record tells all that was submitted.

        Stores forget: Airflow 3.4 empties the task's store when the task is cleared, 3.3 on success or by
        age where it is told to, and older versions have none. So that nothing is stored means that nothing
        was sent only in the very first attempt. A record of another task, as after a database was
        restored or copied, says nothing of this one.
        """
        attempt = self.attempt
        record = Record.decode(stored)
        if record is None:
            return (
                None,
                attempt.kind,
                stored is not None or (attempt.kind == "first" and not attempt.replaced),
            )
        if record.identity == attempt.identity:
            # Also in a retry, where the first attempt after a clear came to nothing.
            cleared = record.attempt < attempt.first_number
            return record, "clear" if cleared else "retry", True
        log.warning(
            "Ignoring a stored record that belongs to another task (submit %s); searching the vendor's "
            "request log for this task's own submits before submitting anything.",
            record.client_request_id,
        )
        return None, attempt.kind, False

    def _intent(self, before: Record | None, decision: Decision) -> Record:
        return self.intent((before.count if before else 0) + (1 if decision.is_resubmit else 0))

    def _submit(self, intent: Record) -> Flow[SubmitResult]:
        log.info("Submitting to %s as %s.", intent.model, intent.client_request_id)
        generation = yield from self.calls.submit(
            self.request,
            intent.client_request_id,
            lambda: SaveRecord(replace(intent, intended_at=self.calls.now()).encode()),
        )
        log.info("The vendor accepted it as generation %s.", generation.id)
        record = replace(intent, generation_id=generation.id)
        yield SaveRecord(record.encode())
        return SubmitResult(record, reattached=False, generation=generation)

    def _ask(self, generation_id: str) -> Flow[Generation | NotFound]:
        try:
            return (yield from self.calls.get_generation(generation_id))
        except NotFoundError:
            return "not found"

    def _search_for(self, record: Record | None, began: float | None) -> SubmitSearch | None:
        """What to search for in the vendor's request log; None where there can be nothing.

        :param began: epoch seconds from which the grace counts; None for when it was sent, as far as that
            is known.
        """
        names = self._names(record)
        if not names:
            return None
        now, attempt = self.calls.now(), self.attempt
        pending = record is not None and record.generation_id is None
        sent_at = record.intended_at if record and pending else attempt.previous_until
        return SubmitSearch(
            names=tuple(names),
            model=record.model if record else self.request.model,
            since=min(record.intended_at if record and pending else attempt.previous_since, now),
            until=(began or min(sent_at, now)) + self._grace(),
        )

    def _look_briefly(self, search: SubmitSearch) -> Flow[Mapping[SubmitSearch, LogRow | None]]:
        """Search once, here: most often it is found, and no wait is needed."""
        try:
            return (yield from look(self.calls, [search], set(), briefly=True))
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
        counts = range(record.count + 1 if record else 0, self.attempt.most_attempts * MOST_SUBMITS)
        return {each.client_request_id: each for each in map(self.intent, counts)}

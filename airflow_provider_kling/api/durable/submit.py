"""A generation is paid once: submit, or adopt what an earlier try submitted.

The order is what makes it safe. The intent is remembered before the submit and the generation id
right after its answer, so that a crash between any two steps leaves either nothing that was sent,
or a trace from which the next try finds the generation in the vendor's logs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from airflow_provider_kling.api.billing.cost import Budget
from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.durable.decision import (
    Action,
    Attempt,
    Decision,
    SubmitPolicy,
    Unknown,
    decide,
)
from airflow_provider_kling.api.durable.identity import Fingerprint, TaskIdentity, client_request_id
from airflow_provider_kling.api.durable.record import NOTHING, Record
from airflow_provider_kling.api.exceptions import (
    KlingError,
    Money,
    NotFoundError,
    Recovery,
    SubmitUncertainError,
)
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.transport.endpoints import LogRow
from airflow_provider_kling.api.transport.messages import Flow, SaveRecord, Sleep


@dataclass(frozen=True, slots=True)
class Order:
    """What a task wants.

    :param request: model and parameters, ready to send.
    :param fingerprint: of the request and the account.
    :param work: the task instance.
    :param policy: what the user chose.
    :param remembers: whether records survive a retry; see :func:`~.decision.decide`.
    :param tries: how many tries the task has had, this one included.
    :param first_try: the number of the first one since the task was last cleared by a person.
    :param earlier_until: epoch seconds: earlier tries submitted before then. Only needed where
        nothing is remembered.
    :param earlier_since: epoch seconds: earlier tries submitted after then; likewise.
    :param budget: checked before each submit, and not where an earlier one is adopted.
    :param unready: why the request cannot be sent, where only an earlier one can be adopted.
    """

    request: GenerationRequest
    fingerprint: Fingerprint
    work: TaskIdentity
    policy: SubmitPolicy = field(default_factory=SubmitPolicy)
    remembers: bool = True
    tries: int = 1
    first_try: int = 1
    earlier_since: float = 0.0
    earlier_until: float = 0.0
    budget: Budget = field(default_factory=Budget)
    unready: KlingError | None = None

    @property
    def attempt(self) -> Attempt:
        """Why the task runs."""
        return Attempt.of(self.tries, self.first_try)


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """The generation that a task goes on with.

    :param record: what is remembered of it; always with an id.
    :param adopted: True where an earlier submit is used, at no further cost.
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


log = logging.getLogger(__name__)

LOOK_UP_PAUSES: Final = (5.0, 10.0, 15.0, 30.0, 60.0)
"""Seconds between look-ups in the logs; the last one repeats until the grace is over."""
MOST_SUBMITS: Final = 3
"""Submits of one try at most, should each one be uncertain and the user want them repeated."""
CLOCK_SKEW: Final = 900.0
"""Seconds by which our clock and the vendor's may differ when the logs are searched."""


class StoppedError(KlingError):
    """The decision was not to submit, and a person has to look."""


class DurableSubmit:
    """Obtains one generation for one work.

    :param flows: the conversations with the vendor.
    :param order: what is wanted.
    """

    def __init__(self, calls: VendorCalls, order: Order) -> None:
        self._flows = calls
        self._order = order

    def obtain(self, stored: Any = None) -> Flow[SubmitResult]:
        """Submit, or adopt what an earlier try submitted.

        :param stored: what was remembered last, as plain JSON; None for nothing.
        :raises StoppedError: the decision is that a person has to look; nothing was submitted.
        :raises UnusableRecordError: the record cannot be read; nothing was submitted.
        :raises KlingError: the submit was refused, or the vendor could not be asked.
        """
        order = self._order
        record, attempt, remembers = self._known(Record.decode(stored))
        began: float | None = None
        stands: Generation | Unknown = Unknown.NOT_ASKED
        looked_up = Unknown.NOT_ASKED
        submits = 0
        uncertain: SubmitUncertainError | None = None
        while True:
            decision = decide(
                record,
                order.fingerprint,
                attempt,
                order.policy,
                remembers=remembers,
                stands=stands,
                looked_up=looked_up,
            )
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
                found = yield from self._look_up(record, began)
                if found is None:
                    looked_up = Unknown.NOT_FOUND
                else:
                    record, stands, looked_up = found, Unknown.NOT_ASKED, Unknown.NOT_ASKED
                    yield SaveRecord(record.encode())
            elif decision.action is Action.SUBMIT:
                if order.unready is not None:
                    raise order.unready
                yield from order.budget.check(self._flows, [order.request])
                submits += 1
                before, record = record, self._intent(record, decision)
                try:
                    return (yield from self._submit(record))
                except SubmitUncertainError as error:
                    log.warning("%s", error)
                    uncertain, began = error, self._flows.now()
                except KlingError as error:
                    # Certainly refused: what was known before is what is known now.
                    if uncertain is not None:
                        error.money = Money.MAY_BE_SPENT
                    yield SaveRecord(before.encode() if before else NOTHING)
                    raise
                # From here on this try knows all that can have been submitted, and it is no longer
                # the person's clear that asks for more.
                attempt, remembers = Attempt.RETRY, True
                stands, looked_up = Unknown.NOT_ASKED, Unknown.NOT_ASKED
            else:
                assert record is not None
                assert isinstance(stands, Generation)
                if record.tries < order.first_try:  # what the clear asked for is done
                    record = replace(record, tries=order.tries)
                    yield SaveRecord(record.encode())
                return SubmitResult(record, reattached=True, generation=stands)

    def submit_regardless(self) -> Flow[SubmitResult]:
        """Submit whatever earlier tries did: for those who want a new video on each try."""
        log.info("Submitting without regard to earlier tries (durable=False); each try is billed.")
        yield from self._order.budget.check(self._flows, [self._order.request])
        intent = self.intent(count=int(self._flows.now()))
        generation = yield from self._flows.submit(self._order.request, intent.client_request_id)
        return SubmitResult(
            replace(intent, generation_id=generation.id), reattached=False, generation=generation
        )

    def intent(self, count: int = 0) -> Record:
        """The record of a submit that is about to be made.

        :param count: how often this work was deliberately submitted anew before.
        """
        order = self._order
        return Record(
            work=order.work.digest,
            client_request_id=client_request_id(order.work, order.fingerprint, count),
            model=order.request.model,
            fingerprint=order.fingerprint.digest,
            parts=order.fingerprint.parts,
            count=count,
            intended_at=self._flows.now(),
            tries=order.tries,
        )

    def _known(self, record: Record | None) -> tuple[Record | None, Attempt, bool]:
        """The record, why the task runs, and whether no record means no submit.

        A record of another task, as after a database was restored or copied, says nothing of this
        one: its own submits are looked for in the logs, even on what seems to be its first try.
        """
        order = self._order
        if record is None:
            return None, order.attempt, order.remembers
        if record.work == order.work.digest:
            # Also in a retry, where the first try after a clear came to nothing.
            cleared = record.tries < order.first_try
            return record, Attempt.CLEAR if cleared else Attempt.RETRY, order.remembers
        log.warning(
            "The record found belongs to another task (its submit was %s). It is not used; this task's own "
            "submits are looked for in the vendor's logs before anything is paid.",
            record.client_request_id,
        )
        return None, Attempt.RETRY if order.attempt is Attempt.FIRST else order.attempt, False

    def _intent(self, before: Record | None, decision: Decision) -> Record:
        return self.intent((before.count if before else 0) + (1 if decision.anew else 0))

    def _submit(self, intent: Record) -> Flow[SubmitResult]:
        log.info("Submitting to %s as %s.", intent.model, intent.client_request_id)
        generation = yield from self._flows.submit(
            self._order.request,
            intent.client_request_id,
            lambda: SaveRecord(replace(intent, intended_at=self._flows.now()).encode()),
        )
        log.info("The vendor accepted it as generation %s.", generation.id)
        record = replace(intent, generation_id=generation.id)
        yield SaveRecord(record.encode())
        return SubmitResult(record, reattached=False, generation=generation)

    def _ask(self, generation_id: str) -> Flow[Generation | Unknown]:
        try:
            return (yield from self._flows.get_generation(generation_id))
        except NotFoundError:
            return Unknown.NOT_FOUND

    def _look_up(self, record: Record | None, began: float | None) -> Flow[Record | None]:
        """Search the vendor's logs for submits whose outcome is not known, until their grace is over.

        :param began: epoch seconds from which the grace counts; None for when they were sent, as
            far as that is known.
        """
        now = self._flows.now()
        names = self._names(record)
        pending = record is not None and record.generation_id is None
        sent = record.intended_at if record and pending else self._order.earlier_until
        until = (began or min(sent, now)) + self._order.policy.uncertain_grace
        since = min(record.intended_at if record and pending else self._order.earlier_since, now) - CLOCK_SKEW
        model = record.model if record else self._order.request.model
        refused: set[str] = set()
        pauses = iter(LOOK_UP_PAUSES)
        pause = 0.0
        while True:
            asked_at = self._flows.now()
            row = yield from self._search(names, model, since, refused)
            if row is not None:
                assert row.client_request_id is not None
                assert row.inference_id is not None
                if row.failed and (yield from self._ask(row.inference_id)) is Unknown.NOT_FOUND:
                    refused.add(row.inference_id)  # a request that was refused, not a generation that failed
                    continue
                log.info(
                    "The vendor's logs know the submit %s: it is generation %s.",
                    row.client_request_id,
                    row.inference_id,
                )
                found = replace(names[row.client_request_id], generation_id=row.inference_id)
                if not pending and row.created is not None:
                    found = replace(found, intended_at=row.created)
                return found
            if asked_at >= until:  # a slow search that began before may have missed what came to its top
                return None
            left = max(0.0, until - self._flows.now())
            pause = next(pauses, pause)
            log.info(
                "The submit is not in the vendor's logs yet; they can lag. Looking again for %.0f s.",
                left,
            )
            yield Sleep(min(pause, left))

    def _search(
        self, names: Mapping[str, Record], model: str, since: float, refused: set[str]
    ) -> Flow[LogRow | None]:
        try:
            return (yield from self._flows.find_submit(names, model=model, since=since, but=refused))
        except KlingError as error:
            raise SubmitUncertainError(
                "Whether an earlier submit was accepted is not known, and the vendor's logs, which would "
                f"tell, could not be searched. {error.what}",
                advice=f"Nothing more was submitted; the next try looks again. {error.advice}".rstrip(),
                recovery=Recovery.GIVE_UP if error.recovery is Recovery.GIVE_UP else Recovery.RETRY_TASK,
                client_request_id=min(names, default=None),
            ) from error

    def _names(self, record: Record | None) -> Mapping[str, Record]:
        """Client request ids to look for, with the record each stands for."""
        if record is not None and record.generation_id is None:
            return {record.client_request_id: record}
        counts = range(record.count + 1 if record else 0, self._order.tries * MOST_SUBMITS)
        return {each.client_request_id: each for each in map(self.intent, counts)}

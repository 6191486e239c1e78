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

from airflow_provider_kling.api.decision import (
    Action,
    Attempt,
    Decision,
    SubmitPolicy,
    Unknown,
    decide,
)
from airflow_provider_kling.api.errors import (
    KlingError,
    NotFoundError,
    SubmitUncertainError,
)
from airflow_provider_kling.api.flow import Flows
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.identity import Fingerprint, Work, client_request_id
from airflow_provider_kling.api.record import Record
from airflow_provider_kling.api.wire import Flow, Pause, Remember

log = logging.getLogger(__name__)

LOOK_UP_PAUSES: Final = (5.0, 10.0, 15.0, 30.0, 60.0)
"""Seconds between look-ups in the logs; the last one repeats until the grace is over."""
MOST_SUBMITS: Final = 3
"""Submits of one try at most, should each one be uncertain and the user want them repeated."""
CLOCK_SKEW: Final = 900.0
"""Seconds by which our clock and the vendor's may differ when the logs are searched."""


class StoppedError(KlingError):
    """The decision was not to submit, and a person has to look."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a task wants.

    :param request: model and parameters, ready to send.
    :param fingerprint: of the request and the account.
    :param work: the task instance.
    :param attempt: why it runs.
    :param policy: what the user chose.
    :param remembers: whether records survive a retry; see :func:`~.decision.decide`.
    :param tries: how many tries the task has had, this one included.
    :param earlier_until: epoch seconds: earlier tries submitted before then. Only needed where
        nothing is remembered.
    :param earlier_since: epoch seconds: earlier tries submitted after then; likewise.
    """

    request: GenerationRequest
    fingerprint: Fingerprint
    work: Work
    attempt: Attempt = Attempt.FIRST
    policy: SubmitPolicy = field(default_factory=SubmitPolicy)
    remembers: bool = True
    tries: int = 1
    earlier_since: float = 0.0
    earlier_until: float = 0.0


@dataclass(frozen=True, slots=True)
class Obtained:
    """The generation that a task goes on with.

    :param record: what is remembered of it; always with an id.
    :param adopted: True where an earlier submit is used, at no further cost.
    :param generation: how it stands, where that is known.
    """

    record: Record
    adopted: bool
    generation: Generation | None = None

    @property
    def generation_id(self) -> str:
        """The generation id."""
        assert self.record.generation_id is not None
        return self.record.generation_id


class Once:
    """Obtains one generation for one work.

    :param flows: the conversations with the vendor.
    :param order: what is wanted.
    """

    def __init__(self, flows: Flows, order: Order) -> None:
        self._flows = flows
        self._order = order

    def obtain(self, stored: Any = None) -> Flow[Obtained]:
        """Submit, or adopt what an earlier try submitted.

        :param stored: what was remembered last, as plain JSON; None for nothing.
        :raises StoppedError: the decision is that a person has to look; nothing was submitted.
        :raises UnusableRecordError: the record cannot be read; nothing was submitted.
        :raises KlingError: the submit was refused, or the vendor could not be asked.
        """
        record = self._own(Record.decode(stored))
        stands: Generation | Unknown = Unknown.NOT_ASKED
        looked_up = Unknown.NOT_ASKED
        submits = 0
        while True:
            decision = self._decide(record, stands, looked_up)
            if decision.action is Action.STOP:
                raise StoppedError(
                    decision.reason,
                    generation_id=record.generation_id if record else None,
                    client_request_id=record.client_request_id if record else None,
                )
            log.info("%s", decision.reason)
            if decision.action is Action.ASK:
                assert record is not None
                assert record.generation_id is not None
                stands = yield from self._ask(record.generation_id)
            elif decision.action is Action.LOOK_UP:
                found = yield from self._look_up(record)
                if found is None:
                    looked_up = Unknown.NOT_FOUND
                else:
                    record = found
                    yield Remember(record.encode())
            elif decision.action is Action.SUBMIT:
                submits += 1
                record = self._intent(record, decision)
                try:
                    return (yield from self._submit(record))
                except SubmitUncertainError as error:
                    if submits >= MOST_SUBMITS:
                        raise
                    log.warning("%s", error)
                    stands, looked_up = Unknown.NOT_ASKED, Unknown.NOT_ASKED
            else:
                assert record is not None
                assert isinstance(stands, Generation)
                return Obtained(record, adopted=True, generation=stands)

    def submit_regardless(self) -> Flow[Obtained]:
        """Submit whatever earlier tries did: for those who want a new video on each try."""
        log.info("Submitting without regard to earlier tries (durable=False); each try is billed.")
        intent = self.intent(count=int(self._flows.now()))
        generation = yield from self._flows.submit(self._order.request, intent.client_request_id)
        return Obtained(replace(intent, generation_id=generation.id), adopted=False, generation=generation)

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
        )

    def _decide(self, record: Record | None, stands: Generation | Unknown, looked_up: Unknown) -> Decision:
        order = self._order
        return decide(
            record,
            order.fingerprint,
            order.attempt,
            order.policy,
            remembers=order.remembers,
            stands=stands,
            looked_up=looked_up,
        )

    def _own(self, record: Record | None) -> Record | None:
        """The record, unless it is another task's, as after a database was restored or copied.

        Then nothing is known of this task's own submits but that one may have been made: an intent
        under this task's own name, which is looked for in the logs before anything is paid.
        """
        if record is None or record.work == self._order.work.digest:
            return record
        log.warning(
            "The record found belongs to another task (its submit was %s); it is left alone, and this "
            "task's own "
            "submit is looked for in the vendor's logs.",
            record.client_request_id,
        )
        return replace(self.intent(), intended_at=record.intended_at)

    def _intent(self, before: Record | None, decision: Decision) -> Record:
        return self.intent((before.count if before else 0) + (1 if decision.anew else 0))

    def _submit(self, intent: Record) -> Flow[Obtained]:
        yield Remember(intent.encode())
        log.info("Submitting to %s as %s.", intent.model, intent.client_request_id)
        generation = yield from self._flows.submit(self._order.request, intent.client_request_id)
        log.info("The vendor accepted it as generation %s.", generation.id)
        record = replace(intent, generation_id=generation.id)
        yield Remember(record.encode())
        return Obtained(record, adopted=False, generation=generation)

    def _ask(self, generation_id: str) -> Flow[Generation | Unknown]:
        try:
            return (yield from self._flows.get_generation(generation_id))
        except NotFoundError:
            return Unknown.NOT_FOUND

    def _look_up(self, record: Record | None) -> Flow[Record | None]:
        """Search the vendor's logs for a submit whose outcome is not known, until its grace is over."""
        names = self._names(record)
        began = record.intended_at if record else self._order.earlier_until
        since = record.intended_at if record else self._order.earlier_since
        until = began + self._order.policy.uncertain_grace
        model = record.model if record else self._order.request.model
        pauses = iter(LOOK_UP_PAUSES)
        pause = 0.0
        while True:
            found = yield from self._flows.find_submit(names, model=model, since=since - CLOCK_SKEW)
            if found is not None:
                name, generation_id = found
                known = names[name]
                log.info(
                    "The vendor's logs know the submit %s: it is generation %s.",
                    name,
                    generation_id,
                )
                return replace(known, generation_id=generation_id)
            left = until - self._flows.now()
            if left <= 0:
                return None
            pause = next(pauses, pause)
            log.info(
                "The submit is not in the vendor's logs yet; they can lag. Looking again for %.0f s.",
                left,
            )
            yield Pause(min(pause, left))

    def _names(self, record: Record | None) -> Mapping[str, Record]:
        """Client request ids to look for, with the record each stands for."""
        records = [record] if record else [self.intent(count) for count in range(self._order.tries)]
        return {each.client_request_id: each for each in records}

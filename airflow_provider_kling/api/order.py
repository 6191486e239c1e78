"""What a task wants of the vendor, and what it got."""

from __future__ import annotations

from dataclasses import dataclass, field

from airflow_provider_kling.api.billing.cost import (
    Budget,
)
from airflow_provider_kling.api.durable.decision import (
    Attempt,
    SubmitPolicy,
)
from airflow_provider_kling.api.durable.identity import (
    Fingerprint,
    Work,
)
from airflow_provider_kling.api.durable.record import (
    Record,
)
from airflow_provider_kling.api.exceptions import (
    KlingError,
)
from airflow_provider_kling.api.generation import Generation, GenerationRequest


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
    work: Work
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

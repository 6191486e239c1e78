"""What the emulated vendor knows: accounts, generations, the ledger, the request log.

Everything about a generation follows from the clock: nothing runs while it "generates", and a
poll is a comparison of numbers. Only the event loop's thread touches this module's objects.
"""

from __future__ import annotations

import enum
import heapq
import math
import random
import secrets
import string
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kling.api.catalog.models import Model
from airflow_provider_kling.emulator.clock import Clock
from airflow_provider_kling.emulator.faults.directives import Directives, GenerationOutcome
from airflow_provider_kling.emulator.options import EmulatorOptions, IdStyle
from airflow_provider_kling.emulator.prices import Price
from airflow_provider_kling.emulator.rendering.video_store import VideoBrief
from airflow_provider_kling.emulator.vendor import out_of_credits

_ID_LETTERS = string.ascii_letters + string.digits + "_-"
_RETRY_SETTLING = 0.1


class Stage(enum.StrEnum):
    """The vendor's documented statuses."""

    QUEUED = "queued"
    GENERATING = "generating"
    COMPLETED = "completed"
    ERROR = "error"


@dataclass(slots=True)
class Charge:
    """An entry of the ledger.

    :param time: epoch seconds.
    :param reference_id: the generation that was paid.
    """

    time: float
    price: Price
    model: str
    reference_id: str


@dataclass(slots=True)
class LogRow:
    """A request in the vendor's log.

    :param generation: what it made; None for a request that was refused.
    """

    created: float
    model: str
    request_id: str
    inference_id: str
    client_request_id: str | None
    generation: StoredGeneration | None = None


@dataclass(slots=True, eq=False)
class Account:
    """What belongs to one key.

    :param balance: USD, all booked charges subtracted.
    :param held: USD set aside for generations under way; a hold is rolled back when they fail.
    """

    key: str
    balance: float
    created: float
    held: float = 0.0
    charges: list[Charge] = field(default_factory=list)
    log: list[LogRow] = field(default_factory=list)
    log_calls: list[float] = field(default_factory=list)
    initial: float = 0.0

    @property
    def prefix(self) -> str:
        """The part of the key that the vendor shows."""
        return self.key[:8]


@dataclass(slots=True, eq=False)
class StoredGeneration:
    """One accepted generation.

    :param parameters: with media shortened to their sha256.
    :param queued_until: epoch seconds at which it leaves the queue.
    :param due: epoch seconds at which it is done, if all goes well.
    :param brief: what the video is made from; None until the pictures are there.
    :param media_ready: epoch seconds at which the pictures were there, or could not be had.
    :param media_problem: why a picture could not be had.
    :param charged_at: epoch seconds of the charge; None while there is none.
    """

    id: str
    number: int
    account: Account
    model: str
    parameters: dict[str, Any]
    client_request_id: str | None
    accepted_at: float
    queued_until: float
    due: float
    price: Price
    seconds: int
    outcome: GenerationOutcome
    expired_url: bool
    brief: VideoBrief | None = None
    media_ready: float | None = None
    media_problem: str | None = None
    charged_at: float | None = None
    settled: bool = False

    def final_at(self) -> float | None:
        """When it is final; None while nobody knows, and for one that stalls."""
        if self.outcome is GenerationOutcome.STALL or self.media_ready is None:
            return None
        if self.media_problem is not None or self.outcome is GenerationOutcome.MODERATION:
            return max(self.queued_until, self.media_ready)
        return max(self.due, self.media_ready)

    def stage(self, now: float) -> Stage:
        """Where it stands."""
        final = self.final_at()
        if final is not None and now >= final:
            return Stage.COMPLETED if self.failure() is None else Stage.ERROR
        return Stage.QUEUED if now < self.queued_until else Stage.GENERATING

    def failure(self) -> tuple[str, str] | None:
        """The vendor's name and message of the error that it ends in."""
        if self.media_problem is not None:
            return "InvalidInputError", f"The reference image cannot be used: {self.media_problem}."
        if self.outcome is GenerationOutcome.MODERATION:
            return "ModerationError", "The content was rejected by the moderation of the model."
        if self.outcome is GenerationOutcome.FAIL:
            return "GenerationError", "The model failed to generate the video."
        return None


class VendorState:
    """Accounts and generations.

    :param options: how the emulator behaves.
    :param clock: its time.
    """

    def __init__(self, options: EmulatorOptions, clock: Clock) -> None:
        self.options = options
        self.clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget all generations, charges and rows; every account has its first balance again."""
        now = self.clock.now()
        seed = self.options.seed
        self._ids: random.Random = secrets.SystemRandom() if seed is None else random.Random(seed)
        self._times = random.Random(seed)
        self.accounts = {
            key: Account(key, self.options.balance, now, initial=self.options.balance)
            for key in self.options.keys
        }
        self.generations: dict[str, StoredGeneration] = {}
        self._unsettled: list[tuple[float, int, StoredGeneration]] = []
        self.charges = 0

    def new_id(self, model: str = "") -> str:
        """An id in the vendor's manner."""
        if self.options.ids is IdStyle.NANO:
            return "".join(self._ids.choices(_ID_LETTERS, k=21))
        text = str(uuid.UUID(int=self._ids.getrandbits(128), version=4))
        return f"{text}:{model}" if self.options.ids is IdStyle.UUID_MODEL and model else text

    def accept(
        self,
        account: Account,
        model: Model,
        parameters: Mapping[str, Any],
        *,
        price: Price,
        seconds: int,
        client_request_id: str | None,
        directives: Directives,
    ) -> StoredGeneration:
        """Take a valid request: make the generation and hold its price.

        :raises Refusal: the account cannot pay.
        """
        now = self.clock.now()
        self.settle(now)
        if account.balance - account.held < price.usd:
            raise out_of_credits()
        account.held += price.usd
        queued, generating = self._duration(model, directives)
        generation = StoredGeneration(
            id=self.new_id(model.id),
            number=len(self.generations),
            account=account,
            model=model.id,
            parameters=dict(parameters),
            client_request_id=client_request_id,
            accepted_at=now,
            queued_until=now + queued,
            due=now + queued + generating,
            price=price,
            seconds=seconds,
            outcome=directives.outcome,
            expired_url=directives.expired_url,
        )
        self.generations[generation.id] = generation
        self.note(account, generation.id, model.id, client_request_id, generation)
        if generation.outcome is not GenerationOutcome.STALL:
            self._watch(generation.queued_until, generation)
        return generation

    def note(
        self,
        account: Account,
        inference_id: str,
        model: str,
        client_request_id: str | None,
        generation: StoredGeneration | None = None,
    ) -> None:
        """Write a row of the request log."""
        row = LogRow(
            self.clock.now(),
            model,
            str(uuid.uuid4()),
            inference_id,
            client_request_id,
            generation,
        )
        account.log.append(row)

    def settle(self, now: float) -> None:
        """Book what has come due since the last look: charges, and holds of failures."""
        while self._unsettled and self._unsettled[0][0] <= now:
            _, _, generation = heapq.heappop(self._unsettled)
            final = generation.final_at()
            if final is None:
                self._watch(now + _RETRY_SETTLING, generation)
                continue
            failed = generation.failure() is not None
            due = final if failed else final + self.options.charge_lag
            if now < due:
                self._watch(due, generation)
                continue
            self._book(generation, due, failed)

    def _book(self, generation: StoredGeneration, moment: float, failed: bool) -> None:
        account = generation.account
        account.held -= generation.price.usd
        generation.settled = True
        if failed:
            return
        account.balance = round(account.balance - generation.price.usd, 6)
        generation.charged_at = moment
        charge = Charge(moment, generation.price, generation.model, generation.id)
        account.charges.append(charge)
        self.charges += 1

    def _watch(self, moment: float, generation: StoredGeneration) -> None:
        heapq.heappush(self._unsettled, (moment, generation.number, generation))

    def _duration(self, model: Model, directives: Directives) -> tuple[float, float]:
        """Seconds in the queue, and seconds of generating."""
        options = self.options
        queued, generating = options.queued_seconds, options.generating_seconds
        if options.realistic:
            queued, generating = 0.1 * model.usual_seconds, 0.9 * model.usual_seconds
        if options.spread:
            factor = math.exp(self._times.gauss(0, options.spread))
            queued, generating = queued * factor, generating * factor
        if directives.generating_seconds is not None:
            generating = directives.generating_seconds
        return queued, generating

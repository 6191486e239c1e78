"""The state of the emulated vendor: accounts, generations, the ledger, the request log.

The state of a generation follows from the clock: nothing runs while it is "generating", and a
poll compares numbers. Only the event loop's thread touches this module's objects.
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
from typing import Any, NamedTuple

from airflow_provider_kling.api.catalog.models import Model
from airflow_provider_kling.emulator.clock import Clock
from airflow_provider_kling.emulator.faults.directives import Directives, GenerationOutcome
from airflow_provider_kling.emulator.options import (
    STATUSES,
    EmulatorOptions,
    IdStyle,
    LogModels,
    LogRows,
    read_option,
)
from airflow_provider_kling.emulator.prices import Price
from airflow_provider_kling.emulator.rendering.video_store import VideoBrief
from airflow_provider_kling.emulator.vendor import (
    VIDEO_SCOPE,
    alias_of,
    key_limit_reached,
    name_elsewhere,
    out_of_credits,
    published_id_style,
    too_many_at_once,
)

_ID_LETTERS = string.ascii_letters + string.digits + "_-"
_RETRY_SETTLING = 0.1


_KEY_FACTS: dict[str, Any] = {
    "management": bool,
    "scopes": tuple[str, ...],
    "limit_usd": float | None,
    "revoked": bool,
}


class Stage(enum.StrEnum):
    """The vendor's documented statuses."""

    QUEUED, GENERATING, COMPLETED, ERROR = STATUSES


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

    :param generation: the generation that it made; None for a request that was refused.
    """

    created: float
    model: str
    request_id: str
    inference_id: str
    client_request_id: str | None
    generation: StoredGeneration | None = None


@dataclass(slots=True, eq=False)
class Account:
    """An account, which pays.

    :param balance: USD, all booked charges subtracted.
    :param held: USD held for running generations; the hold is released when they fail.
    :param log_calls: epoch seconds of its latest requests for the log, which are limited.
    """

    number: int
    balance: float
    created: float
    held: float = 0.0
    charges: list[Charge] = field(default_factory=list)
    log_calls: list[float] = field(default_factory=list)
    under_way: list[StoredGeneration] = field(default_factory=list)
    initial: float = 0.0


@dataclass(slots=True, eq=False)
class ApiKey:
    """A key of an account, with the requests that were made with it.

    :param management: whether it may read the requests of the account's other keys.
    :param scopes: what it may be used for.
    :param limit_usd: what may be spent with it, in USD; None for no limit.
    :param spent: USD of its generations, those under way among them.
    :param revoked: whether it is refused, as after a rotation.
    """

    key: str
    account: Account
    created: float
    management: bool = False
    scopes: tuple[str, ...] = (VIDEO_SCOPE,)
    limit_usd: float | None = None
    spent: float = 0.0
    revoked: bool = False
    log: list[LogRow] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        """The part of the key that the vendor shows."""
        return self.key[:8]


class Failure(NamedTuple):
    """Why a generation ended in error.

    :param parameter: the parameter that it is about.
    """

    name: str
    message: str
    parameter: str


@dataclass(slots=True, eq=False)
class StoredGeneration:
    """One accepted generation.

    :param key: the key it was submitted with.
    :param parameters: with media shortened to their sha256.
    :param queued_until: epoch seconds at which it leaves the queue.
    :param due: epoch seconds at which it is done, if all goes well.
    :param brief: the input of the video; None until the pictures are fetched.
    :param media_ready: epoch seconds at which the pictures were fetched, or found to be unavailable.
    :param media_problem: why a picture could not be fetched.
    :param charged_at: epoch seconds of the charge; None while there is none.
    """

    id: str
    number: int
    key: ApiKey
    model: str
    parameters: dict[str, Any]
    client_request_id: str | None
    accepted_at: float
    queued_until: float
    due: float
    price: Price
    seconds: int
    directives: Directives
    brief: VideoBrief | None = None
    media_ready: float | None = None
    media_problem: str | None = None
    charged_at: float | None = None
    settled: bool = False

    @property
    def account(self) -> Account:
        """Who pays for it."""
        return self.key.account

    def final_at(self) -> float | None:
        """When it ends; None while its pictures are fetched, and for one that stalls."""
        outcome = self.directives.outcome
        if outcome is GenerationOutcome.STALL or self.media_ready is None:
            return None
        if self.media_problem is not None or outcome is GenerationOutcome.MODERATION:
            return max(self.queued_until, self.media_ready)
        return max(self.due, self.media_ready)

    def is_final(self, now: float) -> bool:
        """Whether it has ended."""
        final = self.final_at()
        return final is not None and now >= final

    def stage(self, now: float) -> Stage:
        """Where it stands."""
        if self.is_final(now):
            return Stage.COMPLETED if self.failure() is None else Stage.ERROR
        return Stage.QUEUED if now < self.queued_until else Stage.GENERATING

    def failure(self) -> Failure | None:
        """The error that it ends in."""
        reason = self.directives.reason
        if self.media_problem is not None:
            message = f"The reference image cannot be used: {self.media_problem}."
            parameter = next((name for name in self.parameters if "image" in name), "image_url")
            return Failure("InvalidInputError", message, parameter)
        if self.directives.outcome is GenerationOutcome.MODERATION:
            message = reason or "The content was rejected by the moderation of the model."
            return Failure("ModerationError", message, "prompt")
        if self.directives.outcome is GenerationOutcome.FAIL:
            message = reason or "The model failed to generate the video."
            return Failure("GenerationError", message, "prompt")
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
        balance = self.options.balance
        self.keys = {
            key: ApiKey(key, Account(number, balance, now, initial=balance), now)
            for number, key in enumerate(self.options.keys)
        }
        self.generations: dict[str, StoredGeneration] = {}
        self._unsettled: list[tuple[float, int, StoredGeneration]] = []
        self.charges = 0

    def new_id(self, model: str = "") -> str:
        """An id in the vendor's form."""
        style = self.options.ids
        if style is IdStyle.PUBLISHED:
            style = published_id_style(model)
        if style is IdStyle.NANO:
            return "".join(self._ids.choices(_ID_LETTERS, k=21))
        if style is IdStyle.DIGITS:
            return str(self._ids.randrange(10**17, 10**18))
        text = str(uuid.UUID(int=self._ids.getrandbits(128), version=4))
        return f"{text}:{name_elsewhere(model) or model}" if style is IdStyle.UUID_MODEL and model else text

    def set_key(self, key: str, account_of: str | None = None, **facts: Any) -> ApiKey:
        """Add a key, or change one.

        :param account_of: a key of the account that a new key belongs to.
        :param facts: ``management``, ``scopes``, ``limit_usd``, ``revoked``.
        :raises ValueError: a new key without an account, or an unknown fact.
        """
        if key not in self.keys:
            if account_of not in self.keys:
                raise ValueError("a new key needs account_of, another key of the account it belongs to")
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise ValueError("a key is of ASCII characters without a space")
            self.keys[key] = ApiKey(key, self.keys[account_of].account, self.clock.now())
        known = self.keys[key]
        for name, value in facts.items():
            if name not in _KEY_FACTS:
                raise ValueError(f"{name!r} is none of {', '.join(_KEY_FACTS)}")
            try:
                setattr(known, name, read_option(value, _KEY_FACTS[name]))
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        return known

    def rotate_key(self, old: str, new: str) -> ApiKey:
        """Replace a key of an account; the old key is refused from now on."""
        if new in self.keys:
            raise ValueError("the new key is already in use")
        rotated = self.set_key(new, account_of=old)
        self.set_key(old, revoked=True)
        return rotated

    def accept(
        self,
        key: ApiKey,
        model: Model,
        parameters: Mapping[str, Any],
        *,
        price: Price,
        seconds: int,
        client_request_id: str | None,
        directives: Directives,
    ) -> StoredGeneration:
        """Accept a valid request: make the generation and hold its price.

        :raises Refusal: the account cannot pay, the key's limit is reached, or as many
            generations as allowed are running.
        """
        now = self.clock.now()
        self.settle(now)
        account = key.account
        account.under_way = [each for each in account.under_way if not each.is_final(now)]
        limit = self.options.concurrency
        if limit is not None and len(account.under_way) >= limit:
            raise too_many_at_once(limit)
        if account.balance - account.held < price.usd:
            raise out_of_credits()
        if key.limit_usd is not None and key.spent + price.usd > key.limit_usd:
            raise key_limit_reached()
        account.held += price.usd
        key.spent += price.usd
        queued, generating = self._duration(model, directives)
        generation = StoredGeneration(
            id=self.new_id(model.id),
            number=len(self.generations),
            key=key,
            model=model.id,
            parameters=dict(parameters),
            client_request_id=client_request_id,
            accepted_at=now,
            queued_until=now + queued,
            due=now + queued + generating,
            price=price,
            seconds=seconds,
            directives=directives,
        )
        self.generations[generation.id] = generation
        account.under_way.append(generation)
        self._note_accepted(generation)
        if directives.outcome is not GenerationOutcome.STALL:
            self._watch(generation.queued_until, generation)
        return generation

    def note(
        self,
        key: ApiKey,
        inference_id: str,
        model: str,
        client_request_id: str | None,
        generation: StoredGeneration | None = None,
    ) -> LogRow:
        """Write a row of the request log."""
        row = LogRow(
            self.clock.now(),
            alias_of(model) if self.options.log_models is LogModels.ALIASED else model,
            str(uuid.uuid4()),
            inference_id,
            client_request_id,
            generation,
        )
        key.log.append(row)
        return row

    def _note_accepted(self, generation: StoredGeneration) -> None:
        rows = generation.directives.log_rows or self.options.log_rows
        key, model, sent_id = generation.key, generation.model, generation.client_request_id
        if rows is LogRows.NEVER:
            return
        if rows is LogRows.FAILED_FIRST:
            self.note(key, str(uuid.uuid4()), model, sent_id)
        row = self.note(key, generation.id, model, sent_id, generation)
        if rows is LogRows.TWICE:
            key.log.append(row)

    def settle(self, now: float) -> None:
        """Book what is due since the last call: charges, and the holds of failed generations."""
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
            generation.key.spent -= generation.price.usd
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

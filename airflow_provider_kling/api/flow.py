"""What happens in which order, as generators without I/O.

A flow yields an effect (:class:`~airflow_provider_kling.api.wire.Send` or ``Pause``) and receives
its reply. A client drives it with a transport and a clock; a test drives it with a list of replies.
So retries, deadline, patience with unknown statuses and care with money are decided once, for the
blocking client, the async client and the triggerer alike.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Container
from typing import Final

from airflow_provider_kling.api.errors import (
    GenerationFailedError,
    GenerationTimeoutError,
    KlingError,
    MalformedReplyError,
    Money,
    Recovery,
    SubmitUncertainError,
)
from airflow_provider_kling.api.faults import certainly_refused
from airflow_provider_kling.api.generation import Generation, GenerationRequest, GenerationStatus
from airflow_provider_kling.api.policy import FATAL_POLLS, FINAL_LOOKS, Clock, Random, RetryPolicy
from airflow_provider_kling.api.protocol import Protocol
from airflow_provider_kling.api.schedule import Schedule, jittered
from airflow_provider_kling.api.wire import Flow, HttpRequest, Pause, Reply, Send, T

log = logging.getLogger(__name__)

Watcher = Callable[[Generation], None]
"""Called with each new status of a generation that is waited for."""

SUBMIT_RETRIES: Final = RetryPolicy(attempts=4)
READ_RETRIES: Final = RetryPolicy(attempts=5)
LOG_MARGIN: Final = 900.0
"""Seconds past our own clock up to which log rows are asked for, should the vendor's be ahead."""
LONGEST_LOG_WINDOW: Final = 90 * 86_400.0
"""Seconds that one log query may span; the vendor documents 92 days at most."""


class Flows:
    """The conversations with the vendor, for one account.

    :param protocol: builds requests, reads replies.
    :param now: epoch seconds.
    :param rng: numbers in [0, 1) for the jitter.
    """

    def __init__(self, protocol: Protocol, *, now: Clock = time.time, rng: Random = random.random) -> None:
        self.protocol = protocol
        self.now = now
        self.rng = rng
        self.read_retries = READ_RETRIES

    def get_generation(self, generation_id: str) -> Flow[Generation]:
        """Ask how a generation stands, and repeat while that can help."""
        return self._read(
            self.protocol.poll(generation_id),
            lambda reply: self.protocol.read_poll(reply, generation_id),
            refusals=FATAL_POLLS,
        )

    def get_balance(self) -> Flow[float]:
        """Ask for the balance in USD, and repeat while that can help."""
        return self._read(self.protocol.balance(), self.protocol.read_balance)

    def submit(self, request: GenerationRequest, client_request_id: str | None = None) -> Flow[Generation]:
        """Ask for a generation, once.

        The request is repeated only where the vendor certainly did not accept it: it was never
        sent, or it was refused for the moment.

        :raises SubmitUncertainError: it may have been accepted, and no id is known.
        :raises KlingError: it was not accepted.
        """
        sending = self.protocol.submit(request, client_request_id)
        attempt = 0
        while True:
            attempt += 1
            reply = yield Send(sending)
            try:
                return self.protocol.read_submit(reply)
            except KlingError as error:
                if not certainly_refused(error):
                    raise SubmitUncertainError(
                        f"It is not certain whether the vendor accepted this generation of "
                        f"{request.model}. {error.what}",
                        client_request_id=client_request_id,
                    ) from error
                if error.recovery is not Recovery.RETRY_CALL or attempt >= SUBMIT_RETRIES.attempts:
                    raise
                wait = self._wait_after(error, attempt, SUBMIT_RETRIES)
                log.info("The submit was not accepted and is sent again in %.1f s: %s", wait, error.what)
                yield Pause(wait)

    def find_submit(self, names: Container[str], *, model: str, since: float) -> Flow[tuple[str, str] | None]:
        """Search the vendor's request logs for a submit by its client request id.

        The logs have no filter for it, so the model's rows since then are paged through, newest first.

        :param names: client request ids to look for.
        :param since: epoch seconds; older rows are not read.
        :return: the client request id and the generation id, or None.
        """
        until = self.now() + LOG_MARGIN
        since = max(since, until - LONGEST_LOG_WINDOW)
        offset = 0
        while True:
            asking = self.protocol.logs(model=model, start=since, end=until, offset=offset)
            page = yield from self._read(asking, self.protocol.read_logs)
            for row in page.rows:
                if row.client_request_id in names and row.client_request_id and row.inference_id:
                    return row.client_request_id, row.inference_id
            if not page.has_more or not page.rows:
                return None
            offset += len(page.rows)

    def settle(
        self,
        generation_id: str,
        *,
        schedule: Schedule,
        deadline: float,
        submitted_at: float | None = None,
        watch: Watcher | None = None,
        first_look_after: float = 0.0,
    ) -> Flow[Generation]:
        """Wait until a generation is completed and its video has a URL.

        A poll that fails never ends the wait by itself: passing trouble is waited out until the
        deadline, and even a refusal must come :data:`~.policy.FATAL_POLLS` times in a row.

        :param schedule: when to look.
        :param deadline: epoch seconds; one last look is taken then.
        :param submitted_at: epoch seconds of the submit, which the schedule counts from; None for now.
        :param watch: told each status when it changes.
        :param first_look_after: seconds before the first look.
        :raises GenerationFailedError: it ended in ``error``.
        :raises GenerationTimeoutError: the deadline passed.
        :raises KlingError: the vendor refuses to answer about it.
        """
        since = self.now() if submitted_at is None else submitted_at
        patience = _Patience(generation_id, watch)
        asking = self.protocol.poll(generation_id)
        if first_look_after > 0:
            yield Pause(first_look_after)
        while True:
            reply = yield Send(asking)
            retry_after: float | None = None
            try:
                generation = self.protocol.read_poll(reply, generation_id)
            except KlingError as error:
                patience.endure(error)
                retry_after = getattr(error, "retry_after", None)
            else:
                if patience.satisfied(generation):
                    return generation
            if self.now() >= deadline:
                raise timed_out(generation_id, patience.last_word)
            yield Pause(self._next_wait(schedule, since, deadline, retry_after))

    def _next_wait(
        self, schedule: Schedule, since: float, deadline: float, retry_after: float | None
    ) -> float:
        now = self.now()
        wait = jittered(schedule.next_wait(now - since), self.rng)
        if retry_after is not None:
            wait = max(wait, READ_RETRIES.delay(1, self.rng, retry_after))
        return max(0.0, min(wait, deadline - now))

    def _read(self, request: HttpRequest, read: Callable[[Reply], T], refusals: int = 1) -> Flow[T]:
        """Make a free call, and repeat it while that can help.

        :param refusals: how many hopeless answers it takes to believe them.
        """
        attempt = 0
        while True:
            attempt += 1
            reply = yield Send(request)
            try:
                return read(reply)
            except KlingError as error:
                refusals -= error.recovery is not Recovery.RETRY_CALL
                if refusals <= 0 or attempt >= self.read_retries.attempts:
                    raise
                wait = self._wait_after(error, attempt, self.read_retries)
                log.info("The %s request is sent again in %.1f s: %s", request.call, wait, error.what)
            yield Pause(wait)

    def _wait_after(self, error: KlingError, attempt: int, retries: RetryPolicy) -> float:
        return retries.delay(attempt, self.rng, getattr(error, "retry_after", None))


class _Patience:
    """What one wait has seen so far, and when it has seen enough."""

    def __init__(self, generation_id: str, watch: Watcher | None) -> None:
        self._id = generation_id
        self._watch = watch
        self._refusals = 0
        self._looks_without_url = 0
        self._raw_status: str | None = None
        self._trouble: str | None = None

    @property
    def last_word(self) -> str:
        """The last thing known, for the message of a time-out."""
        if self._trouble is not None:
            return f"the last poll failed: {self._trouble}"
        return f"its last status was {self._raw_status!r}"

    def satisfied(self, generation: Generation) -> bool:
        """Take in a good answer; true when the wait is over.

        :raises GenerationFailedError: it ended in ``error``.
        :raises MalformedReplyError: completed, but again without a URL.
        """
        self._refusals = 0
        self._trouble = None
        if generation.raw_status != self._raw_status:
            self._raw_status = generation.raw_status
            if generation.status is GenerationStatus.UNKNOWN:
                log.warning(
                    "Generation %s has a status this version does not know, %r; it counts as still working.",
                    self._id,
                    generation.raw_status,
                )
            if self._watch is not None:
                self._watch(generation)
        ready = is_ready(generation)
        if generation.status is GenerationStatus.COMPLETED and not ready:
            self._looks_without_url += 1
            if self._looks_without_url >= FINAL_LOOKS:
                raise without_url(generation)
        return ready

    def endure(self, error: KlingError) -> None:
        """Take in a failed poll; raises it once it has been refused too often."""
        if error.recovery is Recovery.GIVE_UP:
            self._refusals += 1
            if self._refusals >= FATAL_POLLS:
                raise error
        else:
            self._refusals = 0
        if self._trouble is None:
            log.warning("A poll of generation %s failed; the wait goes on: %s", self._id, error.what)
        self._trouble = error.what


def is_ready(generation: Generation) -> bool:
    """Whether the video can be fetched.

    :raises GenerationFailedError: the generation ended in ``error``.
    """
    if generation.status is GenerationStatus.ERROR:
        failure = generation.failure
        name, message = (failure.name, failure.message) if failure else ("", "no message")
        raise GenerationFailedError(
            f"Generation {generation.id} ended in an error at the vendor: "
            f"{name + ': ' if name else ''}{message}.",
            name=name,
            message=message,
            generation_id=generation.id,
            advice="If it was rejected, change the prompt or picture; then clear the task that submitted it.",
        )
    return generation.status is GenerationStatus.COMPLETED and generation.video_url is not None


def not_ready(generation: Generation) -> KlingError:
    """The error for asking for a video that is not there yet."""
    if generation.status is GenerationStatus.COMPLETED:
        return without_url(generation)
    return KlingError(
        f"Generation {generation.id} is not completed yet (status {generation.raw_status!r}).",
        generation_id=generation.id,
        recovery=Recovery.RETRY_TASK,
        advice="Put a KlingGenerationSensor before the download.",
    )


def without_url(generation: Generation) -> MalformedReplyError:
    """The error for a completed generation whose answer has no URL of the video."""
    error = MalformedReplyError(
        f"Generation {generation.id} is completed, but the vendor's answer names no URL of the video.",
        money=Money.ALREADY_PAID,
        advice="Wait for the same generation id again later; do not submit anew.",
        generation_id=generation.id,
    )
    error.recovery = Recovery.RETRY_TASK
    return error


def timed_out(generation_id: str, last_word: str) -> GenerationTimeoutError:
    """The error for a wait whose deadline passed."""
    return GenerationTimeoutError(
        f"The time to wait for generation {generation_id} is over; {last_word}.",
        generation_id=generation_id,
        advice=f"Wait for it again with KlingGenerationSensor(generation_id={generation_id!r}, timeout=...).",
    )

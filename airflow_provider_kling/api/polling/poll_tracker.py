"""What each answer means for a wait: continue, completed, or failed."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_kling.api.exceptions import (
    GenerationFailedError,
    GenerationTimeoutError,
    KlingError,
    MalformedReplyError,
    Money,
    Recovery,
)
from airflow_provider_kling.api.generation import Failure, Generation, GenerationStatus, is_hopeless
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.retry import FATAL_POLLS, FATAL_SECONDS, FINAL_LOOKS, TROUBLE_TOLD

log = logger(__name__)

Watcher = Callable[[Generation], None]
"""Called with each new status of a generation that is waited for."""


class PollTracker:
    """What one wait has seen so far, and when it has seen enough."""

    def __init__(self, generation_id: str, watch: Watcher | None) -> None:
        self._id = generation_id
        self._watch = watch
        self._refusals = 0
        self._refused_since = 0.0
        self._told_at: float | None = None
        self._looks_without_url = 0
        self._raw_status: str | None = None
        self._trouble: str | None = None
        self._unknown_statuses: set[str] = set()

    @property
    def last_word(self) -> str:
        """The last thing known, for the message of a time-out."""
        if self._trouble is not None:
            return f"the last poll failed: {self._trouble}"
        return f"last status: {self._raw_status!r}"

    def on_generation(self, generation: Generation) -> bool:
        """Take in a good answer; true when the wait is over.

        :raises GenerationFailedError: it ended in ``error``.
        :raises MalformedReplyError: completed, but again without a URL.
        """
        self._refusals = 0
        self._trouble = None
        if generation.raw_status != self._raw_status:
            self._raw_status = generation.raw_status
            new = generation.raw_status not in self._unknown_statuses
            if generation.status is GenerationStatus.UNKNOWN and new:
                self._unknown_statuses.add(generation.raw_status)
                log.warning(
                    "Generation %s has an unknown status, %r; treating it as still running.",
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

    def on_error(self, error: KlingError, now: float) -> None:
        """Take in a failed poll; raises it once it has been refused too often for too long.

        :param now: epoch seconds.
        """
        if error.recovery is Recovery.GIVE_UP:
            self._refused_since = min(self._refused_since, now) if self._refusals else now
            self._refusals += 1
            if self._refusals >= FATAL_POLLS and now - self._refused_since >= FATAL_SECONDS:
                raise error
        else:
            self._refusals = 0
        self._trouble = error.what
        if self._told_at is None or not 0.0 <= now - self._told_at < TROUBLE_TOLD:
            self._told_at = now
            log.warning("Polling generation %s failed; still waiting: %s", self._id, error.what)


def is_ready(generation: Generation) -> bool:
    """Whether the video can be fetched.

    :raises GenerationFailedError: the generation ended in ``error``.
    """
    if generation.status is GenerationStatus.ERROR:
        failure = generation.failure or Failure("", "no message")
        hopeless = is_hopeless(failure)
        raise GenerationFailedError(
            f"Generation {generation.id} ended in an error at the vendor: "
            f"{failure.name + ': ' if failure.name else ''}{failure.message.rstrip('.')}.",
            name=failure.name,
            message=failure.message,
            generation_id=generation.id,
            recovery=Recovery.GIVE_UP if hopeless else Recovery.RETRY_TASK,
            advice="The same request would be rejected again: change it and clear the task that submitted it."
            if hopeless
            else "The task that submitted it submits it again when it is retried or cleared.",
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
    return MalformedReplyError(
        f"Generation {generation.id} is completed, but the vendor's answer names no URL of the video.",
        money=Money.ALREADY_PAID,
        advice="Wait for the same generation id again later; do not submit it again.",
        recovery=Recovery.RETRY_TASK,
        generation_id=generation.id,
    )


def timed_out(generation_id: str, last_word: str) -> GenerationTimeoutError:
    """The error for a wait whose deadline passed."""
    return GenerationTimeoutError(
        f"Timed out waiting for generation {generation_id}; {last_word.rstrip('.')}.",
        generation_id=generation_id,
        advice=f"Wait for it again with KlingGenerationSensor(generation_id={generation_id!r}, timeout=...).",
    )

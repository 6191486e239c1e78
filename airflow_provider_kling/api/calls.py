"""What happens in which order, as generators without I/O.

A flow yields an effect (:class:`~.messages.Send` or ``Pause``) and receives
its reply. A client drives it with a transport and a clock; a test drives it with a list of replies.
So retries, deadline, unknown statuses and the safety of a submit are decided once, for the
blocking client, the async client and the triggerer alike.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from airflow_provider_kling.api.exceptions import (
    KlingError,
    MalformedReplyError,
    Recovery,
    SubmitUncertainError,
)
from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.polling.learned_durations import LearningSchedule
from airflow_provider_kling.api.polling.poll_tracker import PollTracker
from airflow_provider_kling.api.polling.poll_tracker import Watcher as Watcher
from airflow_provider_kling.api.polling.poll_tracker import is_ready as is_ready
from airflow_provider_kling.api.polling.poll_tracker import not_ready as not_ready
from airflow_provider_kling.api.polling.poll_tracker import timed_out as timed_out
from airflow_provider_kling.api.polling.schedule import Learner, Schedule, jittered
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.retry import (
    CLOCK_SKEW,
    FATAL_POLLS,
    REFUSED_PAUSE,
    Clock,
    Random,
    RetryPolicy,
    checked_span,
)
from airflow_provider_kling.api.transport.endpoints import LOG_PAGE, Endpoints, LogRow
from airflow_provider_kling.api.transport.error_mapping import certainly_refused
from airflow_provider_kling.api.transport.messages import Flow, HttpRequest, Reply, SaveRecord, Send, Sleep, T

log = logger(__name__)

SUBMIT_RETRIES: Final = RetryPolicy(attempts=4)
READ_RETRIES: Final = RetryPolicy(attempts=5)
LOG_RETRIES: Final = RetryPolicy(attempts=8, base=2.0, cap=60.0)
"""Outlasts the minute for which the vendor counts the requests to its logs."""
LAST_LOOK: Final = 10.0
"""Seconds that the last poll of a wait may take, which begins when the wait's time is over."""
LOG_PACE: Final = 0.3
"""Seconds between pages of the logs: the vendor takes 200 requests in 60 s."""
MOST_LOG_PAGES: Final = 1000
"""Pages of one search at most, in case the vendor's logs have no end."""
LONGEST_LOG_WINDOW: Final = 90 * 86_400.0
"""Seconds that one log query may span; the vendor documents 92 days at most."""
LONGEST_LOG_SPAN: Final = 4 * LONGEST_LOG_WINDOW
"""Seconds that one search looks back at most."""


class VendorCalls:
    """The conversations with the vendor, for one account.

    :param protocol: builds requests, reads replies.
    :param now: epoch seconds.
    :param monotonic: seconds that only go forward, for deadlines; None for the system's, or for ``now`` where
        that is given.
    :param rng: numbers in [0, 1) for the jitter.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        now: Clock = time.time,
        monotonic: Clock | None = None,
        rng: Random = random.random,
    ) -> None:
        self.endpoints = endpoints
        self.now = now
        self.monotonic = monotonic or (time.monotonic if now is time.time else now)
        self.rng = rng
        self.read_retries = READ_RETRIES

    def get_generation(self, generation_id: str) -> Flow[Generation]:
        """Ask how a generation stands, and repeat while that can help.

        A refusal must come :data:`~.retry.FATAL_POLLS` times, seconds apart: where the vendor does
        not know a generation, another one may be paid for.
        """
        return self.read(
            self.endpoints.poll(generation_id),
            lambda reply: self.endpoints.read_poll(reply, generation_id),
            refusals=FATAL_POLLS,
        )

    def get_balance(self) -> Flow[float]:
        """Ask for the balance in USD, and repeat while that can help."""
        return self.read(self.endpoints.balance(), self.endpoints.read_balance)

    def submit(
        self,
        request: GenerationRequest,
        client_request_id: str | None = None,
        intent: Callable[[], SaveRecord] | None = None,
    ) -> Flow[Generation]:
        """Ask for a generation, once.

        The request is repeated only where the vendor certainly did not accept it: it was never
        sent, or it was refused for the moment.

        :param intent: what to remember before each time that it is sent; None for nothing.
        :raises SubmitUncertainError: it may have been accepted, and no id is known.
        :raises KlingError: it was not accepted.
        """
        sending = self.endpoints.submit(request, client_request_id)
        attempt = 0
        while True:
            attempt += 1
            if intent is not None:
                yield intent()
            reply = yield Send(sending)
            try:
                generation = self.endpoints.read_submit(reply)
            except KlingError as error:
                if not certainly_refused(error):
                    raise SubmitUncertainError(
                        f"The submit to {request.model} ended without a generation id. {error.what}",
                        client_request_id=client_request_id,
                    ) from error
                if error.recovery is not Recovery.RETRY_CALL or attempt >= SUBMIT_RETRIES.attempts:
                    raise
                wait = self._wait_after(error, attempt, SUBMIT_RETRIES)
                log.info("The submit was not accepted; sending it again in %.1f s: %s", wait, error.what)
                yield Sleep(wait)
            else:
                if client_request_id is not None and not self.endpoints.keeps(reply, client_request_id):
                    log.warning(
                        "The vendor did not keep the client request id %s of generation %s (its answer does "
                        "not echo it), so its logs cannot be searched for this submit. The generation id is "
                        "known, and nothing is lost.",
                        client_request_id,
                        generation.id,
                    )
                return generation

    def find_row(
        self,
        fits: Callable[[LogRow], bool],
        *,
        models: Sequence[str] = (),
        since: float,
        until: float | None = None,
        most_pages: int = MOST_LOG_PAGES,
        retries: RetryPolicy = LOG_RETRIES,
        key_prefix: str | None = None,
    ) -> Flow[LogRow | None]:
        """Page through the vendor's request logs, newest first, until a row fits.

        A span longer than the vendor lists at once is asked for window by window, back to
        :data:`LONGEST_LOG_SPAN` at most.

        :param fits: is shown each row of a page, also those after the first that fits.
        :param models: of the rows, as the rows name them; none for all models.
        :param since: epoch seconds; older rows are not read.
        :param until: epoch seconds; None for now.
        :param most_pages: pages that are read at most.
        :param retries: of each page.
        :param key_prefix: see :meth:`.Endpoints.logs`.
        :raises MalformedReplyError: the logs have more pages.
        """
        until = self.now() + CLOCK_SKEW if until is None else until
        since = max(since, until - LONGEST_LOG_SPAN)
        pages = 0
        while True:
            begin = max(since, until - LONGEST_LOG_WINDOW)
            offset = 0
            has_more = True
            while has_more:
                if pages >= most_pages:
                    about = f" of {', '.join(models)}" if models else ""
                    raise MalformedReplyError(
                        f"The vendor's logs{about} do not end within {most_pages} pages.",
                        recovery=Recovery.RETRY_TASK,
                    )
                if pages:
                    yield Sleep(LOG_PACE)
                pages += 1
                asking = self.endpoints.logs(
                    models=models, start=begin, end=until, offset=offset, key_prefix=key_prefix
                )
                rows, has_more = yield from self.read(asking, self.endpoints.read_logs, retries=retries)
                fitting = [row for row in rows if fits(row)]
                if fitting:
                    return fitting[0]
                offset += len(rows) or LOG_PAGE
            if begin <= since:
                return None
            until = begin

    def wait(
        self,
        generation_id: str,
        *,
        timeout: float,
        schedule: Schedule | None = None,
        submitted_at: float | None = None,
        watch: Watcher | None = None,
    ) -> Flow[Generation]:
        """Wait at most ``timeout`` seconds until the video is there; see :meth:`wait_until_complete`.

        :raises ValueError: ``timeout`` is not a number from 0 to a week.
        """
        return self.wait_until_complete(
            generation_id,
            schedule=schedule or Schedule.adaptive(None),
            deadline=self.deadline(timeout),
            submitted_at=submitted_at,
            watch=watch,
        )

    def deadline(self, timeout: float) -> float:
        """Epoch seconds at which a wait that begins now is over.

        :param timeout: seconds.
        :raises ValueError: it is not a number from 0 to a week.
        """
        return self.now() + checked_span("timeout", timeout)

    def wait_until_complete(
        self,
        generation_id: str,
        *,
        schedule: Schedule | LearningSchedule,
        deadline: float,
        submitted_at: float | None = None,
        watch: Watcher | None = None,
        first_look_after: float = 0.0,
        learn: Learner | None = None,
        polled: Callable[[int], None] | None = None,
    ) -> Flow[Generation]:
        """Wait until a generation is completed and its video has a URL.

        A poll that fails never ends the wait by itself: passing trouble is waited out until the
        deadline, and even a refusal must come :data:`~.retry.FATAL_POLLS` times in a row, over
        :data:`~.retry.FATAL_SECONDS` at least.

        :param schedule: when to poll.
        :param deadline: epoch seconds; one last poll is made then, which gets :data:`LAST_LOOK` seconds.
            Infinity is none. A clock that is set back meanwhile does not move it.
        :param submitted_at: epoch seconds of the submit, which the schedule counts from; None for now.
        :param watch: called with each status when it changes.
        :param first_look_after: seconds before the first poll.
        :param learn: called with how long it took, where ``submitted_at`` is known.
        :param polled: called with how many polls it took, whatever ended the wait.
        :raises GenerationFailedError: it ended in ``error``.
        :raises GenerationTimeoutError: the deadline passed.
        :raises KlingError: the vendor refuses to answer about it.
        :raises ValueError: the deadline is not a number, and would never pass.
        """
        if math.isnan(deadline):
            raise ValueError(f"The deadline of the wait for generation {generation_id} is not a number.")
        now = self.now()
        since = now if submitted_at is None else submitted_at
        latest = self.monotonic() + (deadline - now)
        not_yet_at = 0.0
        tracker = PollTracker(generation_id, watch)
        asking = self.endpoints.poll(generation_id)
        if first_look_after > 0:
            yield Sleep(first_look_after)
        polls = 0
        try:
            while True:
                left = self._left(deadline, latest)
                polls += 1
                reply = yield Send(asking, None if left == math.inf else max(left, LAST_LOOK))
                retry_after: float | None = None
                try:
                    generation = self.endpoints.read_poll(reply, generation_id)
                except KlingError as error:
                    tracker.on_error(error, self.now())
                    retry_after = getattr(error, "retry_after", None)
                else:
                    elapsed = self.now() - since
                    if tracker.on_generation(generation):
                        if learn is not None and submitted_at is not None:
                            learn(elapsed, not_yet_at)
                        return generation
                    not_yet_at = elapsed
                    del generation
                del reply  # thousands wait here, each for minutes
                left = self._left(deadline, latest)
                if left <= 0:
                    raise timed_out(generation_id, tracker.last_word)
                yield Sleep(min(self._next_wait(schedule, since, retry_after), left))
        finally:
            if polled is not None:
                polled(polls)

    def _left(self, deadline: float, latest: float) -> float:
        """Seconds until a deadline, by the clock that comes to it first.

        :param deadline: epoch seconds.
        :param latest: the same moment on the monotonic clock.
        """
        return min(deadline - self.now(), latest - self.monotonic())

    def _next_wait(
        self, schedule: Schedule | LearningSchedule, since: float, retry_after: float | None
    ) -> float:
        wait = jittered(schedule.next_wait(self.now() - since), self.rng)
        if retry_after is not None:
            wait = max(wait, READ_RETRIES.delay(1, self.rng, retry_after))
        return max(0.0, wait)

    def read(
        self,
        request: HttpRequest,
        read: Callable[[Reply], T],
        refusals: int = 1,
        retries: RetryPolicy | None = None,
    ) -> Flow[T]:
        """Make a free call, and repeat it while that can help.

        :param refusals: how many permanent refusals in a row are believed.
        :param retries: None for the usual ones.
        """
        retries = retries or self.read_retries
        attempt = 0
        while True:
            attempt += 1
            reply = yield Send(request)
            try:
                return read(reply)
            except KlingError as error:
                passing = error.recovery is Recovery.RETRY_CALL
                refusals -= not passing
                if refusals <= 0 or (passing and attempt >= retries.attempts):
                    raise
                wait = self._wait_after(error, attempt, retries) + (0.0 if passing else REFUSED_PAUSE)
                log.info("Repeating the %s request in %.1f s: %s", request.call, wait, error.what)
            yield Sleep(wait)

    def _wait_after(self, error: KlingError, attempt: int, retries: RetryPolicy) -> float:
        return retries.delay(attempt, self.rng, getattr(error, "retry_after", None))

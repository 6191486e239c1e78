"""The connections that the waits of an event loop use: each read once for all who ask.

Airflow's API server restarts and secrets backends have hiccups. A reading that fails or gets no
answer is repeated, by one task for all, and ends no wait before that wait's own time is over.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Container
from typing import Final

from airflow_provider_kling.api.exceptions import ConfigurationError, Recovery
from airflow_provider_kling.api.polling.shared_poller import OverdueError
from airflow_provider_kling.api.redaction import clean, logger, shown
from airflow_provider_kling.api.retry import RetryPolicy
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.shared_rate_limiter import limiter_for
from airflow_provider_kling.hooks.connection import read_settings
from airflow_provider_kling.version_compat import AirflowNotFoundException

log = logger(__name__)

READING_TIMEOUT: Final = 30.0
"""Seconds after which a reading without an answer counts as failed; the first one of a triggerer
has taken 10 (measured)."""
RETRIES: Final = RetryPolicy(base=2.0, cap=60.0)
"""How long to wait after a failed reading; the attempts have no end."""
FAILED_FOR: Final = 5.0
"""Seconds for which a connection that cannot be used is not read again."""
MISSING_FOR: Final = 300.0
"""Seconds for which a connection must be missing before that is believed: Airflow says the same
when its API server or secrets backend does not answer (3.3 and 2.11)."""


class _CachedConnection:
    """One connection: as it was read last, and being read again while a wait needs it."""

    def __init__(self, conn_id: str) -> None:
        self.settings: Settings | None = None
        self.asking = 0
        self._conn_id = conn_id
        self._loop = asyncio.get_running_loop()
        self._begun = -math.inf
        self._task: asyncio.Task[Settings] | None = None
        self._trouble = "no answer"

    def begin(self, fresh: float) -> asyncio.Task[Settings]:
        """Have it read, unless it is being read or was read less than ``fresh`` seconds ago."""
        task = self._task
        if task is not None and task.done():
            failed = task.cancelled() or task.exception() is not None
            if self._loop.time() - self._begun > (min(fresh, FAILED_FOR) if failed else fresh):
                task = None
        if task is None:
            task = self._task = self._loop.create_task(self._read())
            # Taken note of here, should all who asked be gone by then.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def get(self, fresh: float, at_most: float) -> Settings:
        """See :meth:`ConnectionCache.get`."""
        task = self.begin(fresh)
        if not task.done():
            self.asking += 1
            try:
                # One wait's cancellation does not end the read for the others.
                await asyncio.wait({task}, timeout=None if math.isinf(at_most) else max(0.0, at_most))
            finally:
                self.asking -= 1
        if not task.done() or task.cancelled():
            raise OverdueError(f"connection {shown(self._conn_id)} could not be read: {self._trouble}")
        return task.result()

    def stop(self) -> None:
        """No wait needs it any more."""
        if self._task is not None:
            self._task.cancel()

    async def _read(self) -> Settings:
        """Read it until that works."""
        first = self._loop.time()
        attempt = 0
        while True:
            attempt += 1
            self._begun = self._loop.time()
            try:
                async with asyncio.timeout(READING_TIMEOUT):
                    settings = await read_settings(self._conn_id)
            except ConfigurationError as error:
                log.warning("%s", error.what)
                raise
            except AirflowNotFoundException as error:
                if self._loop.time() - first >= MISSING_FOR:
                    raise self._missing() from error
                self._fail(error, attempt)
            except asyncio.CancelledError as error:
                if (task := asyncio.current_task()) is None or task.cancelling():
                    raise
                self._fail(error, attempt)  # by what was waited for, not by us
            except Exception as error:
                self._fail(error, attempt)
            else:
                if attempt > 1:
                    log.info("Read connection %r after %d attempts.", self._conn_id, attempt)
                if settings != self.settings:
                    self.settings = settings
                limiter_for(settings)  # the configured rate that was read last counts
                return settings
            await asyncio.sleep(RETRIES.delay(attempt, random.random))

    def _fail(self, error: BaseException, attempt: int) -> None:
        said = clean(str(error))
        if isinstance(error, TimeoutError):
            said = said or f"no answer within {READING_TIMEOUT:.0f} s"
        self._trouble = f"{type(error).__name__}{f': {said}' if said else ''}"
        if attempt == 1:
            log.warning(
                "Could not read connection %r; retrying: %s",
                self._conn_id,
                self._trouble,
            )

    def _missing(self) -> ConfigurationError:
        return ConfigurationError(
            f"The triggerer found no connection {self._conn_id!r} for {MISSING_FOR / 60:.0f} minutes.",
            advice="Create it where triggerers can read it, not only workers; then clear the task, which "
            "waits for the same generation again.",
            recovery=Recovery.RETRY_TASK,
        )


class ConnectionCache:
    """The connections that are waited on in one event loop."""

    def __init__(self) -> None:
        self._cache: dict[str, _CachedConnection] = {}

    def __len__(self) -> int:
        return len(self._cache)

    async def get(self, conn_id: str, *, fresh: float, at_most: float) -> Settings:
        """A connection's settings.

        :param fresh: seconds ago that it may have been read.
        :param at_most: seconds to wait for it.
        :raises ConfigurationError: it cannot be used, or is not there.
        :raises OverdueError: it could not be read in that time.
        """
        return await self._of(conn_id).get(fresh, at_most)

    def look_again(self, conn_id: str, *, fresh: float) -> None:
        """Read a connection again in the background, while it is in use.

        :param fresh: seconds ago that it may have been read.
        """
        if reading := self._cache.get(conn_id):
            reading.begin(fresh)

    def latest(self, conn_id: str) -> Settings | None:
        """A connection as it was read last; None where nothing is known of it."""
        reading = self._cache.get(conn_id)
        return None if reading is None else reading.settings

    def forget_all_but(self, used: Container[str]) -> None:
        """Forget the connections that are neither used nor asked for."""
        for conn_id, reading in tuple(self._cache.items()):
            if conn_id not in used and not reading.asking:
                reading.stop()
                del self._cache[conn_id]

    def _of(self, conn_id: str) -> _CachedConnection:
        if conn_id not in self._cache:
            self._cache[conn_id] = _CachedConnection(conn_id)
        return self._cache[conn_id]

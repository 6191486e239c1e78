"""KlingRetryPolicy: retries that make sense for this vendor. Airflow 3.3 and newer.

::

    KlingGenerateOperator(..., retries=5, retry_policy=KlingRetryPolicy())

Without it the task still fails at once on what a retry cannot fix, and retries the rest after its
own ``retry_delay``.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from airflow_provider_kling.api.exceptions import KlingError, Recovery
from airflow_provider_kling.api.retry import RetryPolicy as Backoff
from airflow_provider_kling.version_compat import RetryDecision, RetryPolicy

_PATIENCE = Backoff(base=30.0, cap=900.0, longest_retry_after=3600.0)


class KlingRetryPolicy(RetryPolicy):
    """Fail fast on what a retry cannot fix, wait as long as the vendor asked on 429, back off on the rest.

    The wait is drawn from the upper half of 30 s, doubled with each attempt up to 15 minutes; a longer
    ``Retry-After`` of the vendor is kept, up to an hour.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        """Decide on a retry; errors that are not this provider's are left to the task's own settings.

        :param exception: what the task raised.
        :param try_number: 1 for the first attempt; keeps counting when the task is cleared.
        :param max_tries: the last try's number, which each clear raises.
        :param context: tells how many retries the task has, and so how often it failed since the clear.
        """
        error = _kling_error(exception)
        if error is None:
            return RetryDecision.default()
        if error.recovery is Recovery.GIVE_UP:
            return RetryDecision.fail(reason=f"{type(error).__name__}: a retry cannot fix it")
        retries = context["task"].retries if context else max_tries
        failures = max(1, try_number - max(0, max_tries - retries))
        seconds = _PATIENCE.delay(failures, lambda: 0.5 + random.random() / 2)
        reason = "backing off"
        asked: float | None = getattr(error, "retry_after", None)
        if asked is not None and asked > seconds:
            seconds = _PATIENCE.delay(failures, random.random, asked)
            reason = f"the vendor asked for {asked:.0f} s"
        return RetryDecision.retry(
            delay=timedelta(seconds=round(seconds)), reason=f"{type(error).__name__}: {reason}"
        )

    def serialize(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> KlingRetryPolicy:
        """Create it.

        :param data: not used.
        """
        return cls()


def _kling_error(exception: BaseException | None) -> KlingError | None:
    """The provider's error, where it is the exception itself or its cause."""
    while exception is not None and not isinstance(exception, KlingError):
        exception = exception.__cause__
    return exception

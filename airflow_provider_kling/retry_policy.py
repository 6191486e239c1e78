"""KlingRetryPolicy: retries that make sense for this vendor. Airflow 3.3 and newer.

::

    KlingGenerateOperator(..., retries=5, retry_policy=KlingRetryPolicy())

Without it the task still fails at once on what a retry cannot mend, and retries the rest after its
own ``retry_delay``.
"""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from airflow_provider_kling.api.errors import KlingError, Recovery
from airflow_provider_kling.api.policy import RetryPolicy as Backoff
from airflow_provider_kling.compat import RetryDecision, RetryPolicy

_PATIENCE = Backoff(base=30.0, cap=900.0, longest_retry_after=3600.0)


class KlingRetryPolicy(RetryPolicy):
    """Fail fast on what a retry cannot mend, wait what the vendor asks on 429, back off on the rest.

    The vendor's ``Retry-After`` is kept up to an hour; otherwise the wait is drawn from the upper half
    of 30 s, doubled with each try up to 15 minutes.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Any = None
    ) -> RetryDecision:
        """Decide on a retry; errors that are not this provider's are left to the task's own settings.

        :param exception: what the task raised.
        :param try_number: 1 for the first try.
        :param max_tries: not used; Airflow counts.
        :param context: not used.
        """
        error = _kling_error(exception)
        if error is None:
            return RetryDecision.default()
        if error.recovery is Recovery.GIVE_UP:
            return RetryDecision.fail(reason=f"{type(error).__name__}: a retry cannot mend it")
        asked: float | None = getattr(error, "retry_after", None)
        if asked is not None:
            seconds = _PATIENCE.delay(try_number, random.random, asked)
            reason = f"{type(error).__name__}: the vendor asked for {asked:.0f} s"
        else:
            seconds = _PATIENCE.delay(try_number, lambda: 0.5 + random.random() / 2)
            reason = f"{type(error).__name__}: backing off"
        return RetryDecision.retry(delay=timedelta(seconds=round(seconds)), reason=reason)

    def serialize(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> KlingRetryPolicy:
        """Make it anew.

        :param data: not used.
        """
        return cls()


def _kling_error(exception: BaseException | None) -> KlingError | None:
    """The provider's error, where it is the exception itself or its cause."""
    while exception is not None and not isinstance(exception, KlingError):
        exception = exception.__cause__
    return exception

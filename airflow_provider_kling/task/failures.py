"""The one place that turns the API's errors into what Airflow does next: retry the task, or fail it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_kling.api.exceptions import (
    KlingError,
    Recovery,
)
from airflow_provider_kling.version_compat import (
    AirflowFailException,
)


@contextmanager
def failing_as_airflow_expects() -> Iterator[None]:
    """Fail the task without a retry where a retry mends nothing; let every other error be retried.

    :raises AirflowFailException: with the error's whole message.
    :raises KlingError: passing trouble, which Airflow retries as the task says.
    """
    try:
        yield
    except KlingError as error:
        if error.recovery is Recovery.GIVE_UP:
            raise AirflowFailException(str(error)) from error
        raise


def goes_on(generation_id: str, why: str = "The task was stopped.") -> str:
    """What to say when a wait ends while its generation works: the vendor has no cancel.

    :param why: what ended it.
    """
    return (
        f"{why} Generation {generation_id} goes on at the vendor, which has no cancel, and is"
        " billed when it completes. A later try of the task adopts it; until then it can be waited for with "
        f"KlingGenerationSensor(generation_id={generation_id!r})."
    )

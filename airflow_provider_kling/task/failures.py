"""The one place that turns the API's errors into what Airflow does next: retry the task, or fail it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_kling.api.exceptions import GenerationFailedError, KlingError, Recovery
from airflow_provider_kling.version_compat import AirflowFailException


@contextmanager
def failing_as_airflow_expects(*, submits: bool = True) -> Iterator[None]:
    """Fail the task without a retry where a retry mends nothing; let every other error be retried.

    :param submits: whether a retry of this task submits again. One that only waits for a generation, or
        downloads its video, finds a failed one failed again.
    :raises AirflowFailException: with the error's whole message.
    :raises KlingError: passing trouble, which Airflow retries as the task says.
    """
    try:
        yield
    except KlingError as error:
        over = isinstance(error, GenerationFailedError) and not submits
        if over or error.recovery is Recovery.GIVE_UP:
            raise AirflowFailException(str(error)) from error
        raise

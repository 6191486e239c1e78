"""The one place that turns the API's errors into what Airflow does next: retry the task, or fail it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_kling.api.exceptions import GenerationFailedError, KlingError, Recovery
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.task import xcom
from airflow_provider_kling.version_compat import AirflowFailException

if TYPE_CHECKING:
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)


@contextmanager
def failing_as_airflow_expects(context: Context, *, submits: bool = True) -> Iterator[None]:
    """Fail the task without a retry where a retry cannot help; let every other error be retried.

    :param context: Airflow's; the error is recorded in XCom ``failure``, for whoever inspects the task.
    :param submits: whether a retry of this task submits again. One that only waits for a generation, or
        downloads its video, finds a failed one failed again.
    :raises AirflowFailException: with the error's whole message.
    :raises KlingError: passing trouble, which Airflow retries as the task says.
    """
    try:
        yield
    except KlingError as error:
        from airflow_provider_kling.hooks import metrics

        record_failure(context, error)
        metrics.count_failure(metrics.task_tags(context), error)
        over = isinstance(error, GenerationFailedError) and not submits
        if over or error.recovery is Recovery.GIVE_UP:
            raise AirflowFailException(str(error)) from error
        raise


def record_failure(context: Context, error: KlingError) -> None:
    """Push why the task has no video; of several variants, each has pushed its own failure before."""
    from airflow_provider_kling.triggers.kling import failed_event

    try:
        if not isinstance(xcom.pull(context, xcom.FAILURE), list):
            xcom.push(context, xcom.FAILURE, failed_event(error.generation_id or "", error))
    except Exception as trouble:  # it must not hide the error itself
        log.warning("Could not record the failure in XCom: %s", trouble)

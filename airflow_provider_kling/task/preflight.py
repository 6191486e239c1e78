"""What saving a video will need, tried before the generation is paid."""

from __future__ import annotations

from typing import Any

from airflow_provider_kling.api.catalog.texts import left_over
from airflow_provider_kling.api.download.targets import target_for
from airflow_provider_kling.api.exceptions import DownloadError, InvalidRequestError, KlingError, Recovery
from airflow_provider_kling.api.paths import LONGEST_SAFE_NAME, check_path, is_stored, tells_apart
from airflow_provider_kling.api.redaction import clean
from airflow_provider_kling.hooks.object_storage import target_path
from airflow_provider_kling.task import sidecar
from airflow_provider_kling.version_compat import AirflowNotFoundException

LONGEST_ID = "x" * LONGEST_SAFE_NAME
"""Stands for the generation id that is not known yet, with the longest name that one can have."""


def check_writable(
    client_request_id: str, *, path: Any, overwrite: bool, with_sidecar: bool, model: str
) -> None:
    """Try what saving will do, as far as nothing of it stays.

    :param client_request_id: of the submit that is about to be made.
    :param path: the rendered path; None where no video is saved.
    :param overwrite: whether what is there may be replaced.
    :param with_sidecar: whether a sidecar is written beside the video.
    :param model: for ``{model}``.
    :raises KlingError: no video can be saved there; nothing was submitted.
    """
    if path is None:
        return
    try:
        place = target_path(path, generation_id=LONGEST_ID, model=model, client_request_id=client_request_id)
        if is_stored(place):
            _ = place.fs  # fails here for an unknown storage, whichever Airflow looks it up
        target = target_for(place, "to come")
        target.check_writable(free=not (tells_apart(str(path)) or overwrite))
        if with_sidecar:
            conn_id = getattr(path, "conn_id", None)
            sidecar.check_writable(sidecar.sidecar_path(target.shown), conn_id=conn_id)
    except Exception as error:  # storage libraries raise what they like
        if isinstance(error, DownloadError):
            hopeless, why = error.recovery is Recovery.GIVE_UP, error.__cause__ or error
            said = error.what if why is error else f"{type(why).__name__}: {why}"
        else:
            hopeless = isinstance(error, ImportError | ValueError | AirflowNotFoundException)
            said = f"{type(error).__name__}: {error}"
        raise KlingError(
            f"No video can be saved at {clean(str(path))!r}: {clean(said).rstrip('.')}.",
            advice="Nothing was submitted by this attempt. Correct the path, its permissions or its "
            "connection, or install the Airflow provider of this kind of storage, then clear the task.",
            recovery=Recovery.GIVE_UP if hopeless else Recovery.RETRY_TASK,
        ) from error


def check_target(path: Any, *, several: bool) -> None:
    """Check a rendered path by its text alone.

    :param path: None where no video is saved.
    :param several: whether more than one video goes there.
    :raises InvalidRequestError: no video, or not each of them, can be saved there.
    """
    if path is None:
        return
    check_path(path)
    for name in str(path).split("/"):
        if name.startswith(("[", "(", "{")) and not set(name) & {"'", '"', "<"}:
            continue  # people name folders [2026]
        if why := left_over(name) or left_over(name.rpartition(".")[0]):
            raise InvalidRequestError(f"The path {clean(str(path))!r} cannot be used: a name in it is {why}.")
    if several and not tells_apart(str(path)):
        raise InvalidRequestError(
            f"Several videos cannot all be saved at {clean(str(path))!r}.",
            advice="Put {generation_id} into the path, or end it with a slash.",
        )

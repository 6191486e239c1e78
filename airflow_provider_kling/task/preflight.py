"""What saving a video will need, tried before the generation is paid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_kling.api.download.targets import target_for
from airflow_provider_kling.api.exceptions import DownloadError, InvalidRequestError, KlingError, Recovery
from airflow_provider_kling.api.paths import LONGEST_SAFE_NAME, check_path, is_stored, tells_apart
from airflow_provider_kling.api.redaction import clean
from airflow_provider_kling.hooks.object_storage import target_path
from airflow_provider_kling.task import sidecar
from airflow_provider_kling.version_compat import AirflowNotFoundException

LONGEST_ID = "x" * LONGEST_SAFE_NAME
"""Stands for the generation id that is not known yet, with the longest name that one can have."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """Tries what saving will do, as far as nothing of it stays.

    :param path: the rendered path; None where no video is saved.
    :param overwrite: whether what is there may be replaced.
    :param with_sidecar: whether a sidecar is written beside the video.
    :param model: for ``{model}``.
    """

    path: Any
    overwrite: bool
    with_sidecar: bool
    model: str

    def __call__(self, client_request_id: str) -> None:
        """Try it.

        :param client_request_id: of the submit that is about to be made.
        :raises KlingError: no video can be saved there; nothing was submitted.
        """
        if self.path is None:
            return
        try:
            self._try(client_request_id)
        except Exception as error:  # storage libraries raise what they like
            if isinstance(error, DownloadError):
                hopeless, why = error.recovery is Recovery.GIVE_UP, error.__cause__ or error
                said = error.what if why is error else f"{type(why).__name__}: {why}"
            else:
                hopeless = isinstance(error, ImportError | ValueError | AirflowNotFoundException)
                said = f"{type(error).__name__}: {error}"
            raise KlingError(
                f"No video can be saved at {clean(str(self.path))!r}: {clean(said).rstrip('.')}.",
                advice="Nothing was submitted by this attempt. Correct the path, its permissions or its "
                "connection, or install the Airflow provider of this kind of storage, then clear the task.",
                recovery=Recovery.GIVE_UP if hopeless else Recovery.RETRY_TASK,
            ) from error

    def _try(self, client_request_id: str) -> None:
        place = target_path(
            self.path, generation_id=LONGEST_ID, model=self.model, client_request_id=client_request_id
        )
        if is_stored(place):
            _ = place.fs  # fails here for an unknown storage, whichever Airflow looks it up
        own_name = tells_apart(str(self.path))
        target = target_for(place, "to come")
        target.check_writable(free=not (own_name or self.overwrite))
        if self.with_sidecar:
            conn_id = getattr(self.path, "conn_id", None)
            sidecar.check_writable(sidecar.sidecar_path(target.shown), conn_id=conn_id)


def check_target(path: Any, *, several: bool) -> None:
    """Check a rendered path by its text alone.

    :param path: None where no video is saved.
    :param several: whether more than one video goes there.
    :raises InvalidRequestError: no video, or not each of them, can be saved there.
    """
    if path is None:
        return
    check_path(path)
    if several and not tells_apart(str(path)):
        raise InvalidRequestError(
            f"Several videos cannot all be saved at {clean(str(path))!r}.",
            advice="Put {generation_id} into the path, or end it with a slash.",
        )

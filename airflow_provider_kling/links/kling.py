"""Links on a task's page: to its video, to the gallery of its run, to its saved file.

Airflow asks for each link in the task's own process, at the end of each part of a task, and stores it: so it
is made of the task instance, and of what the operator has saved by then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from airflow_provider_kling.version_compat import HAS_PLUGIN_VIEWS, BaseOperatorLink, conf


class KlingVideoLink(BaseOperatorLink):
    """To the tab of the task instance, which plays its video."""

    name = "Video"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """See :class:`BaseOperatorLink`."""
        return f"{_base()}{_task(ti_key)}/plugin/kling"


class KlingGalleryLink(BaseOperatorLink):
    """To all generations of the run."""

    name = "Kling gallery"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """See :class:`BaseOperatorLink`."""
        return f"{_base()}{_run(ti_key)}/plugin/kling-run"


class KlingSavedFileLink(BaseOperatorLink):
    """To the file that this attempt has saved, through the API server; none before there is one."""

    name = "Saved file"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """See :class:`BaseOperatorLink`."""
        # not from XCom: Airflow logs an error for each that is not there, as before the video is saved
        # of a mapped task that is skipped Airflow has made no operator: it asks with the mapped one
        paths: Sequence[str | None] = getattr(operator, "saved_paths", ())
        if not any(paths):
            return ""
        if len(paths) > 1:
            return f"{_base()}{_task(ti_key)}/plugin/kling"  # the tab has them all
        run = f"dags/{_part(ti_key.dag_id)}/runs/{_part(ti_key.run_id)}"
        task = f"tasks/{_part(ti_key.task_id)}/{ti_key.map_index}/attempts/{ti_key.try_number}"
        return f"{_base()}kling/api/{run}/{task}/generations/0/video"


LINKS: Final = (KlingVideoLink(), KlingGalleryLink()) if HAS_PLUGIN_VIEWS else ()
"""The links of a task of this provider; none where Airflow has no views to link to."""
SAVING_LINKS: Final = (*LINKS, KlingSavedFileLink()) if HAS_PLUGIN_VIEWS else ()
"""Those of an operator that saves videos, and has ``saved_paths``."""


def _base() -> str:
    return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/"


def _run(ti_key: Any) -> str:
    return f"dags/{_part(ti_key.dag_id)}/runs/{_part(ti_key.run_id)}"


def _task(ti_key: Any) -> str:
    mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index >= 0 else ""
    return f"{_run(ti_key)}/tasks/{_part(ti_key.task_id)}{mapped}"


def _part(text: str) -> str:
    return quote(text, safe="")

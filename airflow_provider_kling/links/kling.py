"""Links on a task's page: to its video, to the gallery of its run, to its saved file.

Airflow stores a link at the end of each part of a task, so it is made of what does not change until the
next part: the task instance itself, and the XComs of this attempt.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from airflow_provider_kling.task import xcom
from airflow_provider_kling.version_compat import HAS_PLUGIN_VIEWS, BaseOperatorLink, XCom, conf


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
        path = XCom.get_value(ti_key=ti_key, key=xcom.PATH)
        if isinstance(path, list) and any(path):
            return f"{_base()}{_task(ti_key)}/plugin/kling"  # several: the tab has them all
        if not isinstance(path, str):
            return ""
        run = f"dags/{_part(ti_key.dag_id)}/runs/{_part(ti_key.run_id)}"
        task = f"tasks/{_part(ti_key.task_id)}/{ti_key.map_index}/attempts/{ti_key.try_number}"
        return f"{_base()}kling/api/{run}/{task}/generations/0/video"


LINKS: Final = (KlingVideoLink(), KlingGalleryLink(), KlingSavedFileLink()) if HAS_PLUGIN_VIEWS else ()
"""The links of this provider's operators; none where Airflow has no views to link to."""


def _base() -> str:
    return f"{conf.get('api', 'base_url', fallback='').rstrip('/')}/"


def _run(ti_key: Any) -> str:
    return f"dags/{_part(ti_key.dag_id)}/runs/{_part(ti_key.run_id)}"


def _task(ti_key: Any) -> str:
    mapped = f"/mapped/{ti_key.map_index}" if ti_key.map_index >= 0 else ""
    return f"{_run(ti_key)}/tasks/{_part(ti_key.task_id)}{mapped}"


def _part(text: str) -> str:
    return quote(text, safe="")

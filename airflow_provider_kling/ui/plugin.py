"""The Airflow plugin: its views and its FastAPI app.

Every Airflow process loads plugins, so this module imports next to nothing; the app is made when the
API server asks for it. An unknown destination breaks the plugin list of a whole Airflow, so the views
name only destinations that 3.1, the first version with views, knows.
"""

from __future__ import annotations

from typing import Any, Final

from airflow import __version__
from airflow.providers.common.compat.sdk import AirflowPlugin

URL_PREFIX: Final = "/kling"
"""Where the app is mounted, below the path prefix of the API server."""
_ICON: Final = "kling/static/icon.svg"
_ICON_DARK: Final = "kling/static/icon-dark.svg"

FIRST_WITH_VIEWS: Final = (3, 1)
FIRST_WITH_APPLIES_TO: Final = (3, 4)

OPERATORS: Final = (
    "KlingGenerateOperator",
    "KlingGenerationSensor",
    "KlingDownloadOperator",
    "KlingGenerateBatchOperator",
    "@task.kling_generate",
    "@task.kling_batch",
    "HITLOperator",
    "HITLBranchOperator",
    "ApprovalOperator",
    "HITLEntryOperator",
)
"""Names of operators, as Airflow shows them, whose tasks have the tab on Airflow 3.4 and newer. A subclass
has a name of its own and then no tab there; its generations are in the tab of the run and in the gallery."""


def views(version: tuple[int, int]) -> list[dict[str, Any]]:
    """The views of one Airflow version.

    :param version: major and minor.
    :return: nothing before 3.1, which has no views.
    """
    if version < FIRST_WITH_VIEWS:
        return []
    run = "dag_id={DAG_ID}&run_id={RUN_ID}"
    found = [
        _view("Kling gallery", "nav", "kling-gallery", "view=gallery", category="browse"),
        _view("Kling", "dag", "kling-dag", "view=gallery&dag_id={DAG_ID}"),
        _view("Kling", "dag_run", "kling-run", f"view=gallery&{run}"),
        _view(
            "Kling", "task_instance", "kling", f"view=task&{run}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}"
        ),
    ]
    if version >= FIRST_WITH_APPLIES_TO:
        found[-1]["applies_to"] = {"operator_name": list(OPERATORS)}
    return found


def _view(name: str, destination: str, route: str, query: str, **more: str) -> dict[str, Any]:
    # A relative address: Airflow's page has the path prefix as its base.
    return {
        "name": name,
        "href": f"kling/?{query}",
        "destination": destination,
        "url_route": route,
        "icon": _ICON,
        "icon_dark_mode": _ICON_DARK,
        **more,
    }


def running_version() -> tuple[int, int]:
    """Major and minor of the Airflow that runs."""
    major, minor = __version__.split(".")[:2]
    return int(major), int(minor)


class _Apps:
    """The plugin's list of apps, made at first use."""

    def __get__(self, instance: object, owner: type) -> list[dict[str, Any]]:
        if instance is None or running_version() < FIRST_WITH_VIEWS:
            return []
        from airflow_provider_kling.ui.app import app

        return [{"app": app(), "url_prefix": URL_PREFIX, "name": "Kling"}]


class KlingPlugin(AirflowPlugin):
    """Shows each task's videos in Airflow's UI; see ``docs/ui.md``."""

    name = "kling"
    fastapi_apps = _Apps()
    external_views: list[dict[str, Any]] = views(running_version())

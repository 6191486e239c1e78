"""Who may see what: Airflow's own authentication, and its permissions on each DAG's XComs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends

__all__ = ["READS_XCOMS", "GetUserDep", "readable_dags"]

READS_XCOMS: Final = (
    Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)),
    Depends(requires_access_dag("GET", DagAccessEntity.XCOM)),
)
"""The guards of every route that names a DAG: its viewer may read the DAG's task instances and XComs."""


def readable_dags(user: Any, dag_ids: Collection[str]) -> set[str]:
    """Those of some DAGs whose task instances and XComs a user may read.

    :param user: as Airflow authenticated them.
    """
    manager = get_auth_manager()
    teams = _teams(dag_ids)

    def may(dag_id: str, entity: DagAccessEntity) -> bool:
        details = DagDetails(id=dag_id, team_name=teams.get(dag_id))
        return manager.is_authorized_dag(method="GET", access_entity=entity, details=details, user=user)

    entities = (DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)
    return {dag_id for dag_id in dag_ids if all(may(dag_id, entity) for entity in entities)}


def _teams(dag_ids: Collection[str]) -> dict[str, str | None]:
    if not dag_ids or not hasattr(DagModel, "get_dag_id_to_team_name_mapping"):
        return {}
    return dict(DagModel.get_dag_id_to_team_name_mapping(list(dag_ids)))

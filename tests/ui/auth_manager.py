"""Two users: ``anna`` sees every DAG, ``ben`` only those that are not ``campaign`` or begin with it."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

HIDDEN_FROM_BEN = "campaign"


class TwoUsersAuthManager(SimpleAuthManager):
    """Airflow's own simple auth manager, with a DAG that one of its users may not read."""

    def is_authorized_dag(self, *, user: Any, details: Any = None, **asked: Any) -> bool:
        dag_id = getattr(details, "id", None)
        if user.username == "ben" and dag_id is not None and dag_id.startswith(HIDDEN_FROM_BEN):
            return False
        return super().is_authorized_dag(user=user, details=details, **asked)

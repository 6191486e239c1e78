"""What the tests ask of the provider itself, in the process that has Airflow: see inside_airflow.py."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any


def store_connection(uri: str, conn_id: str) -> None:
    """Keep a connection in the database, as the UI does."""
    import sqlalchemy as sa
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    with create_session() as session:
        session.execute(sa.delete(Connection).where(Connection.conn_id == conn_id))
        session.add(Connection(conn_id=conn_id, uri=uri))


def test_connection(conn_id: str) -> list[Any]:
    """What the button of that name answers."""
    from airflow_provider_kling.hooks.kling import KlingHook

    return list(KlingHook(conn_id).test_connection())


def settings_of(conn_id: str) -> dict[str, Any]:
    """What the hook reads from a connection, without its key."""
    from airflow_provider_kling.hooks.kling import KlingHook

    settings = asdict(KlingHook(conn_id).settings)
    return settings | {"api_key": len(settings["api_key"])}


def hook_form() -> dict[str, Any]:
    """The connection's form as the hook tells it, for Airflow before 3.2."""
    from airflow_provider_kling.hooks.kling import KlingHook

    widgets = KlingHook.get_connection_form_widgets()
    return {
        "behaviour": KlingHook.get_ui_field_behaviour(),
        "widgets": {name: field.field_class.__name__ for name, field in widgets.items()},
        "labels": {name: str(field.kwargs["label"]) for name, field in widgets.items()},
    }


def trigger_arguments(**arguments: Any) -> dict[str, Any]:
    """What is stored of a trigger."""
    from airflow_provider_kling.triggers.kling import KlingGenerationTrigger

    return KlingGenerationTrigger(**arguments).serialize()[1]

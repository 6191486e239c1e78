"""The app as the API server mounts it, with Airflow's own authentication, over a database of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

if Version(version("apache-airflow")) < Version("3.1"):
    collect_ignore_glob = ["test_*.py"]

Viewer = Callable[[str | None], Any]


@pytest.fixture(scope="module")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty Airflow database; its folder."""
    from tests.unit.ui.airflow_rows import database

    folder = tmp_path_factory.mktemp("database")
    with database(folder):
        yield folder


@pytest.fixture(scope="module")
def viewer(airflow_database: Path) -> Iterator[Viewer]:
    """A client of the app for a user, ``anna`` or ``ben``; of nobody for None."""
    from airflow.api_fastapi import app as airflow_app
    from airflow.configuration import conf
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_provider_kling.ui.app import app

    conf.set("core", "auth_manager", "tests.ui.auth_manager.TwoUsersAuthManager")
    conf.set("core", "simple_auth_manager_users", "anna:admin,ben:admin")
    conf.set("core", "simple_auth_manager_passwords_file", str(airflow_database / "passwords.json"))
    conf.set("api_auth", "jwt_secret", "a secret of the tests, and long enough for HS512: " + "x" * 32)
    _forget(airflow_app)
    manager = airflow_app.create_auth_manager()
    manager.init()
    outer = FastAPI()
    outer.mount("/kling", app())

    def client(user: str | None) -> Any:
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        cookies = {}
        if user is not None:
            cookies["_token"] = manager.generate_jwt(SimpleAuthManagerUser(username=user, role="admin"))
        return TestClient(outer, base_url="http://airflow.example/kling/", cookies=cookies)

    yield client
    _forget(airflow_app)
    for section, option in (
        ("core", "auth_manager"),
        ("core", "simple_auth_manager_users"),
        ("core", "simple_auth_manager_passwords_file"),
        ("api_auth", "jwt_secret"),
    ):
        conf.remove_option(section, option)


def _forget(airflow_app: Any) -> None:
    """Have Airflow make its auth manager again."""
    if hasattr(airflow_app, "_AuthManagerState"):
        airflow_app._AuthManagerState.instance = None
    else:  # 3.1
        airflow_app.auth_manager = None

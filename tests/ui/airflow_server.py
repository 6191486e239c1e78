"""A whole ``airflow standalone`` with the emulator, for a browser to look at."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import requests

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.system.dag_run import eventually

ROOT: Final = Path(__file__).resolve().parents[2]
DAGS: Final = Path(__file__).parent / "dags"
STARTING: Final = 900.0
USERS: Final = ("anna", "ben")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class AirflowServer:
    """Airflow on a free port of this machine, its home in an empty folder.

    :param home: the folder; ``output`` in it is where videos go.
    :param prefix: a path prefix of the API server, such as ``/team/airflow``.
    :param dags: DAG files to copy, beside those of ``tests/ui/dags``.
    """

    def __init__(self, home: Path, *, prefix: str = "", dags: tuple[Path, ...] = ()) -> None:
        self.home = home
        self.output = home / "output"
        self.log = home / "standalone.log"
        self.origin = f"http://127.0.0.1:{free_port()}"
        self.url = self.origin + prefix
        self.emulator = EmulatorThread(EmulatorOptions(queued_seconds=1, generating_seconds=2.5, log_lag=0))
        self._process: subprocess.Popen[bytes] | None = None
        self._tokens: dict[str, str] = {}
        self._secret = secrets.token_urlsafe(48)
        shutil.copytree(DAGS, home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        for path in dags:
            shutil.copy(path, home / "dags")
        if dags:
            shutil.copytree(ROOT / "dags" / "pictures", home / "dags" / "pictures")
        self.output.mkdir()

    def environment(self) -> dict[str, str]:
        """What Airflow's processes find in their environment."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        connection = {"conn_type": "kling", "host": self.emulator.url, "password": self.emulator.api_key}
        return inherited | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "KLING_OUTPUT": str(self.output),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW_CONN_KLING_DEFAULT": json.dumps(connection),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API_AUTH__JWT_SECRET": self._secret,
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:admin" for user in USERS),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.home / "dags"),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "3",
            # A machine that has other things to do fails no task.
            "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "2",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "2",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        }

    def __enter__(self) -> AirflowServer:
        self.emulator.__enter__()
        try:
            passwords = {user: user for user in USERS}
            (self.home / "simple_auth_manager_passwords.json.generated").write_text(json.dumps(passwords))
            self._start("standalone")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop()
        self.emulator.__exit__(None, None, None)

    @contextlib.contextmanager
    def with_two_users(self) -> Iterator[Any]:
        """Run a second API server, on the same database, whose users may see different DAGs.

        ``airflow standalone`` takes no auth manager but Airflow's own simple one.
        """
        second = copy.copy(self)
        second.origin = f"http://127.0.0.1:{free_port()}"
        second.url, second.log = second.origin, self.home / "two-users.log"
        second._tokens, second._process = {}, None
        try:
            second._start(
                "api-server", AIRFLOW__CORE__AUTH_MANAGER="tests.ui.auth_manager.TwoUsersAuthManager"
            )
            yield second
        finally:
            second._stop()

    def _start(self, command: str, **more: str) -> None:
        port = self.origin.rpartition(":")[2]
        at = {"AIRFLOW__API__PORT": port, "AIRFLOW__API__BASE_URL": self.url}
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "airflow", command],
                env=self.environment() | at | more,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        eventually(self._is_up, STARTING, f"an answer of the API server; see {self.log}")

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(pid) == self._process.pid:
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Airflow ended by itself; see {self.log}"
        try:
            return self._session().get(f"{self.url}/api/v2/version", timeout=10).ok
        except requests.RequestException:
            return False

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        return session

    def token(self, user: str) -> str:
        """The token of a user, as the login page sets it as a cookie."""
        if user not in self._tokens:
            body = {"username": user, "password": user}
            answer = self._session().post(f"{self.url}/auth/token", json=body, timeout=60)
            answer.raise_for_status()
            self._tokens[user] = answer.json()["access_token"]
        return self._tokens[user]

    def call(self, method: str, path: str, body: Any = None, *, user: str = "anna") -> Any:
        """Call Airflow's REST API.

        :raises AssertionError: it refuses, with its reason.
        """
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        url = f"{self.url}/api/v2/{path}"
        answer = self._session().request(method, url, json=body, headers=headers, timeout=60)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json() if answer.content else None

    def get(self, path: str, *, user: str | None, **more: Any) -> requests.Response:
        """Get an address of the plugin's app."""
        cookies = {} if user is None else {"_token": self.token(user)}
        return self._session().get(f"{self.url}/kling/{path}", cookies=cookies, timeout=60, **more)

    def run(self, dag_id: str) -> str:
        """Begin a DAG run, when the DAG is known; returns its id."""

        def begin() -> str | None:
            headers = {"Authorization": f"Bearer {self.token('anna')}"}
            url = f"{self.url}/api/v2/dags/{dag_id}/dagRuns"
            answer = self._session().post(url, json={"logical_date": None}, headers=headers, timeout=60)
            return answer.json()["dag_run_id"] if answer.ok else None

        return str(eventually(begin, STARTING, f"the DAG {dag_id}; see {self.log}", every=2))

    def states(self, dag_id: str, run_id: str) -> dict[tuple[str, int], str | None]:
        """Task id and map index -> state."""
        found = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=100")
        return {(each["task_id"], each["map_index"]): each["state"] for each in found["task_instances"]}


@contextlib.contextmanager
def serving(home: Path, **options: Any) -> Iterator[AirflowServer]:
    """Run Airflow for the time of the block."""
    with AirflowServer(home, **options) as server:
        yield server


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    choice = ROOT / "dags" / "kling_human_choice.py"
    with serving(folder, prefix=sys.argv[2] if len(sys.argv) > 2 else "", dags=(choice,)) as airflow:
        runs = {dag_id: airflow.run(dag_id) for dag_id in ("campaign", "kling_human_choice")}
        told = {"url": airflow.url, "runs": runs, "token": airflow.token("anna"), "ben": airflow.token("ben")}
        (folder / "told.json").write_text(json.dumps(told))
        print(told, flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            time.sleep(5)

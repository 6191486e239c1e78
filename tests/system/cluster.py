"""Airflow as it runs in production, small: each component a process of its own, PostgreSQL behind them."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg2
import psycopg2.extras
import requests
from cryptography.fernet import Fernet

from tests.system.dag_run import DagRun, eventually
from tests.system.servers.services import free_port

ROOT: Final = Path(__file__).resolve().parents[2]
COMPONENTS: Final = {
    "api-server": "api-server",
    "scheduler": "scheduler",
    "dag-processor": "dag-processor",
    "triggerer": "triggerer",
}
"""Name of each process -> the arguments of ``airflow`` that it runs."""
LOG_SERVERS: Final = ("TRIGGER", "WORKER")
PARALLELISM: Final = 10
TRIGGERER_HEARTBEAT: Final = 1.0
TRIGGERER_GONE_AFTER: Final = 10
"""Seconds without a heartbeat after which another triggerer takes over what one had."""
WORKER_GONE_AFTER: Final = 30
"""Seconds without a heartbeat after which the scheduler fails a task instance."""
STARTING: Final = 180.0
STOPPING: Final = 3.0


class AirflowCluster:
    """API server, scheduler, DAG processor and triggerer, with LocalExecutor unless told otherwise.

    Each is a process in a session of its own, which is ended as a whole.

    :param home: an empty folder: AIRFLOW_HOME. DAG files go to its ``dags``.
    :param database_url: an empty PostgreSQL database.
    :param environment: what else the components find in their environment.
    :param components: name of each process -> the arguments of ``airflow`` that it runs.
    """

    def __init__(
        self,
        home: Path,
        database_url: str,
        environment: Mapping[str, str],
        components: Mapping[str, str] = COMPONENTS,
    ) -> None:
        self.home = home
        self.dags = home / "dags"
        self.dags.mkdir()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._database_url = database_url
        self._connection: Any = None
        self._components = components
        self._api = requests.Session()
        self._api.trust_env = False
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        self._environment = inherited | {
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "100",
            "AIRFLOW__CORE__PARALLELISM": str(PARALLELISM),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url.replace("://", "+psycopg2://", 1),
            # From an event loop it is asked with another driver; up to 3.3 only by what is not used here.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": (
                database_url.replace("://", "+asyncpg://", 1) if find_spec("asyncpg") else ""
            ),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(WORKER_GONE_AFTER),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": str(TRIGGERER_HEARTBEAT),
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(TRIGGERER_GONE_AFTER),
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            **environment,
        }

    def __enter__(self) -> AirflowCluster:
        try:
            self._run_once(["-c", "from airflow.utils.db import initdb; initdb()"])
            for name, arguments in self._components.items():
                self.start(arguments, name)
            eventually(self._is_up, STARTING, f"an answer of the API server; see {self.home}/api-server.log")
            token = self._api.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
            self._api.headers["Authorization"] = f"Bearer {token}"
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # --- processes

    def start(self, component: str, name: str | None = None, **environment: str) -> None:
        """Start a component; its output is added to ``<home>/<name>.log``.

        :param component: the arguments of ``airflow`` that it runs.
        :param name: of a second one of its kind.
        :param environment: what it alone finds in its environment.
        """
        name = name or component
        ports = {f"AIRFLOW__LOGGING__{kind}_LOG_SERVER_PORT": str(free_port()) for kind in LOG_SERVERS}
        with (self.home / f"{name}.log").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", *component.split()],
                env=self._environment | ports | environment,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def restart(self, name: str) -> None:
        """Kill a component and start it again."""
        self.kill(name)
        self.start(self._components[name], name)

    def ended(self) -> list[str]:
        """The components that ended by themselves."""
        return [name for name, process in self._processes.items() if process.poll() is not None]

    def pid(self, name: str) -> int:
        """The process id of a component."""
        return self._processes[name].pid

    def kill(self, name: str) -> None:
        """End a component and its children at once, with SIGKILL."""
        process = self._processes.pop(name)
        _signal_session(process, signal.SIGKILL)
        process.wait()

    def stall(self, name: str) -> None:
        """Halt a component and its children, as a machine does that swaps or is suspended."""
        _signal_session(self._processes[name], signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """Let a stalled component run again."""
        _signal_session(self._processes[name], signal.SIGCONT)

    def stop(self) -> None:
        """End everything."""
        for process in self._processes.values():
            _signal_session(process, signal.SIGCONT)
            process.terminate()
        deadline = time.monotonic() + STOPPING
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            _signal_session(process, signal.SIGKILL)
            process.wait()
        self._processes.clear()
        if self._connection is not None:
            self._connection.close()
        self._api.close()

    def _run_once(self, arguments: Sequence[str]) -> None:
        with (self.home / "init.log").open("wb") as output:
            command = [sys.executable, *arguments]
            subprocess.run(command, env=self._environment, stdout=output, stderr=output, check=True)

    def _is_up(self) -> bool:
        over = self.ended()
        assert not over, f"ended by itself: {over}; see {self.home}/{over[0]}.log"
        try:
            return self._api.get(f"{self.url}/api/v2/version", timeout=10).ok
        except requests.RequestException:
            return False

    # --- what happens in it

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call Airflow's REST API, as its UI does.

        :raises AssertionError: it refuses, with its reason.
        """
        answer = self._api.request(method, f"{self.url}/api/v2/{path}", json=body, timeout=60)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json()

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Read from Airflow's database, also after it was restarted.

        :raises psycopg2.OperationalError: it cannot be reached.
        """
        if self._connection is not None:
            try:
                return self._read(query, values)
            except psycopg2.OperationalError:
                self._connection.close()
        self._connection = psycopg2.connect(self._database_url)
        self._connection.autocommit = True
        return self._read(query, values)

    def _read(self, query: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        with self._connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            cursor.execute(query, values)
            return [dict(row) for row in cursor.fetchall()]

    def await_dags(self, *dag_ids: str) -> None:
        """Wait until DAGs can be run.

        :raises AssertionError: a file cannot be imported, with the reason.
        """

        def known() -> bool:
            errors = self.rows("SELECT filename, stacktrace FROM import_error")
            assert not errors, errors
            return {row["dag_id"] for row in self.rows("SELECT dag_id FROM dag")} >= set(dag_ids)

        eventually(known, STARTING, f"the DAGs {dag_ids}; see {self.home}/dag-processor.log")

    def run(self, dag_id: str, **conf: Any) -> DagRun:
        """Begin a DAG run."""
        body = {"logical_date": None, "conf": conf}
        return DagRun(self, dag_id, self.call("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"])


def _signal_session(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a process and all that it started. A process group is not enough: each task has its own."""
    for each in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(each) == process.pid:
                os.kill(each, number)

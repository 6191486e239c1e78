"""A real Airflow for the tests: a process with a home and a SQLite database of its own.

The test's own process never imports Airflow's settings, so what one module does cannot reach another.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import select
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography.fernet import Fernet

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "dags" / "pictures"
INSIDE = Path(__file__).with_name("inside_airflow.py")
VERSION = tuple(map(int, importlib.metadata.version("apache-airflow").split(".")[:2]))
REMEMBERS = VERSION >= (3, 3)
"""Whether this Airflow has a task state store."""

PATIENCE = 240.0
"""Seconds that a command may take."""

PREAMBLE = """
from __future__ import annotations
from datetime import datetime, timedelta
from airflow.providers.common.compat.sdk import DAG, task
from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor
"""


def _is_noise(line: str) -> bool:
    """Whether it is a line of 3.0's in-process supervisor about its messages, which hold what a task log never does."""
    return VERSION < (3, 1) and "[debug    ]" in line


@dataclass(frozen=True)
class Task:
    """One task instance, as it stands in the database.

    :param tries: how often it has run.
    :param rendered: its template fields, as the UI shows them.
    :param remembered: its part of the task state store.
    """

    state: str | None
    tries: int
    shown_as: str | None
    xcom: dict[str, Any]
    rendered: dict[str, Any]
    remembered: dict[str, Any]
    retry_delay: float | None
    retry_reason: str | None


@dataclass
class Run:
    """A dag run.

    :param log: all that Airflow printed since the last step.
    """

    airflow: RealAirflow
    dag_file: Path
    dag_id: str
    run_id: str = ""
    state: str = ""
    tasks: dict[str, Task] = field(default_factory=dict)
    log: str = field(default="", repr=False)

    def go_on(self, **env: str) -> Self:
        """Run until the run is over, or a task waits for its retry; see inside_airflow.go_on."""
        self._take(self._ask("go_on", env, run_id=self.run_id))
        return self

    def resume(self, task_id: str, method: str, **arguments: Any) -> Self:
        """Have a task go on in a method, as after a deferral."""
        self._take(
            self._ask("resume", {}, run_id=self.run_id, task_id=task_id, method=method, arguments=arguments)
        )
        return self

    def clear(self, *task_ids: str) -> Self:
        """Clear tasks; they run with the next ``go_on``."""
        self._ask("clear", {}, run_id=self.run_id, task_ids=list(task_ids))
        return self

    def clear_by_rest(self, *task_ids: str, keep_task_state: bool = False) -> Self:
        """Clear tasks, or without any the whole run, by the REST API's route, as the UI does; Airflow 3.

        ``clear`` does it as Airflow's own code: it leaves a store alone which the route empties from 3.4 on.
        """
        env = {
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API_AUTH__JWT_SECRET": "s" * 64,
        }
        chosen = {"task_ids": list(task_ids) or None, "keep_task_state": keep_task_state}
        self.airflow.ask("clear_by_rest", env, dag_id=self.dag_id, run_id=self.run_id, **chosen)
        return self

    def rewrite(self, **replaced: str) -> Self:
        """Replace texts in the DAG file, as somebody who edits it."""
        source = self.dag_file.read_text()
        for old, new in replaced.items():
            assert old in source
            source = source.replace(old, new)
        self.dag_file.write_text(source)
        # Python takes its cached byte code for a file of the same length that was written in the same second.
        later = self.dag_file.stat().st_mtime + 2
        os.utime(self.dag_file, (later, later))
        return self

    def __getitem__(self, name: str) -> Task:
        return self.tasks[name]

    def begin(self, conf: dict[str, Any] | None, env: dict[str, str]) -> Self:
        self.run_id = self._ask("begin", env, conf=conf)
        return self

    def test(self, env: dict[str, str], *, dated: bool = True) -> Self:
        """Run it by ``dag.test()``."""
        self._take(self._ask("test", env, dated=dated))
        return self

    def _ask(self, call: str, env: dict[str, str], **arguments: Any) -> Any:
        return self.airflow.ask(call, env, dag_file=str(self.dag_file), dag_id=self.dag_id, **arguments)

    def _take(self, report: dict[str, Any]) -> None:
        self.log = self.airflow.last_output
        self.run_id, self.state = report["run_id"], report["state"]
        self.tasks = {name: Task(**facts) for name, facts in report["tasks"].items()}


class RealAirflow:
    """The process; start it with ``with``.

    :param home: AIRFLOW_HOME, made here.
    :param settings: environment variables that it needs from its start on.
    """

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self._settings = settings
        self.dags = home / "dags"
        self.output = home / "output"
        self.env: dict[str, str] = {}
        """What each command is run with, beside its own; the connection, for example."""
        self.last_output = ""
        self._count = 0
        self._fernet_key = Fernet.generate_key().decode()

    def __enter__(self) -> Self:
        self.dags.mkdir(parents=True)
        self._log = (self.home / "stdout.log").open("w+")
        answers, far_end = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, str(INSIDE), str(far_end)],
            env=self.environment(),
            cwd=self.home,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=[far_end],
            text=True,
        )
        os.close(far_end)
        self._answers = os.fdopen(answers)
        self.ask("prepare_database", {})
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._log.close()

    def ask(self, call: str, env: dict[str, str], **arguments: Any) -> Any:
        """Have a function of inside_airflow.py run there."""
        began = self._log.seek(0, os.SEEK_END)
        command = {"call": call, "env": self.env | env, "with": arguments}
        assert self._process.stdin is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        ready, _, _ = select.select([self._answers], [], [], PATIENCE)
        if not ready:
            self._process.kill()
        line = self._answers.readline()
        self._log.seek(began)
        self.last_output = "".join(line for line in self._log if not _is_noise(line))
        if not line:
            raise AssertionError(f"Airflow's process ended:\n{self.last_output[-5000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise AssertionError(f"{answer['error']}\n{self.last_output[-5000:]}")
        return answer["answer"]

    def write(self, body: str, dag_id: str | None = None, **dag_arguments: Any) -> tuple[Path, str]:
        """A DAG file with these tasks, alone in the dags folder."""
        self._count += 1
        dag_id = dag_id or f"dag_{self._count}"
        further = "".join(f", {name}={value!r}" for name, value in dag_arguments.items())
        source = f"{PREAMBLE}\nwith DAG({dag_id!r}, schedule=None, catchup=False{further}) as dag:\n"
        shutil.rmtree(self.dags)
        self.dags.mkdir()
        path = self.dags / f"{dag_id}.py"
        path.write_text(source + textwrap.indent(textwrap.dedent(body), "    "))
        return path, dag_id

    def parse(self, body: str, **env: str) -> dict[str, Any]:
        """What becomes of a DAG with these tasks when its file is imported."""
        path, _ = self.write(body)
        return self.ask("parse", env, dag_file=str(path))

    def import_error(self, body: str) -> str:
        """The error that the UI shows of a DAG with these tasks; empty for none."""
        return self.parse(body)["import_errors"]

    def begin(
        self, body: str, *, conf: dict[str, Any] | None = None, dag: dict[str, Any] | None = None, **env: str
    ) -> Run:
        """A run of a DAG with these tasks, of which nothing has run yet."""
        path, dag_id = self.write(body, **(dag or {}))
        return Run(self, path, dag_id).begin(conf, env)

    def run(self, body: str, **options: Any) -> Run:
        """A run of a DAG with these tasks, until it is over or a task waits for its retry."""
        env = {name: options.pop(name) for name in list(options) if name.isupper()}
        return self.begin(body, **options, **env).go_on(**env)

    def test(self, body_or_file: str | Path, *, dated: bool = True, **env: str) -> Run:
        """A ``dag.test()`` of a DAG with these tasks, or of a DAG file that is named as its DAG.

        :param dated: whether the run has a logical date.
        """
        if isinstance(body_or_file, Path):
            shutil.rmtree(self.dags)
            shutil.copytree(PICTURES, self.dags / PICTURES.name)
            path = Path(shutil.copy(body_or_file, self.dags))
            return Run(self, path, path.stem).test(env, dated=dated)
        path, dag_id = self.write(body_or_file)
        return Run(self, path, dag_id).test(env, dated=dated)

    def environment(self) -> dict[str, str]:
        """What a process needs to be of this Airflow."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        search = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
        return env | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__FERNET_KEY": self._fernet_key,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            "KLING_OUTPUT": str(self.output),
            "PYTHONPATH": search,
            "PYTHONUNBUFFERED": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            "NO_COLOR": "1",
            **self._settings,
        }

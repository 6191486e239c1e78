"""A distributed Airflow with a vendor, and waves of generations that flow through it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from airflow_provider_kling.api.download.verify import probe
from airflow_provider_kling.emulator.options import EmulatorOptions, IdStyle
from airflow_provider_kling.emulator.server import EmulatorThread
from tests.system.cluster import ROOT, AirflowCluster
from tests.system.dag_run import DagRun, eventually
from tests.system.servers.services import PostgresServer, RedisServer, postgres_server, redis_server

COMPONENTS: Final = {
    "api-server": "api-server",
    "scheduler": "scheduler",
    "dag-processor": "dag-processor",
    "triggerer": "triggerer",
    "triggerer-2": "triggerer",
    "worker": "celery worker --concurrency 3 --without-mingle --without-gossip --celery-hostname one@%h",
    "worker-2": "celery worker --concurrency 3 --without-mingle --without-gossip --celery-hostname two@%h",
}
LOCAL_COMPONENTS: Final = {name: what for name, what in COMPONENTS.items() if not name.startswith("worker")}
DAG_ID: Final = "deployment"
GENERATING: Final = 30.0
"""Seconds that a generation takes: long enough for a fault to find many waiting."""
PATIENCE: Final = 900.0
"""Seconds in which a wave must be over; much more than needed, for a machine that has other things to do."""
CONNECTION: Final = "kling_default"


@dataclass
class Deployment:
    """What runs, and where its videos go."""

    cluster: AirflowCluster
    vendor: EmulatorThread
    output: Path
    postgres: PostgresServer
    redis: RedisServer | None
    key: str

    def begin(self, wave: str, count: int) -> Wave:
        """Begin a DAG run of so many generations, and of a batch of a quarter as many beside them."""
        batch = max(2, count // 4)
        run = self.cluster.run(DAG_ID, wave=wave, count=count, batch=batch)
        return Wave(self, wave, count, batch, run)

    def store_connection(self, key: str) -> None:
        """Put a key into Airflow's connection, as a person does in the UI."""
        self.cluster.call("PATCH", f"connections/{CONNECTION}", self._connection(key))
        self.key = key

    def create_connection(self) -> None:
        self.cluster.call("POST", "connections", self._connection(self.key))

    def _connection(self, key: str) -> dict[str, str]:
        return {"connection_id": CONNECTION, "conn_type": "kling", "host": self.vendor.url, "password": key}


@dataclass
class Wave:
    """Generations of one DAG run.

    :param name: stands in their prompts.
    :param count: half by three tasks, half by one.
    :param batch: made by a batch beside them.
    """

    deployment: Deployment
    name: str
    count: int
    batch: int
    run: DagRun

    @property
    def generations(self) -> list[dict[str, Any]]:
        """What the vendor accepted for it."""
        mine = f"{self.name} "
        return [
            each
            for each in self.deployment.vendor.generations
            if str(each["parameters"].get("prompt", "")).startswith(mine)
        ]

    def await_submits(self, count: int) -> None:
        """Wait until the vendor has accepted so many."""
        eventually(
            lambda: len(self.generations) >= count,
            PATIENCE,
            f"{count} submits of {self.name}: {self._states()}",
        )

    def await_waiting(self, count: int) -> None:
        """Wait until so many task instances are deferred."""
        eventually(lambda: self._states()["deferred"] >= count, PATIENCE, f"{count} waits of {self.name}")

    def await_running(self) -> None:
        """Wait until a worker is at work for it."""
        eventually(lambda: self._states()["running"], PATIENCE, f"work on {self.name}", every=0.1)

    def assert_saved_and_paid_once(self) -> None:
        """Wait for its end: every video saved, one paid generation each, nothing stuck.

        :raises AssertionError: it is otherwise.
        """
        state = self.run.await_end(PATIENCE)
        assert state == "success", self.run.states()
        generations = self.generations
        twice = {
            prompt: times
            for prompt, times in Counter(each["parameters"]["prompt"] for each in generations).items()
            if times > 1
        }
        assert twice == {}
        assert len(generations) == self.count + self.batch
        assert all(each["charged"] for each in generations)
        folder = self.deployment.output / self.name
        saved = {path.stem: path for path in folder.rglob("*.mp4")}
        assert set(saved) == {each["id"] for each in generations}
        for generation_id, path in saved.items():
            assert probe(path, generation_id=generation_id).duration > 0
        assert Counter(path.parent for path in saved.values()) == {
            folder: self.count,
            folder / "batch": self.batch,
        }
        assert [path.name for path in folder.iterdir() if path.suffix != ".mp4"] == ["batch"]
        (manifest,) = (folder / "batch").glob("manifest-*.jsonl")
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        assert {(row["status"], row["generation_id"] in saved) for row in rows} == {("saved", True)}
        assert len(rows) == self.batch
        left = {path.suffix for path in (folder / "batch").iterdir() if path.is_file()}
        assert left == {".mp4", ".json", ".jsonl"}

    def _states(self) -> Counter[str]:
        return Counter(str(task["state"]) for task in self.run.tasks())


@contextlib.contextmanager
def deployment(
    folder: Path, *, celery: bool, options: Mapping[str, Any] | None = None
) -> Iterator[Deployment]:
    """Start everything, and stop it at the end.

    :param folder: an empty folder.
    :param celery: with a broker and two workers; otherwise the scheduler runs the tasks.
    :param options: of the emulator.
    """
    output = folder / "output"
    output.mkdir()
    home = folder / "airflow"
    home.mkdir()
    # Other ids can contain "eyJ", which Airflow takes for the start of a token, and hides in its logs.
    facts: dict[str, Any] = {"generating_seconds": GENERATING, "balance": 1e6, "journal_size": 10_000_000}
    facts |= {"ids": IdStyle.UUID, "keys": ("key-of-the-deployment-8d1f0c",)} | dict(options or {})
    with contextlib.ExitStack() as stack:
        # A SIGTERM to the tests must not leave the deployment behind.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGTERM, before)
        postgres = stack.enter_context(postgres_server())
        redis = stack.enter_context(redis_server(folder / "redis")) if celery else None
        vendor = stack.enter_context(EmulatorThread(EmulatorOptions(**facts)))
        environment = {
            "KLING_OUTPUT": str(output),
            # What a killed worker had taken and not begun is queued again after this.
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "10",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
        }
        if redis is not None:
            environment |= {
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__CELERY__BROKER_URL": redis.url,
                "AIRFLOW__CELERY__RESULT_BACKEND": "db+" + postgres.url.replace("://", "+psycopg2://", 1),
                "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
                "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "3600",
            }
        components = COMPONENTS if celery else LOCAL_COMPONENTS
        cluster = AirflowCluster(home, postgres.url, environment, components)
        shutil.copytree(ROOT / "dags" / "pictures", cluster.dags / "pictures")
        shutil.copy(Path(__file__).parent / "dags" / f"{DAG_ID}.py", cluster.dags)
        stack.enter_context(cluster)
        made = Deployment(cluster, vendor, output, postgres, redis, vendor.api_key)
        made.create_connection()
        cluster.await_dags(DAG_ID)
        yield made

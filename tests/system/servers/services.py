"""PostgreSQL and Redis servers of a test's own, which it may restart; the machine's are left alone."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg2
import pytest

from tests.system.dag_run import eventually

STARTING: Final = 60.0
POSTGRES_BINARIES: Final = (
    "/usr/lib/postgresql/*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
)
NOBODY_ELSE: Final = "postgres"
"""Whom PostgreSQL's server runs as where the tests run as root, whom it refuses."""


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def missing(message: str) -> None:
    """Skip a test that lacks something, or fail it where ``CI`` is set."""
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def _binary(name: str) -> str:
    found = shutil.which(name)
    for pattern in POSTGRES_BINARIES:
        found = found or next((str(path / name) for path in Path("/").glob(pattern[1:])), None)
    if found is None or not os.access(found, os.X_OK):
        missing(f"This test starts a server of its own and needs {name}: install PostgreSQL 13 or newer.")
    assert found is not None
    return found


class PostgresServer:
    """A PostgreSQL server in an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"
        self._log = folder / "postgres.log"
        self._port = free_port()
        self._control = [_binary("pg_ctl"), "-D", str(self._data), "-w", "-t", str(STARTING)]
        self._as_user: dict[str, int | str] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam(NOBODY_ELSE)
            self._as_user = {"user": account.pw_uid, "group": account.pw_gid}
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._run([_binary("initdb"), "-D", str(self._data), "-A", "trust", "-U", "airflow", "--no-sync"])
        options = f"-p {self._port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        self._start = [*self._control, "-l", str(self._log), "-o", options, "start"]

    @property
    def url(self) -> str:
        """Its database for Airflow."""
        return f"postgresql://airflow@127.0.0.1:{self._port}/airflow"

    def start(self) -> None:
        self._run(self._start)

    def stop(self) -> None:
        """Stop it, and break the connections to it."""
        self._run([*self._control, "-m", "fast", "stop"])

    def create_database(self) -> None:
        connection = psycopg2.connect(self.url.removesuffix("airflow") + "postgres")
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute("CREATE DATABASE airflow")

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            check=False,
            text=True,
            **self._as_user,  # type: ignore[call-overload]  # user and group alone
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


class RedisServer:
    """A Redis server that keeps what it holds on disk, as Celery's broker in production."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        found = shutil.which("redis-server")
        if found is None:
            missing("This test starts a broker of its own and needs redis-server: install Redis 6 or newer.")
        self._binary = str(found)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where Celery reaches it."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        command = [self._binary, "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        with (self._folder / "redis.log").open("ab") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        eventually(self._listens, STARTING, f"Redis; see {self._folder}/redis.log")

    def stop(self) -> None:
        """Stop it, and break the connections to it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(STARTING)
            self._process = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running server with an empty database, in a folder that its own user can reach."""
    with tempfile.TemporaryDirectory(prefix="kling-postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder))
        server.start()
        try:
            server.create_database()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running broker."""
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def restart(server: PostgresServer | RedisServer, seconds: float) -> None:
    """Take a server away for so many seconds."""
    server.stop()
    time.sleep(seconds)
    server.start()


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a file system that is soon full on a folder; only root can."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        missing("This test fills a disk, and needs the right to mount a tmpfs: run it as root.")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

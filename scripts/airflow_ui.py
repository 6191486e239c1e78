"""Airflow's web UI with the example DAGs and the emulator, until Ctrl-C: ``make airflow``."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any

from processes import (
    DAGS,
    OUTPUT,
    ROOT,
    Emulator,
    Trouble,
    airflow_environment,
    clean_up_on_signals,
    connection,
    emulator,
    group,
    shown,
    wait_until,
)

HOME = ROOT / ".airflow" / "ui"
LOG = HOME / "airflow.log"
USUAL_PORT = 8080
PATIENCE = 180.0
"""Seconds until the web UI must answer; usually it takes half a minute."""


def free_port(wanted: int = 0) -> int:
    """Return the wanted port if it is free, else another one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        port: int = probe.getsockname()[1]
        return port


def call(
    url: str, method: str = "GET", body: dict[str, str] | None = None, token: str = ""
) -> dict[str, Any]:
    """Call Airflow's API, past any proxy.

    :raises OSError: it is not up, or refuses; HTTP errors are of this kind too.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, data, headers, method=method)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=10) as answer:
        return dict(json.load(answer))


def is_up(url: str) -> bool:
    """Say whether Airflow's API server answers."""
    try:
        return "version" in call(f"{url}/api/v2/version")
    except OSError:
        return False


def connect(url: str, vendor: Emulator) -> None:
    """Store the connection in Airflow, where the UI shows, tests and edits it."""
    token = call(f"{url}/auth/token")["access_token"]
    wanted = {"connection_id": "kling_default", **connection(vendor)}
    connections = f"{url}/api/v2/connections"
    try:
        call(connections, "POST", wanted, token)
    except urllib.error.HTTPError as error:
        if error.code != HTTPStatus.CONFLICT:
            raise
        call(f"{connections}/kling_default", "PATCH", wanted, token)


def settings(port: int) -> dict[str, str]:
    """Build what is set in this Airflow: no login, no examples of its own, one machine."""
    return {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
    }


def serve() -> None:
    """Run until a signal comes or Airflow ends by itself."""
    started, port = time.monotonic(), free_port(USUAL_PORT)
    url = f"http://127.0.0.1:{port}"
    with emulator(HOME) as vendor, LOG.open("wb") as log:
        print(f"The emulator listens on {vendor.url}, in the vendor's place: nothing is billed.")
        print(f"Starting Airflow; its log is {shown(LOG)} ...", flush=True)
        env = airflow_environment(HOME) | settings(port)
        command = [sys.executable, "-m", "airflow", "standalone"]
        with group(command, env=env, stdout=log) as airflow:
            up = wait_until(lambda: airflow.poll() is not None or is_up(url), PATIENCE, 0.5)
            if airflow.poll() is not None:
                raise Trouble(f"Airflow ended with code {airflow.returncode}; see {shown(LOG)}.")
            if not up:
                raise Trouble(f"Airflow did not answer within {PATIENCE:.0f} s; see {shown(LOG)}.")
            connect(url, vendor)
            print(f"\n    {url}    up after {time.monotonic() - started:.0f} s, no login\n")
            print(f"The DAGs are those of {shown(DAGS)}/; videos land in {shown(OUTPUT)}/.")
            print("Ctrl-C stops everything.", flush=True)
            raise Trouble(f"Airflow ended with code {airflow.wait()}; see {shown(LOG)}.")


def main() -> int:
    clean_up_on_signals()
    HOME.mkdir(parents=True, exist_ok=True)
    OUTPUT.mkdir(exist_ok=True)
    try:
        serve()
    except (Trouble, subprocess.SubprocessError, OSError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

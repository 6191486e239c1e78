"""The command ``kling-emulator``, as a process."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from airflow_provider_kling.emulator.cli import main

COMMAND = [sys.executable, "-m", "airflow_provider_kling.emulator"]
ROOT = Path(__file__).resolve().parents[3]


@contextmanager
def running(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict]]:
    port_file = tmp_path / "emulator.json"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--port-file", str(port_file), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        end = time.monotonic() + 30
        while not port_file.exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < end, "the emulator did not start"
            time.sleep(0.02)
        yield process, json.loads(port_file.read_text())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_how_to_connect_and_stops_clean(tmp_path: Path, number: signal.Signals):
    with running(tmp_path, "--key", "one", "--key", "two", "--balance", "3") as (process, told):
        assert told["api_key"] == "one"
        headers = {"Authorization": "Bearer two"}
        answer = requests.get(told["url"] + "/v2/billing", headers=headers, timeout=10)
        assert answer.json()["current_balance"] == 3
        process.send_signal(number)
        output, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert errors == ""
    first, second = output.splitlines()
    assert told["url"] in first
    name, _, value = shlex.split(second.removeprefix("export "))[0].partition("=")
    assert name == "AIRFLOW_CONN_KLING_DEFAULT"
    connection = {"conn_type": "kling", "host": told["url"], "password": "one"}
    assert json.loads(value) == connection
    assert list(tmp_path.iterdir()) == [], "it leaves nothing behind"


def test_its_options_reach_the_emulator(tmp_path: Path):
    arguments = [
        *("--queued-seconds", "0", "--generating-seconds", "0", "--submit-status", "200"),
        *("--answers", "old", "--ids", "uuid", "--log-in-flight-after", "never"),
        *("--fault", "submit:503:times=1", "--fault", "poll:html"),
    ]
    with running(tmp_path, *arguments) as (_, told):
        url = told["url"] + "/v2/video/generations"
        headers = {"Authorization": f"Bearer {told['api_key']}"}
        body = {"model": "kling-video/v1.6/standard/text-to-video", "prompt": "a cat"}
        answers = [requests.post(url, json=body, headers=headers, timeout=10) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [503, 200]
        generation_id = answers[1].json()["id"]
        assert len(generation_id) == 36
        params = {"generation_id": generation_id}
        polls = [requests.get(url, params=params, headers=headers, timeout=10) for _ in range(2)]
        assert polls[0].headers["Content-Type"].startswith("text/html")
        assert polls[1].json()["status"] == "succeeded"


def test_it_prints_a_connection_that_works_from_a_container(tmp_path: Path):
    arguments = ["--host", "0.0.0.0", "--allow-remote", "--advertise", "host.docker.internal"]
    with running(tmp_path, *arguments) as (process, told):
        port = told["url"].rpartition(":")[2]
        assert told["url"] == f"http://host.docker.internal:{port}"
        headers = {"Authorization": f"Bearer {told['api_key']}", "Host": f"host.docker.internal:{port}"}
        for host in ("127.0.0.1", socket.gethostbyname(socket.gethostname())):
            answer = requests.get(f"http://{host}:{port}/v2/billing", headers=headers, timeout=10)
            assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=10)
    assert errors == ""
    value = shlex.split(output.splitlines()[1].removeprefix("export "))[0].partition("=")[2]
    assert json.loads(value) == {
        "conn_type": "kling",
        "host": told["url"],
        "password": told["api_key"],
        "extra": {"allow_plain_http": True},
    }


def test_without_a_name_it_says_how_to_give_one(tmp_path: Path):
    with running(tmp_path, "--host", "0.0.0.0", "--allow-remote") as (process, told):
        assert told["url"].startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert "--advertise host.docker.internal" in process.communicate(timeout=10)[1]


@pytest.mark.parametrize("key", ["it's-a-key", '"quoted"', "$HOME`id`"])
def test_the_printed_line_survives_the_shell(tmp_path: Path, key: str):
    with running(tmp_path, "--key", key) as (process, _):
        process.send_signal(signal.SIGTERM)
        line = process.communicate(timeout=10)[0].splitlines()[1]
    script = line + '; printf %s "$AIRFLOW_CONN_KLING_DEFAULT"'
    seen = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(seen.stdout)["password"] == key


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "loopback"),
        (["--fault", "nonsense"], "call:kind"),
        (["--queued-seconds", "-1"], "queued_seconds"),
        (["--queued-seconds", "nan"], "queued_seconds"),
        (["--balance", "inf"], "balance"),
        (["--advertise", "http://kling/"], "advertise"),
        (["--status", "meditating"], "STATUS=WORD"),
        (["--tls-certificate", "/nonexistent.pem"], "No such file"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(capsys, arguments: list[str], says: str):
    assert main(["--port", "0", *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("kling-emulator: ")
    assert says in errors
    assert len(errors.splitlines()) == 1


def test_help_names_the_documentation(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "docs/emulator.md" in capsys.readouterr().out

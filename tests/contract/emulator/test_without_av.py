"""The emulator where PyAV is not installed, as after ``pip install airflow-provider-kling``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import requests

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from airflow_provider_kling.emulator.cli import main

PATH = "/v2/generate/video/kling/generation"
HEADERS = {"Authorization": "Bearer kling-emulator-key"}
EXTRA = "airflow-provider-kling[emulator]"
ROOT = Path(__file__).resolve().parents[3]


def test_every_module_of_the_emulator_imports_without_it():
    package = ROOT / "airflow_provider_kling" / "emulator"
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted(package.rglob("*.py"))
        if path.stem != "__main__"
    ]
    code = f"""
import importlib, sys
sys.modules["av"] = None
for name in {names!r}:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
    assert len(names) > 20


def test_all_but_the_video_works_and_the_download_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with EmulatorThread(EmulatorOptions(frozen_clock=True)) as emulator:
        body = {"model": "kling-video/v1.6/standard/text-to-video", "prompt": "a cat"}
        accepted = requests.post(emulator.url + PATH, json=body, headers=HEADERS, timeout=10)
        emulator.clock.advance(60)
        params = {"generation_id": accepted.json()["id"]}
        done = requests.get(emulator.url + PATH, params=params, headers=HEADERS, timeout=10).json()
        assert done["status"] == "completed"
        download = requests.get(done["video"]["url"], timeout=10)
        assert download.status_code == 501
        assert EXTRA in download.text


def test_the_command_says_so_when_it_starts(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr("asyncio.Event.wait", _at_once)
    assert main(["--port", "0"]) == 0
    said = capsys.readouterr()
    assert "AIRFLOW_CONN_KLING_DEFAULT" in said.out
    assert EXTRA in said.err


async def _at_once(event: object) -> bool:
    return True

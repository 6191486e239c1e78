"""A hook in the hands of Airflow, which copies operators; no connection is made."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_kling.hooks.kling import KlingHook
from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator
from airflow_provider_kling.operators.kling import KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor
from airflow_provider_kling.task.batch.run import BatchRun
from airflow_provider_kling.task.generate import GenerateRun

KEY = "sk-5d0c8e4b7a19f263-never-to-be-shown"
MODEL = "kling-video/v1.6/standard/text-to-video"
OPERATORS: dict[str, Callable[[], Any]] = {
    "generate": lambda: KlingGenerateOperator(task_id="a", model=MODEL, prompt="waves"),
    "batch": lambda: KlingGenerateBatchOperator(
        task_id="a", model=MODEL, requests=[{"prompt": "waves"}], path="/videos/{key}.mp4"
    ),
    "sensor": lambda: KlingGenerationSensor(task_id="a", generation_id="g1"),
}


@pytest.fixture(autouse=True)
def _connection(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "kling", "host": "http://127.0.0.1:9", "password": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_KLING_DEFAULT", json.dumps(connection))


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_an_operator_whose_hook_was_used_can_be_copied(kind: str, duplicate: Callable[[Any], Any]) -> None:
    operator = OPERATORS[kind]()
    with operator.hook.get_conn():
        other = duplicate(operator)
        assert other.task_id == "a"
        with other.hook.get_conn() as client:
            assert client.settings == operator.hook.settings


@pytest.mark.parametrize("run", [GenerateRun, BatchRun])
def test_so_can_one_that_runs(run: Any) -> None:
    """What it runs with has locks and connections."""
    running = object.__new__(run)
    running._context = {"ti": threading.Lock()}
    operator = OPERATORS["generate"]()
    operator._current_run = running
    assert copy.deepcopy(operator)._current_run is running


def test_a_copy_of_a_hook_opens_its_own_connections() -> None:
    hook = KlingHook()
    with hook.get_conn() as client, copy.deepcopy(hook).get_conn() as other:
        assert client is not other


def test_a_pickled_hook_has_no_key() -> None:
    hook = KlingHook()
    with hook.get_conn():
        pickled = pickle.dumps(hook)
    assert KEY.encode() not in pickled
    assert pickle.loads(pickled).settings.api_key == KEY

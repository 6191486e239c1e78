"""KlingReconcileOperator against the emulator: real HTTP, real files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.durable.identity import client_request_id, fingerprint
from airflow_provider_kling.api.exceptions import KlingError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from airflow_provider_kling.operators.reconcile import KlingReconcileOperator
from airflow_provider_kling.version_compat import AirflowFailException

KEY = "old-keys-are-long"
MODEL = "kling-video/v1.6/standard/text-to-video"


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(keys=(KEY,), frozen_clock=True)) as emulator:
        host = emulator.url.replace("://", "%3A%2F%2F")
        monkeypatch.setenv("AIRFLOW_CONN_KLING_DEFAULT", f"kling://:{KEY}@{host}")
        yield emulator


def submit(vendor: EmulatorThread, number: int, dag: str = "films", key: str = KEY) -> str:
    identity = TaskAttempt(dag, "run", "make", number)
    request = GenerationRequest(MODEL, {"prompt": "A boat."})
    name = client_request_id(identity, fingerprint(request.body(), "account"), 0)
    with KlingClient(Settings(key, base_url=vendor.url)) as client:
        return client.submit(request, name).id


def run(**arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the task returns, and its XComs."""
    xcoms: dict[str, Any] = {}

    def push(*, key: str, value: Any) -> None:
        xcoms[key] = value

    ti = SimpleNamespace(
        dag_id="d",
        task_id="t",
        map_index=-1,
        xcom_push=push,
        xcom_pull=lambda task_ids, key, map_indexes: xcoms.get(key),
    )
    operator = KlingReconcileOperator(task_id="reconcile", **arguments)
    return operator.execute({"ti": ti}), xcoms  # type: ignore[typeddict-item]


def test_it_reports_what_was_paid_and_not_saved_and_saves_it(vendor: EmulatorThread, tmp_path: Path):
    ids = [submit(vendor, number) for number in range(3)]
    submit(vendor, 0, dag="others")
    vendor.clock.advance(3600)
    (tmp_path / f"{ids[0]}.mp4").write_bytes(b"a video")
    span = {"end": "2100-01-01", "start": "2020-01-01"}
    where = {"path": f"{tmp_path}/{{generation_id}}.mp4", "dag_ids": ["films"], **span}

    counts, xcoms = run(csv_path=str(tmp_path / "found.csv"), **where)

    assert counts["generations"] == 3
    assert (counts["completed"], counts["saved"], counts["orphans"]) == (3, 1, 2)
    assert counts["orphans_usd"] > 0
    assert {each["generation_id"] for each in xcoms["orphans"]} == set(ids[1:])
    rows = list(csv.DictReader((tmp_path / "found.csv").open()))
    assert {(each["generation_id"], each["saved"]) for each in rows} == {
        (ids[0], "yes"),
        (ids[1], "no"),
        (ids[2], "no"),
    }
    assert not (tmp_path / f"{ids[1]}.mp4").exists()

    counts, _ = run(action="save", **where)

    assert (counts["saved"], counts["orphans"]) == (3, 0)
    assert all((tmp_path / f"{each}.mp4").exists() for each in ids)
    assert (tmp_path / f"{ids[0]}.mp4").read_bytes() == b"a video"
    assert len(vendor.generations) == 4, "nothing is submitted"


def test_what_a_rotated_key_submitted_is_found_by_a_management_key(
    vendor: EmulatorThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    old = submit(vendor, 0)
    vendor.rotate_key("a-new-key", KEY)
    vendor.set_key("a-management-key", account_of="a-new-key", management=True)
    host = vendor.url.replace("://", "%3A%2F%2F")
    monkeypatch.setenv("AIRFLOW_CONN_KLING_DEFAULT", f"kling://:a-new-key@{host}")
    monkeypatch.setenv("AIRFLOW_CONN_KLING_LOGS", f"kling://:a-management-key@{host}")
    new = submit(vendor, 1, key="a-new-key")
    vendor.clock.advance(3600)
    where: dict[str, Any] = {
        "path": f"{tmp_path}/",
        "start": "2020-01-01",
        "end": "2100-01-01",
        "action": "save",
    }

    _, xcoms = run(**where)
    assert {each["generation_id"] for each in xcoms["orphans"]} == {new}

    counts, xcoms = run(**where, key_prefixes=[KEY[:8]], logs_conn_id="kling_logs")

    assert {each["generation_id"] for each in xcoms["orphans"]} == {old}
    assert (counts["generations"], counts["saved"], counts["orphans"]) == (2, 2, 0)
    assert {path.stem for path in tmp_path.iterdir()} == {old, new}
    with pytest.raises(AirflowFailException, match="management key"):
        run(**where, key_prefixes=[KEY[:8]])


def test_a_retry_saves_what_is_still_missing_and_fetches_nothing_twice(
    vendor: EmulatorThread, tmp_path: Path
):
    ids = [submit(vendor, number) for number in range(4)]
    vendor.clock.advance(3600)
    vendor.faults.add("cdn", 403, times=None, generation_id=ids[1])
    where: dict[str, Any] = {"path": f"{tmp_path}/", "start": "2020-01-01", "end": "2100-01-01"}

    with pytest.raises(KlingError, match="1 of 4 paid videos"):
        run(action="save", **where)
    assert {path.stem for path in tmp_path.iterdir()} == {*ids} - {ids[1]}

    vendor.faults.clear()
    fetched = len([entry for entry in vendor.journal if entry.call == "cdn"])
    counts, _ = run(action="save", **where)

    assert (counts["saved"], counts["orphans"]) == (4, 0)
    later = [entry for entry in vendor.journal if entry.call == "cdn"][fetched:]
    assert {entry.generation_id for entry in later} == {ids[1]}


def test_a_place_that_cannot_be_looked_at_is_not_reported_as_complete(vendor: EmulatorThread, tmp_path: Path):
    submit(vendor, 0)
    vendor.clock.advance(3600)
    (tmp_path / "videos").write_text("no folder")
    span = {"start": "2020-01-01", "end": "2100-01-01"}

    with pytest.raises(KlingError, match="1 of 1 generations could not be looked up"):
        run(path=f"{tmp_path}/videos/", csv_path=str(tmp_path / "found.csv"), **span)

    (row,) = csv.DictReader((tmp_path / "found.csv").open())
    assert row["saved"] == "unknown"
    assert row["problem"]


def test_without_a_path_it_lists(vendor: EmulatorThread):
    submit(vendor, 0)
    vendor.clock.advance(3600)
    counts, xcoms = run(start="2020-01-01", end="2100-01-01")
    assert (counts["generations"], counts["orphans"]) == (1, 0)
    assert xcoms["orphans"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"action": "save"}, "needs a path"),
        ({"action": "delete", "path": "/x/"}, "not allowed"),
        ({"path": "/x/{model}.mp4"}, r"needs \{generation_id\}"),
        ({"path": "/x/{what}.mp4"}, "placeholder"),
        ({"key_prefixes": [KEY]}, "first 8 characters"),
        ({"key_prefixes": KEY[:8]}, "list of texts"),
    ],
)
def test_wrong_arguments_are_refused_when_the_dag_is_parsed(arguments: dict[str, Any], said: str):
    with pytest.raises(AirflowFailException, match=said):
        KlingReconcileOperator(task_id="reconcile", **arguments)


@pytest.mark.parametrize("span", [{"start": "soon"}, {"start": "2026-02-01", "end": "2026-01-01"}])
def test_a_span_that_is_none_fails_without_a_retry(vendor: EmulatorThread, span: dict[str, str]):
    with pytest.raises(AirflowFailException, match="span of time"):
        run(**span)

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_kling.links import kling as links
from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator
from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor
from airflow_provider_kling.version_compat import HAS_PLUGIN_VIEWS

BASE = "https://airflow.example/team"
RUN = "manual__2026-11-20T12:00:00+00:00"


def key(map_index: int = -1, try_number: int = 1) -> Any:
    return SimpleNamespace(
        dag_id="shop", run_id=RUN, task_id="generate", map_index=map_index, try_number=try_number
    )


@pytest.fixture(autouse=True)
def base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "conf", SimpleNamespace(get=lambda *_, **__: f"{BASE}/"))


def test_the_video_is_in_the_tab_of_the_very_instance() -> None:
    run = RUN.replace(":", "%3A").replace("+", "%2B")
    link = links.KlingVideoLink().get_link
    assert link(None, ti_key=key()) == f"{BASE}/dags/shop/runs/{run}/tasks/generate/plugin/kling"
    assert link(None, ti_key=key(3)) == f"{BASE}/dags/shop/runs/{run}/tasks/generate/mapped/3/plugin/kling"
    assert (
        links.KlingGalleryLink().get_link(None, ti_key=key(3))
        == f"{BASE}/dags/shop/runs/{run}/plugin/kling-run"
    )


def saved(*paths: str | None) -> Any:
    return SimpleNamespace(saved_paths=list(paths))


def test_the_file_is_that_of_this_attempt_and_there_is_no_link_before_it() -> None:
    link = links.KlingSavedFileLink().get_link
    assert link(saved(), ti_key=key()) == ""
    assert link(saved(None), ti_key=key()) == ""
    address = link(saved("/videos/a.mp4"), ti_key=key(2, try_number=4))
    assert address.endswith("/tasks/generate/2/attempts/4/generations/0/video")
    assert "/videos/" not in address
    assert link(saved(None, "/videos/b.mp4"), ti_key=key()).endswith("/tasks/generate/plugin/kling")
    assert link(saved(None, None), ti_key=key()) == ""


def test_a_mapped_task_that_was_skipped_has_no_file() -> None:
    mapped = KlingDownloadOperator.partial(task_id="t", path="x/").expand(generation_id=["1", "2"])
    assert links.KlingSavedFileLink().get_link(mapped, ti_key=key(0)) == ""


@pytest.mark.parametrize("made", [KlingGenerateOperator, KlingDownloadOperator])
def test_an_operator_that_ran_nothing_has_saved_nothing(made: Any) -> None:
    arguments = (
        {"prompt": "A boat.", "image": "https://h.example/x.png"}
        if made is KlingGenerateOperator
        else {"generation_id": "1", "path": "x/"}
    )
    operator = made(task_id="t", **arguments)
    assert links.KlingSavedFileLink().get_link(operator, ti_key=key()) == ""


@pytest.mark.parametrize(
    "operator",
    [KlingGenerateOperator, KlingDownloadOperator, KlingGenerationSensor, KlingGenerateBatchOperator],
)
def test_every_operator_has_the_links_where_there_is_something_to_link_to(operator: Any) -> None:
    names = [each.name for each in operator.operator_extra_links]
    saves = ["Saved file"] if operator in (KlingGenerateOperator, KlingDownloadOperator) else []
    assert names == (["Video", "Kling gallery", *saves] if HAS_PLUGIN_VIEWS else [])

"""Which paths every mapped instance of a task would share."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_kling.task.mapped_paths import is_shared, may_differ, same_path_for_all

SAME = [
    "out/{{ ds }}.mp4",
    "out/{{ ds_nodash }}/{{ run_id }}/clip.mp4",
    "out/{{ ti.task_id }}-{{ task_instance.run_id }}.mp4",
    "out/{{ task.task_id }}.mp4",
    "{{ var.value.folder }}/clip.mp4",
    "{{ params.folder }}/{{ logical_date | ds }}.mp4",
    "{{ dag_run.conf['name'] }}.mp4",
    "{{ ti.xcom_pull(task_ids='name') }}.mp4",
    "out/{{ macros.ds_add(ds, 5) }}.mp4",
    "out/{{ dag.dag_id }}{% if params.x %}-x{% endif %}.mp4",
    "out/{{ ti.try_number }}.mp4",
    "{% set name = ds %}out/{{ name }}.mp4",
    "out/{# a comment #}clip.mp4",
]
OWN = [
    "out/{{ ti.map_index }}.mp4",
    "out/{{ task_instance.map_index }}.mp4",
    "out/{{ task_instance_key_str }}.mp4",
    "out/{{ ti.xcom_pull(task_ids='names')[ti.map_index] }}.mp4",
    "out/{{ ti['map_index'] }}.mp4",
    "out/{{ macros.uuid.uuid4() }}.mp4",
    "out/{{ my_macro(ds) }}.mp4",
    "out/{{ task.prompt | length }}.mp4",
    "out/{{ ti.key.map_index }}.mp4",
    "out/{{ ds }}/{generation_id}.mp4",
    "out/{{ ds }}/",
    "out/{{ macros.datetime.now().isoformat() }}.mp4",
    "{{ params.path }}",
    "{{ var.value.path }}",
    "{{ dag_run.conf['path'] }}",
    "{{ ti.xcom_pull('path') }}",
    "out/{{ ds",
]


@pytest.mark.parametrize("path", SAME)
def test_a_template_that_cannot_differ(path: str) -> None:
    assert is_shared(path)
    assert "all mapped tasks" in same_path_for_all(path, {"prompt": ["a", "b"]})
    assert same_path_for_all(path, {"prompt": None})
    assert not same_path_for_all(path, {"prompt": ["only one"]})


def test_params_that_are_mapped_over_tell_instances_apart() -> None:
    path = "out/{{ params.name }}.mp4"
    assert same_path_for_all(path, {"prompt": ["a", "b"]})
    assert not same_path_for_all(path, {"params": [{"name": "a"}, {"name": "b"}]})
    assert not same_path_for_all(path, {"": None})  # of expand_kwargs, which may hold them
    assert same_path_for_all("out/{{ ds }}.mp4", {"params": [{"name": "a"}, {"name": "b"}]})


@pytest.mark.parametrize("path", OWN)
def test_a_template_that_may_differ(path: str) -> None:
    assert not is_shared(path)
    assert not same_path_for_all(path, {"prompt": ["a", "b"]})


def test_constants() -> None:
    assert is_shared("clip.mp4")
    assert is_shared(Path("clip.mp4"))
    assert not is_shared(Path("{generation_id}.mp4"))
    assert not is_shared(None)
    assert not is_shared(object())


def test_paths_that_are_mapped_themselves() -> None:
    two = ["a.mp4", "b.mp4"]
    assert not same_path_for_all(None, {"path": two})
    assert not same_path_for_all(None, {"path": two, "prompt": ["one"]})
    assert same_path_for_all(None, {"path": two, "prompt": ["x", "y"]})  # each path with each prompt
    assert same_path_for_all(None, {"path": two, "prompt": None})
    assert same_path_for_all(None, {"path": ["a.mp4", "a.mp4"]})
    assert not same_path_for_all(None, {"path": ["out/", "out/"]})


def test_what_is_known_when_it_is_rendered() -> None:
    assert not may_differ("{{ params.path }}", rendered=True)
    assert may_differ("{{ ti.xcom_pull('path') }}", pulls_differ=True, rendered=True)
    assert not may_differ("{{ ti.xcom_pull('path') }}", rendered=True)

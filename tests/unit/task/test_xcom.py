"""XComs of a task, and the request of an upstream task among those of all its instances."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.task.xcom import storable, upstream_request


class Upstream:
    """A task that generates, and what its instances pushed; counts the pulls."""

    pushes_requests = True

    def __init__(self, ids: list[Any]) -> None:
        self.ids = ids
        self.pulls: list[tuple[str, Any]] = []

    def pull(self, key: str, index: int | None) -> Any:
        self.pulls.append((key, index))
        pushed = [each for each in self.ids if each is not None]
        values = pushed if key == "generation_id" else [request_of(each) for each in pushed]
        if index is not None:
            return None if self.ids[index] is None else request_of(self.ids[index])
        return values[0] if len(values) == 1 else values or None  # as Airflow gives them


def request_of(generation_id: Any) -> Any:
    if isinstance(generation_id, list):
        return [request_of(each) for each in generation_id]
    return {"generation_id": generation_id, "model": f"model of {generation_id}"}


class Other:
    """A task that generates nothing."""


def context(**tasks: Any) -> Any:
    class Dag:
        get_task = staticmethod(tasks.__getitem__)

    class Task:
        dag = Dag

        @staticmethod
        def get_flat_relative_ids(upstream: bool) -> set[str]:
            return set(tasks)

    class Instance:
        map_index = 7  # of no meaning

        @staticmethod
        def xcom_pull(task_ids: str, key: str, map_indexes: int | None = None) -> Any:
            return tasks[task_ids].pull(key, map_indexes)

    return {"ti": Instance, "task": Task}


@pytest.mark.parametrize(
    "ids",
    [["b"], ["a", "b"], ["a", None, "b"], [["a", "b"]], [["a", None, "b"]], [["a"], ["b", "c"]]],
    ids=str,
)
def test_a_request_is_found_by_the_generation_s_id(ids: list[Any]) -> None:
    found = upstream_request(context(filter=Other(), first=Upstream(["x"]), make=Upstream(ids)), "b")
    assert found == {"generation_id": "b", "model": "model of b"}


@pytest.mark.parametrize("missing", [(), (3,)])
def test_among_many_one_request_is_pulled_and_never_another_one_s(missing: tuple[int, ...]) -> None:
    make = Upstream([None if n in missing else f"g{n}" for n in range(1000)])

    assert upstream_request(context(make=make), "g500") == request_of("g500")
    assert make.pulls[:2] == [("generation_id", None), ("request", 500 - len(missing))]
    assert len(make.pulls) == 2 + len(missing)


def test_a_miss_costs_one_pull_of_the_ids() -> None:
    make = Upstream(["a", "b"])
    assert upstream_request(context(make=make, nothing=Upstream([])), "z") is None
    assert make.pulls == [("generation_id", None)]


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda each: st.lists(each) | st.dictionaries(st.text(), each)
    )
)
def test_what_is_pushed_can_be_stored(value: Any) -> None:
    text = repr(storable(value))
    assert "\0" not in text
    text.encode()
    assert storable({"a\0": ["\ud83d"]}) == {"a\ufffd": ["\ufffd"]}

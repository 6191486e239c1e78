from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_kling.ui.database import Attempt, XCom
from airflow_provider_kling.ui.generations import GenerationFacts, assemble, by_place

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
REQUEST = {"model": "m", "parameters": {"prompt": "Steam."}, "submitted_at": AT.timestamp()}
FAILURE = {
    "schema": 1,
    "generation_id": "g",
    "error": {"kind": "GenerationFailedError", "message": "It failed."},
}


def attempt(task_id: str = "generate", state: str | None = "success", **more: Any) -> Attempt:
    known = {"try_number": 1, "map_index": -1, "current": True, "run_state": "running", **more}
    return Attempt(
        id=f"{task_id} {known['map_index']} {known['try_number']}",
        dag_id="shop",
        run_id="run",
        task_id=task_id,
        state=state,
        queued_at=AT,
        started_at=AT,
        ended_at=None,
        operator="KlingGenerateOperator",
        label=None,
        **known,
    )


def put_together(*tasks: tuple[Attempt, dict[str, Any]]) -> list[GenerationFacts]:
    xcoms = [
        XCom(each.id, key, value, AT + timedelta(seconds=90))
        for each, left in tasks
        for key, value in left.items()
    ]
    return by_place(assemble([each for each, _ in tasks], xcoms))


VIDEO = {"generation_id": "g", "path": "/videos/g.mp4", "duration": 5.04}
GENERATION = {"id": "g", "status": "completed", "duration": 5}
SUBMITTED = {"generation_id": "g", "request": REQUEST}


@pytest.mark.parametrize(
    ("state", "run_state", "left", "status"),
    [
        ("queued", "running", {"generation_id": None, "failure": None}, None),
        ("running", "running", SUBMITTED, "generating"),
        ("deferred", "running", SUBMITTED, "generating"),
        ("up_for_retry", "running", SUBMITTED, "retrying"),
        ("up_for_retry", "running", SUBMITTED | {"failure": FAILURE}, "retrying"),
        ("failed", "failed", SUBMITTED, "failed"),
        ("failed", "failed", SUBMITTED | {"failure": FAILURE}, "failed"),
        ("success", "running", SUBMITTED, "generating"),
        ("success", "success", SUBMITTED, "submitted"),
        ("success", "success", SUBMITTED | {"generation": GENERATION}, "completed"),
        ("success", "success", SUBMITTED | {"generation": GENERATION, "video": VIDEO}, "saved"),
        ("failed", "failed", SUBMITTED | {"generation": GENERATION}, "completed"),
    ],
)
def test_where_a_generation_stands(
    state: str, run_state: str, left: dict[str, Any], status: str | None
) -> None:
    found = put_together((attempt(state=state, run_state=run_state), left))
    assert [each.status for each in found] == ([] if status is None else [status])


def test_three_tasks_make_one_generation() -> None:
    (found,) = put_together(
        (attempt("generate"), SUBMITTED),
        (attempt("wait"), {"generation": GENERATION, "cost": {"usd": 0.3}}),
        (attempt("download"), {"video": VIDEO}),
    )
    assert found.attempt.task_id == "generate"
    assert (found.status, found.usd, found.seconds, found.waited) == ("saved", 0.3, 5.04, 90)
    assert found.saved_by is not None
    assert found.saved_by.task_id == "download"
    assert {each.task_id for each in found.tasks} == {"generate", "wait", "download"}


def test_variants_keep_their_places_and_their_own_states() -> None:
    first, second, third = put_together(
        (
            attempt(state="failed"),
            {
                "generation_id": ["g0", None, "g2"],
                "request": [REQUEST, None, REQUEST],
                "generation": [GENERATION | {"id": "g0"}, None, None],
                "video": [VIDEO | {"generation_id": "g0"}],
                "failure": [None, FAILURE | {"generation_id": ""}, FAILURE | {"generation_id": "g2"}],
            },
        )
    )
    assert [each.place for each in (first, second, third)] == [0, 1, 2]
    assert [each.status for each in (first, second, third)] == ["saved", "failed", "failed"]
    assert [each.generation_id for each in (first, second, third)] == ["g0", None, "g2"]


def test_two_tasks_that_submitted_are_two_generations() -> None:
    found = put_together((attempt(map_index=0), SUBMITTED), (attempt(map_index=1), SUBMITTED))
    assert len(found) == 2


@pytest.mark.parametrize(
    "left",
    [
        {"generation_id": 7},
        {"generation_id": {"a": 1}, "request": "text", "video": 3},
        {"request": [[]], "generation": [None, 5]},
        {"generation_id": ["g", {"x": []}], "cost": {"usd": "much"}},
        {"video": {"path": None}},
        {"failure": {"error": "text"}, "generation_id": ""},
        {"generation_id": "g", "request": {"parameters": [1], "submitted_at": "noon", "model": 4}},
        {"generation_id": '["g"', "cost": True},
    ],
)
def test_what_another_program_pushed_under_these_keys_breaks_nothing(left: dict[str, Any]) -> None:
    for each in put_together((attempt(), left)):
        assert isinstance(each.prompt, str)
        assert each.status
        assert each.model is None or isinstance(each.model, str)
        _ = each.usd, each.seconds, each.waited, each.failure_message


def test_a_value_that_was_stored_as_json_within_json_is_read() -> None:
    (found,) = put_together(
        (attempt(), {"generation_id": "g", "request": '{"model": "m", "parameters": {}}'})
    )
    assert found.model == "m"

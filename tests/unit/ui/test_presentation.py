from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_kling.ui import presentation
from tests.unit.ui.test_generations import GENERATION, SUBMITTED, VIDEO, attempt, put_together

SIGNED = "https://media.example/mug.jpg?X-Amz-Signature=abc&X-Amz-Credential=key"


def shown(left: dict[str, Any]) -> Any:
    (found,) = put_together((attempt(), left))
    return presentation.generation(found)


def test_media_are_told_by_source_and_have_an_address_where_they_can_be_read() -> None:
    media = [
        {"source": "/pictures/mug.jpg", "sha256": "1", "size": 10},
        {"source": "s3://conn@bucket/lamp.png", "sha256": "2", "size": 11},
        {"source": SIGNED, "sha256": "3"},
    ]
    found = shown({"generation_id": "g", "request": {"model": "m", "parameters": {"image_list": media}}})
    assert [each.parameter for each in found.pictures] == ["image_list[0]", "image_list[1]", "image_list[2]"]
    assert [bool(each.url) for each in found.pictures] == [True, True, False]
    assert found.parameters == {"image_list": ["…"] * 3}
    assert "X-Amz" not in found.model_dump_json()


def test_no_secret_is_in_what_the_page_gets() -> None:
    left = SUBMITTED | {
        "generation": GENERATION | {"video_url": SIGNED},
        "video_url": SIGNED,
        "video": VIDEO | {"path": "s3://conn:pass@bucket/a.mp4"},
        "failure": {"error": {"kind": "DownloadError", "message": f"Could not open {SIGNED}."}},
    }
    left["request"] = {"model": "m", "parameters": {"prompt": "p", "callback_url": SIGNED}, "submitted_at": 1}
    text = shown(left).model_dump_json()
    for secret in ("X-Amz-Signature", "abc&", "pass@"):
        assert secret not in text


def test_an_address_keeps_odd_ids_in_their_place() -> None:
    (found,) = put_together((attempt("a/b?c#d e"), SUBMITTED | {"video": VIDEO}))
    address = presentation.generation(found).video_url or ""
    assert "/tasks/a%2Fb%3Fc%23d%20e/-1/" in address
    assert address.startswith("api/")  # relative: a path prefix is kept


def test_a_video_that_another_task_saved_is_asked_of_that_task() -> None:
    (found,) = put_together((attempt("generate"), SUBMITTED), (attempt("download"), {"video": VIDEO}))
    assert "/tasks/download/" in (presentation.generation(found).video_url or "")


@pytest.mark.parametrize("message", ["One line.", "Two\nlines.", "x" * 50_000])
def test_a_message_keeps_its_lines_and_has_an_end(message: str) -> None:
    cleaned = presentation.clean_message(message)
    assert cleaned.count("\n") == message.count("\n")
    assert len(cleaned) <= 10_000

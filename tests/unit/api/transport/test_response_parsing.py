from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.exceptions import MalformedReplyError
from airflow_provider_kling.api.generation import GenerationStatus, is_hopeless
from airflow_provider_kling.api.transport.response_parsing import identifier, read_generation


@pytest.mark.parametrize(
    ("stated", "size"),
    [
        (8554108, 8554108),
        ("8554108", 8554108),
        (8554108.0, 8554108),
        (None, None),
        (0, None),
        (-5, None),
        (8554108.5, None),
        (True, None),
        ("large", None),
        (10**400, None),
        (float("inf"), None),
        ([8554108], None),
    ],
)
def test_the_length_of_the_video(stated: Any, size: int | None) -> None:
    body = {"id": "x", "status": "completed", "video": {"url": "https://cdn/v.mp4", "file_size": stated}}

    assert read_generation(body).video_size == size


@pytest.mark.parametrize("word", ["rendered", "", None, 7, "READY_TO_DOWNLOAD", "not_completed"])
def test_a_video_beside_a_word_that_nobody_knows_is_evidence(word: Any) -> None:
    read = read_generation({"status": word, "video": {"url": "https://cdn/v.mp4"}}, "1")

    assert read.status is GenerationStatus.COMPLETED
    assert read.video_url == "https://cdn/v.mp4"


@pytest.mark.parametrize("video", [None, {}, {"url": None}, {"url": ""}, {"url": 7}, []])
def test_an_unknown_word_alone_is_none(video: Any) -> None:
    assert read_generation({"status": "rendered", "video": video}, "1").status is GenerationStatus.UNKNOWN


DETAIL = {
    "loc": ["body", "image_url"],
    "msg": "Could not detect face in the image",
    "type": "face_detection_error",
    "input": "https://pictures.example.com/x.jpg?signature=secret",
}


@pytest.mark.parametrize(
    ("body", "name", "message"),
    [
        ({"error": {"name": "N", "message": "why"}}, "N", "why"),
        ({"error": "why"}, "", "why"),
        ({"error": ["why", {"msg": "and why"}]}, "", "why; and why"),
        ({"error": {"detail": [DETAIL]}}, DETAIL["type"], "Could not detect face in the image (image_url)"),
        ({"detail": [DETAIL]}, "", "Could not detect face in the image (image_url)"),
        ({"error": {"detail": "why"}}, "", "why"),
        ({"error": {"error_msg": "why", "error_code": 1301}}, "1301", "why"),
        ({"error": {"code": "E1", "reason": "why"}}, "E1", "why"),
        ({"error": {"error": {"name": "N", "message": "why"}}}, "N", "why"),
        ({"error": None, "error_msg": "why"}, "", "why"),
        ({"error": {}, "reason": "why"}, "", "why"),
        ({"task_status_msg": "why", "model": "m"}, "", "why"),
        ({"model": "m", "error": None}, "", "no message"),
        ({"error": {"what": "nobody knows this form"}}, "", '{"what": "nobody knows this form"}'),
    ],
)
def test_shapes_of_a_failure(body: dict[str, Any], name: str, message: str) -> None:
    failure = read_generation({"status": "error", **body}, "1").failure

    assert failure is not None
    assert (failure.name or "", failure.message) == (name, message) or "detail" in body
    assert failure.message == message
    assert "secret" not in failure.message
    if "face" in message:
        assert is_hopeless(failure)


@pytest.mark.parametrize(
    ("raw", "read"),
    [
        ("vIvy_TKgZ0vwl7ZYG6Hy0", "vIvy_TKgZ0vwl7ZYG6Hy0"),
        ("5bc8fbbc-bde5-c099-4164-d8399f767c45:klingai/avatar-pro", ...),
        (789392067490349060, "789392067490349060"),
        ("a b", "a b"),
        ("\u00fcber", "\u00fcber"),
        *((each, None) for each in ("", " ", " a", "a\n", "a\nb", "a\0b", "a\x1b[31m", "a\u202eb", "\ud83d")),
        *((each, None) for each in (None, True, 1.5, -1, 0, 10**50, [], {}, "x" * 501)),
    ],
)
def test_ids_are_opaque_but_never_forge_a_line_of_a_log(raw: Any, read: Any) -> None:
    assert identifier(raw) == (raw if read is ... else read)


@given(st.text(min_size=1).filter(lambda word: bool(word.strip())))
def test_a_video_beside_any_word_is_evidence_and_no_word_alone_is(word: str) -> None:
    video = {"id": "g1", "status": word, "video": {"url": "https://cdn.example.com/a.mp4"}}
    known = GenerationStatus.parse(word)
    with_video = read_generation(video).status
    assert with_video is (GenerationStatus.COMPLETED if known is GenerationStatus.UNKNOWN else known)
    assert read_generation({"id": "g1", "status": word}).status is known


@given(st.text())
def test_an_id_fits_in_one_line_and_in_a_database(raw: str) -> None:
    read = identifier(raw)
    if read is None:
        with pytest.raises(MalformedReplyError) as refused:
            read_generation({"id": raw, "status": "queued"})
        assert str(refused.value).isprintable()
        return
    assert read_generation({"id": raw, "status": "queued"}).id == read
    assert read == raw
    assert read.isprintable()
    read.encode()


@pytest.mark.parametrize("length", [8_192, 8_193, 1_000_000])
def test_a_url_has_a_longest_length(length: int):
    url = "https://cdn.example.com/".ljust(length, "a")
    generation = read_generation({"id": "g1", "status": "completed", "video": {"url": url}})
    assert generation.video_url == (url if length <= 8_192 else None)
    assert len(generation.raw_status) < 100


@pytest.mark.parametrize("word", ["x" * 1_000_000, "a?" * 500_000, "\n" * 1_000_000 + "x"])
def test_what_is_only_shown_is_short(word: str):
    body = {"id": "g1", "status": word, "error": {"name": word, "message": word}, word: 1}
    generation = read_generation({**body, "status": "error"})
    assert generation.failure is not None
    assert max(map(len, (read_generation(body).raw_status, *astuple(generation.failure)))) <= 500
    with pytest.raises(MalformedReplyError) as caught:
        read_generation({word: 1})
    assert len(str(caught.value)) < 1000

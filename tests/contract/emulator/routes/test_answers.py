"""Ids, answers and errors in the forms in which the vendor publishes them, and in those met in the wild."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from airflow_provider_kling.emulator import AnswerStyle, EmulatorOptions, EmulatorThread
from airflow_provider_kling.emulator.options import ErrorShape

PATH = "/v2/generate/video/kling/generation"
HEADERS = {"Authorization": "Bearer kling-emulator-key"}
TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"
ELSEWHERE = "klingai/v2.5-turbo/pro/text-to-video"
PICTURE = "https://example.org/pictures/mona_lisa_extended.jpg"

NANO = r"[A-Za-z0-9_-]{21}"
DIGITS = r"[1-9][0-9]{17}"
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@contextmanager
def emulating(**options: Any) -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(frozen_clock=True, **options)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with emulating() as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: EmulatorThread) -> EmulatorThread:
    shared.reset()
    return shared


def submit(emulator: EmulatorThread, **request: Any) -> requests.Response:
    body = {"model": TEXT_MODEL, "prompt": "a cat", **request}
    return requests.post(emulator.url + PATH, json=body, headers=HEADERS, timeout=10)


def poll(emulator: EmulatorThread, generation_id: str) -> requests.Response:
    params = {"generation_id": generation_id}
    return requests.get(emulator.url + PATH, params=params, headers=HEADERS, timeout=30)


def ended(emulator: EmulatorThread, **request: Any) -> dict[str, Any]:
    """What a poll tells of a generation whose time is over."""
    accepted = submit(emulator, **request)
    assert accepted.status_code == 201, accepted.text
    emulator.clock.advance(60)
    told: dict[str, Any] = poll(emulator, accepted.json()["id"]).json()
    return told


@pytest.mark.parametrize(
    ("model", "form"),
    [
        (TEXT_MODEL, NANO),
        ("kling-video/v1.6/standard/multi-image-to-video", NANO),
        ("klingai/video-v3-pro-text-to-video", NANO),
        ("klingai/video-v2-6-pro-motion-control", NANO),
        ("kling-video/v2.1/standard/image-to-video", DIGITS),
        ("kling-video/v2.1/pro/image-to-video", DIGITS),
        ("klingai/avatar-pro", UUID + ":klingai/avatar-pro"),
        ("klingai/video-v2-6-pro-text-to-video", UUID + ":klingai/video-v2-6-pro-text-to-video"),
        ("klingai/video-o1-video-to-video-edit", UUID + ":klingai/video-o1-video-to-video-edit"),
        (ELSEWHERE, UUID + f":{ELSEWHERE}"),
        ("klingai/v2-master-text-to-video", UUID + ":kling-video/v2/master/text-to-video"),
        ("klingai/v2.1-master-image-to-video", UUID + ":kling-video/v2.1/master/image-to-video"),
        ("klingai/kling-video-v1.6-pro-effects", UUID + ":kling-video/v1.6/pro/effects"),
    ],
)
def test_an_id_has_the_published_form_of_its_model(emulator, model: str, form: str):
    generation_id = submit_any(emulator, model).json()["id"]
    assert re.fullmatch(form, generation_id)
    answer = poll(emulator, generation_id)
    assert (answer.status_code, answer.json()["id"]) == (200, generation_id)
    assert answer.headers["x-inference-id"] == generation_id


def submit_any(emulator: EmulatorThread, model: str) -> requests.Response:
    """A request that the model takes, put together from what the refusals ask for."""
    media = {
        "image_url": PICTURE,
        "image_list": [PICTURE, PICTURE],
        "audio_url": "https://example.org/a.mp3",
        "video_url": "https://example.org/a.mp4",
        "character_orientation": "image",
        "effect_scene": "squish",
    }
    request: dict[str, Any] = {"model": model, "prompt": "a cat"}
    for _ in range(8):
        answer = requests.post(emulator.url + PATH, json=request, headers=HEADERS, timeout=10)
        if answer.status_code == 201:
            return answer
        if "no parameter 'prompt'" in answer.text:
            del request["prompt"]
        for name in re.findall(r"needs the parameter '(\w+)'", answer.text):
            request[name] = media[name]
    pytest.fail(f"{model}: {answer.text}")


def test_a_video_with_slashes_in_its_id_can_be_downloaded(emulator):
    told = ended(emulator, model=ELSEWHERE)
    assert "/" in told["id"]
    answer = requests.get(told["video"]["url"], timeout=30)
    assert answer.status_code == 200
    assert emulator.journal[-1].generation_id == told["id"]


@pytest.mark.parametrize("model", [ELSEWHERE, "klingai/v2-master-text-to-video"])
def test_the_file_is_told_where_the_vendor_tells_it(emulator, model: str):
    video = ended(emulator, model=model)["video"]
    assert (video["content_type"], video["file_name"]) == ("video/mp4", "output.mp4")
    assert video["file_size"] == len(requests.get(video["url"], timeout=30).content)


def test_the_file_is_not_told_elsewhere(emulator):
    assert set(ended(emulator)["video"]) == {"url", "duration"}


@pytest.mark.parametrize(("model", "keys"), [(TEXT_MODEL, {"url"}), (ELSEWHERE, None)])
def test_published_answers_hold_no_more_than_the_examples(model: str, keys: set[str] | None):
    keys = keys or {"url", "content_type", "file_name", "file_size"}
    with emulating(answers=AnswerStyle.PUBLISHED) as emulator:
        queued = submit(emulator, model=model).json()
        assert set(queued) == {"id", "status"}
        done = ended(emulator, model=model)
        assert set(done) == {"id", "status", "video"}
        assert set(done["video"]) == keys
        failed = ended(emulator, model=model, prompt="[emulator: fail]")
        assert set(failed) == {"id", "status", "error"}


def test_a_model_that_runs_elsewhere_fails_with_details(emulator):
    prompt = "[emulator: moderation] a cat"
    told = ended(emulator, model=ELSEWHERE, prompt=prompt)
    assert told["status"] == "error"
    (detail,) = told["error"]["detail"]
    assert detail == {
        "loc": ["body", "prompt"],
        "msg": "The content was rejected by the moderation of the model.",
        "type": "moderation_error",
        "input": prompt,
    }


MESSAGE = "The model failed to generate the video."
KIND = "generation_error"
DETAILS = [{"loc": ["body", "prompt"], "msg": MESSAGE, "type": KIND}]
SHAPES: dict[ErrorShape, Any] = {
    ErrorShape.DOCUMENTED: {"name": "GenerationError", "message": MESSAGE},
    ErrorShape.NESTED: {"error": {"name": "GenerationError", "message": MESSAGE}},
    ErrorShape.DETAIL: {"detail": DETAILS},
    ErrorShape.LIST: DETAILS,
    ErrorShape.TEXT: MESSAGE,
    ErrorShape.ERROR_MSG: {"error_code": KIND, "error_msg": MESSAGE},
    ErrorShape.REASON: {"code": KIND, "reason": MESSAGE},
}


def without_input(error: Any) -> Any:
    for entry in error["detail"] if isinstance(error, dict) and "detail" in error else error:
        if isinstance(entry, dict):
            entry.pop("input", None)
    return error


@pytest.mark.parametrize("shape", ErrorShape)
def test_a_failure_comes_in_each_shape_by_directive_and_by_option(emulator, shape: ErrorShape):
    by_directive = ended(emulator, prompt=f"[emulator: fail={shape}]")
    with emulating(errors=shape) as other:
        by_option = ended(other, prompt="[emulator: fail]")
    assert without_input(by_directive["error"]) == SHAPES[shape]
    assert without_input(by_option["error"]) == SHAPES[shape]


def test_a_failure_can_have_a_reason_of_ones_own(emulator):
    told = ended(emulator, prompt="[emulator: fail] [emulator: reason=The upstream timed out, try again]")
    assert told["error"]["message"] == "The upstream timed out, try again"


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ("documented", lambda body: body["message"]),
        ("nested", lambda body: body["error"]["message"]),
        ("detail", lambda body: body["detail"][0]["msg"]),
        ("list", lambda body: body[0]["msg"]),
        ("text", lambda body: body),
        ("error-msg", lambda body: body["error_msg"]),
        ("reason", lambda body: body["reason"]),
    ],
)
def test_a_refusal_comes_in_each_shape(emulator, shape: str, told: Callable[[Any], str]):
    emulator.faults.add("poll", 500, message="out of order", shape=shape)
    answer = poll(emulator, "x" * 21)
    assert answer.status_code == 500
    assert told(answer.json()) == "out of order"
    with emulating(errors=shape) as other:
        refused = submit(other, duration=99)
        assert refused.status_code == 400
        assert "duration" in refused.text
        told(refused.json())


def test_statuses_can_be_told_in_other_words(emulator):
    words = {"queued": "submitted", "generating": "in_progress", "completed": "succeed"}
    prompt = " ".join(f"[emulator: {stage}={word}]" for stage, word in words.items())
    generation_id = submit(emulator, prompt=prompt).json()["id"]
    seen = []
    for seconds in (0, 2, 60):
        emulator.clock.advance(seconds)
        seen.append(poll(emulator, generation_id).json()["status"])
    assert seen == ["submitted", "in_progress", "succeed"]
    with emulating(statuses=["completed=finished", "error=failed"]) as other:
        assert ended(other)["status"] == "finished"
        assert ended(other, prompt="[emulator: fail]")["status"] == "failed"


@pytest.mark.parametrize(
    "word",
    [
        *("waiting", "active", "processing", "in_progress", "pending", "succeeded", "failed"),
        *("submitted", "succeed", "meditating", "COMPLETED", "", "a word with blanks"),
    ],
)
def test_any_word_can_be_put_for_a_status_on_request(emulator, word: str):
    generation_id = submit(emulator).json()["id"]
    emulator.faults.add("poll", "unknown-status", word=word)
    assert poll(emulator, generation_id).json()["status"] == word
    assert poll(emulator, generation_id).json()["status"] == "queued"


def test_keys_can_be_null_or_absent(emulator):
    generation_id = submit(emulator).json()["id"]
    emulator.clock.advance(60)
    emulator.faults.add("poll", "null-keys")
    told = poll(emulator, generation_id).json()
    assert told == {
        "id": generation_id,
        "status": "completed",
        **dict.fromkeys(("video", "error", "duration", "meta")),
    }
    emulator.faults.add("poll", "absent-keys")
    assert poll(emulator, generation_id).json() == {"id": generation_id, "status": "completed"}
    emulator.faults.add("poll", "null-keys", names="video.url,meta")
    told = poll(emulator, generation_id).json()
    assert (told["video"], told["meta"]) == ({"url": None, "duration": 5}, None)
    emulator.faults.add("poll", "absent-keys", names=["status", "video.duration", "none.such"])
    told = poll(emulator, generation_id).json()
    assert "status" not in told
    assert set(told["video"]) == {"url"}


def test_more_generations_than_allowed_at_once_are_429():
    with emulating(concurrency=2) as emulator:
        first = submit(emulator, prompt="[emulator: slow=100]").json()["id"]
        assert submit(emulator).status_code == 201
        refused = submit(emulator)
        assert (refused.status_code, "Retry-After" in refused.headers) == (429, False)
        assert "concurrent" in refused.json()["message"]
        emulator.clock.advance(10)
        assert submit(emulator).status_code == 201
        assert submit(emulator).status_code == 429
        assert poll(emulator, first).json()["status"] == "generating"
        assert emulator.stats["accepted"] == 3


@pytest.mark.parametrize("duration", [7, "7", "long", -1, 10**9, None, [5], 1e300])
def test_a_model_that_nobody_knows_yet_is_taken_on_request(duration: Any):
    model = "kling-video/v9/ultra/text-to-video"
    with emulating(unknown_models=True) as emulator:
        told = ended(emulator, model=model, duration=duration, anything={"at": "all"})
        assert told["status"] == "completed"
        assert told["video"]["duration"] == (7 if duration in (7, "7") else 5)
        assert emulator.generations[0]["model"] == model
        assert submit(emulator, model="no model id").status_code == 400

"""Words that the vendor, Kling and others have used for where a generation stands, and why it failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.generation import Failure, GenerationStatus, is_hopeless

WORDS = {
    GenerationStatus.QUEUED: ("queued", "waiting", "pending", "submitted", "scheduled"),
    GenerationStatus.GENERATING: ("generating", "active", "processing", "in_progress", "IN-PROGRESS", "running"),
    GenerationStatus.COMPLETED: ("completed", "succeeded", "succeed", "success", "finished", "done"),
    GenerationStatus.ERROR: ("error", "failed", "canceled", "cancelled", "expired", "rejected", "timeout"),
}  # fmt: skip
KNOWN = [(word, status) for status, words in WORDS.items() for word in words]


@pytest.mark.parametrize(("word", "status"), KNOWN)
def test_a_word_that_has_been_met(word: str, status: GenerationStatus) -> None:
    for form in (
        word,
        word.upper(),
        word.title(),
        f" {word}\n",
        f"task_{word}",
        f"video-{word}",
        f"job {word}",
    ):
        assert GenerationStatus.parse(form) is status
    assert GenerationStatus.parse(f"generation{word.title()}") is status


@pytest.mark.parametrize(
    "word",
    [
        *("", " ", "_", "42", "thinking", "undone", "incomplete", "unsuccessful"),
        *("retrying_after_error", "not_completed", "failed_over", "error_recovery", "partially_completed"),
        *("waiting_for_completed", "recovering from failure", "x" * 10_000),
    ],
)
def test_what_nobody_knows_counts_as_still_working(word: str) -> None:
    status = GenerationStatus.parse(word)

    assert not status.is_final


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *((word, "error") for word in ("killed", "nsfw", "flagged", "job-stopped", "TaskCrashed", "INVALID")),
        *((word, "error") for word in ("rejected_by_moderation", "failed_permanently", "cancelled by user")),
        *(
            (word, "error")
            for word in ("failed_due_to_timeout", "failed_to_start", "error: content_filtered")
        ),
        *((word, "completed") for word in ("completed_with_warnings", "SuccessWithErrors")),
        *((word, "queued") for word in ("queued_by_scheduler", "waiting_to_finish")),
        *(
            (word, "unknown")
            for word in ("not_rejected_by_moderation", "retrying_because_failed", "by error")
        ),
    ],
)
def test_a_reason_behind_a_word_does_not_change_it(word: str, status: str) -> None:
    assert GenerationStatus.parse(word) == status


@given(st.text())
def test_any_text_is_read(word: str) -> None:
    assert GenerationStatus.parse(word) in GenerationStatus


@given(st.sampled_from(KNOWN), st.sampled_from(["after", "not", "retrying", "non"]))
def test_a_word_that_turns_another_makes_no_end(known: tuple[str, GenerationStatus], turn: str) -> None:
    assert not GenerationStatus.parse(f"{turn}_{known[0]}").is_final


@pytest.mark.parametrize(
    "failure",
    [
        Failure("face_detection_error", "Could not detect face in the image (image_url)"),
        Failure("ModerationError", "x"),
        Failure("", "Content moderation rejected the prompt"),
        Failure("", "The prompt violates our usage policies"),
        Failure("value_error", "ensure this value is at most 10"),
        Failure("", "The picture is too large"),
        Failure("", "Unsupported image format"),
        Failure("", "No face found"),
        Failure("", "Face not found in the image"),
        Failure("", "The image contains a real person"),
        Failure("", "Unsafe content"),
        Failure("RequestBlocked", "This request was blocked by our filters"),
        Failure("", "No speech detected in the audio"),
        Failure("", "Unable to process image"),
        Failure("", "We can't generate this"),
        Failure("", "The account balance is not enough"),
        Failure("", "Please try again with a different prompt: it was flagged"),
    ],
)
def test_a_request_that_would_be_rejected_again(failure: Failure) -> None:
    assert is_hopeless(failure)


@pytest.mark.parametrize(
    "failure",
    [
        Failure("", "no message"),
        Failure("", ""),
        Failure("GenerationError", "The model failed"),
        Failure("", "The moderation service timed out"),
        Failure("", "Invalid response from the upstream model"),
        Failure("", "Internal error: parameter server unavailable"),
        Failure("", "Too many requests"),
        Failure("QuotaError", "Concurrency limit"),
        Failure("", "A fundamental problem"),
        Failure("invalid_response_error", "bad gateway"),
        Failure("", "Missing output"),
        Failure("ValueError", "value error in worker 3"),
        Failure("", "Failed to decode the generated video"),
        Failure("", "The request exceeds the time limit"),
        Failure("", "CUDA out of memory: invalid argument"),
        Failure("", "Something nobody has seen"),
    ],
)
def test_a_reason_that_may_pass(failure: Failure) -> None:
    assert not is_hopeless(failure)

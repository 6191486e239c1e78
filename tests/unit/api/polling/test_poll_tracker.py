"""What a wait makes of each answer; whole conversations are in test_calls.py."""

from __future__ import annotations

import pytest

from airflow_provider_kling.api.exceptions import (
    GenerationFailedError,
    KlingError,
    MalformedReplyError,
    Recovery,
)
from airflow_provider_kling.api.generation import Failure, Generation, GenerationStatus
from airflow_provider_kling.api.polling.poll_tracker import PollTracker, is_ready, not_ready, timed_out
from airflow_provider_kling.api.retry import FATAL_POLLS, FATAL_SECONDS, TROUBLE_TOLD

REFUSED = KlingError("The key is not valid.", recovery=Recovery.GIVE_UP)
LOST = KlingError("The connection broke.", recovery=Recovery.RETRY_TASK)


def failed(failure: Failure | None) -> GenerationFailedError:
    with pytest.raises(GenerationFailedError) as caught:
        is_ready(Generation("g1", GenerationStatus.ERROR, "error", failure=failure))
    return caught.value


@pytest.mark.parametrize(
    ("failure", "said", "recovery", "advice"),
    [
        (
            Failure("ModerationError", "No faces."),
            "ModerationError: No faces.",
            Recovery.GIVE_UP,
            "change it",
        ),
        (Failure("", "The model failed..."), "The model failed.", Recovery.RETRY_TASK, "submits it again"),
        (None, "no message.", Recovery.RETRY_TASK, "submits it again"),
    ],
)
def test_a_failed_generation_is_submitted_again_unless_that_is_hopeless(
    failure: Failure | None, said: str, recovery: Recovery, advice: str
) -> None:
    error = failed(failure)
    assert error.what == f"Generation g1 ended in an error at the vendor: {said}"
    assert (error.recovery, error.generation_id) == (recovery, "g1")
    assert advice in str(error)


def test_a_video_without_a_url_is_waited_for_and_not_paid_again() -> None:
    error = not_ready(Generation("g1", GenerationStatus.COMPLETED, "completed"))
    assert isinstance(error, MalformedReplyError)
    assert (error.recovery, error.generation_id) == (Recovery.RETRY_TASK, "g1")
    assert "do not submit it again" in str(error)


def test_a_generation_that_is_not_completed_needs_a_sensor() -> None:
    error = not_ready(Generation("g1", GenerationStatus.QUEUED, "queued"))
    assert (error.recovery, error.generation_id) == (Recovery.RETRY_TASK, "g1")
    assert "KlingGenerationSensor" in str(error)


def test_a_timeout_ends_its_sentence_once() -> None:
    assert timed_out("g1", "the last poll failed: no answer.").what == (
        "Timed out waiting for generation g1; the last poll failed: no answer."
    )


def test_refusals_count_only_in_a_row_and_only_over_their_time() -> None:
    tracker = PollTracker("g1", None)
    late = FATAL_SECONDS + 1.0
    for _ in range(FATAL_POLLS - 1):
        tracker.on_error(REFUSED, 0.0)
    tracker.on_error(LOST, late)  # the count begins again, from none
    for _ in range(FATAL_POLLS - 1):
        tracker.on_error(REFUSED, late)
    tracker.on_error(REFUSED, late)  # often enough, but within no time
    with pytest.raises(KlingError) as caught:
        tracker.on_error(REFUSED, late + FATAL_SECONDS)
    assert caught.value is REFUSED


def test_trouble_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    tracker = PollTracker("g1", None)
    times = (100.0, 100.0, 100.5, 100.0 + TROUBLE_TOLD - 0.1, 100.0 + TROUBLE_TOLD, 99.0)
    told = []
    for now in times:
        before = len(caplog.messages)
        tracker.on_error(LOST, now)
        told.append(len(caplog.messages) > before)
    assert told == [True, False, False, False, True, True]
    assert set(caplog.messages) == {"Polling generation g1 failed; still waiting: The connection broke."}


def test_an_unknown_status_is_named_with_its_generation(caplog: pytest.LogCaptureFixture) -> None:
    tracker = PollTracker("g1", None)
    assert not tracker.on_generation(Generation("g1", GenerationStatus.UNKNOWN, "meditating"))
    assert caplog.messages == [
        "Generation g1 has an unknown status, 'meditating'; treating it as still running."
    ]

"""The vendor publishes a program for its users; here it is in our words, and it runs as it is.

Submit with ``requests``, poll with ``params`` until the status is none of the waiting ones. Only
the base URL and the key are the emulator's, and the pause between polls is passed in.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import requests

from airflow_provider_kling.emulator import AnswerStyle, EmulatorOptions, EmulatorThread

STILL_WAITING = ("waiting", "active", "queued", "generating")


def create(base_url: str, key: str) -> dict[str, Any]:
    response = requests.post(
        f"{base_url}/v2/generate/video/kling/generation",
        headers={"Authorization": f"Bearer {key}"},
        json={
            "model": "kling-video/v1.6/standard/image-to-video",
            "image_url": "https://s2-111386.kwimgs.com/bs2/mmu-aiplatform-temp/kling/mona_lisa_extended.jpg",
            "prompt": "Mona Lisa puts on glasses with her hands.",
            "duration": "5",
        },
        timeout=30,
    )
    response.raise_for_status()
    return response.json()


def look(base_url: str, key: str, generation_id: str) -> dict[str, Any]:
    response = requests.get(
        f"{base_url}/v2/generate/video/kling/generation",
        params={"generation_id": generation_id},
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        timeout=30,
    )
    return response.json()


def program(base_url: str, key: str, pause: Callable[[float], None]) -> dict[str, Any] | None:
    """Create a video and look every 15 seconds, for 10 minutes at most."""
    generation_id = create(base_url, key).get("id")
    if not generation_id:
        return None
    for _ in range(40):
        answer = look(base_url, key, generation_id)
        if answer.get("status") not in STILL_WAITING:
            return answer
        pause(15)
    return None


@pytest.mark.parametrize("answers", list(AnswerStyle))
def test_the_published_program_gets_its_video(answers: AnswerStyle):
    options = EmulatorOptions(frozen_clock=True, answers=answers, queued_seconds=20, generating_seconds=60)
    with EmulatorThread(options) as emulator:
        result = program(emulator.url, emulator.api_key, emulator.clock.advance)
        assert result is not None
        video = requests.get(result["video"]["url"], timeout=30)
        polls = [entry for entry in emulator.journal if entry.call == "poll"]
    assert result["status"] in ("completed", "succeeded")
    assert video.content[4:8] == b"ftyp"
    assert len(polls) == 7


def test_it_works_in_real_time_too():
    options = EmulatorOptions(queued_seconds=0.1, generating_seconds=0.2)
    with EmulatorThread(options) as emulator:
        result = program(emulator.url, emulator.api_key, lambda _: time.sleep(0.05))
    assert result is not None
    assert result["status"] == "completed"

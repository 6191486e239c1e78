from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_kling.api.transport.response_parsing import read_generation


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

"""The JSON file beside a video."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_kling.api.download.save_video import SavedVideo
from airflow_provider_kling.task import sidecar

LANDED = SavedVideo("/videos/a.mp4", 10, "ab", 5.0, 16, 9, False)


@pytest.mark.parametrize(
    ("video", "expected"),
    [
        ("/videos/clip.mp4", "/videos/clip.json"),
        ("clip.mp4", "clip.json"),
        ("s3://conn@bucket/a.b/clip.v2.MP4", "s3://conn@bucket/a.b/clip.v2.json"),
        ("/videos/v1.6", "/videos/v1.6.json"),
    ],
)
def test_it_stands_beside_the_video(video: str, expected: str) -> None:
    assert sidecar.sidecar_path(video) == expected


def test_it_says_all_that_is_known() -> None:
    said = sidecar.content(
        LANDED,
        generation_id="gen-1",
        saved_at=1_800_000_000,
        request={
            "model": "m",
            "parameters": {"prompt": "x"},
            "client_request_id": "airflow:d:t:0:1",
            "submitted_at": 1_799_999_999.5,
        },
        cost={"usd": 0.29},
    )
    assert said["submitted_at"] == "2027-01-15T07:59:59+00:00"
    assert said["saved_at"] == "2027-01-15T08:00:00+00:00"
    assert (said["model"], said["request"]) == ("m", {"prompt": "x"})
    assert said["cost"] == {"usd": 0.29}
    assert said["video"]["sha256"] == "ab"


def test_it_says_what_it_can_where_little_is_known() -> None:
    said = sidecar.content(LANDED, generation_id="gen-1", saved_at=0, request=None, cost=None)
    assert (said["request"], said["cost"], said["submitted_at"]) == (None, None, None)
    assert said["generation_id"] == "gen-1"


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_it_is_replaced_whole_and_leaves_nothing_else(tmp_path: Path, form: str) -> None:
    path = tmp_path / "clip.json"
    path.write_text("older")
    sidecar.write(form.format(path), {"prompt": "Ein schöner Tag"}, generation_id="gen-1")
    assert json.loads(path.read_text()) == {"prompt": "Ein schöner Tag"}
    assert list(tmp_path.iterdir()) == [path]

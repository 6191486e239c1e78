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


@pytest.mark.parametrize("moment", [float("nan"), 1e300, -1e300, "yesterday", None])
def test_a_moment_that_is_none_is_left_out(moment: object) -> None:
    said = sidecar.content(
        LANDED, generation_id="gen-1", saved_at=0, request={"submitted_at": moment}, cost=None
    )
    assert said["submitted_at"] is None


SAID = sidecar.content(LANDED, generation_id="gen-1", saved_at=0, request=None, cost=None)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_it_is_replaced_whole_and_leaves_nothing_else(tmp_path: Path, form: str) -> None:
    path = tmp_path / "clip.json"
    path.write_text(json.dumps({**SAID, "generation_id": "of a week ago"}))

    assert sidecar.write(form.format(path), {**SAID, "model": "Ein schöner Tag"}, generation_id="gen-1")

    assert json.loads(path.read_text()) == {**SAID, "model": "Ein schöner Tag"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"schema": 1}',
        b'{"generation_id": "x"}',
        b"\xff\xfe",
        b'{"schema": "json-schema", "generation_id": 1}',
    ],
)
def test_another_file_of_that_name_is_left_alone(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)

    assert not sidecar.write(str(path), SAID, generation_id="gen-1")

    assert path.read_bytes() == content
    assert "is not a sidecar" in caplog.text
    assert "gen-1" in caplog.text
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_fails_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "missing")
    for path in (
        str(tmp_path / "folder.json"),
        str(tmp_path / "link.json"),
        f"{tmp_path}/{'x' * 300}.json",
        "/proc/clip.json",
        "file://host/clip.json",
    ):
        caplog.clear()
        assert not sidecar.write(path, SAID, generation_id="gen-1")
        assert "The video is saved." in caplog.text


def test_a_storage_that_nobody_knows_fails_nothing() -> None:
    assert not sidecar.write("no-such-storage://bucket/clip.json", SAID, generation_id="gen-1")


def test_half_an_emoji_in_a_prompt_fails_nothing(tmp_path: Path) -> None:
    path = tmp_path / "clip.json"

    assert sidecar.write(str(path), {**SAID, "request": {"prompt": "\ud83d"}}, generation_id="gen-1")

    assert json.loads(path.read_text())["request"] == {"prompt": "\ud83d"}

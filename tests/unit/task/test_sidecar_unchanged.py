"""What stands at a target, compared with a request."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.api.exceptions import KlingError, Money
from airflow_provider_kling.task.sidecar import Existing, is_still, look_at_target

DESCRIBED = {
    "model": "m",
    "parameters": {"prompt": "P", "image_url": {"source": "/a.png", "sha256": "aa", "size": 3}},
}


def put(path: Path, content: bytes = b"video", **changes: Any) -> None:
    path.write_bytes(content)
    said = {
        "schema": 1,
        "generation_id": "g",
        "model": "m",
        "request": DESCRIBED["parameters"],
        "video": {
            "path": str(path),
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "duration": 5.0,
            "width": 1,
            "height": 1,
        },
    }
    path.with_suffix(".json").write_text(json.dumps({**said, **changes}))


def test_nothing(tmp_path: Path):
    assert look_at_target(f"{tmp_path}/a.mp4", DESCRIBED) is None


def test_the_same_request_wherever_its_picture_is_now(tmp_path: Path):
    put(tmp_path / "a.mp4")
    moved = {"prompt": "P", "image_url": {"source": "s3://b/a.png", "sha256": "aa"}}
    existing = look_at_target(f"{tmp_path}/a.mp4", {"model": "m", "parameters": moved})
    assert existing is not None
    assert existing.generation_id == "g"
    assert existing.video is not None
    assert existing.video.size == 5


@pytest.mark.parametrize(
    "other",
    [
        {"model": "n", "parameters": DESCRIBED["parameters"]},
        {"model": "m", "parameters": {**DESCRIBED["parameters"], "prompt": "Q"}},
        {"model": "m", "parameters": {"prompt": "P", "image_url": {"source": "/a.png", "sha256": "bb"}}},
    ],
)
def test_another_request(tmp_path: Path, other: dict[str, Any]):
    put(tmp_path / "a.mp4")
    existing = look_at_target(f"{tmp_path}/a.mp4", other)
    assert existing == Existing("g", None, hashlib.sha256(b"video").hexdigest())


def test_a_file_of_somebody_else_or_one_that_was_edited(tmp_path: Path):
    (tmp_path / "bare.mp4").write_bytes(b"mine")
    put(tmp_path / "edited.mp4")
    (tmp_path / "edited.mp4").write_bytes(b"VIDEO")
    put(tmp_path / "longer.mp4")
    (tmp_path / "longer.mp4").write_bytes(b"video and more")
    put(tmp_path / "odd.mp4")
    (tmp_path / "odd.json").write_text("{")
    for name in ("bare", "edited", "longer", "odd"):
        with pytest.raises(KlingError, match="skip_unchanged cannot tell") as caught:
            look_at_target(f"{tmp_path}/{name}.mp4", DESCRIBED)
        assert caught.value.money is Money.NOT_SPENT


def test_a_file_is_still_the_one_that_was_found(tmp_path: Path):
    put(tmp_path / "a.mp4")
    path, found = f"{tmp_path}/a.mp4", hashlib.sha256(b"video").hexdigest()
    assert is_still(path, found)
    assert not is_still(path, None)
    assert not is_still(f"{tmp_path}/none.mp4", found)
    (tmp_path / "a.mp4").write_bytes(b"VIDEO")
    assert not is_still(path, found)

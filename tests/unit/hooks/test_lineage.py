"""Names of files and objects for lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.hooks.lineage import dataset_name, media_uris, place_uri


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/data/mug.jpg", "file:///data/mug.jpg"),
        ("file:///data/mug.jpg", "file:///data/mug.jpg"),
        ("s3://conn@bucket/a/b.jpg", "s3://bucket/a/b.jpg"),
        ("https://x.example/a.png?X-Amz-Signature=secret", "https://x.example/a.png"),
        ("data:image/png;base64,AAAA", None),
    ],
)
def test_places(place: str, expected: str | None) -> None:
    assert place_uri(place) == expected


def test_a_relative_path_is_of_this_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert place_uri("out/a.mp4") == f"file://{tmp_path}/out/a.mp4"


def test_media_are_found_wherever_they_stand() -> None:
    def medium(source: str) -> dict[str, Any]:
        return {"source": source, "sha256": "0" * 64}

    described = {
        "prompt": "x",
        "image_url": medium("s3://c@b/1.jpg"),
        "elements": [{"reference_image_urls": [medium("https://x/2.jpg?sig=1"), medium("the data URI")]}],
    }
    assert media_uris(described) == ["s3://b/1.jpg", "https://x/2.jpg"]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a/b%20c.mp4", ("s3://bucket", "a/b c.mp4")),
        ("file:///data/a.mp4", ("file", "/data/a.mp4")),
        ("https://x.example/a.png", ("https://x.example", "a.png")),
    ],
)
def test_dataset_names_are_openlineage_s(uri: str, expected: tuple[str, str]) -> None:
    assert dataset_name(uri) == expected

"""Names of files and objects for lineage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.hooks.lineage import dataset_name, media_uris, place_uri


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("/data/mug.jpg", "file:///data/mug.jpg"),
        ("file:///data/mug.jpg", "file:///data/mug.jpg"),
        ("s3://conn@bucket/a/b.jpg", "s3://bucket/a/b.jpg"),
        ("https://x.example/a.png?X-Amz-Signature=secret", "https://x.example/a.png"),
        ("https://x.example/a%20b/é.png?sig=1#part", "https://x.example/a%20b/%C3%A9.png"),
        ("https://user:secret@x.example:8443/a.png", "https://x.example:8443/a.png"),
        ("https://x.example?sig=1", "https://x.example"),
        ("file:///data/a%23b.jpg", "file:///data/a%23b.jpg"),
        ("file:///data/a#b.jpg", "file:///data/a%23b.jpg"),
        ("/data/100%25.mp4", "file:///data/100%2525.mp4"),
        ("s3://conn@bucket/a#b?c/100%.mp4", "s3://bucket/a%23b%3Fc/100%25.mp4"),
        ("s3://bucket/day=1/at@08:00+01/a.mp4", "s3://bucket/day=1/at@08:00+01/a.mp4"),
        ("gs://bucket", "gs://bucket"),
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
        ("s3://bucket//a.mp4", ("s3://bucket", "/a.mp4")),
        ("s3://bucket", ("s3://bucket", "/")),
    ],
)
def test_dataset_names_are_openlineage_s(uri: str, expected: tuple[str, str]) -> None:
    assert dataset_name(uri) == expected


PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).map(
    lambda text: f"/data/{text}.mp4"
)


@given(PATHS)
def test_any_file_and_any_object_keeps_its_name(path: str) -> None:
    """Airflow's assets refuse a URI that is not ASCII, and lose what looks like a fragment."""
    for place, namespace, name in (
        (path, "file", os.path.abspath(path)),
        (f"s3://conn@bucket{path}", "s3://bucket", path[1:]),
    ):
        uri = place_uri(place)

        assert uri is not None
        assert uri.isascii()
        assert (urlsplit(uri).query, urlsplit(uri).fragment) == ("", "")
        assert dataset_name(uri) == (namespace, name)
    assert place_uri(Path(path).as_uri()) == place_uri(str(Path(path)))


def test_no_provider_is_loaded_for_lineage_that_nobody_reads(tmp_path: Path) -> None:
    code = """
import sys
from airflow_provider_kling.hooks.kling import KlingHook
from airflow_provider_kling.hooks.lineage import collect
collect(KlingHook(), inputs=["file:///data/mug.jpg"], outputs=["s3://bucket/mug.mp4"])
print([name for name in sys.modules if name == "boto3" or name.endswith((".assets.file", ".assets.s3"))])
"""
    environment = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__OPENLINEAGE__DISABLED": "True"}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.splitlines()[-1] == "[]"

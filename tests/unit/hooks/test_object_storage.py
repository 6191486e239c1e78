"""What a path as text stands for, and small files."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_kling.api.exceptions import DownloadError
from airflow_provider_kling.hooks.object_storage import place_of, target_path, write_text
from airflow_provider_kling.task import sidecar

NAMES = ["clip.mp4", "clip#1.mp4", "what?.mp4", "100%25.mp4", "100%.mp4", "a b ü.mp4"]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_is_itself_as_a_path_and_as_a_uri(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    for given in (str(path), path, path.as_uri()):
        assert target_path(given, generation_id="gen-1") == str(path)
    write_text(path.as_uri(), "a text")
    assert path.read_text() == "a text"
    path.unlink()
    assert sidecar.write(path.as_uri(), {}, generation_id="gen-1")
    assert path.read_text() == "{}\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_uri_cannot_climb_out_of_its_directory(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="climbs out"):
        target_path(f"file://{tmp_path}/%2e%2e%2f%2e%2e/escaped.mp4", generation_id="gen-1")


@pytest.mark.parametrize("uri", ["file://host/x.mp4", "file://rel/x.mp4"])
def test_a_host_is_no_directory(uri: str) -> None:
    with pytest.raises(DownloadError, match="three slashes"):
        target_path(uri, generation_id="gen-1")
    with pytest.raises(ValueError, match="three slashes"):
        place_of(uri)

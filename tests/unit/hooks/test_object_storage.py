"""What a path as text stands for, and small files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.durable.identity import client_request_id, fingerprint
from airflow_provider_kling.api.exceptions import DownloadError
from airflow_provider_kling.hooks.object_storage import place_of, target_path, write_text
from airflow_provider_kling.task import sidecar

NAMES = ["clip.mp4", "clip#1.mp4", "what?.mp4", "100%25.mp4", "100%.mp4", "a b ü.mp4"]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_is_itself_as_a_path_and_as_a_uri(tmp_path: Path, name: str) -> None:
    path = tmp_path / name

    for place in (str(path), path, path.as_uri()):
        assert target_path(place, generation_id="gen-1") == str(path)
    write_text(path.as_uri(), "a text")
    assert path.read_text() == "a text"
    path.unlink()
    assert sidecar.write(path.as_uri(), {}, generation_id="gen-1")
    assert path.read_text() == "{}\n"
    assert list(tmp_path.iterdir()) == [path]


@given(
    map_index=st.integers(-1, 9), passes=st.sets(st.integers(0, 10**6), min_size=2), count=st.integers(0, 9)
)
def test_each_pass_of_a_loop_has_a_place_of_its_own(map_index: int, passes: set[int], count: int) -> None:
    """The client request id alone tells it, so that it is the same for who saves the video later."""
    asked = fingerprint({"prompt": "x"}, "account")
    names = {
        index: client_request_id(TaskAttempt("d", "r", "t", map_index, loop_index=index), asked, count)
        for index in passes
    }
    for index, name in names.items():
        path = target_path("out/{loop_index}.mp4", generation_id="gen-1", client_request_id=name)
        assert path == f"out/{index}.mp4"


@given(map_index=st.integers(-1, 9), known=st.booleans())
def test_outside_of_a_loop_there_is_no_pass(map_index: int, known: bool) -> None:
    work = TaskAttempt("pass1", "pass2", "pass3", map_index)
    name = client_request_id(work, fingerprint({}, "account"), 0) if known else None
    with pytest.raises(DownloadError, match="submitted in a loop"):
        target_path("out/{loop_index}.mp4", generation_id="gen-1", client_request_id=name)


def test_a_uri_cannot_climb_out_of_its_directory(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="climbs out"):
        target_path(f"file://{tmp_path}/%2e%2e%2f%2e%2e/escaped.mp4", generation_id="gen-1")


@pytest.mark.parametrize("uri", ["file://host/x.mp4", "file://rel/x.mp4"])
def test_a_host_is_no_directory(uri: str) -> None:
    with pytest.raises(DownloadError, match="three slashes"):
        target_path(uri, generation_id="gen-1")
    with pytest.raises(ValueError, match="three slashes"):
        place_of(uri)

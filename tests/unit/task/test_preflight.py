"""What saving will need is tried before anything is paid, and nothing of the trial stays."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError, Recovery
from airflow_provider_kling.task.preflight import LONGEST_ID, check_target, check_writable

try:
    from airflow.sdk.io import attach
except ImportError:  # Airflow 2
    from airflow.io.store import attach

MODEL = "klingai/v2.5-turbo/pro/text-to-video"
ID = "airflow:dag:task:0:0123456789abcdef"


def try_(path: Any, *, overwrite: bool = False, sidecar: bool = False) -> None:
    check_writable(ID, path=path, overwrite=overwrite, with_sidecar=sidecar, model=MODEL)


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    try_(None)
    for path in (f"{tmp_path}/", f"{tmp_path}/a/b/", f"{tmp_path}/kept/{{model}}/{{client_request_id}}.mp4"):
        try_(path, sidecar=True)

    assert list(tmp_path.rglob("*")) == [tmp_path / "kept"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/sys/kling-videos/", "write /sys/kling-videos/"),
        ("/proc/kling/", "write /proc/kling/"),
        ("FILE/clip.mp4", "NotADirectoryError"),
        ("FOLDER", "is a directory"),
        ("LONG/{generation_id}.mp4", "longer than 255 bytes"),
        ("TAKEN.mp4", "another file is there"),
        ("$KLING_NOT_SET/clip.mp4", "not set"),
        ("s4://bucket/clip.mp4", "s4"),
    ],
)
def test_a_place_that_cannot_be_written(tmp_path: Path, path: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.mp4").write_text("another film")
    path = path.replace("FILE", f"{tmp_path}/file").replace("FOLDER", str(tmp_path))
    path = path.replace("TAKEN", f"{tmp_path}/taken").replace("LONG/", f"{tmp_path}/{'x' * 170}")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(KlingError) as refused:
        try_(path)

    assert refused.value.recovery is Recovery.GIVE_UP
    assert said.replace("write ", "") in str(refused.value) or said in str(refused.value)
    assert "Nothing was submitted by this attempt" in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_fixed_path_that_is_taken_may_be_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "latest.mp4").write_text("yesterday's")
    try_(f"{tmp_path}/latest.mp4", overwrite=True)
    assert (tmp_path / "latest.mp4").read_text() == "yesterday's"


@pytest.mark.parametrize("there", ["folder", "config"])
def test_a_sidecar_that_could_not_be_written(tmp_path: Path, there: str) -> None:
    beside = tmp_path / "clip.json"
    beside.mkdir() if there == "folder" else beside.write_text('{"colour": "red"}')

    with pytest.raises(KlingError, match=r"clip\.json"):
        try_(f"{tmp_path}/clip.mp4", sidecar=True)
    try_(f"{tmp_path}/clip.mp4")


def test_an_older_sidecar_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "clip.json").write_text('{"schema": 1, "generation_id": "1", "video": {}}')
    try_(f"{tmp_path}/clip.mp4", sidecar=True)


def test_a_full_disk_may_have_room_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(KlingError) as refused:
        try_(f"{tmp_path}/")
    assert refused.value.recovery is Recovery.RETRY_TASK


class Bucket(MemoryFileSystem):
    """An object storage that refuses what it is told to refuse."""

    protocol, cachable = "trialbucket", False
    refused: tuple[str, ...] = ()
    error: type[Exception] = PermissionError

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = super()._strip_protocol(str(path).removeprefix("trialbucket://"))
        return stripped

    def _meet(self, call: str) -> None:
        if call in self.refused:
            raise self.error("Forbidden")

    def put_file(self, *args: Any, **kwargs: Any) -> Any:
        self._meet("put")
        return super().put_file(*args, **kwargs)

    def mv(self, *args: Any, **kwargs: Any) -> Any:
        self._meet("move")
        return super().mv(*args, **kwargs)

    def rm_file(self, path: str) -> Any:
        self._meet("remove")
        return super().rm_file(path)

    def info(self, path: str, **kwargs: Any) -> Any:
        self._meet("look")
        return super().info(path, **kwargs)


@pytest.fixture(scope="module")
def storage() -> Bucket:
    fsspec.register_implementation("trialbucket", Bucket, clobber=True)
    filesystem = Bucket()
    attach("trialbucket", fs=filesystem)  # Airflow keeps the first
    return filesystem


@pytest.fixture
def bucket(storage: Bucket) -> Iterator[Bucket]:
    storage.store.clear()
    yield storage
    storage.store.clear()
    storage.refused, storage.error = (), PermissionError


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError])
def test_a_bucket_that_refuses_a_put(bucket: Bucket, error: type[Exception]) -> None:
    bucket.refused, bucket.error = ("put",), error
    for path in (
        "trialbucket://media/out/",
        ObjectStoragePath("trialbucket://media/out/{generation_id}.mp4"),
    ):
        with pytest.raises(KlingError) as refused:
            try_(path)
        assert refused.value.recovery is Recovery.GIVE_UP
        assert "media/out/" in str(refused.value)
    assert not bucket.store


@pytest.mark.parametrize("error", [NotImplementedError, PermissionError])
def test_a_storage_that_moves_nothing(bucket: Bucket, error: type[Exception]) -> None:
    """Saving would write the video under a temporary name, and fail there."""
    bucket.refused, bucket.error = ("move",), error
    with pytest.raises(KlingError, match="No video can be saved at"):
        try_("trialbucket://media/out/")
    assert not bucket.store


@pytest.mark.parametrize("refused", [(), ("look",)])
def test_a_right_to_write_is_enough(bucket: Bucket, refused: tuple[str, ...]) -> None:
    bucket.refused = refused
    try_("trialbucket://media/out/", sidecar=not refused)
    try_("trialbucket://media/out/clip.mp4")
    assert not bucket.store


def test_an_object_of_that_name_is_noticed(bucket: Bucket) -> None:
    bucket.pipe_file("trialbucket://media/clip.mp4", b"another film")
    with pytest.raises(KlingError, match="another object is there"):
        try_("trialbucket://media/clip.mp4")
    try_("trialbucket://media/clip.mp4", overwrite=True)
    assert len(bucket.store) == 1


@pytest.mark.parametrize(
    "name", ["[2026]", "(1, 2)", "{generation_id}", "none", "A 'quoted' name", "a [b].mp4", "~x"]
)
def test_names_that_people_give(name: str) -> None:
    check_target(f"out/{name}/film.mp4", several=False)
    check_target(f"out/{name}.mp4", several=False)


def test_the_longest_name_is_tried() -> None:
    assert len(LONGEST_ID) == 93
    check_target(None, several=True)
    check_target("out/", several=True)
    for path in (
        *("out/clip.mp4", "None", "out/None/", "a\0b/", "out/None.mp4", "out/nan/", "['a', 'b']/"),
        *("out/['a', 'b'].mp4", "out/LazyXComSequence([2 items])/", "out/<object object at 0x7f>.mp4"),
    ):
        with pytest.raises(InvalidRequestError):
            check_target(path, several=path == "out/clip.mp4")

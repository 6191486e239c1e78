from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_kling.api.download.targets import target_for
from airflow_provider_kling.api.temporary_files import (
    STALE_AFTER,
    locked,
    part_name,
    staging_folder,
    sweep_folder,
    sweep_storage,
    temporary_name,
)

ID = "<uuid>:klingai/v2.5-turbo/pro/image-to-video"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["clip.mp4", "x" * 255, "ü" * 127, "a\udcffb"])
def test_temporary_names_are_hidden_and_short_enough(name: str) -> None:
    temporary = temporary_name(name, "12345678")

    assert temporary.startswith(".")
    assert temporary.endswith(".12345678.part")
    assert len(temporary.encode()) <= 255


def aged(path: Path, seconds: float = STALE_AFTER + 60) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def left(folder: Path, generation_id: str = ID, seconds: float = 0) -> Path:
    """What a killed save leaves."""
    path = folder / part_name("clip.mp4", generation_id)
    with locked(path):
        path.write_bytes(b"half")
    return aged(path, seconds)


def test_the_next_attempt_removes_what_a_killed_one_left(folder: Path) -> None:
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from airflow_provider_kling.api.download.targets import target_for
target = target_for({str(folder / "clip.mp4")!r}, {ID!r})
with target.staging() as staged:
    staged.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    (leftover,) = os.listdir(folder)
    assert leftover.endswith(".part")

    target = target_for(folder / "clip.mp4", ID)
    with target.staging() as staged:
        assert not (folder / leftover).exists()
        staged.write_bytes(b"whole")
        target.place(staged, overwrite=False)

    assert os.listdir(folder) == ["clip.mp4"]


def test_another_generation_removes_it_after_a_day(folder: Path) -> None:
    young, old = left(folder, "another", 60), left(folder, "another", STALE_AFTER + 60)

    sweep_folder(folder, ID)

    assert young.exists()
    assert not old.exists()


def test_what_is_in_use_stays_however_old(folder: Path) -> None:
    path = folder / part_name("clip.mp4", ID)
    with locked(path):
        aged(path)
        sweep_folder(folder, ID)
        assert path.exists()


@pytest.mark.parametrize(
    "name",
    [
        "clip.mp4",
        ".clip.mp4.12345678.part",
        ".clip.mp4.part",
        "clip.mp4.kling-0123456789ab-12345678.part",
        ".clip.mp4.kling-0123456789ab-12345678.partial",
        ".clip.mp4.kling-0123456789AB-12345678.part",
    ],
)
def test_files_of_others_stay(folder: Path, name: str) -> None:
    (folder / name).touch()
    aged(folder / name)

    sweep_folder(folder, ID)

    assert (folder / name).exists()


def test_a_link_or_a_folder_of_that_name_stays(folder: Path) -> None:
    (folder / part_name("a", ID)).symlink_to(folder / "elsewhere")
    (folder / part_name("b", ID)).mkdir()

    sweep_folder(folder, ID)

    assert len(os.listdir(folder)) == 2


def test_a_folder_that_is_not_there_is_no_trouble(folder: Path) -> None:
    sweep_folder(folder / "missing", ID)


def test_folders_of_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old, young = tmp_path / "kling-save-old", tmp_path / "kling-save-young"
    for each in (old, young):
        each.mkdir()
        (each / "video.mp4").write_bytes(b"half")
    aged(aged(old / "video.mp4").parent)
    other = tmp_path / "kling-other"
    other.mkdir()
    aged(other)

    with staging_folder() as folder:
        assert folder.exists()
        assert sorted(os.listdir(tmp_path)) == sorted([folder.name, young.name, other.name])


class TestStorage:
    def test_temporary_objects_of_a_day_ago_are_removed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fs = MemoryFileSystem()
        fs.store.clear()
        fs.pipe(f"/box/{part_name('clip.mp4', 'another')}", b"half")
        fs.pipe("/box/clip.mp4", b"whole")

        sweep_storage(fs, "/box", ID)
        assert len(fs.ls("/box")) == 2

        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + STALE_AFTER + 60)
        sweep_storage(fs, "/box", ID)
        assert [each["name"] for each in fs.ls("/box")] == ["/box/clip.mp4"]

    def test_a_storage_that_may_not_be_listed_is_no_trouble(self) -> None:
        class Closed(MemoryFileSystem):
            def ls(self, *args: object, **kwargs: object) -> object:
                raise PermissionError("no")

        sweep_storage(Closed(), "/box", ID)

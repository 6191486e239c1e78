"""Videos land in, and pictures come from, Airflow's own ObjectStoragePath."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from airflow.providers.common.compat.sdk import ObjectStoragePath
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_kling.api.catalog.parameter import MediaPlace
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.download.save_video import SavedVideo, save_video
from airflow_provider_kling.api.media.resolve import resolve
from airflow_provider_kling.api.settings import Settings
from tests.faulty_cdn import Cdn, serving
from tests.media_samples import mp4, picture

try:
    from airflow.sdk.io import attach
except ImportError:  # Airflow 2
    from airflow.io.store import attach

VIDEO = mp4(1)


@pytest.fixture
def go() -> Iterator[Callable[[object], SavedVideo]]:
    with serving(Cdn(VIDEO)) as cdn, KlingClient(Settings("key", cdn.url)) as client:
        yield lambda target: save_video(client.fetch, cdn.completed, target, generation_id="generation")


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    attach(protocol="memory", fs=filesystem)
    yield filesystem
    filesystem.store.clear()


def test_into_a_local_file(go: Callable[[object], SavedVideo], tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/videos/clip.mp4"

    assert go(ObjectStoragePath(uri)).path == uri
    assert go(ObjectStoragePath(uri)).skipped
    assert (tmp_path / "videos" / "clip.mp4").read_bytes() == VIDEO
    assert [path.name for path in (tmp_path / "videos").iterdir()] == ["clip.mp4"]


def test_into_an_object(go: Callable[[object], SavedVideo], memory: MemoryFileSystem) -> None:
    target = ObjectStoragePath("memory://bucket/videos/clip.mp4")

    saved = go(target)

    assert ObjectStoragePath(saved.path).read_bytes() == VIDEO
    assert saved.sha256 == hashlib.sha256(VIDEO).hexdigest()
    assert go(target).skipped
    assert memory.find("/") == ["/bucket/videos/clip.mp4"]


@pytest.mark.parametrize("uri", ["memory://bucket/picture", "file://{tmp_path}/picture"])
def test_a_picture_from_a_path(uri: str, memory: MemoryFileSystem, tmp_path: Path) -> None:
    source = ObjectStoragePath(uri.format(tmp_path=tmp_path))
    content = picture("PNG")
    source.write_bytes(content)
    place = MediaPlace("image_url", "image")

    for value in (source, str(source)):
        resolved = resolve(place, value, open_path=ObjectStoragePath)

        assert b"".join(resolved.sent) == b"data:image/png;base64," + base64.b64encode(content)
        assert resolved.sha256 == hashlib.sha256(content).hexdigest()

from __future__ import annotations

import errno
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_kling.api.download.targets import TakenError, target_for
from airflow_provider_kling.api.exceptions import DownloadError, Recovery

pytestmark = pytest.mark.usefixtures("spool")

ID = "vIvy_TKgZ0vwl7ZYG6Hy0"
VIDEO = bytes(range(256)) * 20_000
OTHER = b"of somebody else"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


def put(place: object, content: bytes = VIDEO, *, overwrite: bool = False) -> None:
    target = target_for(place, ID)
    with target.staging() as staged:
        staged.write_bytes(content)
        target.flush(staged)
        target.place(staged, overwrite=overwrite)


def refusal(place: object, *, overwrite: bool = True) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        put(place, overwrite=overwrite)
    assert caught.value.recovery is Recovery.GIVE_UP
    assert caught.value.generation_id == ID
    return caught.value


class TestNotAPlainFile:
    """What this provider cannot have written is never replaced, not even with overwrite."""

    def test_a_link_to_nothing(self, folder: Path) -> None:
        link = folder / "clip.mp4"
        link.symlink_to(folder / "unmounted" / "clip.mp4")

        assert "symbolic link" in refusal(link).what
        with pytest.raises(DownloadError):
            target_for(link, ID).size()
        assert link.is_symlink()
        assert os.listdir(folder) == ["clip.mp4"]

    def test_a_pipe(self, folder: Path) -> None:
        pipe = folder / "clip.mp4"
        os.mkfifo(pipe)

        assert "a device, a pipe or a socket" in refusal(pipe).what
        assert stat.S_ISFIFO(pipe.stat().st_mode)

    def test_a_socket(self, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "s"))
            refusal(folder / "s")
        assert stat.S_ISSOCK((folder / "s").stat().st_mode)

    def test_a_device(self, folder: Path) -> None:
        device = folder / "null"
        device.symlink_to("/dev/null")

        refusal(device)
        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)

    def test_a_file_behind_a_link_is_written_and_the_link_stays(self, folder: Path) -> None:
        (folder / "real").mkdir()
        real, link = folder / "real" / "clip.mp4", folder / "latest.mp4"
        real.write_bytes(OTHER)
        link.symlink_to(real)

        put(link, overwrite=True)

        assert link.is_symlink()
        assert real.read_bytes() == VIDEO

    @pytest.mark.parametrize(
        "name", ["shots:1.mp4", "s3:clip.mp4", "C:clip.mp4", "data:clip.mp4", "12:30:00"]
    )
    def test_a_name_with_a_colon_is_a_name(
        self, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(folder)

        put(name)

        assert os.listdir(folder) == [name]


class TestFolderOfAnother:
    """A folder in which this user has few rights."""

    @pytest.fixture
    def theirs(self) -> Iterator[Path]:
        # in /tmp: others cannot enter pytest's own folders
        folder = Path(tempfile.mkdtemp(prefix="kling-theirs-", dir="/tmp"))
        yield folder
        folder.chmod(0o700)
        shutil.rmtree(folder)

    @staticmethod
    @contextmanager
    def as_nobody() -> Iterator[None]:
        root = os.geteuid() == 0  # who may do everything
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    @pytest.mark.parametrize("mode", [0o333, 0o1733])
    def test_one_may_write_to_it_and_not_list_it(self, theirs: Path, mode: int) -> None:
        theirs.chmod(mode)
        with self.as_nobody():
            target_for(theirs / "clip.mp4", ID).check_writable(free=True)
            put(theirs / "clip.mp4")
            put(theirs / "clip.mp4", OTHER, overwrite=True)

        assert (theirs / "clip.mp4").read_bytes() == OTHER

    @pytest.mark.parametrize("mode", [0o555, 0o444, 0])
    def test_one_may_not_write_to_it(self, theirs: Path, mode: int) -> None:
        theirs.chmod(mode)
        with self.as_nobody(), pytest.raises(DownloadError, match="Permission denied") as refused:
            target_for(theirs / "clip.mp4", ID).check_writable(free=True)

        assert refused.value.recovery is Recovery.GIVE_UP
        theirs.chmod(0o700)
        assert os.listdir(theirs) == []


def _refused(*args: Any, **kwargs: Any) -> Any:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


class TestMountedBucket:
    """A file system that writes each file once, from start to end: no rename, no link, no second opening."""

    @pytest.fixture
    def bucket(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for name in ("rename", "replace", "link"):
            monkeypatch.setattr(os, name, _refused)
        plain_open = Path.open

        def once(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if path.parent == folder and "w" not in mode and "x" not in mode and mode != "rb":
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            return plain_open(path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "open", once)
        return folder

    def test_a_video_is_written_once(self, bucket: Path) -> None:
        put(bucket / "clip.mp4")

        assert (bucket / "clip.mp4").read_bytes() == VIDEO
        assert os.listdir(bucket) == ["clip.mp4"]

    def test_one_that_removes_nothing_either(self, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        remove = Path.unlink

        def kept(path: Path, missing_ok: bool = False) -> None:
            if path.parent == bucket:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            remove(path, missing_ok)

        monkeypatch.setattr(Path, "unlink", kept)

        put(bucket / "clip.mp4")

        assert (bucket / "clip.mp4").read_bytes() == VIDEO

    def test_what_is_there_stays(self, bucket: Path) -> None:
        (bucket / "clip.mp4").write_bytes(OTHER)

        with pytest.raises(TakenError):
            put(bucket / "clip.mp4")
        assert (bucket / "clip.mp4").read_bytes() == OTHER

    def test_overwrite(self, bucket: Path) -> None:
        (bucket / "clip.mp4").write_bytes(OTHER)

        put(bucket / "clip.mp4", overwrite=True)

        assert (bucket / "clip.mp4").read_bytes() == VIDEO

    def test_a_file_that_cannot_be_written_whole_does_not_stay(
        self, bucket: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("shutil.copyfileobj", full)

        with pytest.raises(DownloadError, match="no space is left"):
            put(bucket / "clip.mp4")
        assert os.listdir(bucket) == []

    def test_a_file_system_that_flushes_nothing(self, bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "fsync", _refused)

        put(bucket / "clip.mp4")

        assert (bucket / "clip.mp4").read_bytes() == VIDEO


class DropBox(MemoryFileSystem):
    """One may write to it and nothing else."""

    store: dict[str, Any] = {}  # noqa: RUF012  # as the base has it
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    cachable = False

    def info(self, path: str, **kwargs: Any) -> Any:
        raise PermissionError("Forbidden")

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        raise PermissionError("Forbidden")


class Place:
    """A path in a storage."""

    protocol = "dropbox"

    def __init__(self, fs: Any, path: str) -> None:
        self.fs, self.path = fs, path

    def __str__(self) -> str:
        return f"dropbox:/{self.path}"

    fs: Any = None
    path: str = ""


def test_a_right_to_write_is_enough() -> None:
    fs = DropBox()

    assert target_for(Place(fs, "/box/clip.mp4"), ID).size() is None
    put(Place(fs, "/box/clip.mp4"))

    assert fs.cat("/box/clip.mp4") == VIDEO
    assert list(fs.store) == ["/box/clip.mp4"]


class TestS3:
    """A bucket that one may write to and not read: asking for a missing key is refused there."""

    @pytest.fixture
    def place(self) -> Iterator[Any]:
        pytest.importorskip("moto.server", reason="needs moto's server and s3fs")
        s3fs = pytest.importorskip("s3fs")
        from tests.faulty_s3 import UploadFault, serving

        with serving() as server:
            fs = s3fs.S3FileSystem(
                key="an-access-key",
                secret="a-secret-key",
                endpoint_url=server.url,
                client_kwargs={"region_name": "us-east-1"},
                skip_instance_cache=True,
            )
            bucket = f"box-{secrets.token_hex(4)}"  # moto's servers share their buckets
            fs.call_s3("create_bucket", Bucket=bucket)
            place = Place(fs, f"{bucket}/clip.mp4")
            place.protocol = "s3"
            server.fault = UploadFault(None, 403, "AccessDenied", "Access Denied", methods=("GET", "HEAD"))
            yield place, server

    @pytest.mark.parametrize("size", [1000, 6_000_000], ids=["one request", "several parts"])
    def test_writing_is_all_it_takes(self, place: Any, size: int) -> None:
        target, server = place

        put(target, bytes(size))

        server.fault = None
        assert target.fs.cat(target.path) == bytes(size)

    def test_what_cannot_be_seen_is_not_replaced(self, place: Any) -> None:
        target, server = place
        server.fault, refusing = None, server.fault
        target.fs.pipe(target.path, OTHER)
        server.fault = refusing

        with pytest.raises(TakenError):
            put(target, b"a video")

        server.fault = None
        assert target.fs.cat(target.path) == OTHER

"""Whether an object could be written, tried on the storage itself without leaving an object behind."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from airflow_provider_kling.api.redaction import clean, logger
from airflow_provider_kling.api.temporary_files import part_name, scratch_folder

log = logger(__name__)

_S3: Final = ("s3", "s3a")
_GOOGLE: Final = ("gs", "gcs")
_CONTENT: Final = b"?"


def probe_write(fs: Any, protocol: str, path: str, generation_id: str, *, moves: bool) -> None:
    """Begin to write an object, and take it back.

    On S3 and Google Cloud Storage an upload of the object itself is started and aborted, so that nothing ever
    appears, and the right to write it is enough. Anywhere else a small object with a temporary name is put
    beside it, moved where saving does that, and removed.

    :param fs: the fsspec filesystem.
    :param path: the object, as the filesystem takes it.
    :param generation_id: for the temporary name.
    :param moves: whether saving writes to a temporary name and moves that.
    :raises Exception: whatever the storage says to that.
    """
    if protocol in _S3 and hasattr(fs, "call_s3"):
        _begin_on_s3(fs, path, generation_id)
    elif protocol in _GOOGLE and hasattr(fs, "call"):
        file = fs.open(path, "wb", autocommit=False)
        try:
            file._initiate_upload()
        finally:
            file.discard()
    else:
        _put_and_remove(fs, path, generation_id, moves=moves)


def _begin_on_s3(fs: Any, path: str, generation_id: str) -> None:
    bucket, key, _ = fs.split_path(path)
    try:
        upload = fs.call_s3("create_multipart_upload", Bucket=bucket, Key=key)["UploadId"]
    except Exception as error:
        if "not implemented" not in str(error).lower():
            raise
        _put_and_remove(fs, path, generation_id, moves=False)  # S3 of another maker, without uploads in parts
        return
    try:
        fs.call_s3("upload_part", Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=_CONTENT)
    finally:
        try:
            fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)
        except Exception as error:  # the right to write is there, and no object is
            log.warning(
                "The upload of one byte that was begun to try it could not be given up (%s). No object is "
                "there; grant s3:AbortMultipartUpload, or let a lifecycle rule end incomplete uploads.",
                clean(str(error)),
            )


def _put_and_remove(fs: Any, path: str, generation_id: str, *, moves: bool) -> None:
    parent, _, name = path.rpartition("/")
    probe = f"{parent}/{part_name(name, generation_id)}"
    made = _make_folders(fs, parent)
    try:
        with scratch_folder() as folder:
            local = Path(folder) / "probe"
            local.write_bytes(_CONTENT)
            fs.put_file(str(local), probe)
        try:
            if moves:
                moved = f"{parent}/{part_name(name, generation_id)}"
                fs.mv(probe, moved)
                probe = moved
        except BaseException:
            with suppress(Exception):
                fs.rm_file(probe)
            raise
        try:
            fs.rm_file(probe)
        except Exception as error:  # the right to write is there
            log.warning("Could not remove %s, which was written to try it: %s", probe, clean(str(error)))
    finally:
        for each in made:
            with suppress(Exception):  # another task may have written into it
                fs.rmdir(each)


def _make_folders(fs: Any, folder: str) -> list[str]:
    """Make a folder and those above it; gives the new ones, the deepest first."""
    missing: list[str] = []
    above = folder
    while above.strip("/"):
        try:
            if fs.exists(above):
                break
        except Exception:
            break
        missing.append(above)
        above = above.rpartition("/")[0]
    if folder:
        fs.makedirs(folder, exist_ok=True)
    return missing

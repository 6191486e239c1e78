from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kling.ui.files import batch_rows
from airflow_provider_kling.ui.files.batch_rows import Manifest, is_below, rows_of
from airflow_provider_kling.ui.files.recorded import UnavailableError

ROWS = 10_000


def line(number: int) -> dict[str, Any]:
    status = "failed" if number % 50 == 7 else "saved"
    return {
        "key": f"Mug {number:05}",
        "status": status,
        "request": {"parameters": {"prompt": "Steam. " * 40}},
    }


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "manifest-0.jsonl"
    path.write_text("".join(json.dumps(line(number)) + "\n" for number in range(ROWS)))
    return path


def finished(path: Path) -> dict[str, Any]:
    return {"manifest": str(path), "finished": True}


def keys(found: list[Any]) -> list[str]:
    return [each["key"] for each in found]


@pytest.mark.parametrize("first", [0, 24, 9984])
def test_a_manifest_of_ten_thousand_rows_goes_page_by_page(manifest: Path, first: int) -> None:
    rows, count = rows_of(finished(manifest)).page(first, 24, status=None, text=None)
    assert count == ROWS
    assert keys(rows) == [f"Mug {number:05}" for number in range(first, min(first + 24, ROWS))]


def test_rows_are_found_by_status_and_by_key(manifest: Path) -> None:
    rows = rows_of(finished(manifest))
    found, count = rows.page(24, 24, status="failed", text=None)
    assert count == 200
    assert keys(found)[0] == "Mug 01207"
    assert keys(rows.page(0, 24, status="failed", text="MUG 012")[0]) == ["Mug 01207", "Mug 01257"]
    assert rows.page(0, 24, status="saved", text="no such key") == ([], 0)


def test_a_row_is_looked_up_by_its_name(manifest: Path) -> None:
    rows = rows_of(finished(manifest))
    (row,), _ = rows.page(9, 1, status=None, text=None)
    assert "/" not in row["name"]
    assert rows.find(row["name"]) == row == {**line(9), "name": row["name"]}
    for odd in ("Mug 00009", "../manifest-0", "", "/etc/passwd", str(manifest)):
        assert rows.find(odd) is None


def test_a_manifest_is_read_again_only_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    class Noted(Manifest):
        def __init__(self, content: bytes) -> None:
            read.append(len(content))
            super().__init__(content)

    monkeypatch.setattr(batch_rows, "Manifest", Noted)
    path = tmp_path / "manifest-0.jsonl"
    path.write_text(json.dumps(line(1)) + "\n")
    for _ in range(3):
        rows_of(finished(path))
    assert len(read) == 1
    path.write_text(json.dumps(line(2)) + "\n" + json.dumps(line(3)) + "\n")
    assert rows_of(finished(path)).page(0, 9, status=None, text=None)[1] == 2
    assert len(read) == 2


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"[1]\nnull\n", b"\xff\xfe\n{", b'{"key": 5}\n{"status": {}}\n']
)
def test_lines_that_are_no_rows_do_no_harm(content: bytes) -> None:
    manifest = Manifest(content)
    found, count = manifest.page(0, 24, status=None, text=None)
    assert len(found) == count
    assert manifest.find("x") is None


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_rows, "MOST_MANIFEST_BYTES", 10)
    path = tmp_path / "manifest-0.jsonl"
    path.write_text(json.dumps(line(1)) + "\n")
    with pytest.raises(UnavailableError, match="too large"):
        rows_of(finished(path))


@pytest.mark.parametrize(
    "batch",
    [
        {},
        {"manifest": 5},
        {"manifest": "/nowhere/manifest-0.jsonl"},
        {"manifest": "https://h/m.jsonl"},
        {"finished": False},
    ],
)
def test_without_a_manifest_the_reason_is_said(batch: Mapping[str, Any]) -> None:
    with pytest.raises(UnavailableError):
        rows_of(batch)


def running(folder: Path) -> dict[str, Any]:
    return {
        "manifest": f"{folder}/manifest-0.jsonl",
        "records": f"{folder}/.kling-batch/0/records",
        "finished": False,
    }


def recorded(folder: Path, names: list[str]) -> Path:
    records = folder / ".kling-batch" / "0" / "records"
    records.mkdir(parents=True)
    for age, name in enumerate(names):
        (records / f"{name}.json").write_text(json.dumps({"schema": 1, "status": "submitted"}))
        os.utime(records / f"{name}.json", (1000 - age, 1000 - age))
    return records


def test_while_it_runs_the_records_are_shown_the_latest_first(tmp_path: Path) -> None:
    names = [f"mug-{number}" for number in range(30)]
    recorded(tmp_path, names)
    rows = rows_of(running(tmp_path))
    assert not rows.complete
    found, count = rows.page(0, 24, status=None, text=None)
    assert (keys(found), count) == (names[:24], 30)
    assert keys(rows.page(24, 24, status=None, text=None)[0]) == names[24:]
    assert rows.page(0, 24, status=None, text="MUG-29")[1] == 1


def test_no_file_is_opened_but_records_that_are_there(tmp_path: Path) -> None:
    records = recorded(tmp_path, ["mug"])
    (records.parent / "secret.json").write_text('{"status": "saved", "path": "/etc/passwd"}')
    (records / "half.part").write_text("{")
    rows = rows_of(running(tmp_path))
    assert rows.page(0, 24, status=None, text=None)[1] == 1
    assert rows.find("mug") == {
        "key": "mug",
        "name": "mug",
        "schema": 1,
        "status": "submitted",
    }
    for odd in ("../secret", f"{records.parent}/secret", "half", "", ".", "\0"):
        assert rows.find(odd) is None


def test_a_batch_that_has_recorded_nothing_yet_has_no_rows(tmp_path: Path) -> None:
    assert rows_of(running(tmp_path)).page(0, 24, status=None, text=None) == ([], 0)


def test_a_file_is_served_only_from_the_batch_s_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "clips", tmp_path / "other.mp4"
    (folder / "deep").mkdir(parents=True)
    outside.write_bytes(b"")
    (folder / "link.mp4").symlink_to(outside)
    manifest = f"{folder}/manifest-0.jsonl"
    assert is_below(f"{folder}/a.mp4", manifest)
    assert is_below(f"{folder}/deep/a.mp4", manifest)
    assert is_below(f"file://{folder}/a.mp4", manifest)
    for forged in (
        str(outside),
        f"{folder}/../other.mp4",
        f"{folder}/link.mp4",
        f"{folder}-2/a.mp4",
        "a.mp4",
    ):
        assert not is_below(forged, manifest)
    assert not is_below("s3://bucket/clips/a.mp4", manifest)


def test_in_storage_the_connection_counts_too() -> None:
    pytest.importorskip("fsspec")
    manifest = "memory://clips/manifest-0.jsonl"
    assert is_below("memory://clips/a.mp4", manifest)
    for forged in (
        "memory://other/a.mp4",
        "memory://conn@clips/a.mp4",
        "/clips/a.mp4",
        "memory://clips/../x.mp4",
    ):
        assert not is_below(forged, manifest)

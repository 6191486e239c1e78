"""What a media value points to is copied; most of it is tested through test_resolve.py."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from upath import UPath

from airflow_provider_kling.api.media.sources import UnusableError, opened


def read(value: object, most_bytes: int = 10**8) -> bytes:
    with opened(value, UPath, most_bytes) as found:  # type: ignore[arg-type]
        return found.file.read()


@given(
    content=st.binary(max_size=200),
    breaks=st.lists(st.integers(0, 300), max_size=8),
    white=st.sampled_from(["\n", "\r\n", " ", "\t"]),
    padded=st.booleans(),
    of_urls=st.booleans(),
)
@example(b"", [], " ", True, False)
def test_base64_in_every_spelling(
    content: bytes, breaks: list[int], white: str, padded: bool, of_urls: bool
) -> None:
    text = (base64.urlsafe_b64encode if of_urls else base64.b64encode)(content).decode()
    text = text if padded else text.rstrip("=")
    for position in sorted(breaks, reverse=True):
        text = text[:position] + white + text[position:]

    assert read(f"data:image/png;base64,{text}") == content


@pytest.mark.parametrize("name", ["shots:1.png", "s3:a.png", "12:30.png"])
def test_a_name_with_a_colon_is_a_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"a picture")

    assert read(name) == b"a picture"


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(UnusableError, match="is not a regular file"):
        read(tmp_path / "pipe")


def test_a_file_that_grows_beyond_the_limit_is_not_read_on(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(bytes(101))

    with pytest.raises(UnusableError, match="101 bytes or more"):
        read(path, 100)

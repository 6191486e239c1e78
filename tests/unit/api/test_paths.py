from __future__ import annotations

from pathlib import Path, PosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from airflow_provider_kling.api.exceptions import DownloadError, InvalidRequestError, Money, Recovery
from airflow_provider_kling.api.paths import (
    check_path,
    expand_path,
    file_of,
    is_stored,
    local_path,
    safe_name,
    temporary_name,
)

ID = "vIvy_TKgZ0vwl7ZYG6Hy0"
FACTS = {
    "generation_id": ID,
    "model": "kling-video/v1.6/standard/image-to-video",
    "client_request_id": "airflow:dag:task:0:1234",
}
HOSTILE = [
    "", ".", "..", "...", " ", "a/b", "/etc/passwd", "../../etc/passwd", "a\\b", "a\0b", "a\nb",
    "a\x7fb", "a\u202eb", "a\u2028b", "a\ud800b", "a?b", "a#b", "100%41", "a*b", "x" * 201, "ü" * 101,
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("/videos/clip.mp4", "/videos/clip.mp4"),
        ("videos/{generation_id}.mp4", f"videos/{ID}.mp4"),
        ("s3://c@b/{model}/{generation_id}", f"s3://c@b/kling-video-v1.6-standard-image-to-video/{ID}"),
        ("/videos/", f"/videos/{ID}.mp4"),
        ("s3://bucket/{client_request_id}/", f"s3://bucket/airflow:dag:task:0:1234/{ID}.mp4"),
        ("/a b/ü 👩‍🚀..mp4", "/a b/ü 👩‍🚀..mp4"),
        ("/a#b?c/100%25.mp4", "/a#b?c/100%25.mp4"),
        ("s3://bucket/a#b?c/%2e%2e/100%.mp4", "s3://bucket/a#b?c/%2e%2e/100%.mp4"),
        ("file:///videos/a#b?c.mp4", "/videos/a#b?c.mp4"),
        ("file:///videos/100%25 %7Bmodel%7D%2F%C3%BC%ff.mp4", "/videos/100% {model}/ü\udcff.mp4"),
        ("FILE://localhost/videos/", f"/videos/{ID}.mp4"),
        ("file:/videos/", f"/videos/{ID}.mp4"),
        (Path("/videos/{generation_id}.mp4"), f"/videos/{ID}.mp4"),
        (UPath("file:///videos/a%20b.mp4"), "/videos/a%20b.mp4"),
        (UPath("memory://bucket/{generation_id}.mp4"), f"memory://bucket/{ID}.mp4"),
    ],
)
def test_placeholders(path: object, expanded: str) -> None:
    check_path(path)
    assert expand_path(path, FACTS) == expanded


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/videos/{generation}.mp4", "{generation_id}, {model}, {client_request_id}"),
        ("/videos/{}.mp4", "not a placeholder"),
        ("/videos/{generation_id.__class__}.mp4", "not a placeholder"),
        ("/videos/{generation_id[0]}.mp4", "not a placeholder"),
        ("/videos/{generation_id!r}.mp4", "not a placeholder"),
        ("/videos/{generation_id:>5}.mp4", "not a placeholder"),
        ("/videos/{generation_id.mp4", "expected '}'"),
        ("/videos/}.mp4", "Single '}'"),
        ("../clip.mp4", "climbs out"),
        ("/videos/../clip.mp4", "climbs out"),
        ("s3://bucket/videos/..", "climbs out"),
        ("videos\\..\\clip.mp4", "climbs out"),
        ("file:///videos/%2e%2e/clip.mp4", "climbs out"),
        ("file:///videos/%2E%2e%2f%2e./clip.mp4", "climbs out"),
        ("file:///videos/.%2e%5cclip.mp4", "climbs out"),
        ("file:///videos/a%0ab.mp4", "control characters"),
        ("file://videos/clip.mp4", "three slashes"),
        ("file://{generation_id}/clip.mp4", "three slashes"),
        ("/videos/{{ ds }}/{generation_id}.mp4", "given as text"),
        ("/videos/{% if ds %}a{% endif %}.mp4", "given as text"),
        (Path("/videos/{{ ds }}/clip.mp4"), "given as text"),
        (Path("/videos/"), "write the path as text, or name a file"),
        (UPath("memory://bucket/videos/"), "write the path as text, or name a file"),
        (Path("/videos/{generation_id}"), "write the path as text, or name a file"),
        (7, "neither a path nor"),
        ("/videos/a\0b.mp4", "control characters"),
        ("/videos/a\nb.mp4", "control characters"),
        ("", "is empty"),
        ("  ", "is empty"),
    ],
)
def test_paths_that_are_refused(path: object, words: str) -> None:
    with pytest.raises(InvalidRequestError) as early:
        check_path(path)
    assert words in str(early.value)
    assert early.value.money is Money.NOT_SPENT

    with pytest.raises(DownloadError) as late:
        expand_path(path, FACTS)
    assert words in str(late.value)
    assert late.value.recovery is Recovery.GIVE_UP
    assert late.value.money is Money.ALREADY_PAID
    assert late.value.generation_id == ID


def test_a_fact_that_is_not_known() -> None:
    check_path("/videos/{model}.mp4")

    with pytest.raises(DownloadError, match=r"\{model\} is not known here"):
        expand_path("/videos/{model}.mp4", {"generation_id": ID, "model": None})


@pytest.mark.parametrize("value", HOSTILE)
def test_ids_that_would_leave_their_place(value: str) -> None:
    with pytest.raises(ValueError, match=r"^it (is|has) "):
        safe_name(value)
    with pytest.raises(DownloadError, match=r"cannot be written"):
        expand_path("/videos/{generation_id}.mp4", {"generation_id": value})


def test_a_models_slashes_become_dashes_and_nothing_else_does() -> None:
    with pytest.raises(DownloadError):
        expand_path("/videos/{model}.mp4", {"generation_id": ID, "model": ".."})
    assert expand_path("/v/{model}", {"model": "a/../b"}) == "/v/a-..-b"


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_id_leaves_the_directory(value: str) -> None:
    try:
        path = expand_path("/base/{generation_id}.mp4", {"generation_id": value})
    except DownloadError:
        return
    assert Path(path).parent == Path("/base")
    assert Path(path).resolve().parent == Path("/base")


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_file_uri_leaves_the_directory(value: str) -> None:
    try:
        path = expand_path(f"file:///base/{value.replace('{', '')}/clip.mp4", FACTS)
    except DownloadError:
        return
    assert Path("/base") in Path(path).resolve().parents


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_file_s_uri_names_it(name: str) -> None:
    path = Path("/base", name.lstrip("/"))
    assert file_of(path.as_uri()) == path


@pytest.mark.parametrize("name", ["clip.mp4", "x" * 255, "ü" * 127, "a\udcffb"])
def test_temporary_names_are_hidden_and_short_enough(name: str) -> None:
    temporary = temporary_name(name, "12345678")

    assert temporary.startswith(".")
    assert temporary.endswith(".12345678.part")
    assert len(temporary.encode()) <= 255


class OldStoragePath(PosixPath):
    """As in old versions of universal_pathlib, where every path is a pathlib.Path."""

    protocol = "s3"
    path = "bucket/clip.mp4"
    fs = property(lambda self: pytest.fail("asked for a connection"))


def test_where_a_path_is(tmp_path: Path) -> None:
    for local in (tmp_path, UPath(tmp_path), UPath(f"file://{tmp_path}"), UPath(f"local://{tmp_path}")):
        assert not is_stored(local)
        assert local_path(local) == tmp_path
    assert local_path("a/b") == Path("a/b")
    assert is_stored(UPath("memory://bucket/clip.mp4"))
    assert is_stored(OldStoragePath("clip.mp4"))
    assert not is_stored("s3://bucket/clip.mp4")


@pytest.mark.parametrize("place", ["s3://bucket/clip.mp4", 7, None, ["a"]])
def test_what_is_no_path(place: object) -> None:
    with pytest.raises(TypeError):
        local_path(place)

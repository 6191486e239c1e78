from __future__ import annotations

import re
from pathlib import Path, PosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from airflow_provider_kling.api.catalog.models import MODELS
from airflow_provider_kling.api.exceptions import DownloadError, InvalidRequestError, Money, Recovery
from airflow_provider_kling.api.paths import (
    LONGEST_SAFE_NAME,
    check_path,
    expand_path,
    file_of,
    is_stored,
    local_path,
    safe_name,
)

ID = "vIvy_TKgZ0vwl7ZYG6Hy0"
FACTS = {
    "generation_id": ID,
    "model": "kling-video/v1.6/standard/image-to-video",
    "client_request_id": "airflow:dag:task:0:1234",
    "loop_index": "2",
}
HOSTILE = [
    ".", "..", "...", " ", "a/b", "/etc/passwd", "../../etc/passwd", "a\\b", "a\0b", "a\nb",
    "a\x7fb", "a\u202eb", "a\u2028b", "a\ud800b", "a?b", "a#b", "100%41", "a*b", "x" * 201, "ü" * 101,
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("/videos/clip.mp4", "/videos/clip.mp4"),
        ("videos/{generation_id}.mp4", f"videos/{ID}.mp4"),
        ("s3://c@b/{model}/{generation_id}", f"s3://c@b/kling-video-v1.6-standard-image-to-video/{ID}"),
        ("/videos/", f"/videos/{ID}.mp4"),
        ("s3://bucket/{client_request_id}/", f"s3://bucket/airflow-dag-task-0-1234_5a9dfdcc33cc/{ID}.mp4"),
        ("/videos/pass-{loop_index}.mp4", "/videos/pass-2.mp4"),
        ("/a b/ü 👩‍🚀..mp4", "/a b/ü 👩‍🚀..mp4"),
        ("/a#b?c/100%25.mp4", "/a#b?c/100%25.mp4"),
        ("s3://bucket/a#b?c/%2e%2e/100%.mp4", "s3://bucket/a#b?c/%2e%2e/100%.mp4"),
        ("file:///videos/a#b?c.mp4", "/videos/a#b?c.mp4"),
        ("file:///videos/100%25 %7Bmodel%7D%2F%C3%BC.mp4", "/videos/100% {model}/ü.mp4"),
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
        ("https://example.com/films/", "nothing is saved"),
        ("HTTP://example.com/film.mp4", "nothing is saved"),
        ("data:video/mp4;base64,", "nothing is saved"),
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
        ("file:///videos/%ff.mp4", "cannot store"),
        ("/videos/a\ud83d.mp4", "cannot store"),
        ("None", "template leaves"),
        ("s3://bucket/None/{generation_id}.mp4", "template leaves"),
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


def test_facts_that_nobody_knows_have_a_name_all_the_same() -> None:
    facts = {"generation_id": ID, "model": None, "client_request_id": None}

    assert expand_path("/v/{model}/{client_request_id}.mp4", facts) == f"/v/unknown-model/{ID}.mp4"
    with pytest.raises(DownloadError, match=r"\{generation_id\} is not known here"):
        expand_path("/videos/", {"model": "m"})
    with pytest.raises(DownloadError, match="it is empty"):
        expand_path("/videos/", {"generation_id": ""})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (ID, ID),
        ("789392067490349060", "789392067490349060"),
        ("84366826-94b2-4700-efac-6de6c7c66f53", "84366826-94b2-4700-efac-6de6c7c66f53"),
        (
            "ec717f15-8895-787f-99c4-258bfc985000:klingai/v2.5-turbo/pro/image-to-video",
            "ec717f15-8895-787f-99c4-258bfc985000-klingai-v2.5-turbo-pro-image-to-video_9742abad7162",
        ),
        ("../../etc/passwd", "etc-passwd_3754d6cb3a38"),
        ("///", "id_732c4e971163"),
        ("con", "con_1143da2bc54c"),
        ("Ab", "Ab_025b5573cb68"),
        ("a_0123456789ab", "a_0123456789ab_98b98942dd1c"),
    ],
)
def test_the_name_of_an_id_is_readable_and_stays_the_same(value: str, name: str) -> None:
    assert safe_name(value) == name


@pytest.mark.parametrize("value", HOSTILE)
def test_any_id_has_a_name_in_its_place(value: str) -> None:
    assert expand_path("/videos/", {"generation_id": value}) == f"/videos/{safe_name(value)}.mp4"


IDS = st.one_of(
    st.text(min_size=1, max_size=200),
    st.text("aA./\\:-_ ~$", min_size=1, max_size=6),
    st.from_regex(r"[A-Za-z0-9_-]{21}", fullmatch=True),
    st.from_regex(r"[0-9]{18}", fullmatch=True),
    st.builds("{}:{}".format, st.uuids(), st.sampled_from(sorted(MODELS))),
    st.sampled_from(["con", "NUL", "com1", "aux.mp4", "LPT9.a.b"]),
)


@settings(deadline=None)
@given(IDS)
def test_a_name_is_allowed_by_every_storage(value: str) -> None:
    name = safe_name(value)

    assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    assert not name.startswith(".")
    assert not name.endswith(".")
    assert len(name) <= LONGEST_SAFE_NAME
    assert name.split(".")[0].lower() not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
    assert safe_name(value) == name


@settings(deadline=None)
@given(IDS, IDS)
def test_two_ids_never_share_a_name(one: str, other: str) -> None:
    short = one != other and max(len(one), len(other)) < 16
    assert (safe_name(one) == safe_name(other)) == (one == other)
    if short:  # on file systems that ignore case
        assert safe_name(one).lower() != safe_name(other).lower()
    assert safe_name(safe_name(one)) != safe_name(one) or safe_name(one) == one


def test_a_name_is_not_the_name_of_another_id() -> None:
    assert safe_name(safe_name("a:b")) != safe_name("a:b")


@pytest.mark.parametrize("prefix", ["~", "$HOME", "${HOME}"])
def test_home_means_home(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for path in (f"{prefix}/videos/", Path(f"{prefix}/videos/{{generation_id}}.mp4")):
        check_path(path)
        assert expand_path(path, FACTS) == f"/home/me/videos/{ID}.mp4"
    assert local_path(f"{prefix}/mug.jpg") == Path("/home/me/mug.jpg")
    assert local_path(f"./{prefix}/mug.jpg") == Path(f"{prefix}/mug.jpg")


def test_a_connection_without_a_bucket() -> None:
    with pytest.raises(DownloadError, match="names a connection, but no bucket"):
        expand_path("s3://owner@/film.mp4", FACTS)


def test_other_variables_and_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOS", "/data/videos")
    monkeypatch.delenv("NOT_SET", raising=False)

    assert expand_path("$VIDEOS/", FACTS) == f"/data/videos/{ID}.mp4"
    assert expand_path("s3://$VIDEOS/~/", FACTS) == f"s3://$VIDEOS/~/{ID}.mp4"
    assert local_path("~root/x") == Path("/root/x")
    for literal in ("~lock.jpg", "$5 mug.jpg", "$VIDEOS.mp4", "/a/~/$HOME/x"):
        assert local_path(literal) == Path(literal)
    for path, words in (("$NOT_SET/", "not set"), ("~nobody-of-that-name/", "no such user")):
        check_path(path)  # another machine may have it
        with pytest.raises(DownloadError, match=words):
            expand_path(path, FACTS)
        with pytest.raises(ValueError, match=words):
            local_path(path)


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("/v/" + "x" * 251 + ".mp4", True),
        ("/v/" + "x" * 252 + ".mp4", False),
        ("/v/" + "ü" * 126 + ".mp4", False),
        ("/" + "x" * 256 + "/", False),
        ("s3://b/" + "x" * 1020 + ".mp4", True),
        ("s3://b/" + "x" * 1021 + ".mp4", False),
    ],
)
def test_names_that_are_too_long(path: str, fits: bool) -> None:
    if fits:
        assert expand_path(path, FACTS) == path
    else:
        with pytest.raises(DownloadError, match="longer than"):
            expand_path(path, FACTS)


def test_a_models_slashes_become_dashes() -> None:
    assert expand_path("/v/{model}", {"model": "klingai/v2.5-turbo/pro"}) == "/v/klingai-v2.5-turbo-pro"
    assert expand_path("/v/{model}", {"model": "a/../b"}) == "/v/a-..-b"
    assert expand_path("/v/{model}", {"model": ".."}).startswith("/v/id_")


@settings(deadline=None)
@given(st.text(max_size=40))
def test_no_id_leaves_the_directory(value: str) -> None:
    path = expand_path("/base/{generation_id}.mp4", {"generation_id": value or "x"})
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

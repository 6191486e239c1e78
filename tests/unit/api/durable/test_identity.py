from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.durable.identity import changes, client_request_id, fingerprint
from airflow_provider_kling.api.exceptions import InvalidRequestError
from airflow_provider_kling.api.redaction import unsigned
from airflow_provider_kling.api.transport.endpoints import CLIENT_REQUEST_ID, LONGEST_CLIENT_REQUEST_ID

NAMES = st.text(max_size=300)
WORKS = st.builds(TaskAttempt, NAMES, NAMES, NAMES, st.integers(-1, 2**31), st.none() | st.integers(0, 9))
COUNTS = st.integers(0, 2**31)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(st.text(), VALUES, max_size=5)
ACCOUNT = "kling_default https://api.aimlapi.com"
PLAIN = TaskAttempt("dag", "run", "task")


def name(
    work: TaskAttempt = PLAIN, body: Mapping[str, Any] = MappingProxyType({"prompt": "x"}), count: int = 0
) -> str:
    return client_request_id(work, fingerprint(body, ACCOUNT), count)


# The client request id


@given(WORKS, BODIES, st.text(), COUNTS)
def test_the_vendor_keeps_it_whatever_the_names(
    work: TaskAttempt, body: dict[str, Any], account: str, count: int
):
    given_name = client_request_id(work, fingerprint(body, account), count)
    assert 1 <= len(given_name) <= LONGEST_CLIENT_REQUEST_ID == 128
    assert CLIENT_REQUEST_ID.fullmatch(given_name)
    assert given_name.isascii()


@given(WORKS, WORKS)
def test_two_works_never_share_it(one: TaskAttempt, other: TaskAttempt):
    assume(one != other)
    assert name(one) != name(other)
    assert one.identity != other.identity


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TaskAttempt("a", "r", "b_c"), TaskAttempt("a_b", "r", "c")),
        (TaskAttempt("a", "r", "b:c"), TaskAttempt("a:b", "r", "c")),
        (TaskAttempt("a", "r b", "c"), TaskAttempt("a r", "b", "c")),
        (TaskAttempt("a", "r", "t", 1), TaskAttempt("a", "r", "t:1")),
        (TaskAttempt("a", "r", "t", 11), TaskAttempt("a", "r", "t1", 1)),
        (TaskAttempt("a", "r", "t", -1), TaskAttempt("a", "r", "t", 1)),
        (TaskAttempt("a", "r", "t", 1), TaskAttempt("a", "r", "t", 1, 0)),
        (TaskAttempt("a", "r", "t", 1, 0), TaskAttempt("a", "r", "t", 1, 1)),
        (TaskAttempt("ä", "r", "t"), TaskAttempt("ö", "r", "t")),
        (TaskAttempt("x" * 40 + "a", "r", "t"), TaskAttempt("x" * 40 + "b", "r", "t")),
        (TaskAttempt("a", "manual__2026-01-01", "t"), TaskAttempt("a", "manual__2026-01-02", "t")),
    ],
)
def test_neighbours_do_not_collide(one: TaskAttempt, other: TaskAttempt):
    assert name(one) != name(other)
    assert one.identity != other.identity


@given(WORKS, BODIES, BODIES)
def test_two_requests_never_share_it(work: TaskAttempt, one: dict[str, Any], other: dict[str, Any]):
    same = fingerprint(one, ACCOUNT) == fingerprint(other, ACCOUNT)
    assert (
        client_request_id(work, fingerprint(one, ACCOUNT), 0)
        == client_request_id(work, fingerprint(other, ACCOUNT), 0)
    ) is same


@given(WORKS, COUNTS, COUNTS)
def test_each_deliberate_submit_has_its_own(work: TaskAttempt, one: int, other: int):
    assume(one != other)
    assert name(work, count=one) != name(work, count=other)


def test_it_is_the_same_in_every_process_and_version():
    """A retry after an upgrade looks for the name that the older version sent."""
    work = TaskAttempt("dag", "manual__2026-01-01T00:00:00+00:00", "generate", 3)
    assert (
        name(work, {"model": "m", "duration": 5})
        == "airflow:dag:generate:3:0:56a42353cc0e883e316adbd86f84be20"
    )


def test_it_can_be_recognised_in_the_vendors_dashboard():
    given_name = name(TaskAttempt("product videos", "run", "generate.video", 12), count=2)
    assert given_name.startswith("airflow:product-videos:generate.video:12:2:")
    assert name(TaskAttempt("dag", "run", "task")).startswith("airflow:dag:task:0:")


# The fingerprint


def test_order_does_not_matter_and_values_do():
    one = fingerprint({"a": 1, "b": {"c": 2, "d": 3}}, ACCOUNT)
    assert one == fingerprint({"b": {"d": 3, "c": 2}, "a": 1}, ACCOUNT)
    assert one != fingerprint({"a": 1, "b": {"c": 2, "d": 4}}, ACCOUNT)
    assert one != fingerprint({"a": "1", "b": {"c": 2, "d": 3}}, ACCOUNT)
    assert one != fingerprint({"a": 1}, ACCOUNT)


def test_who_pays_counts_and_a_parameter_cannot_pose_as_the_account():
    assert fingerprint({}, "one") != fingerprint({}, "two")
    assert fingerprint({"account": "a"}, ACCOUNT) != fingerprint({"account": "b"}, ACCOUNT)


def test_it_tells_what_changed():
    earlier = fingerprint({"model": "m", "prompt": "a", "seed": 1}, ACCOUNT)
    later = fingerprint({"model": "m", "prompt": "b", "cfg_scale": 0.5}, ACCOUNT)
    assert changes(later, earlier) == ("cfg_scale", "prompt", "seed")
    assert changes(later, later) == ()
    (account,) = changes(fingerprint({"model": "m", "prompt": "a", "seed": 1}, "other"), earlier)
    assert account.startswith("account")


@given(BODIES, BODIES)
def test_requests_differ_exactly_where_their_parts_do(one: dict[str, Any], other: dict[str, Any]):
    first, second = fingerprint(one, ACCOUNT), fingerprint(other, ACCOUNT)
    assert (first == second) is (changes(second, first) == ())


def test_no_value_can_be_read_from_it():
    shown = str(fingerprint({"prompt": "a secret prompt"}, "conn https://host"))
    assert "secret" not in shown
    assert "host" not in shown


@pytest.mark.parametrize(
    "value", [datetime.date(2026, 1, 1), {1, 2}, b"x", math.nan, [math.inf], {1: 2, "a": 3}]
)
def test_what_json_does_not_have_is_refused_by_name(value: object):
    with pytest.raises(InvalidRequestError, match="'seed'"):
        fingerprint({"prompt": "x", "seed": value}, ACCOUNT)


# URLs whose signature changes


PICTURE = "https://bucket.example.com/pictures/cat%20one.png"
SIGNED_TWICE = {
    "S3": (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20260101&X-Amz-Date=20260101T000000Z"
        "&X-Amz-Expires=600&X-Amz-SignedHeaders=host&X-Amz-Signature=aa&X-Amz-Security-Token=t",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=B%2F20260102&X-Amz-Date=20260102T000000Z"
        "&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=bb",
    ),
    "older S3": (
        "AWSAccessKeyId=A&Expires=1790000000&Signature=a%3D&x-amz-security-token=t1",
        "AWSAccessKeyId=B&Expires=1790000600&Signature=b%3D&x-amz-security-token=t2",
    ),
    "Google": (
        "X-Goog-Algorithm=GOOG4&X-Goog-Date=20260101T000000Z&X-Goog-Signature=aa",
        "X-Goog-Algorithm=GOOG4&X-Goog-Date=20260102T000000Z&X-Goog-Signature=bb",
    ),
    "older Google": ("GoogleAccessId=a@b&Expires=1&Signature=x", "GoogleAccessId=a@b&Expires=2&Signature=y"),
    "Azure": (
        "sv=2024-08-04&st=2026-01-01&se=2026-01-02&sr=b&sp=r&sig=aa%3D",
        "sv=2025-01-05&st=2026-01-03&se=2026-01-04&sr=b&sp=r&sig=bb%3D&spr=https",
    ),
    "Azure user delegation": (
        "skoid=1&sktid=2&skt=3&ske=4&sks=b&skv=5&sv=6&se=7&sr=b&sp=r&sig=8",
        "skoid=1&sktid=2&skt=9&ske=9&sks=b&skv=5&sv=6&se=9&sr=b&sp=r&sig=9",
    ),
    "CloudFront": ("Policy=a&Signature=b&Key-Pair-Id=K", "Policy=c&Signature=d&Key-Pair-Id=K"),
    "OSS": ("OSSAccessKeyId=a&Expires=1&Signature=b", "OSSAccessKeyId=a&Expires=2&Signature=c"),
    "COS": ("q-sign-time=1;2&q-ak=a&q-signature=b", "q-sign-time=3;4&q-ak=a&q-signature=c"),
    "the vendor's CDN": ("cacheKey=a&ksSecret=b&ksTime=68f7", "cacheKey=c&ksSecret=d&ksTime=68f8"),
    "a token": ("token=eyJhbGciOi.a", "token=eyJhbGciOi.b"),
}


@pytest.mark.parametrize("queries", SIGNED_TWICE.values(), ids=SIGNED_TWICE)
def test_a_url_signed_again_is_the_same_picture(queries: tuple[str, str]):
    first, second = queries
    assert unsigned(f"{PICTURE}?{first}") == unsigned(f"{PICTURE}?{second}") == PICTURE


@pytest.mark.parametrize("queries", SIGNED_TWICE.values(), ids=SIGNED_TWICE)
def test_what_chooses_the_picture_counts_beside_a_signature(queries: tuple[str, str]):
    first, second = queries
    assert unsigned(f"{PICTURE}?v=1&{first}") == unsigned(f"{PICTURE}?v=1&{second}")
    assert unsigned(f"{PICTURE}?v=1&{first}") != unsigned(f"{PICTURE}?v=2&{first}")
    assert unsigned(f"{PICTURE}?{first}") != unsigned(f"{PICTURE.replace('cat', 'dog')}?{first}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("st=red", "st=blue"),
        ("se=1", "se=2"),
        ("hash=a", "hash=b"),
        ("expires=1", "expires=2"),
        ("policy=a", "policy=b"),
        ("versionId=a", "versionId=b"),
        ("id=%FE", "id=%FF"),
        ("a=1&b=2", "b=2&a=1"),
        ("a", "a="),
    ],
)
def test_without_a_signature_every_parameter_counts(one: str, other: str):
    assert unsigned(f"{PICTURE}?{one}") != unsigned(f"{PICTURE}?{other}")


QUERY = st.text("abcxyz=&%20+[]", max_size=30)


@given(QUERY)
def test_a_url_without_a_signature_stays_as_it_is(query: str):
    url = f"{PICTURE}?{query}" if query else PICTURE
    assert unsigned(url) == url
    assert unsigned(f"{url}#part") == url


@given(QUERY)
def test_to_unsign_twice_changes_nothing(query: str):
    url = unsigned(f"{PICTURE}?{query}&X-Amz-Signature=a&X-Amz-Date=b")
    assert unsigned(url) == url
    assert "amz" not in url.lower()

"""What messages show of texts; that no secret shows is tested with the errors that quote them."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_kling.api.redaction import bare_url, clean, excerpt, hide_secrets, shown, unsigned
from tests.misbehaving_server import PATHOLOGICAL

READERS: dict[str, Callable[[str], object]] = {
    "clean": clean,
    "clean, with a key": lambda text: clean(text, "sk-0123456789"),
    "excerpt": lambda text: excerpt(text.encode("utf-8", "replace")),
    "shown": shown,
    "hide_secrets": hide_secrets,
    "unsigned": lambda text: unsigned("https://example.com/?" + text.replace("[", "").replace("]", "")),
    "bare_url": bare_url,
}
LONG = 40_000
QUICK = 0.5
"""Seconds of CPU; a quadratic pattern takes many for so long a text."""


def cpu_seconds(read: Callable[[str], object], text: str) -> float:
    began = time.thread_time()
    read(text)
    return time.thread_time() - began


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("text", PATHOLOGICAL)
def test_no_text_takes_long(reader: str, text: str):
    assert cpu_seconds(READERS[reader], PATHOLOGICAL[text]) < QUICK


@settings(max_examples=150, deadline=None)
@given(
    reader=st.sampled_from(sorted(READERS)),
    beginning=st.text("<>/?&#:@=;,%\\ \"'ab1-_.", max_size=6),
    again=st.lists(
        st.sampled_from(
            [
                "<",
                ">",
                "<script",
                "</script>",
                "http://",
                "://",
                "?",
                "?a",
                "=",
                "@",
                ":",
                ";base64,",
                "a",
                "A1/+",
                "\\",
                "&#",
                "&",
                " ",
                "/",
                "%",
                "x-amz-signature",
                "\n",
                "\u202e",
            ]
        ),
        min_size=1,
        max_size=4,
    ).map("".join),
    end=st.text("<>/?&#:@=;,%\\ \"'ab1-_.", max_size=6),
)
def test_nothing_that_repeats_takes_long(reader: str, beginning: str, again: str, end: str):
    text = beginning + again * (LONG // len(again)) + end
    assert cpu_seconds(READERS[reader], text) < QUICK


@pytest.mark.parametrize("reader", ["clean", "clean, with a key", "excerpt", "shown"])
@pytest.mark.parametrize("text", PATHOLOGICAL)
def test_what_is_shown_is_one_short_line(reader: str, text: str):
    seen = READERS[reader](PATHOLOGICAL[text])
    assert isinstance(seen, str)
    assert len(seen) <= 500
    assert seen.isprintable()


@pytest.mark.parametrize(
    ("page", "seen"),
    [
        ("<html><title>502</title><p>Bad &amp; ugly", "502 Bad & ugly"),
        ("<script>var a = '<b>';</script>Sorry", "Sorry"),
        ("<STYLE>p {}</Style ><p>Sorry</p>", "Sorry"),
        ("<script>without an end", "markup without text"),
        ("<p>1 < 2", "1 < 2"),
        ("<p>&#" + "9" * 5000 + ";", "…"),
    ],
)
def test_a_page_is_read_as_a_browser_shows_it(page: str, seen: str):
    assert seen in excerpt(page.encode())


SECRET = "5f1d0c8e4b7aQ9f2"


@pytest.mark.parametrize(
    "text",
    [
        f"AccountKey={SECRET};EndpointSuffix=core.windows.net",
        f"client_secret={SECRET}",
        f"x-api-key: {SECRET}",
        f'{{"x-api-key": "{SECRET}"}}',
        f"apikey: {SECRET}",
        f"Authorization: Token {SECRET}",
        f"authorization={SECRET}",
        f"Proxy-Authorization: Digest username=a, response={SECRET}",
        f"bearer:{SECRET}",
        f"Set-Cookie: session={SECRET}; Path=/",
        f"refresh_token={SECRET}",
        f"session_token: {SECRET}",
        f"pwd={SECRET}",
        f"passphrase={SECRET}",
        f"https://host/a%3FX-Amz-Signature%3D{SECRET}",
        f"https://host/?url=https%3A%2F%2Fb%2Fa%3Fx%3D1%26sig%3D{SECRET}",
        f"https://host/a#access_token={SECRET}",
        f"https://host/a;sig={SECRET}",
        f"//{SECRET}@host/a",
        f"ftp://user:{SECRET}@host/a",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{SECRET}",
        f"-----BEGIN RSA PRIVATE KEY----- {SECRET}",
    ],
)  # fmt: skip
def test_each_form_of_a_secret_is_hidden(text: str):
    assert SECRET not in hide_secrets(f"It said: {text}")


@pytest.mark.parametrize(
    "text",
    [
        "Missing authorization: please provide a key.",
        "The token: it has expired.",
        "A password: at least eight characters.",
        "Basic authorization is needed; key 'kling_generation' of the task state store.",
        "max_tokens: 20480000, limit 4096",
        "cookie: not accepted",
        "The secret of a good video: light.",
        "See https://docs.aimlapi.com//api-references.",
    ],
)
def test_prose_stays_readable(text: str):
    assert hide_secrets(text) == text

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.exceptions import ConfigurationError, KlingError, Money
from airflow_provider_kling.api.settings import (
    DEFAULT_BASE_URL,
    UNIVERSAL_PATH,
    VENDOR_PATH,
    Settings,
    is_loopback,
)
from tests.unit.api.driving import KEY


def test_a_key_is_enough():
    settings = Settings(KEY)
    assert settings.base_url == DEFAULT_BASE_URL == "https://api.aimlapi.com"
    assert settings.generation_path == VENDOR_PATH == "/v2/generate/video/kling/generation"
    assert settings.connect_timeout > 0
    assert settings.read_timeout > 0
    assert not settings.allow_plain_http


def test_neither_the_key_nor_the_proxy_shows():
    settings = Settings(KEY, proxy="http://user:hunter2@proxy:3128")
    assert KEY not in repr(settings)
    assert "hunter2" not in repr(settings)


def test_what_surrounds_a_copied_key_or_url_is_dropped():
    settings = Settings(f"  {KEY}\n", base_url=" https://gateway.example.com/kling/ ")
    assert settings.api_key == KEY
    assert settings.base_url == "https://gateway.example.com/kling"


@pytest.mark.parametrize(
    "key", ["", "  ", "two words", "line\nbreak", "schlüssel", "sk\x00", "sk\x7f", "sk-\u200b"]
)
def test_what_no_key_is(key: str):
    with pytest.raises(ConfigurationError) as caught:
        Settings(key)
    assert "key" in str(caught.value)
    assert not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize("rate", [0, -5, math.nan, math.inf, 1e9, "fast", True])
def test_a_rate_that_is_none_is_refused_with_what_is_allowed(rate: Any):
    with pytest.raises(
        ConfigurationError, match=r"requests_per_minute: .* from 1 to 60000 requests a minute"
    ):
        Settings("the-key", requests_per_minute=rate)


REFUSED_URLS = {
    "": "is not an https URL",
    "api.aimlapi.com": "is not an https URL",
    "ftp://api.aimlapi.com": "is not an https URL",
    "https://": "is not an https URL",
    "https://[": "is not an https URL",
    "https://host:port": "is not an https URL",
    "https://host:99999": "is not an https URL",
    "https://host:0": "is not an https URL",
    "https://user:hunter2@host": "has a user, a query or a fragment",
    "https://host?key=hunter2": "has a user, a query or a fragment",
    "https://host#hunter2": "has a user, a query or a fragment",
    "http://api.aimlapi.com": "is not encrypted",
    "http://192.168.1.10:8080": "is not encrypted",
    "http://127.0.0.1.example.com": "is not encrypted",
}


@pytest.mark.parametrize(("url", "why"), REFUSED_URLS.items())
def test_base_urls_that_are_refused(url: str, why: str):
    with pytest.raises(ConfigurationError, match=why) as caught:
        Settings(KEY, base_url=url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.money is Money.NOTHING_SENT
    assert caught.value.advice


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:9", "http://127.9.9.9", "HTTP://LOCALHOST"],
)
def test_plain_http_to_this_machine_is_fine(url: str):
    assert Settings(KEY, base_url=url).base_url == url


def test_plain_http_elsewhere_must_be_allowed():
    url = "http://gateway.internal"
    assert Settings(KEY, base_url=url, allow_plain_http=True).base_url == url
    with pytest.raises(ConfigurationError, match="allow_plain_http"):
        Settings(KEY).check_scheme("http://cdn.example.com/v.mp4?ksSecret=s")


def test_a_refused_video_url_does_not_show_its_query():
    with pytest.raises(ConfigurationError) as caught:
        Settings(KEY).check_scheme("http://cdn.example.com/v.mp4?ksSecret=hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("path", [VENDOR_PATH, UNIVERSAL_PATH])
def test_both_paths_of_the_vendor(path: str):
    assert Settings(KEY, generation_path=path).generation_path == path


def test_no_other_path():
    with pytest.raises(ConfigurationError) as caught:
        Settings(KEY, generation_path="/v2/video")
    assert VENDOR_PATH in str(caught.value)
    assert UNIVERSAL_PATH in str(caught.value)


@pytest.mark.parametrize("name", ["connect_timeout", "read_timeout"])
@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, 3601, "10", None, True])
def test_timeouts_that_are_refused(name: str, seconds: object):
    with pytest.raises(ConfigurationError, match=name):
        Settings(KEY, **{name: seconds})  # type: ignore[arg-type]  # what a connection's extra may hold


@pytest.mark.parametrize("seconds", [0.1, 1, 3600])
def test_timeouts_that_are_taken(seconds: float):
    assert Settings(KEY, read_timeout=seconds).read_timeout == seconds


def test_the_error_is_a_value_error_and_one_of_ours():
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(ConfigurationError, KlingError)


@pytest.mark.parametrize(
    ("host", "loops"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.255.0.3", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, loops: bool):
    assert is_loopback(host) is loops


@pytest.mark.parametrize(
    ("given", "base_url", "path"),
    [
        ("https://api.aimlapi.com/v2", "https://api.aimlapi.com", VENDOR_PATH),
        ("https://api.aimlapi.com/v1/", "https://api.aimlapi.com", VENDOR_PATH),
        ("https://api.aimlapi.com//v2", "https://api.aimlapi.com", VENDOR_PATH),
        ("https://gateway.example.com/kling/v2", "https://gateway.example.com/kling", VENDOR_PATH),
        ("https://gateway.example.com/v3", "https://gateway.example.com/v3", VENDOR_PATH),
        (f"https://api.aimlapi.com{VENDOR_PATH}", "https://api.aimlapi.com", VENDOR_PATH),
        (f"https://gateway.example.com/p{UNIVERSAL_PATH}/", "https://gateway.example.com/p", UNIVERSAL_PATH),
        ("http://127.0.0.1:8080/v2", "http://127.0.0.1:8080", VENDOR_PATH),
    ],
)
def test_a_version_or_an_endpoint_in_the_base_url_is_left_out(given: str, base_url: str, path: str):
    settings = Settings("key", given)
    assert (settings.base_url, settings.generation_path) == (base_url, path)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("https://api.aimlapi.com/v1/chat/completions", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com/v2/billing", "https://api.aimlapi.com"),
        ("https://api.aimlapi.com/models", "https://api.aimlapi.com"),
        ("https://gateway.example.com/kling/v2/logs", "https://gateway.example.com/kling"),
    ],
)
def test_another_endpoint_in_the_base_url_is_refused_by_name(given: str, wanted: str):
    with pytest.raises(ConfigurationError) as caught:
        Settings("key", given)
    assert repr(given) in str(caught.value)
    assert caught.value.advice == f"Leave its path out, and give {wanted}."


SEGMENTS = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(lambda name: name not in ("v1", "v2"))


@given(
    prefix=st.lists(SEGMENTS, max_size=3),
    added=st.sampled_from(["", "/v1", "/v2", VENDOR_PATH, UNIVERSAL_PATH]),
    slashes=st.integers(0, 2),
    port=st.sampled_from(["", ":8443"]),
)
def test_any_prefix_stays_and_what_the_vendor_s_samples_add_goes(
    prefix: list[str], added: str, slashes: int, port: str
):
    base = "/".join([f"https://gateway.example.com{port}", *prefix])
    settings = Settings("key", base + added + "/" * slashes)
    assert settings.base_url == base
    assert settings.generation_path == (UNIVERSAL_PATH if added == UNIVERSAL_PATH else VENDOR_PATH)
    assert Settings("key", settings.base_url).base_url == base


@given(
    prefix=st.lists(SEGMENTS, max_size=2),
    version=st.sampled_from(["v1", "v2"]),
    rest=st.lists(SEGMENTS, min_size=1),
)
def test_any_other_endpoint_is_refused_with_the_host_to_give(
    prefix: list[str], version: str, rest: list[str]
):
    base = "/".join(["https://gateway.example.com", *prefix])
    with pytest.raises(ConfigurationError) as caught:
        Settings("key", "/".join([base, version, *rest]))
    assert caught.value.advice == f"Leave its path out, and give {base}."

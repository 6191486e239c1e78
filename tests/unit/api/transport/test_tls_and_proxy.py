from __future__ import annotations

from pathlib import Path

import certifi
import pytest

from airflow_provider_kling.api.exceptions import ConfigurationError
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.tls_and_proxy import ca_file, proxy_for
from tests.unit.api.driving import KEY

VENDOR = "https://api.aimlapi.com/v2/billing"
PROXY = "http://user:hunter2@proxy.example.com:3128"


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    path = tmp_path / "own.pem"
    path.write_text("certificates")
    return str(path)


def test_usual_authorities():
    assert ca_file(Settings(KEY)) == certifi.where()


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_environments_authorities(monkeypatch: pytest.MonkeyPatch, bundle: str, name: str):
    monkeypatch.setenv(name, bundle)
    assert ca_file(Settings(KEY)) == bundle


def test_an_empty_variable_names_nothing(monkeypatch: pytest.MonkeyPatch, bundle: str):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    monkeypatch.setenv("SSL_CERT_FILE", bundle)
    assert ca_file(Settings(KEY)) == bundle


def test_the_connections_authorities_win(monkeypatch: pytest.MonkeyPatch, bundle: str):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/env.pem")
    assert ca_file(Settings(KEY, ca_bundle=bundle)) == bundle


def test_authorities_that_are_not_there():
    with pytest.raises(ConfigurationError, match=r"/nowhere/own\.pem.*ca_bundle"):
        ca_file(Settings(KEY, ca_bundle="/nowhere/own.pem"))


def test_no_proxy_unless_told():
    assert proxy_for(Settings(KEY), VENDOR) is None


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
def test_the_environments_proxy(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, PROXY)
    assert proxy_for(Settings(KEY), VENDOR) == PROXY


def test_a_proxy_for_http_is_not_one_for_https(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", PROXY)
    assert proxy_for(Settings(KEY), VENDOR) is None


def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("https_proxy", PROXY)
    monkeypatch.setenv("no_proxy", "example.org,.aimlapi.com")
    assert proxy_for(Settings(KEY), VENDOR) is None
    assert proxy_for(Settings(KEY), "https://cdn.example.com/v.mp4") == PROXY


def test_the_connections_proxy_wins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("https_proxy", "http://other:1")
    monkeypatch.setenv("no_proxy", "*")
    assert proxy_for(Settings(KEY, proxy=PROXY), VENDOR) == PROXY


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:8080/x"])
def test_this_machine_is_never_proxied(monkeypatch: pytest.MonkeyPatch, url: str):
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("all_proxy", PROXY)
    assert proxy_for(Settings(KEY, proxy=PROXY), url) is None

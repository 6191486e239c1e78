"""What the machine's environment says about proxies and certificates, read the same for both clients.

``requests`` and ``aiohttp`` each read the environment in their own way, and both would let an
entry of ``~/.netrc`` touch the Authorization header. So both are told not to, and ask here.
"""

from __future__ import annotations

import os
import urllib.request
from urllib.parse import urlsplit

import certifi

from airflow_provider_kling.api.exceptions import (
    ConfigurationError,
)
from airflow_provider_kling.api.settings import Settings, is_loopback

_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def ca_file(settings: Settings) -> str:
    """Path of the certificate authorities to trust: the connection's, the environment's, or certifi's.

    :raises ConfigurationError: when the named file does not exist.
    """
    named = settings.ca_bundle or next(filter(None, map(os.environ.get, _CA_VARIABLES)), None)
    if named is None:
        return certifi.where()
    if not os.path.exists(named):
        raise ConfigurationError(
            f"The CA bundle {named!r} does not exist on this machine.",
            advice=f"Correct ca_bundle in the connection's extra, or {', '.join(_CA_VARIABLES)}.",
        )
    return named


def proxy_for(settings: Settings, url: str) -> str | None:
    """URL of the proxy for an address: the connection's, or the environment's; None for none.

    Loopback is never proxied, and the connection's proxy wins over ``NO_PROXY``.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    if settings.proxy:
        return settings.proxy
    if urllib.request.proxy_bypass(parts.netloc.rsplit("@", 1)[-1]):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")

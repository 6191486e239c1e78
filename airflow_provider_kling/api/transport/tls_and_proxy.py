"""What both transports do alike before and after the wire: whom to trust, which proxy, whose fault."""

from __future__ import annotations

import os
import ssl
import urllib.request
from dataclasses import replace
from urllib.parse import urlsplit

import certifi

from airflow_provider_kling.api.exceptions import ConfigurationError
from airflow_provider_kling.api.redaction import clean
from airflow_provider_kling.api.settings import Settings, is_http_proxy, is_loopback
from airflow_provider_kling.api.transport.messages import ConnectionLost, FailureReason


def trusted(settings: Settings) -> tuple[str, ssl.SSLContext]:
    """Path of the certificate authorities to trust, and a TLS context that trusts them.

    :raises ConfigurationError: a bundle that cannot be read, or holds no certificate.
    """
    path = ca_file(settings)
    folder = os.path.isdir(path)
    try:
        context = ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    except OSError as error:  # ssl.SSLError is one
        reason = getattr(error, "reason", None) or error.strerror or "unreadable"
        raise ConfigurationError(
            f"The CA bundle {path!r} cannot be used ({reason}).",
            advice="Give a PEM file with the certificates to trust.",
        ) from None
    return path, context


FileState = tuple[int, int, int] | None
"""Of a file, what changes with its content; None where there is no file."""


def trusted_now(settings: Settings, unless: FileState = None) -> tuple[FileState, ssl.SSLContext] | None:
    """What to trust, and the state that its file was in; None where it is in that state still.

    :raises ConfigurationError: see :func:`trusted`.
    """
    try:
        found = os.stat(ca_file(settings))
    except OSError:
        state = None
    else:
        state = found.st_mtime_ns, found.st_size, found.st_ino
    # Checked before it is read, so that what is written meanwhile counts as newer.
    return None if unless is not None and state == unless else (state, trusted(settings)[1])


def proxy_url(settings: Settings, url: str) -> str | None:
    """URL of the proxy for an address, None for none.

    Environments often name a proxy without its scheme, as in ``proxy.example.com:3128``.
    """
    proxy = proxy_for(settings, url)
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


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


def unusable_proxy(settings: Settings, url: str) -> ConnectionLost | None:
    """What is wrong with the proxy that the environment names for an address; None where it can be used.

    The connection's own proxy was checked when it was read.
    """
    proxy = proxy_url(settings, url)
    if proxy is None or is_http_proxy(proxy):
        return None
    scheme = urlsplit(url).scheme
    names = [f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"]
    variable = next((name for name in names if os.environ.get(name)), "the system's settings")
    kind = proxy.partition("://")[0]
    what = "a SOCKS proxy" if kind.startswith("socks") else f"a proxy of the kind {clean(kind)!r}"
    return ConnectionLost(
        FailureReason.PROXY_UNUSABLE,
        urlsplit(url).netloc,
        f"{variable} names {what} ({clean(kind)}://...), and only http and https ones work; set proxy in the "
        "connection's extra to one of those, or name the host in NO_PROXY",
    )


def behind_proxy(lost: ConnectionLost, proxy: str | None) -> ConnectionLost:
    """The cause of a loss, seen from a person: where a proxy is used, it is what was not reached."""
    if proxy and lost.why.passing and not lost.why.maybe_sent:
        return replace(lost, why=FailureReason.PROXY)
    return lost


def tls_reason(error: BaseException | None) -> str:
    """Why OpenSSL refused, in its words; empty for any other error."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return clean(error.verify_message.rstrip("."))
    if isinstance(error, ssl.SSLError) and error.reason:
        return clean(error.reason.replace("_", " ").lower())
    return ""

"""How to reach the vendor: address, key, time-outs, trust."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from airflow_provider_kling.api.bounds import within
from airflow_provider_kling.api.exceptions import ConfigurationError
from airflow_provider_kling.api.redaction import bare_url, shown

DEFAULT_BASE_URL: Final = "https://api.aimlapi.com"
VENDOR_PATH: Final = "/v2/generate/video/kling/generation"
UNIVERSAL_PATH: Final = "/v2/video/generations"
GENERATION_PATHS: Final = (VENDOR_PATH, UNIVERSAL_PATH)
DEFAULT_CONNECT_TIMEOUT: Final = 10.0
DEFAULT_READ_TIMEOUT: Final = 60.0
LOWEST_RATE: Final = 1.0
"""Requests per minute; the least that can be configured."""
HIGHEST_RATE: Final = 60_000.0
"""Requests per minute; the most that can be configured."""
_VENDOR_DOMAIN: Final = "aimlapi.com"
_VERSION = re.compile(r"/v[12](?=/|$)")
_LONGEST_TIMEOUT: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a client needs to know of one account.

    :param api_key: the vendor's API key. Kept out of ``repr``.
    :param base_url: scheme and host, with a path prefix where a gateway needs one. ``/v1`` or ``/v2`` at its
        end, as in the vendor's samples, and a generation path are left out. Plain http is refused except to
        loopback.
    :param generation_path: :data:`VENDOR_PATH` (default) or :data:`UNIVERSAL_PATH`; the vendor
        serves the same bodies on both.
    :param connect_timeout: seconds that a connection may take: name, TCP, a proxy's tunnel and TLS together.
    :param read_timeout: seconds that an answer may take, from the request's last byte to its own last. A
        video's may take longer, as long as it brings 256 KiB in each such span.
    :param ca_bundle: path of a PEM file with the certificate authorities to trust; None trusts the
        usual ones.
    :param proxy: URL of an HTTP proxy; None takes the environment's. Kept out of ``repr``, as it
        can hold a password.
    :param allow_plain_http: permit ``http://`` to other hosts than loopback. The key then travels
        readable.
    :param allow_private_network: permit videos to be fetched from private and link-local addresses. This
        machine's own are permitted where the base URL is one of them, and the base URL's host always is.
    :param requests_per_minute: requests that one process sends at most, 1 to 60000 a minute; None
        sends as many as the vendor lets through.
    :param max_cost_usd: limit for one generation, in USD, where the task names no
        limit of its own; None for no limit.
    :raises ConfigurationError: what is wrong, and what is allowed.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    generation_path: str = VENDOR_PATH
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    read_timeout: float = DEFAULT_READ_TIMEOUT
    ca_bundle: str | None = None
    proxy: str | None = field(default=None, repr=False)
    allow_plain_http: bool = False
    allow_private_network: bool = False
    requests_per_minute: float | None = None
    max_cost_usd: float | None = None

    def __post_init__(self) -> None:
        key = self.api_key.strip()
        if not key:
            raise ConfigurationError("There is no API key.", advice="Give the AI/ML API key.")
        if not key.isascii() or any(c.isspace() or not c.isprintable() for c in key):
            raise ConfigurationError(
                "The API key has characters that no key has (spaces, line breaks or accents).",
                advice="Copy the key again from the AI/ML API dashboard.",
            )
        object.__setattr__(self, "api_key", key)
        object.__setattr__(self, "base_url", self.base_url.strip().rstrip("/"))
        try:
            parts = urlsplit(self.base_url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ConfigurationError(
                f"The base URL {bare_url(self.base_url)!r} is not an https URL.",
                advice=f"Give a host such as {DEFAULT_BASE_URL}.",
            )
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigurationError(
                f"The base URL {bare_url(self.base_url)!r} has a user, a query or a fragment.",
                advice="Give scheme and host only; the key belongs in the password field.",
            )
        self._leave_out_endpoint(parts)
        self.check_scheme(self.base_url)
        if self.generation_path not in GENERATION_PATHS:
            raise ConfigurationError(
                f"The generation path {self.generation_path!r} is not one of the vendor's.",
                advice=f"Choose {' or '.join(GENERATION_PATHS)}.",
            )
        if self.proxy and not is_http_proxy(self.proxy):
            raise ConfigurationError(
                "The proxy is not the URL of an HTTP proxy.",
                advice="Give one such as http://proxy.example.com:3128; SOCKS is not supported.",
            )
        for name in ("connect_timeout", "read_timeout"):
            seconds = getattr(self, name)
            if not within(seconds, 0, _LONGEST_TIMEOUT) or seconds == 0:
                raise ConfigurationError(
                    f"{name}={seconds!r} is not a usable number of seconds.",
                    advice=f"Give more than 0 and at most {_LONGEST_TIMEOUT:.0f}.",
                )
        try:
            checked_rate(self.requests_per_minute)
        except ValueError as error:
            raise ConfigurationError(f"requests_per_minute: {error}") from None
        try:
            checked_limit(self.max_cost_usd)
        except ValueError as error:
            raise ConfigurationError(f"max_cost_usd: {error}") from None

    def _leave_out_endpoint(self, parts: SplitResult) -> None:
        """Cut the base URL out of a longer one: the vendor's samples end in ``/v2``.

        :raises ConfigurationError: what has to be left out, where that cannot be done here.
        """
        path = parts.path.rstrip("/")
        prefix = path
        for endpoint in GENERATION_PATHS:
            if path.endswith(endpoint):
                prefix = path.removesuffix(endpoint)
                object.__setattr__(self, "generation_path", endpoint)
        rest = ""
        if version := _VERSION.search(prefix):
            prefix, rest = prefix[: version.start()], prefix[version.end() :]
        elif (parts.hostname or "").endswith(_VENDOR_DOMAIN) and path == prefix:
            prefix, rest = "", path
        base_url = f"{parts.scheme}://{parts.netloc}{prefix.rstrip('/')}"
        if rest:
            raise ConfigurationError(
                f"The base URL {bare_url(self.base_url)!r} names more than a host.",
                advice=f"Leave its path out, and give {base_url}.",
            )
        if prefix != parts.path:
            object.__setattr__(self, "base_url", base_url)

    def check_scheme(self, url: str) -> None:
        """Refuse plain http to other hosts than loopback.

        :param url: the API's address, or a video's.
        :raises ConfigurationError: naming host and remedy.
        """
        parts = urlsplit(url)
        if parts.scheme == "https" or self.allow_plain_http or is_loopback(parts.hostname or ""):
            return
        raise ConfigurationError(
            f"{parts.scheme}://{parts.hostname} is not encrypted.",
            advice="Use https, or set allow_plain_http in the connection's extra if this network is safe.",
        )


def checked_rate(per_minute: Any) -> float | None:
    """Check a configured rate, without any I/O.

    :param per_minute: requests a minute, 1 to 60000; None for no limit.
    :raises ValueError: it is anything else.
    """
    if per_minute is None:
        return None
    if not within(per_minute, LOWEST_RATE, HIGHEST_RATE):
        raise ValueError(
            f"The rate is {shown(per_minute)}; it must be a number from {LOWEST_RATE:g} to "
            f"{HIGHEST_RATE:g} requests a minute, or nothing for no limit."
        )
    return float(per_minute)


def checked_limit(usd: Any) -> float | None:
    """Check a limit on the cost of one generation.

    :param usd: in USD, more than 0; None for no limit. Text is accepted, as templates render to it.
    :raises ValueError: it is anything else.
    """
    if usd is None:
        return None
    try:
        limit = math.nan if isinstance(usd, bool) else float(usd)
    except (TypeError, ValueError):
        limit = math.nan
    if not 0 < limit < math.inf:
        raise ValueError(
            f"The limit is {shown(usd)}; it must be a number of USD above 0, or nothing for no limit."
        )
    return limit


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_http_proxy(proxy: str) -> bool:
    """Whether a proxy can be used; one without a scheme is taken for http."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False

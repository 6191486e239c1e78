"""What both transports do alike before and after the wire: whom to trust, which proxy, whose fault."""

from __future__ import annotations

import os
import ssl

from airflow_provider_kling.api.exceptions import (
    ConfigurationError,
    Sent,
)
from airflow_provider_kling.api.network import ca_file, proxy_for
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.messages import (
    Silence,
)


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
    # Looked at before it is read, so that what is written meanwhile counts as newer.
    return None if unless is not None and state == unless else (state, trusted(settings)[1])


def proxy_url(settings: Settings, url: str) -> str | None:
    """URL of the proxy for an address, None for none.

    Environments often name a proxy without its scheme, as in ``proxy.example.com:3128``.
    """
    proxy = proxy_for(settings, url)
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


def behind_proxy(why: Silence, proxy: str | None) -> Silence:
    """The cause of a silence, seen from a person: where a proxy is used, it is what was not reached."""
    return Silence.PROXY if proxy and why.passing and why.sent is Sent.NO else why

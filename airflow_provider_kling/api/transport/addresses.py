"""Which addresses a client may connect to.

The vendor's answers name addresses: a video's URL, and where that redirects to. Nobody may lead a
worker to a service on its own machine or in its own network that way, so every such name is
resolved once, each of its addresses is checked, and the connection goes to the address that was checked.
"""

from __future__ import annotations

import ipaddress
import socket
import unicodedata
from collections.abc import Iterable
from urllib.parse import urlsplit

from airflow_provider_kling.api.settings import Settings, is_loopback

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given out for the Internet; what lies elsewhere is local, reserved or carries IPv4."""
_SPECIAL = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
"""Not of the Internet either, which not each Python knows; one cloud has its metadata at 192.0.0.192."""


def refusal(settings: Settings, host: str, addresses: Iterable[str]) -> str | None:
    """Why no video may be fetched from a host; None where one may be.

    The host of the base URL, which the author of the connection chose, is always allowed; this machine only
    where that host is this machine.

    :param settings: of the connection.
    :param host: as the URL names it.
    :param addresses: all that it resolves to; one that is not allowed is enough to refuse.
    """
    own_host = urlsplit(settings.base_url).hostname or ""
    if host.rstrip(".").lower() == own_host.lower():
        return None
    for address in addresses:
        kind = kind_of(address)
        allowed = is_loopback(own_host) if kind == "loopback" else settings.allow_private_network
        if kind == "public" or allowed:
            continue
        if kind == "loopback":
            return f"{host} is {address}, which is this machine, and the base URL of the connection is not"
        return f"{host} is {address}, which is not a public address"
    return None


def refusal_of_name(settings: Settings, host: str) -> str | None:
    """The same for a host that a proxy will resolve: only what the name itself says is known here.

    However it is written: full-width letters count as the plain ones, and ``127.1`` as an address.
    """
    name = unicodedata.normalize("NFKC", host).replace("\u3002", ".").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return refusal(settings, host, ["127.0.0.1"])
    try:
        address = str(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        try:
            address = socket.inet_ntoa(socket.inet_aton(name))
        except (OSError, UnicodeError):
            return None
    return refusal(settings, host, [address])


def kind_of(address: str) -> str:
    """``public``, ``loopback`` or ``private``; the latter is everything else that is not public.

    :param address: an IP address as a resolver gives it, with or without an IPv6 zone.
    """
    try:
        ip = _embedded(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return "private"
    if ip.is_loopback or ip.is_unspecified:  # connecting to 0.0.0.0 reaches this machine
        return "loopback"
    special = ip.is_multicast or any(ip in each for each in _SPECIAL)
    special |= ip.version == 6 and ip not in _UNICAST
    return "public" if ip.is_global and not special else "private"


def _embedded(ip: IpAddress) -> IpAddress:
    """The IPv4 address in one of the IPv6 forms that carry one."""
    if isinstance(ip, ipaddress.IPv6Address):
        if inner := ip.ipv4_mapped or ip.sixtofour:
            return inner
        if ip in _NAT64:
            return ipaddress.IPv4Address(ip.packed[-4:])
    return ip

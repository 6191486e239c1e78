"""What a server says about a video before it sends it: length, version, checksums."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_STATED_CHECKSUM = re.compile(r"\b(md5|sha-256)=:?([A-Za-z0-9+/]+=*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Announced:
    """What the server says about the whole video before it sends it.

    :param size: bytes; None where it does not say.
    :param etag: a strong entity tag; None where there is none.
    :param checksums: hexadecimal digests by hashlib's name, as far as the server states any.
    """

    size: int | None = None
    etag: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict)


def read_announced(status: int, headers: Mapping[str, str]) -> Announced:
    """Read it from the headers of a 200, or of a 206 or 416, whose length is that of a part."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        return Announced()  # lengths and tags speak of the encoded bytes, which nobody sees here
    if status == 200:
        length = headers.get("content-length", "")
        size = int(length) if length.isdecimal() else None
    else:
        total = _CONTENT_RANGE.match(headers.get("content-range", ""))
        size = int(total[2]) if total and total[2] != "*" else None
    etag = headers.get("etag", "").strip()
    return Announced(
        size=size,
        etag=etag if len(etag) > 2 and etag.startswith('"') and etag.endswith('"') else None,
        checksums=_checksums(headers, whole=status == 200),
    )


def _checksums(headers: Mapping[str, str], *, whole: bool) -> dict[str, str]:
    """Digests of the whole video that a server states; ``Content-MD5`` is of the body at hand."""
    stated = [headers.get(name, "") for name in ("repr-digest", "digest", "x-goog-hash")]
    if whole and "content-md5" in headers:
        stated.append(f"md5={headers['content-md5']}")
    found = {}
    for name, text in _STATED_CHECKSUM.findall(",".join(stated)):
        algorithm = name.lower().replace("-", "")
        try:
            digest = base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
        if len(digest) == new_digest(algorithm).digest_size:
            found[algorithm] = digest.hex()
    return found


def first_byte(headers: Mapping[str, str]) -> int | None:
    """Where the part starts that a 206 answer carries."""
    part = _CONTENT_RANGE.match(headers.get("content-range", ""))
    return int(part[1]) if part and part[1] else None


def new_digest(name: str) -> Any:
    """An object of hashlib by its name. It guards against accidents, not against attackers."""
    return hashlib.new(name, usedforsecurity=False)

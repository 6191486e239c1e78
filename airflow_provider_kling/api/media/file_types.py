"""What a file is, by its first bytes and never by its name."""

from __future__ import annotations

from typing import Final

HEAD: Final = 64
"""How many bytes :func:`content_of` reads."""

# (offset, bytes, name)
_SIGNATURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (8, b"WAVE", "WAV"),
    (8, b"AVI ", "AVI"),
    (0, b"\xff\xfe", "text in UTF-16"),  # as an MPEG header: layer I, which is not taken either
    (0, b"\xfe\xff", "text in UTF-16"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"ID3", "MP3"),
    (0, b"OggS", "Ogg"),
    (0, b"fLaC", "FLAC"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
)
_BRANDS: Final = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"hevc", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"M4A ", b"M4B "), "M4A"),
    b"qt  ": "QuickTime",
}
_FIRST_ATOMS_OF_OLD_QUICKTIME: Final = (b"moov", b"mdat", b"wide")


def content_of(head: bytes) -> str:
    """Name the kind of content: ``JPEG``, ``MP4``, ``MP3`` and so on, or what it looks like.

    :param head: the first bytes, :data:`HEAD` or fewer.
    """
    for offset, signature, name in _SIGNATURES:
        if head.startswith(signature, offset):
            return name
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "MP4")
    if head[4:8] in _FIRST_ATOMS_OF_OLD_QUICKTIME:
        return "QuickTime"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        # an MPEG audio frame: layer 0 is how AAC's ADTS differs
        return "AAC" if head[1] & 0xF6 == 0xF0 else "MP3"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    if text.startswith(b"<"):
        return "XML or SVG"
    if not head:
        return "empty"
    return "text" if text and text.isascii() and b"\0" not in text else "of an unknown kind"

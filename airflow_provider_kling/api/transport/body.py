"""The body of a submit with pictures in it, which is never in memory as a whole."""

from __future__ import annotations

import base64
import json
import os
import secrets
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

_CHUNK: Final = 3 * 64 * 1024
"""Bytes that are encoded at once: a multiple of 3, so that base64 pads only the last ones."""


class DataUri:
    """A medium as a data URI, encoded from a file each time that it is sent.

    It keeps the file open, and has it to itself: what was checked is what is sent. A temporary file
    that has no name any more is gone with it.

    :param mime: its type.
    :param file: its content. The caller may close it, and nothing may write to it any more.
    """

    def __init__(self, mime: str, file: BinaryIO) -> None:
        file.flush()
        self._head = f"data:{mime};base64,".encode("ascii")
        self._descriptor = os.dup(file.fileno())
        self._size = os.fstat(self._descriptor).st_size
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return len(self._head) + (self._size + 2) // 3 * 4

    def __iter__(self) -> Iterator[bytes]:
        """The URI in pieces."""
        yield self._head
        for position in range(0, self._size, _CHUNK):
            yield base64.b64encode(self._read(min(_CHUNK, self._size - position), position))

    def __repr__(self) -> str:
        return f"<{self._head.decode()}… ({self._size} bytes)>"

    def _read(self, size: int, position: int) -> bytes:
        content = os.pread(self._descriptor, size, position)
        if len(content) != size:
            raise OSError(f"a temporary file ends before byte {position + size}")
        return content


class JsonBody:
    """JSON text with media in it, in pieces; it can be sent more than once.

    :param pieces: of the text, in their order.
    """

    def __init__(self, pieces: tuple[bytes | DataUri, ...]) -> None:
        self._pieces = pieces
        self._length = sum(map(len, pieces))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, DataUri):
                yield from piece
            else:
                yield piece


def encoded(body: Mapping[str, Any]) -> bytes | JsonBody:
    """The JSON of a request.

    :param body: plain, but for a :class:`DataUri` wherever one stands.
    """
    media: list[DataUri] = []
    mark = secrets.token_hex(16)  # no prompt can contain it

    def marked(value: Any) -> str:
        if not isinstance(value, DataUri):
            raise TypeError(f"{type(value).__name__} is not JSON")
        media.append(value)
        return mark

    text = json.dumps(body, separators=(",", ":"), allow_nan=False, default=marked)
    if not media:
        return text.encode()
    first, *others = text.split(mark)
    pieces: list[bytes | DataUri] = [first.encode()]
    for medium, following in zip(media, others, strict=True):
        pieces += medium, following.encode()
    return JsonBody(tuple(pieces))

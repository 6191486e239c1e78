"""A server on loopback that misbehaves in every way that a server can: on purpose, and byte by byte.

``SCENARIOS`` names the ways. Each is a function that gets the connection once the request was read.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
STANDING = b'{"id": "g1", "status": "generating"}'
DRIP = 0.02
"""Seconds between the bytes of what drips."""
BURST = 64 * 1024


class Gone(OSError):
    """The client has left, or the test is over."""


@dataclass
class Connection:
    """One connection whose request has been read.

    :param request: head and body, as they came.
    :param sent: bytes that went out.
    """

    socket: socket.socket
    ended: threading.Event
    request: bytes
    sent: int = 0

    def send(self, data: bytes) -> None:
        while data:
            if self.ended.is_set():
                raise Gone
            if not select.select([], [self.socket], [], 0.05)[1]:
                self._look_whether_it_left()
                continue
            with contextlib.suppress(ssl.SSLWantWriteError):
                count = self.socket.send(data)
                self.sent += count
                data = data[count:]

    def drip(self, data: bytes) -> None:
        """A byte at a time."""
        for position in range(len(data)):
            self.send(data[position : position + 1])
            self._wait(DRIP)

    def drip_forever(self, data: bytes) -> None:
        """A piece at a time, without end."""
        while True:
            self.send(data)
            self._wait(DRIP)

    def flood(self, data: bytes) -> None:
        """As fast as it goes, without end."""
        burst = data * (BURST // len(data) + 1)
        while True:
            self.send(burst)

    def answer(self, body: bytes, *headers: bytes, status: bytes = b"200 OK") -> None:
        """A whole answer, in order."""
        head = b"".join(header + b"\r\n" for header in headers)
        length = b"Content-Length: %d\r\n" % len(body)
        self.send(b"HTTP/1.1 " + status + b"\r\n" + length + head + b"\r\n" + body)

    def hold(self) -> None:
        """Say nothing more."""
        while True:
            self._wait(0.05)

    def reset(self) -> None:
        """Break the connection with a TCP RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        raise Gone

    def close(self) -> None:
        """End the connection in order."""
        raise Gone

    def _wait(self, seconds: float) -> None:
        if self.ended.wait(seconds):
            raise Gone
        self._look_whether_it_left()

    def _look_whether_it_left(self) -> None:
        if select.select([self.socket], [], [], 0)[0]:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if not self.socket.recv(BURST):
                    raise Gone


Behaviour = Callable[[Connection], None]


@dataclass
class Server:
    """What is known of a server.

    :param address: ``host:port``.
    :param requests: what was asked, head and body.
    :param connections: all of them.
    """

    address: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)
    open: int = 0

    @property
    def sent(self) -> int:
        """Bytes that went out."""
        return sum(connection.sent for connection in self.connections)

    def wait_until_left(self, seconds: float = 5.0) -> bool:
        """Whether all clients leave within so many seconds."""
        until = time.monotonic() + seconds
        while self.open and time.monotonic() < until:
            time.sleep(0.01)
        return not self.open


@contextmanager
def misbehaving(behave: Behaviour, certificate: str | Path | None = None) -> Iterator[Server]:
    """A server that behaves so on each connection, until it returns; connections are used once unless it loops.

    :param certificate: PEM file with key and certificate, for TLS.
    """
    server = Server()
    ended = threading.Event()
    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)

    def serve(sock: socket.socket) -> None:
        try:
            sock.settimeout(10)
            if context is not None:
                sock = context.wrap_socket(sock, server_side=True)
            while request := read_request(sock):
                server.requests.append(request)
                sock.setblocking(False)
                connection = Connection(sock, ended, request)
                server.connections.append(connection)
                behave(connection)
                sock.settimeout(10)
        except OSError:
            pass
        finally:
            sock.close()
            server.open -= 1

    def accept() -> None:
        while not ended.is_set():
            if select.select([listener], [], [], 0.02)[0]:
                sock, _ = listener.accept()
                server.open += 1
                thread = threading.Thread(target=serve, args=(sock,), daemon=True)
                thread.start()

    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        server.address = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            ended.set()
            thread.join()


def read_request(sock: socket.socket) -> bytes:
    """A whole request; empty where none came."""
    got = b""
    while b"\r\n\r\n" not in got:
        if not (data := sock.recv(65536)):
            return b""
        got += data
    head, _, body = got.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        if not (data := sock.recv(65536)):
            return b""
        body += data
    return head + b"\r\n\r\n" + body


def _says(*steps: tuple[str, bytes]) -> Behaviour:
    def behave(connection: Connection) -> None:
        for how, data in steps:
            getattr(connection, how)(data)
        connection.hold()

    return behave


def _answers(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> Behaviour:
    return lambda connection: connection.answer(body, *headers, status=status)


def _then(last: str, *steps: tuple[str, bytes]) -> Behaviour:
    def behave(connection: Connection) -> None:
        for how, data in steps:
            getattr(connection, how)(data)
        getattr(connection, last)()

    return behave


NEVER_ENDING: dict[str, Behaviour] = {
    "silence": _says(),
    "status line that drips": _says(("drip_forever", b"H")),
    "head that drips": _says(("send", OK + b"X-A: "), ("drip_forever", b"a")),
    "headers that drip": _says(("send", OK), ("drip_forever", b"X: 1\r\n")),
    "100 that drips": _says(("drip", b"HTTP/1.1 100 Continue\r\n"), ("drip_forever", b"X: 1\r\n")),
    "100 now and then": _says(("drip_forever", b"HTTP/1.1 100 Continue\r\n\r\n")),
    "103 now and then": _says(("drip_forever", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")),
    "100 without end": _says(("flood", b"HTTP/1.1 100 Continue\r\n\r\n")),
    "102 without end": _says(("flood", b"HTTP/1.1 102 Processing\r\n\r\n")),
    "103 without end": _says(("flood", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")),
    "status line without end": _says(("send", OK[:-2]), ("flood", b"O")),
    "header without end": _says(("send", OK + b"X-A: "), ("flood", b"a")),
    "folded header without end": _says(("send", OK + b"X-A: a\r\n"), ("flood", b" a\r\n")),
    "headers without end": _says(("send", OK), ("flood", b"X-A: " + b"a" * 60 + b"\r\n")),
    "short headers without end": _says(("send", OK), ("flood", b"a:\r\n")),
    "body that drips": _says(("send", OK + b"Content-Length: 5000\r\n\r\n{"), ("drip_forever", b" ")),
    "body that stops": _says(("send", OK + b"Content-Length: 5000\r\n\r\n{")),
    "body without a length that drips": _says(("send", OK + b"\r\n{"), ("drip_forever", b" ")),
    "chunks that drip": _says(("send", CHUNKED), ("drip_forever", b"1\r\n \r\n")),
    "chunk size that drips": _says(("send", CHUNKED), ("drip_forever", b"0")),
    "chunk size without end": _says(("send", CHUNKED), ("flood", b"0")),
    "chunk extension that drips": _says(("send", CHUNKED + b"5;a="), ("drip_forever", b"b")),
    "chunk extension without end": _says(("send", CHUNKED + b"5;a="), ("flood", b"b")),
    "chunk extensions without end": _says(("send", CHUNKED), ("flood", b"1;a=" + b"b" * 60 + b"\r\n \r\n")),
    "trailers that drip": _says(("send", CHUNKED + b"1\r\n{\r\n0\r\n"), ("drip_forever", b"a: b\r\n")),
    "trailers without end": _says(("send", CHUNKED + b"1\r\n{\r\n0\r\n"), ("flood", b"a: b\r\n")),
    "trailer without end": _says(("send", CHUNKED + b"1\r\n{\r\n0\r\na: "), ("flood", b"b")),
    "chunk of a terabyte": _says(("send", CHUNKED + b"fffffffffff\r\n"), ("flood", b" ")),
    "length that comes short": _says(("send", OK + b"Content-Length: 999\r\n\r\n" + STANDING)),
    "length of a terabyte": _says(("send", OK + b"Content-Length: 999999999999\r\n\r\n"), ("flood", b" ")),
    "length of 5,000 digits": _says(
        ("send", OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + STANDING)
    ),
    "length that is negative": _says(("send", OK + b"Content-Length: -1\r\n\r\n" + STANDING)),
    "length that is no number": _says(("send", OK + b"Content-Length: 3x\r\n\r\n" + STANDING)),
}
"""None of these ever gives a whole answer; whoever asked has to leave."""

BROKEN: dict[str, Behaviour] = {
    "reset": _then("reset"),
    "reset in the head": _then("reset", ("send", OK + b"X-A")),
    "reset in the body": _then("reset", ("send", OK + b"Content-Length: 5000\r\n\r\n{")),
    "end at once": _then("close"),
    "end in the head": _then("close", ("send", OK + b"X-A")),
    "end in the body": _then("close", ("send", OK + b"Content-Length: 5000\r\n\r\n{")),
    "end in a chunk": _then("close", ("send", CHUNKED + b"9\r\n{")),
    "end before the last chunk": _then("close", ("send", CHUNKED + b"2\r\n{}\r\n")),
    "not HTTP": _then("close", ("send", b"220 smtp ready\r\n\r\n")),
    "two lengths": _then("close", ("send", OK + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}")),
    "chunk size that is none": _then("close", ("send", CHUNKED + b"xyz\r\n{}\r\n")),
}
"""What ends before it is an answer."""

BOMB = gzip.compress(bytes(64 * 1024 * 1024))

ENCODED: dict[str, Behaviour] = {
    "gzip bomb": _answers(BOMB, b"Content-Encoding: gzip"),
    "gzip bomb in a refusal": _answers(BOMB, b"Content-Encoding: gzip", status=b"500 Oh"),
    "gzip of what was asked": _answers(gzip.compress(STANDING), b"Content-Encoding: gzip"),
    "broken gzip": _answers(b"{}", b"Content-Encoding: gzip"),
    "deflate": _answers(b"{}", b"Content-Encoding: deflate"),
    "brotli": _answers(b"{}", b"Content-Encoding: br"),
    "zstd": _answers(b"{}", b"Content-Encoding: zstd"),
    "gzip twice": _answers(gzip.compress(BOMB), b"Content-Encoding: gzip, gzip"),
    "an encoding that nobody knows": _answers(b"{}", b"Content-Encoding: x" + b"y" * 4000),
}
"""Answers that are encoded, though nobody asked for that."""

_LONG = 40_000


def _text(text: str, status: str) -> Behaviour:
    return _answers(text.encode(), b"Content-Type: text/html", status=status.encode())


PATHOLOGICAL: dict[str, str] = {
    "question marks": "a?" * (_LONG // 2),
    "queries": "x?a" * (_LONG // 3),
    "schemes": "http://" * (_LONG // 7),
    "users": "http://a:" * (_LONG // 9),
    "tags": "<" * _LONG,
    "scripts": "<script" * (_LONG // 7),
    "closed nothing": "<style>" * (_LONG // 7),
    "entities": "&#" * (_LONG // 2),
    "spaces": " " * _LONG + "x",
    "base64": ";base64," * (_LONG // 8),
    "letters": "A" * _LONG,
    "commas": '{"message": "' + ":@//" * (_LONG // 4) + '"}',
    "brackets": "[" * _LONG,
    "braces": '{"message":' * (_LONG // 11),
    "backslashes": "http:\\\\/" * (_LONG // 8),
    "control characters": "\x00\x1b[31m\r\n\u202e" * (_LONG // 9),
}
"""Texts of 40 kB that make a careless pattern take long."""

REFUSALS: dict[str, Behaviour] = {
    f"{name}, {status}": _text(text, status)
    for name, text in PATHOLOGICAL.items()
    for status in ("403 Forbidden", "500 Oh")
}

REDIRECTS: dict[str, Behaviour] = {
    f"redirect to {location[:30]}": _answers(b"", b"Location: " + location.encode(), status=b"302 Found")
    for location in (
        "http://127.0.0.1:9/",
        "http://example.com/",
        "https://127.0.0.1:9/",
        "/again",
        "//",
        "http://[x",
        "http://user:secret@example.com/?a=b",
        "file:///etc/passwd",
        "x" * 8000,
    )
}

EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"


def hinting(status: int = 200, body: object = None) -> Behaviour:
    """An answer in order, after hints of the kind that a CDN in front of an API may send."""
    encoded = STANDING if body is None else json.dumps(body).encode()

    def behave(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n" + EARLY_HINTS)
        connection.answer(encoded, status=b"%d X" % status)

    return behave


SCENARIOS: dict[str, Behaviour] = {**NEVER_ENDING, **BROKEN, **ENCODED, **REFUSALS, **REDIRECTS}

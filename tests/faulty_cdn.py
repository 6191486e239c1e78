"""A video server for tests: a real HTTP server on loopback that fails as it is told to."""

from __future__ import annotations

import fcntl
import hashlib
import re
import socket
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from airflow_provider_kling.api.generation import Generation, GenerationStatus


@dataclass
class Fault:
    """What one answer does wrong.

    :param status: answer with this status and a short body.
    :param headers: added to the answer, or replacing its own; None takes one away.
    :param body: sent instead of what was asked for, with the length of what was asked for.
    :param reset_at: reset the connection after so many bytes of the body.
    :param close_at: close it in order, just as early.
    :param ignore_range: answer a range request with the whole.
    """

    status: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    reset_at: int | None = None
    close_at: int | None = None
    ignore_range: bool = False


@dataclass
class Cdn:
    """One video, and the faults of the answers to come."""

    content: bytes
    etag: str | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault | None = None
    requests: list[dict[str, str]] = field(default_factory=list)
    sent: int = 0
    url: str = ""
    urls_given: int = 0
    stated_size: int | None = None

    def __post_init__(self) -> None:
        self.etag = self.etag or f'"{hashlib.sha1(self.content).hexdigest()}"'

    def completed(self) -> Generation:
        self.urls_given += 1
        url = f"{self.url}/video.mp4?ksSecret=hush{self.urls_given}"
        return Generation("id", GenerationStatus.COMPLETED, "completed", url, video_size=self.stated_size)

    @property
    def ranges(self) -> list[str | None]:
        return [request.get("range") for request in self.requests]


@contextmanager
def serving(cdn: Cdn) -> Iterator[Cdn]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _answer(self, cdn)

        def log_message(self, *args: Any) -> None:
            """Tests need no access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    cdn.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield cdn
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(handler: BaseHTTPRequestHandler, cdn: Cdn) -> None:
    asked = {name.lower(): value for name, value in handler.headers.items()}
    cdn.requests.append({**asked, "path": handler.path})
    fault = cdn.faults.popleft() if cdn.faults else (cdn.always or Fault())
    if fault.status is not None:
        headers: dict[str, str | None] = {"Content-Length": "5", **fault.headers}
        _send(handler, fault.status, headers, b"sorry", fault)
        return
    body, status = cdn.content, 200
    headers = {"ETag": cdn.etag, "Content-Type": "video/mp4", **cdn.headers}
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.get("range", ""))
    current = asked.get("if-range") in (None, cdn.etag)
    if span and current and not fault.ignore_range:
        first = int(span[1])
        last = min(int(span[2] or len(body)), len(body) - 1)
        if first >= len(body):
            headers |= {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"}
            _send(handler, 416, headers, b"", fault)
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
        body, status = body[first : last + 1], 206
    headers["Content-Length"] = str(len(body))
    cdn.sent += _send(handler, status, {**headers, **fault.headers}, body, fault)


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: dict[str, str | None],
    body: bytes,
    fault: Fault,
) -> int:
    body = body if fault.body is None else fault.body
    handler.send_response(status)
    for name, value in headers.items():
        if value is not None:
            handler.send_header(name, value)
    handler.close_connection = True
    handler.send_header("Connection", "close")
    handler.end_headers()
    cut = fault.reset_at if fault.reset_at is not None else fault.close_at
    sent = body if cut is None else body[:cut]
    try:
        handler.wfile.write(sent)
        handler.wfile.flush()
    except OSError:  # the client has seen enough
        return 0
    if fault.reset_at is not None:
        _wait_until_acknowledged(handler.connection)  # a reset drops what is still to be sent
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
    return len(sent)


def _wait_until_acknowledged(connection: socket.socket) -> None:
    for _ in range(2000):
        if fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)) == bytes(4):
            return
        time.sleep(0.001)

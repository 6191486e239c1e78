"""An S3-compatible server for tests: moto's, on loopback, which fails in mid-upload as it is told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Environ = dict[str, Any]


@dataclass(frozen=True)
class UploadFault:
    """What an upload in several parts meets, each time it comes so far.

    :param part: at this part; None at the end, where the parts are to be put together.
    :param status: answered with an error in S3's form; None loses the connection.
    :param code: the error's name.
    :param message: what it says.
    :param methods: these requests fail instead: ``("GET", "HEAD")`` is a right to write alone.
    """

    part: int | None
    status: int | None
    code: str = "InternalError"
    message: str = "We encountered an internal error. Please try again."
    methods: tuple[str, ...] = ()

    def meets(self, environ: Environ) -> bool:
        """Whether a request is the one that fails."""
        if self.methods:
            return environ["REQUEST_METHOD"] in self.methods
        asked = parse_qs(environ["QUERY_STRING"])
        if self.part is None:
            return environ["REQUEST_METHOD"] == "POST" and "uploadId" in asked
        return environ["REQUEST_METHOD"] == "PUT" and asked.get("partNumber") == [str(self.part)]


class _Quiet(WSGIRequestHandler):
    def log_request(self, *args: Any) -> None:
        """Tests need no access log."""


class FaultyS3:
    """The server.

    :param url: where it listens.
    :param fault: what uploads meet from now on; None for nothing.
    :param met: how often one did.
    """

    def __init__(self) -> None:
        self.fault: UploadFault | None = None
        self.met = 0
        self._storage = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        fault = self.fault
        if fault is None or not fault.meets(environ):
            answer: Iterable[bytes] = self._storage(environ, start_response)
            return answer
        self.met += 1
        if fault.status is None:
            environ["wsgi.input"].read(65_536)
            # Closed alone it stays open for the file that the request is read from, which then takes the rest
            # of the body for the next request.
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            environ["werkzeug.socket"].close()
            raise ConnectionResetError
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>".encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        start_response(f"{fault.status} Status", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


@contextmanager
def serving() -> Iterator[FaultyS3]:
    """Run a server."""
    s3 = FaultyS3()
    thread = threading.Thread(target=s3._server.serve_forever, daemon=True)
    thread.start()
    try:
        yield s3
    finally:
        s3._server.shutdown()
        s3._server.server_close()
        thread.join()

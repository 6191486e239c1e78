"""Addresses that fail a client before HTTP begins, and servers that stand for other hosts."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

UNKNOWN_NAME = "kling.invalid"
"""A host name that never resolves: the top-level domain is reserved for that."""


@contextmanager
def refusing() -> Iterator[str]:
    """``host:port`` where nobody listens, and nobody else can begin to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def deaf() -> Iterator[str]:
    """``host:port`` whose queue of connections is full, so that a new one gets no answer."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def accepting(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """``host:port`` that accepts connections and leaves each to ``answer``, in a thread of its own."""
    ended = threading.Event()

    def quietly(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client has seen enough
            answer(connection)

    def serve() -> None:
        while not ended.is_set():
            if not select.select([listener], [], [], 0.02)[0]:
                continue
            connection = listener.accept()[0]
            open_ones.append(connection)
            threading.Thread(target=quietly, args=(connection,), daemon=True).start()

    open_ones: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()
            for connection in open_ones:
                connection.close()


def say_nothing(connection: socket.socket) -> None:
    """Keep a connection open, without a word."""


def reset(connection: socket.socket) -> None:
    """Break a connection with a TCP RST as soon as something comes."""
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang_up(connection: socket.socket) -> None:
    """Close a connection in order as soon as something comes."""
    connection.recv(1)
    connection.shutdown(socket.SHUT_RDWR)


@dataclass
class Host:
    """A server under another address, which notes what it is asked.

    :param requests: method, path and headers of each, with names in lower case.
    """

    address: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    @property
    def saw_a_key(self) -> bool:
        """Whether any request carried credentials, or spoke of them."""
        return any("authorization" in headers or "Bearer" in str(headers) for _, _, headers in self.requests)


@contextmanager
def other_host() -> Iterator[Host]:
    """A second host, for redirects to point to."""
    host = Host()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            host.requests.append((self.command, self.path, headers))
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET

        def log_message(self, *args: Any) -> None:
            """Tests need no access log."""

    with _serving(Handler) as host.address:
        yield host


@dataclass
class Proxy:
    """An HTTP proxy that takes every host name to one address.

    :param to: ``host:port`` it connects to, whatever it is asked for.
    :param status: what it answers a CONNECT with.
    :param asked: method and target of each request.
    :param credentials: the Proxy-Authorization headers that came.
    :param keys: the Authorization headers that it could read.
    """

    to: str
    status: int = 200
    address: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def proxy(to: str, status: int = 200) -> Iterator[Proxy]:
    """A proxy in front of one server; tunnels with CONNECT, forwards plain http."""
    known = Proxy(to, status)

    class Handler(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self._note()
            if known.status != 200:
                self.send_error(known.status)
                return
            with socket.create_connection(_pair(known.to)) as there:
                self.send_response(200)
                self.end_headers()
                _pump(self.connection, there)
            self.close_connection = True

        def do_GET(self) -> None:
            self._note()
            target = urlsplit(self.path)
            path = target.path + (f"?{target.query}" if target.query else "")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with socket.create_connection(_pair(known.to)) as there:
                lines = [f"{self.command} {path} HTTP/1.1"]
                lines += [
                    f"{name}: {value}" for name, value in self.headers.items() if name.lower() != "connection"
                ]
                lines += ["Connection: close", "", ""]
                there.sendall("\r\n".join(lines).encode("latin-1") + body)
                while data := there.recv(65536):
                    self.wfile.write(data)
            self.close_connection = True

        do_POST = do_GET

        def _note(self) -> None:
            known.asked.append((self.command, self.path))
            known.credentials.append(self.headers.get("Proxy-Authorization"))
            known.keys.append(self.headers.get("Authorization"))

        def log_message(self, *args: Any) -> None:
            """Tests need no access log."""

    with _serving(Handler) as known.address:
        yield known


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _pair(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@contextmanager
def encrypted(address: str, certificate: str) -> Iterator[str]:
    """``host:port`` that speaks TLS and carries what comes to a plain server, as an https proxy does.

    :param certificate: path of a PEM file with the key and the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def carry(source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                to.sendall(data)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)

    def answer(connection: socket.socket) -> None:
        with (
            context.wrap_socket(connection, server_side=True) as here,
            socket.create_connection(_pair(address)) as there,
        ):
            back = threading.Thread(target=carry, args=(there, here), daemon=True)
            back.start()
            carry(here, there)
            back.join()

    with accepting(answer) as listening:
        yield listening


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes between two sockets until either ends."""
    with contextlib.suppress(ConnectionError):
        while True:
            for source in select.select([one, other], [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                (other if source is one else one).sendall(data)


def self_signed(folder: Path, *names: str) -> Path:
    """A PEM file with a key and its own certificate, which no authority vouches for.

    :param names: host names and addresses that it is for.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a certificate of the tests")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return file


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

"""The server that all contenders poll: says "not yet" as fast as it can, and counts.

It runs in a process of its own, so that only the contender's CPU is measured. The emulator would
do more work for each poll than the contenders do.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import multiprocessing
import ssl
from ctypes import c_ulonglong
from pathlib import Path
from typing import Any

SPAWN = multiprocessing.get_context("spawn")

_HEAD = (
    "Date: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json; charset=utf-8\r\n"
    "Connection: keep-alive\r\nServer: cloudflare\r\nCF-Ray: 9a2b3c4d5e6f7a8b-FRA\r\n"
    "Vary: Accept-Encoding\r\nx-inference-id: vIvy_TKgZ0vwl7ZYG6Hy0\r\nx-aimlapi-credits-used: 0\r\n"
)


def _answer(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\n{_HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode()


_KLING = _answer(
    "200 OK", '{"id": "vIvy_TKgZ0vwl7ZYG6Hy0", "status": "generating", "video": null, "error": null}'
)
_DBT = _answer("200 OK", '{"data": {"id": 1, "status": 3, "is_complete": false}, "status": {"code": 200}}')
_NOT_THERE = _answer("404 Not Found", '{"message": "not yet"}')
_ROUTES = {b"/api/": _DBT, b"/sens": _NOT_THERE, b"/mode": _NOT_THERE}


class _Conversation(asyncio.Protocol):
    """One TCP connection; every request is answered at once."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._counts.connections.value += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            path = self._buffer.split(b" ", 2)[1]
            self._buffer = self._buffer[end + 4 :]
            answer = _ROUTES.get(path[:5], _KLING)
            if answer is not _NOT_THERE or path[:5] == b"/sens":
                self._counts.polls.value += 1
            self._transport.write(answer)


class Counts:
    """What the vendor has seen; shared between processes, written by one."""

    def __init__(self) -> None:
        self.polls: Any = SPAWN.Value(c_ulonglong, lock=False)
        self.connections: Any = SPAWN.Value(c_ulonglong, lock=False)


class Vendor:
    """The server process.

    :param folder: for the certificate.
    :param tls: speak https.
    """

    def __init__(self, folder: Path, *, tls: bool) -> None:
        self.counts = Counts()
        self.certificate = make_certificate(folder) if tls else None
        port = SPAWN.Value("i", lock=False)
        ready = SPAWN.Event()
        self._process = SPAWN.Process(
            target=_serve, args=(self.counts, self.certificate, port, ready), daemon=True
        )
        self._process.start()
        if not ready.wait(30):
            raise RuntimeError("the vendor did not start")
        self.port: int = port.value
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def _serve(counts: Counts, certificate: str | None, port: Any, ready: Any) -> None:
    async def main() -> None:
        context = None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
        server = await asyncio.get_running_loop().create_server(
            lambda: _Conversation(counts), "127.0.0.1", 0, ssl=context, backlog=4096
        )
        port.value = server.sockets[0].getsockname()[1]
        ready.set()
        await server.serve_forever()

    asyncio.run(main())


def make_certificate(folder: Path) -> str:
    """A certificate for 127.0.0.1 and its key, in one file; returns the path."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "vendor.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(path)

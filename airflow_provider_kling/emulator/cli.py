"""The command ``kling-emulator``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_kling.api.settings import is_loopback
from airflow_provider_kling.emulator.options import (
    DEFAULT_KEY,
    AnswerStyle,
    EmulatorOptions,
    ErrorShape,
    IdStyle,
    LogModels,
    LogRows,
)
from airflow_provider_kling.emulator.rendering.video import EncoderMissing, encoder
from airflow_provider_kling.emulator.server import EmulatorServer

_DEFAULT_PORT = 8765


def main(arguments: Sequence[str] | None = None) -> int:
    """Run an emulator until SIGINT or SIGTERM; returns the exit code."""
    parser = _parser()
    parsed = vars(parser.parse_args(arguments))
    port_file: Path | None = parsed.pop("port_file")
    parsed["keys"] = tuple(parsed["keys"] or (DEFAULT_KEY,))
    for name in ("faults", "statuses"):
        parsed[name] = tuple(parsed[name] or ())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        options = EmulatorOptions(**parsed)
        return asyncio.run(_run(options, port_file))
    except (ValueError, OSError) as error:
        print(f"kling-emulator: {error}", file=sys.stderr)
        return 2


async def _run(options: EmulatorOptions, port_file: Path | None) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows has no such handlers
            loop.add_signal_handler(number, stop.set)
    server = EmulatorServer(options)
    await server.start()
    try:
        if port_file is not None:
            _write_whole(port_file, {"url": server.url, "api_key": options.keys[0]})
        print(f"Kling emulator on {server.url} with API key {options.keys[0]} (Ctrl-C stops it)")
        print(
            f"export AIRFLOW_CONN_KLING_DEFAULT={shlex.quote(_connection(server.url, options))}", flush=True
        )
        if options.allow_remote and options.advertise is None and not is_loopback(options.host):
            print(
                "kling-emulator: containers and other machines reach it by another name; give that name with "
                "--advertise, for example --advertise host.docker.internal",
                file=sys.stderr,
            )
        try:
            encoder()
        except EncoderMissing as error:
            print(f"kling-emulator: {error}", file=sys.stderr, flush=True)
        await stop.wait()
    finally:
        await server.stop()
        if port_file is not None:
            port_file.unlink(missing_ok=True)
    return 0


def _connection(url: str, options: EmulatorOptions) -> str:
    """The Airflow connection to it, as JSON."""
    connection: dict[str, Any] = {"conn_type": "kling", "host": url, "password": options.keys[0]}
    parts = urlsplit(url)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        connection["extra"] = {"allow_plain_http": True}
    return json.dumps(connection)


def _write_whole(path: Path, content: dict[str, str]) -> None:
    """Write a file so that a reader sees all of it or none."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        json.dump(content, file)
    Path(name).replace(path)


def _parser() -> argparse.ArgumentParser:
    default = EmulatorOptions()
    parser = argparse.ArgumentParser(
        prog="kling-emulator",
        description="A local stand-in for the AI/ML API's Kling endpoints that renders real "
        "videos. Needs no key and costs nothing.",
    )
    add = parser.add_argument
    add("--host", default=default.host, help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=_DEFAULT_PORT, help="0 takes a free one (%(default)s)")
    add("--port-file", type=Path, metavar="PATH", help="write {url, api_key} to this file once it listens")
    add("--allow-remote", action="store_true", help="allow a --host that is not loopback, and any client")
    add(
        "--advertise",
        metavar="HOST[:PORT]",
        help="the name by which clients reach it, for the connection that is printed: "
        "--host 0.0.0.0 --allow-remote --advertise host.docker.internal",
    )
    add(
        "--cdn-host", metavar="HOST[:PORT]", help="host in video URLs (default: another name of this machine)"
    )
    add("--cdn-port", type=int, metavar="PORT", help="a separate port for the videos")
    add("--request-seconds", type=float, default=default.request_seconds, metavar="S")
    add(
        "--key",
        action="append",
        dest="keys",
        metavar="KEY",
        help="API key (%(default)s); repeat the option for several accounts",
    )
    add(
        "--balance", type=float, default=default.balance, help="balance of each account, in USD (%(default)s)"
    )
    add("--seed", type=int, help="makes ids and times the same in every run")
    add("--queued-seconds", type=float, default=default.queued_seconds, metavar="S")
    add("--generating-seconds", type=float, default=default.generating_seconds, metavar="S")
    add("--realistic", action="store_true", help="use each model's usual duration")
    add(
        "--spread", type=float, default=default.spread, help="log-normal sigma of the durations (%(default)s)"
    )
    add("--url-lifetime", type=float, default=default.url_lifetime, metavar="S")
    add("--submit-status", type=int, choices=(200, 201), default=default.submit_status)
    add("--answers", type=AnswerStyle, choices=list(AnswerStyle), default=default.answers)
    add(
        "--errors",
        type=ErrorShape,
        choices=list(ErrorShape),
        help="the shape of errors (default: as the vendor documents it for the model)",
    )
    add(
        "--status",
        action="append",
        dest="statuses",
        metavar="STATUS=WORD",
        help="another word for a documented status, for example completed=succeed",
    )
    add("--ids", type=IdStyle, choices=list(IdStyle), default=default.ids)
    add(
        "--unknown-models",
        action="store_true",
        help="accept models that this package does not know, unchecked",
    )
    add(
        "--concurrency",
        type=int,
        metavar="N",
        help="at most this many at most this many generations of an account at once",
    )
    add("--log-lag", type=float, default=default.log_lag, metavar="S")
    add(
        "--log-in-flight-after",
        type=lambda text: None if text == "never" else float(text),
        default=default.log_in_flight_after,
        metavar="S|never",
        help="when /v2/logs lists a generation still in flight (%(default)s)",
    )
    add("--log-rows", type=LogRows, choices=list(LogRows), default=default.log_rows)
    add("--log-models", type=LogModels, choices=list(LogModels), default=default.log_models)
    add("--charge-lag", type=float, default=default.charge_lag, metavar="S")
    add(
        "--offline-pictures",
        action="store_true",
        help="draw a placeholder for a picture URL that cannot be fetched",
    )
    add("--picture-timeout", type=float, default=default.picture_timeout, metavar="S")
    add("--video-bytes", type=int, metavar="N", help="pad videos to at least this size")
    add("--tls-certificate", metavar="PEM", help="speak https with this certificate")
    add("--tls-key", metavar="PEM")
    add(
        "--fault",
        action="append",
        dest="faults",
        metavar="RULE",
        help="for example poll:503:times=3 or submit:429:retry_after=2; see docs/emulator.md",
    )
    return parser

"""Running an emulator: in this event loop, or in a thread of a test's own process."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from aiohttp import web
from yarl import URL

from airflow_provider_kling.emulator.clock import Clock
from airflow_provider_kling.emulator.context import Emulated
from airflow_provider_kling.emulator.faults.rules import Faults
from airflow_provider_kling.emulator.journal import JournalEntry
from airflow_provider_kling.emulator.listener import Listener
from airflow_provider_kling.emulator.options import EmulatorOptions
from airflow_provider_kling.emulator.routes import cdn, control
from airflow_provider_kling.emulator.routes.app import build_app

T = TypeVar("T")

_SHUTDOWN_SECONDS = 0.5
_LAST_WORD_SECONDS = 0.05
_PORT = re.compile(r":[0-9]+$")
_KEEPALIVE_SECONDS = 75.0


class EmulatorServer:
    """An emulator in the running event loop.

    :param options: how it behaves; None for the defaults.
    """

    def __init__(self, options: EmulatorOptions | None = None) -> None:
        self.options = options or EmulatorOptions()
        self.clock = Clock(frozen=self.options.frozen_clock)
        self._folder: Path | None = None
        self._runner: web.AppRunner | None = None
        self._listeners: list[Listener] = []
        self._outages: set[asyncio.Task[None]] = set()
        self._emulated: Emulated | None = None
        self.url = ""

    @property
    def emulated(self) -> Emulated:
        """The vendor behind it; only between start and stop."""
        if self._emulated is None:
            raise RuntimeError("the emulator is not running")
        return self._emulated

    async def start(self) -> None:
        """Listen. Afterwards :attr:`url` is its address.

        :raises OSError: the port is taken.
        """
        options = self.options
        context = None
        if options.tls_certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(options.tls_certificate, options.tls_key)
        self._folder = Path(tempfile.mkdtemp(prefix="kling-emulator-"))
        try:
            self._emulated = Emulated(options, self.clock, self._folder)
            # A client that went away is noticed, so that a stalled answer does not wait for ever.
            self._runner = web.AppRunner(
                build_app(self._emulated),
                access_log=None,
                handler_cancellation=True,
                keepalive_timeout=_KEEPALIVE_SECONDS,
                shutdown_timeout=_SHUTDOWN_SECONDS,
            )
            await self._runner.setup()
            self._listeners = [self._listener(options.port, context)]
            if options.cdn_port is not None:
                self._listeners.append(self._listener(options.cdn_port, context))
            for listener in self._listeners:
                await listener.open()
        except BaseException:
            await self.stop()
            raise
        self._emulated.stop_listening = self.stop_listening
        main, *others = self._listeners
        self._emulated.cdn_port = others[0].port if others else None
        self.url = self._url("http" if context is None else "https", main)

    def _listener(self, port: int, context: ssl.SSLContext | None) -> Listener:
        if self._runner is None:
            raise RuntimeError("the emulator is not running")
        return Listener(
            self._runner,
            self.options.host,
            port,
            open_ones=self.emulated.open_connections,
            seconds=self.options.request_seconds,
            context=context,
        )

    def _url(self, scheme: str, listener: Listener) -> str:
        advertised = self.options.advertise
        if advertised is not None:
            return f"{scheme}://{advertised}" + ("" if _PORT.search(advertised) else f":{listener.port}")
        # Nobody can connect to "any address"; this machine can be reached by its loopback address.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.address, listener.address)  # noqa: S104
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{listener.port}"

    def stop_listening(self, seconds: float) -> None:
        """Refuse connections and break the open ones for so many seconds, as a vendor that is down.

        :param seconds: by the machine's clock, as the emulator's clock could not be advanced meanwhile.
        """

        async def outage() -> None:
            # The answer to who asked for it goes out first.
            await asyncio.sleep(_LAST_WORD_SECONDS)
            for listener in self._listeners:
                listener.close()
            await self.emulated.abort_connections()
            await asyncio.sleep(seconds)
            for listener in self._listeners:
                await listener.open()

        task = asyncio.get_running_loop().create_task(outage())
        self._outages.add(task)
        task.add_done_callback(self._outages.discard)

    async def stop(self) -> None:
        """Close all connections, stop background tasks, remove the files."""
        for outage in self._outages:
            outage.cancel()
        for listener in self._listeners:
            listener.close()
        if self._emulated is not None:
            await self._emulated.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._emulated is not None:
            await self._emulated.abort_connections()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class EmulatorThread:
    """An emulator in a thread of its own, for tests.

    ::

        with EmulatorThread(EmulatorOptions(frozen_clock=True)) as emulator:
            emulator.faults.add("poll", 503, times=3)
            ...
            emulator.clock.advance(60)

    :param options: how it behaves; None for the defaults.
    """

    def __init__(self, options: EmulatorOptions | None = None) -> None:
        self._server = EmulatorServer(options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Its base URL, for example ``http://127.0.0.1:41234``."""
        return self._server.url

    @property
    def cdn_url(self) -> str:
        """The base URL of its videos, for a client of :attr:`url`; ``http://localhost:41234/cdn``."""
        return cdn.origin(URL(self.url), self._server.emulated) + cdn.PREFIX.rstrip("/")

    @property
    def options(self) -> EmulatorOptions:
        """How it behaves."""
        return self._server.options

    @property
    def api_key(self) -> str:
        """The key of the first account."""
        return self._server.options.keys[0]

    @property
    def clock(self) -> Clock:
        """Its clock; ``advance`` moves it forward."""
        return self._server.clock

    @property
    def faults(self) -> Faults:
        """Its fault rules; ``add`` and ``clear`` take effect at once."""
        return self._server.emulated.faults

    @property
    def journal(self) -> list[JournalEntry]:
        """The requests so far, oldest first."""
        return self._server.emulated.journal.entries()

    @property
    def generations(self) -> list[dict[str, Any]]:
        """Every accepted generation, oldest first."""
        return self._on_loop(lambda: control.all_generations(self._server.emulated))

    @property
    def stats(self) -> dict[str, Any]:
        """Counts: ``accepted``, ``charges``, ``calls``, ``connections``, ``rendered``."""
        return self._on_loop(lambda: control.stats(self._server.emulated))

    def stop_listening(self, seconds: float) -> None:
        """Refuse connections and break the open ones for so many seconds of the machine's clock."""
        self._on_loop(lambda: self._server.stop_listening(seconds))

    def set_key(self, key: str, account_of: str | None = None, **facts: Any) -> None:
        """Add a key or change one.

        :param account_of: a key of the account that a new key belongs to.
        :param facts: ``management``, ``scopes``, ``limit_usd``, ``revoked``.
        """
        self._on_loop(lambda: self._server.emulated.state.set_key(key, account_of, **facts))

    def rotate_key(self, new: str, old: str | None = None) -> None:
        """Put a new key in place of an old one, which is refused from now on.

        :param old: None for the first account's key.
        """
        self._on_loop(lambda: self._server.emulated.state.rotate_key(old or self.api_key, new))

    def reset(self) -> None:
        """Reset: no generations, no rules, an empty journal, full balances."""
        self._on_loop(self._server.emulated.reset)

    def start(self) -> Self:
        """Run it; returns when it listens."""
        ready = threading.Event()
        failure: list[BaseException] = []

        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            try:
                await self._server.start()
            except BaseException as error:
                failure.append(error)
                raise
            finally:
                ready.set()
            await self._stop.wait()
            await self._server.stop()

        def main() -> None:
            try:
                asyncio.run(run())
            except BaseException as error:
                if error not in failure:
                    raise

        self._thread = threading.Thread(target=main, name="kling-emulator", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            self._thread.join()
            raise failure[0]
        return self

    def stop(self) -> None:
        """Stop it and wait for its thread; a second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _on_loop(self, work: Callable[[], T]) -> T:
        """Read the vendor's state in its own thread, so that nothing moves meanwhile."""

        async def call() -> T:
            return work()

        if self._loop is None or self._thread is None:
            raise RuntimeError("the emulator is not running")
        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

"""Where the fault matrix happens: a vendor, addresses that fail, another host."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from airflow_provider_kling.api.generation import Generation, GenerationRequest
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from airflow_provider_kling.emulator.faults.rules import FaultRule
from airflow_provider_kling.emulator.journal import CallKind
from tests.contract.addresses import UNKNOWN_NAME, deaf, other_host, refusing, self_signed
from tests.contract.drivers import Driver
from tests.contract.faults.table import Fault

KEY: Final = "sk-3f9a77c1e0b24d55-never-to-be-shown"
REQUEST: Final = GenerationRequest(
    "kling-video/v1.6/standard/text-to-video",
    {"prompt": "a lighthouse in the fog", "duration": 5, "aspect_ratio": "1:1"},
)
IMPATIENT: Final = 0.75
"""Seconds, the time-out where one is to run out; a busy machine must not run out of it elsewhere."""
PATIENT: Final = 20.0
"""Seconds, the time-out where none is."""

_TARGETS = {"download": "cdn"}


class World:
    """The vendor, addresses that fail, another host, and how to reach each with one client."""

    def __init__(self, connect: type[Driver], stack: ExitStack) -> None:
        self._connect = connect
        self._stack = stack
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.vendor = stack.enter_context(EmulatorThread(EmulatorOptions(frozen_clock=True, keys=(KEY,))))
        self.target = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        certificate = str(self_signed(folder, "127.0.0.1"))
        self.other = stack.enter_context(other_host())
        tls = stack.enter_context(EmulatorThread(EmulatorOptions(tls_certificate=certificate, keys=(KEY,))))
        self.nameless = f"https://{UNKNOWN_NAME}"
        self.refusing = f"https://{stack.enter_context(refusing())}"
        self.deaf = f"https://{stack.enter_context(deaf())}"
        self.untrusted = tls.url
        self.plain = self.vendor.url.replace("http:", "https:")

    def driver(self, url: str | None = None, *, slow: bool = False) -> Driver:
        """A client of the vendor, or of whoever is at ``url``."""
        patience = IMPATIENT if slow else PATIENT
        settings = Settings(KEY, url or self.vendor.url, connect_timeout=patience, read_timeout=patience)
        driver = self._connect(settings, self.vendor.clock)
        self._stack.callback(driver.close)
        return driver

    def failing(self, fault: Fault) -> Driver:
        """The client that meets the fault."""
        return self.driver(getattr(self, fault.address) if fault.address else None, slow=fault.slow)

    def begin(self, fault: Fault, call: str, lasting: bool) -> None:
        """Put the fault in force."""
        rule = fault.download if call == "download" and fault.download else fault.rule
        if rule is None:
            return
        text = f"{_TARGETS.get(call, call)}:{rule}:times={'always' if lasting else 1}"
        if rule == "redirect" and call != "download":
            text += f":url=http://{self.other.address}/elsewhere"
        self.vendor.faults.enforce(FaultRule.parse(text))

    def submitted(self, client_request_id: str | None = None) -> Generation:
        """A generation that was accepted without trouble."""
        driver = self.driver()
        return driver.run(driver.calls.submit(REQUEST, client_request_id))

    def arrived(self, call: str) -> tuple[int, int]:
        """How many requests for a call reached the vendor, and how many keys the CDN."""
        journal = self.vendor.journal
        target = _TARGETS.get(call, call)
        at_cdn = [entry for entry in journal if entry.call == CallKind.CDN]
        return sum(entry.call == target for entry in journal), sum(entry.authorization for entry in at_cdn)

    def files(self) -> int:
        """How many files are at the download's target; they are removed."""
        files = list(self.target.iterdir())
        for file in files:
            file.unlink()
        return len(files)

    def spent(self) -> tuple[int, int]:
        """How many generations were accepted, and how many are charged once all are done."""
        self.vendor.clock.advance(3600)
        generations = self.vendor.generations
        return len(generations), sum(each["charged"] for each in generations)

    def paid(self) -> tuple[int, int]:
        """How many generations were accepted, and how many charged once all are done."""
        self.vendor.clock.advance(3600)
        generations = self.vendor.generations
        return len(generations), sum(each["charged"] for each in generations)

    def requests(self, call: str) -> int:
        """How many requests for this call reached the vendor."""
        return sum(entry.call == call for entry in self.vendor.journal)

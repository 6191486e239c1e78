"""A local stand-in for the vendor's API that renders real videos.

Run it with ``kling-emulator``, or inside a test with :class:`EmulatorThread`. ``docs/emulator.md`` lists
what it does, and where it differs from the vendor.
"""

from __future__ import annotations

from airflow_provider_kling.emulator.options import (
    AnswerStyle,
    EmulatorOptions,
    ErrorShape,
    IdStyle,
    LogModels,
    LogRows,
)
from airflow_provider_kling.emulator.server import EmulatorServer, EmulatorThread

__all__ = [
    "AnswerStyle",
    "EmulatorOptions",
    "EmulatorServer",
    "EmulatorThread",
    "ErrorShape",
    "IdStyle",
    "LogModels",
    "LogRows",
]

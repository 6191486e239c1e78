"""Runs the decoder of pictures in a process of its own, whose memory and time are limited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

from airflow_provider_kling.api.media.picture import PictureError

_DECODER: Final = Path(__file__).with_name("image_decoder.py")
_MOST_SECONDS: Final = 120.0  # by the clock; the decoder limits its own CPU time


def decoded(job: str, file: BinaryIO, target: BinaryIO, most_bytes: int = 0) -> dict[str, Any]:
    """Have the decoder do a job.

    :param job: ``turn``, ``convert`` or ``is_complete``.
    :param file: of the operating system, as the next one; left anywhere.
    :param target: left at its end.
    :param most_bytes: that a converted picture may have.
    :return: what the decoder says of it.
    :raises PictureError: it does not decode, or not within the memory and time that are allowed.
    """
    file.flush()
    target.flush()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # wherever Pillow is
        "MALLOC_ARENA_MAX": "2",  # each further arena counts as 64 MiB of address space
    }
    try:
        done = subprocess.run(  # noqa: S603  # this interpreter, with a script of this package
            [sys.executable, "-P", str(_DECODER), job, str(most_bytes)],
            stdin=file,
            stdout=target,
            stderr=subprocess.PIPE,
            env=environment,
            timeout=_MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PictureError(f"could not be decoded within {_MOST_SECONDS:.0f} s") from None
    target.seek(0, os.SEEK_END)
    try:
        result: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    except (IndexError, ValueError):
        raise PictureError(
            "could not be decoded within the memory and time that are allowed "
            f"(the decoder ended with {done.returncode})"
        ) from None
    if "refused" in result:
        raise PictureError(result["refused"])
    return result

"""The fault matrix as a page of the docs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from airflow_provider_kling.api.exceptions import Money
from tests.contract.faults.matrix import Cell, Measured
from tests.contract.faults.table import CALLS, FAULTS

_INTRODUCTION: Final = """\
# What each fault does

Every fault against every call, from real runs of both clients (on `requests` and on `aiohttp`) against the
[emulator](emulator.md), local sockets and a local TLS server. Both clients gave the same outcome in every
row; downloads are made by the blocking one. `make test` runs all of it again and compares it with this page;
`python scripts/fault_matrix.py` writes the page.

In every run: no generation was paid twice; an error that says that no money was spent was right; the API key
was in no message and no log line, and never reached the CDN or a host that a redirect named.

*Lasting* is what the user sees of a fault that does not end, *once* of one that happens a single time (a
dash: not tested). Messages are shortened: *ID* and *host* stand for what they are, and the advice at their end
is left out. Back-off and `Retry-After` are kept, on the emulator's clock.
"""
_HEADINGS: Final = {
    "submit": """\
## Submit

A task's first attempt, with the default policy: `on_uncertain_submit="resubmit"`, and five minutes in which the
vendor's request log is searched for an uncertain submit before the next one. *Requests* counts the submits while
the fault lasts, *billed* what the vendor charged for them in the end. The message of a `SubmitUncertainError`
begins with *The submit to ... ended without a generation id.*""",
    "poll": """\
## Poll

A wait of three minutes that polls once a minute, for a generation that takes six seconds. Polls cost nothing:
in each row the generation was billed once. The message of a `GenerationTimeoutError` begins with *Timed
out waiting for generation ID*, and ends with how to wait for it again.""",
    "logs": """\
## Request logs

A retry after a worker was killed between its submit and the answer: the log is searched for its generation before
anything is paid. In each row it was submitted once and billed once. The message of the
`SubmitUncertainError` begins with *The vendor's request log could not be searched for an earlier submit.*""",
    "download": """\
## Download

A finished video, to a local file. Downloads cost nothing, and none left a file, complete or incomplete, when it
failed. *Accepted* means here that the fault happens within the video, not before it. *Requests* counts how often the
video's URL was opened.""",
}
_PREFACES: Final = re.compile(
    r"The submit to \S+ ended without a generation id\. "
    r"|The vendor's request log could not be searched for an earlier submit\. "
    r"|Timed out waiting for generation \S+; "
)
_BILLED: Final = {
    (0, None): "nothing",
    (0, Money.NOT_SPENT): "nothing",
    (0, Money.MAY_BE_SPENT): "nothing, which the client cannot know",
    (1, None): "once",
}


def render(measured: Mapping[str, Measured]) -> str:
    """The matrix as a page in Markdown, from the columns by call."""
    page = [_INTRODUCTION]
    for call in CALLS:
        columns = ["fault", "once", "lasting", "requests", *(["billed"] if call == "submit" else [])]
        page += [_HEADINGS[call], "", _row(columns), _row(["---"] * len(columns))]
        for fault in FAULTS:
            page.append(_row([fault.name, *_told(measured[call].cells[fault.name])][: len(columns)]))
        page.append("")
    return "\n".join(page)


def _told(cell: Cell | str) -> list[str]:
    if isinstance(cell, str):
        return ["", f"not applicable: {cell}", "", ""]
    lasting, once = cell.lasting, cell.once
    alone = "-" if once is None else "the same" if once.sees == lasting.sees else _short(once.sees)
    return [alone, _short(lasting.sees), str(lasting.asked), _BILLED.get((lasting.paid, lasting.money), "")]


def _short(text: str) -> str:
    return _PREFACES.sub("… ", text).replace("|", "\\|").replace("<", "&lt;")


def _row(fields: Sequence[str]) -> str:
    return f"| {' | '.join(fields)} |"

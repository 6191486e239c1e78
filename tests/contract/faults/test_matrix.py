"""The fault matrix: what must hold in every cell, and that docs/faults.md tells what comes of it.

``fault_table.py`` has the faults, ``fault_matrix.py`` what is done with each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_kling.api.exceptions import Money, Recovery
from tests.contract.drivers import Async, Blocking, Driver
from tests.contract.faults.matrix import Cell, Measured, Run, measure
from tests.contract.faults.page import render
from tests.contract.faults.table import CALLS, FAULTS
from tests.contract.faults.world import KEY

PAGE = Path(__file__).resolve().parents[3] / "docs" / "faults.md"

HOPELESS = {
    "certificate not trusted",
    "no TLS at the port",
    "400",
    "401",
    "403",
    "403, out of credits",
    "404",
}
"""What no repetition mends: submits and log look-ups are not repeated, a wait believes it after
three times in a row, over a minute at least. (To the CDN, a refusal means that the URL expired, and a fresh one is tried.)"""

LEFT_TO_THE_TASK = {"redirect to another host"}
"""A gateway's answer to a submit that nothing mends within the call; the task's retries may."""

UNCERTAIN_AND_NOT_ACCEPTED = {
    "read time-out, not accepted",
    "connection reset, not accepted",
    "500",
    "502",
    "504, not accepted",
    "HTML of a gateway (502)",
}
"""Submits of which nobody can know: submitted anew, but only after the logs were searched in vain."""


@pytest.fixture(scope="module")
def columns() -> dict[tuple[type[Driver], str], Measured]:
    return measure()


def cells(columns: dict[tuple[type[Driver], str], Measured], call: str) -> Iterator[tuple[str, str, Cell]]:
    """Client, fault and cell of each one that makes sense."""
    for (driver, its_call), measured in columns.items():
        if its_call == call:
            for name, cell in measured.cells.items():
                if isinstance(cell, Cell):
                    yield driver.name, name, cell


def runs(columns: dict[tuple[type[Driver], str], Measured]) -> Iterator[tuple[str, Run]]:
    for call in CALLS:
        for driver, fault, cell in cells(columns, call):
            yield f"{driver}, {call}, {fault}, lasting", cell.lasting
            if cell.once is not None:
                yield f"{driver}, {call}, {fault}, once", cell.once


def test_every_fault_met_every_call_that_it_makes_sense_for(columns):
    for (driver, call), measured in columns.items():
        assert list(measured.cells) == [fault.name for fault in FAULTS], (driver, call)
    rules = {fault.name for fault in FAULTS if fault.rule}
    for call in CALLS:
        for driver, fault, cell in cells(columns, call):
            if fault in rules:
                assert cell.lasting.struck >= 1, (driver, call, fault)
                assert cell.once is not None
                assert cell.once.struck == 1, (driver, call, fault)


@pytest.mark.parametrize("call", ["submit", "poll", "logs"])
def test_both_clients_come_to_the_same(columns, call: str):
    def said(run: Run | None) -> tuple[object, ...] | None:
        return run and (run.sees, run.accepted, run.paid, run.money, run.recovery)

    for fault, blocking in columns[Blocking, call].cells.items():
        other = columns[Async, call].cells[fault]
        if isinstance(blocking, str):
            assert other == blocking
            continue
        assert said(other.lasting) == said(blocking.lasting), fault
        assert said(other.once) == said(blocking.once), fault
        assert other.lasting.asked == blocking.lasting.asked, fault


def test_nothing_is_paid_twice(columns):
    for name, run in runs(columns):
        assert run.accepted <= 1, name
        assert run.paid == run.accepted, name


def test_a_generation_is_had_whenever_a_fault_passes_that_can_pass(columns):
    for driver, fault, cell in cells(columns, "submit"):
        if cell.once is not None and fault not in HOPELESS | LEFT_TO_THE_TASK:
            assert cell.once.sees.startswith("the generation"), (driver, fault)
            assert cell.once.paid == 1


def test_a_generation_that_was_accepted_is_never_lost(columns):
    for driver, fault, cell in cells(columns, "submit"):
        if cell.lasting.accepted:
            assert cell.lasting.sees.startswith("the generation"), (driver, fault)


def test_what_an_error_says_of_money_is_right(columns):
    for driver, fault, cell in cells(columns, "submit"):
        for run in (cell.lasting, cell.once):
            if run is None or run.money is None:
                continue
            certain = fault not in UNCERTAIN_AND_NOT_ACCEPTED
            assert run.money is (Money.NOT_SPENT if certain else Money.MAY_BE_SPENT), (driver, fault)
            assert run.paid == 0, (driver, fault)
    for name, run in runs(columns):
        if run.money is Money.NOT_SPENT:
            assert run.accepted == 0, name


def test_submits_are_repeated_only_where_they_may_be(columns):
    for driver, fault, cell in cells(columns, "submit"):
        if fault in HOPELESS | LEFT_TO_THE_TASK or cell.lasting.accepted:
            assert cell.lasting.asked == 1, (driver, fault)
        elif fault in UNCERTAIN_AND_NOT_ACCEPTED:
            assert cell.lasting.asked == 3, (driver, fault)
        else:
            assert cell.lasting.asked == 4, (driver, fault)


def test_free_calls_are_repeated_while_that_can_help(columns):
    for call, when_hopeless in (("poll", 3), ("logs", 1)):
        for driver, fault, cell in cells(columns, call):
            if cell.lasting.sees.startswith("the "):
                continue
            assert (cell.lasting.asked == when_hopeless) == (fault in HOPELESS), (driver, call, fault)
            assert (cell.lasting.recovery is Recovery.GIVE_UP) == (fault in HOPELESS), (driver, call, fault)


def test_no_request_is_made_behind_the_back_of_the_flows(columns):
    """But one: aiohttp itself repeats a GET once, should its connection break."""
    for (driver, call), measured in columns.items():
        for fault, cell in measured.cells.items():
            if isinstance(cell, str) or cell.lasting.arrived == 0:
                continue
            broken = fault.startswith("connection reset")
            if call == "download":
                redirects = 6 if fault.startswith("redirect") else 1
                assert cell.lasting.arrived == cell.lasting.asked * redirects, fault
            elif driver is Async and call != "submit" and broken:
                assert cell.lasting.asked < cell.lasting.arrived <= 2 * cell.lasting.asked
            else:
                assert cell.lasting.arrived == cell.lasting.asked, (driver, call, fault)


def test_a_download_that_failed_leaves_no_file(columns):
    for driver, fault, cell in cells(columns, "download"):
        for run in (cell.lasting, cell.once):
            if run is not None:
                assert run.files == (run.sees == "the video"), (driver, fault)


def test_the_key_is_in_no_message_and_no_log_line(columns):
    heard = [words for measured in columns.values() for words in measured.words]
    assert len(heard) > 500, "messages and log lines were taken down"
    assert not [words for words in heard if KEY in words or KEY[:12] in words]


def test_no_signature_is_in_a_message_or_a_log_line(columns):
    for measured in columns.values():
        assert not [words for words in measured.words if "ksSecret=" in words]


def test_the_key_goes_nowhere_else(columns):
    assert all(run.keys_at_cdn == 0 for _, run in runs(columns))
    assert all(measured.strayed == [] for measured in columns.values()), "no redirect is followed"


def test_the_page_of_the_docs_tells_what_happens(columns):
    page = render({call: columns[Blocking, call] for call in CALLS})
    assert PAGE.read_text() == page, "run: python scripts/fault_matrix.py"

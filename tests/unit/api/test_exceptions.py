"""Errors keep their facts, wherever they travel."""

from __future__ import annotations

import copy
import pickle

import pytest

from airflow_provider_kling.api import exceptions
from airflow_provider_kling.api.exceptions import (
    ApiError,
    ConnectionLostError,
    GenerationFailedError,
    KlingError,
    Money,
    Recovery,
)

KINDS = [
    kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, KlingError)
]


def made(kind: type[KlingError]) -> KlingError:
    facts = {
        "money": Money.ALREADY_PAID,
        "advice": "Do this.",
        "recovery": Recovery.RETRY_TASK,
        "generation_id": "g1",
        "client_request_id": "airflow:dag:task:0:1",
    }
    if issubclass(kind, ApiError):
        facts |= {
            "status": 503,
            "message": "busy",
            "request_id": "r1",
            "retry_after": 3.0,
            "from_vendor": True,
        }
    if issubclass(kind, ConnectionLostError):
        facts |= {"maybe_sent": True}
    if issubclass(kind, GenerationFailedError):
        facts |= {"name": "Moderation", "message": "no"}
    return kind("What happened.", **facts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "travel", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
)
def test_an_error_arrives_as_it_was(kind: type[KlingError], travel):
    error = made(kind)
    arrived = travel(error)
    assert type(arrived) is kind
    assert vars(arrived) == vars(error)
    assert (
        str(arrived)
        == str(error)
        == "What happened. The generation is already paid for; a retry costs nothing more. Do this."
    )


@pytest.mark.parametrize("kind", KINDS)
def test_who_knows_more_of_the_money_says_so_on_a_copy(kind: type[KlingError]):
    error = made(kind)
    try:
        try:
            raise OSError("reset")
        except OSError as cause:
            raise error from cause
    except KlingError as raised:
        other = raised.with_money(Money.NOT_SPENT)
    assert (other.money, error.money) == (Money.NOT_SPENT, Money.ALREADY_PAID)
    assert isinstance(other.__cause__, OSError)
    assert vars(other) == {**vars(error), "money": Money.NOT_SPENT}


def test_a_text_that_is_whole_is_said_as_it_is():
    assert str(KlingError("All of it.", advice="More.", is_whole=True)) == "All of it."

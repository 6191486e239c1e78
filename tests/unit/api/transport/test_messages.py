from __future__ import annotations

import pytest

from airflow_provider_kling.api.transport.messages import (
    Call,
    ConnectionLost,
    FailureReason,
    HttpRequest,
    HttpResponse,
    Send,
    forget,
)
from tests.unit.api.driving import KEY

REACHED_PERHAPS = {FailureReason.READ_TIMEOUT, FailureReason.SLOW, FailureReason.BROKEN}
STAYS_THE_SAME = {
    FailureReason.CERTIFICATE,
    FailureReason.TLS,
    FailureReason.UNSENDABLE,
    FailureReason.PROXY_UNUSABLE,
    FailureReason.FORBIDDEN_ADDRESS,
}


@pytest.mark.parametrize("why", FailureReason)
def test_what_each_silence_says_about_having_been_sent(why: FailureReason):
    assert why.maybe_sent is (why in REACHED_PERHAPS)


@pytest.mark.parametrize("why", FailureReason)
def test_which_silence_may_pass(why: FailureReason):
    assert why.passing is (why not in STAYS_THE_SAME)


@pytest.mark.parametrize("why", FailureReason)
def test_a_silence_is_a_sentence_of_its_own_and_names_the_host(why: FailureReason):
    reason = ConnectionLost(why, "api.example.com:8443").reason
    assert reason == f"{why.sentence} (api.example.com:8443)"
    assert [each for each in FailureReason if each.sentence == why.sentence] == [why]


def test_neither_headers_nor_bodies_show():
    request = HttpRequest(Call.SUBMIT, "POST", "https://x", (), {"Authorization": KEY}, b"picture")
    response = HttpResponse(200, {"set-cookie": "secret"}, b"https://cdn/v.mp4?ksSecret=1")
    shown = repr(Send(request)) + repr(response)
    for hidden in (KEY, "picture", "secret", "ksSecret"):
        assert hidden not in shown


def test_to_forget_is_to_do_nothing_with_the_record():
    record = {"a": 1}
    assert forget(record) is None
    assert record == {"a": 1}

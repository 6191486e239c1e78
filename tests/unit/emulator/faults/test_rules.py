from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.emulator.faults.rules import FaultKind, FaultRule, Faults
from airflow_provider_kling.emulator.journal import CallKind


def test_the_text_form_is_read():
    rule = FaultRule.parse("poll:503:times=3:after=2:retry_after=date:5")
    assert (rule.call, rule.kind, rule.times, rule.after) == ("poll", FaultKind.S503, 3, 2)
    assert rule.retry_after == "date:5"


def test_a_url_can_be_an_option_and_a_byte_can_follow_the_kind():
    rule = FaultRule.parse("submit:redirect:url=http://127.0.0.1:9/x:times=always")
    assert (rule.url, rule.times) == ("http://127.0.0.1:9/x", None)
    assert FaultRule.parse("cdn:reset-at=4096").at == 4096


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("503", "call:kind"),
        ("pol:503", "is none of"),
        ("poll:5O3", "is none of"),
        ("poll:503:tims=3", "option 'tims' is none of"),
        ("poll:503:times=few", "times is an integer, got 'few'"),
        ("poll:503:times=0", "at least 1"),
        ("poll:503:accepted=maybe", "accepted is true or false"),
        ("poll:503:probability=2", "0 to 1"),
        ("poll:429:retry_after=soon", "retry_after"),
        ("poll:expired", "for the call 'cdn'"),
        ("cdn:missing-id", "not for the call 'cdn'"),
        ("control:503", "is none of"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(text: str, says: str):
    with pytest.raises(ValueError, match=says):
        FaultRule.parse(text)


def test_a_rule_strikes_after_some_and_so_often():
    faults = Faults()
    faults.add("poll", 503, after=2, times=3)
    struck = [faults.strike(CallKind.POLL, "x") is not None for _ in range(7)]
    assert struck == [False, False, True, True, True, False, False]


def test_a_rule_keeps_to_its_call_and_its_generation():
    faults = Faults()
    faults.add("poll", 404, times=None, generation_id="mine")
    assert faults.strike(CallKind.SUBMIT, "mine") is None
    assert faults.strike(CallKind.POLL, "other") is None
    rule = faults.strike(CallKind.POLL, "mine")
    assert rule is not None
    assert rule.hits == 1


def test_any_is_every_call_and_the_first_rule_wins():
    faults = Faults()
    faults.add("any", 500)
    faults.add("poll", 429)
    kinds = [faults.strike(CallKind.POLL, None), faults.strike(CallKind.POLL, None)]
    assert [rule and rule.kind for rule in kinds] == [FaultKind.S500, FaultKind.S429]
    assert faults.strike(CallKind.POLL, None) is None


def test_cleared_rules_are_gone():
    faults = Faults()
    faults.add("any", 500, times=None)
    faults.clear()
    assert faults.strike(CallKind.POLL, None) is None
    assert faults.rules() == []


def test_a_probability_is_repeatable_and_about_right():
    def struck() -> list[bool]:
        rule = FaultRule.build("poll", "503", times=None, probability=0.3, seed=5)
        return [rule.strikes() for _ in range(1000)]

    assert struck() == struck()
    assert 230 < sum(struck()) < 370


@given(st.sampled_from(list(FaultKind)), st.sampled_from([*CallKind, "any"]), st.integers(1, 9))
def test_each_rule_that_is_accepted_survives_its_json_form(kind: FaultKind, call: str, times: int):
    try:
        rule = FaultRule.build(call, kind, times=times)
    except ValueError:
        return
    told = rule.as_dict()
    assert (told["call"], told["kind"], told["times"]) == (call, kind, times)
    options = {name: value for name, value in told.items() if name not in ("id", "seen", "hits", "until")}
    assert FaultRule.build(**options).as_dict() == told

from __future__ import annotations

import pytest

from airflow_provider_kling.emulator.faults.directives import (
    GenerationOutcome,
    caption,
    prompt_text,
    read_directives,
    submit_faults,
)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("a cat", GenerationOutcome.COMPLETE),
        ("a cat [emulator: moderation]", GenerationOutcome.MODERATION),
        ("[emulator:fail] a cat", GenerationOutcome.FAIL),
        ("a [emulator: stall ] cat", GenerationOutcome.STALL),
    ],
)
def test_the_outcome_is_read(text: str, outcome: GenerationOutcome):
    directives = read_directives({"prompt": text})
    assert directives.outcome is outcome
    assert directives.problems == ()


def test_several_directives_work_together():
    text = "x [emulator: slow=2.5][emulator: expired-url] [emulator: poll:503:times=2]"
    directives = read_directives({"prompt": text})
    assert directives.generating_seconds == 2.5
    assert directives.expired_url
    assert directives.faults == ("poll:503:times=2",)


def test_shots_of_a_multi_prompt_count_too():
    shots = [{"prompt": "one", "duration": 5}, {"prompt": "two [emulator: fail]"}]
    assert read_directives({"multi_prompt": shots}).outcome is GenerationOutcome.FAIL
    assert prompt_text({"multi_prompt": shots, "prompt": None}) == "one two [emulator: fail]"


@pytest.mark.parametrize("text", ["explode", "slow=fast", "slow=-1", "slow=inf", "poll:999"])
def test_an_unknown_directive_is_a_problem(text: str):
    (problem,) = read_directives({"prompt": f"[emulator: {text}]"}).problems
    assert repr(text) in problem


def test_the_caption_leaves_directives_out_and_is_never_empty():
    assert caption({"prompt": "a  cat [emulator: slow=3] runs"}) == "a cat runs"
    assert caption({"effect_scene": "hug"}) == "hug"
    assert caption({}) == "Kling emulator"


def test_only_rules_for_the_submit_are_taken_from_a_body():
    body = b'{"prompt": "[emulator: submit:429:times=2] [emulator: poll:503] [emulator: submit:?]"}'
    (rule,) = submit_faults(body)
    assert (rule.kind, rule.times) == ("429", 2)

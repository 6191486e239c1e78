from __future__ import annotations

import itertools
import re
from typing import Literal, NamedTuple

import pytest

from airflow_provider_kling.api.durable.attempt import AttemptKind
from airflow_provider_kling.api.durable.decision import (
    Decision,
    SubmitPolicy,
    decide,
    is_hopeless,
    usual_grace,
)
from airflow_provider_kling.api.durable.identity import fingerprint
from airflow_provider_kling.api.durable.record import Record
from airflow_provider_kling.api.generation import Failure, Generation, GenerationStatus

REQUEST = fingerprint({"model": "m", "prompt": "new"}, "account")
EARLIER = fingerprint({"model": "m", "prompt": "old", "seed": 1}, "account")


def record(request: str, generation_id: str | None) -> Record:
    asked = REQUEST if request == "same" else EARLIER
    return Record("w", "airflow:d:t:0:abc", "m", asked, generation_id=generation_id)


def stands(status: GenerationStatus, failure: Failure | None = None) -> Generation:
    return Generation("g1", status, str(status), failure=failure)


RECORDS = {
    "none": None,
    "intent": record("same", None),
    "intent, other": record("other", None),
    "id": record("same", "g1"),
    "id, other": record("other", "g1"),
}
STANDS: dict[str, Generation | Literal["not found"] | None] = {
    "not asked": None,
    "404": "not found",
    "queued": stands(GenerationStatus.QUEUED),
    "generating": stands(GenerationStatus.GENERATING),
    "unknown": stands(GenerationStatus.UNKNOWN),
    "completed": stands(GenerationStatus.COMPLETED),
    "error": stands(GenerationStatus.ERROR, Failure("GenerationError", "The model failed.")),
    "moderation": stands(GenerationStatus.ERROR, Failure("ModerationError", "No faces.")),
}
LOOKED = {"no": False, "in vain": True}
ATTEMPTS: dict[str, AttemptKind] = {"first": "first", "retry": "retry", "clear": "clear"}
CHANGED = ("submit", "fail")
UNCERTAIN = ("resubmit", "fail")
CLEARED = ("reuse", "regenerate")
COMPLETE = {"yes": True, "no": False}
KEYS = {"same": False, "changed": True}


class Case(NamedTuple):
    record: str
    stands: str
    looked: str
    attempt: str
    changed: str
    uncertain: str
    clear: str
    complete: str
    key: str


CASES = [
    Case(*values)
    for values in itertools.product(
        RECORDS, STANDS, LOOKED, ATTEMPTS, CHANGED, UNCERTAIN, CLEARED, COMPLETE, KEYS
    )
]

# What is expected: the first line that fits. "-" is anything, "|" separates alternatives, "!" is
# anything but. The last column: "anew" where a submit comes after an earlier one.

TABLE = """
record         stands      looked   attempt  changed uncertain  clear       complete   key      action     anew
# Nothing is remembered.
none           -           -        -        -       -          -           yes        -        SUBMIT
none           -           no       -        -       -          -           no         -        SEARCH
none           -           in-vain  -        -       resubmit   -           no         -        SUBMIT     anew
none           -           in-vain  -        -       fail       -           no         -        STOP
# A submit whose outcome is not known, whatever it asked for.
intent*        -           no       -        -       -          -           -          -        SEARCH
intent*        -           in-vain  -        -       -          -           -          changed  STOP
intent*        -           in-vain  -        -       resubmit   -           -          -        SUBMIT     anew
intent*        -           in-vain  -        -       fail       -           -          -        STOP
# A generation of another request, however it stands: a person cleared the task.
id,-other      -           -        clear    submit  -          -           -          -        SUBMIT     anew
id,-other      -           -        clear    fail    -          -           -          -        STOP
# The same in an automatic retry: nobody chose to pay again.
id,-other      completed   -        -        -       -          -           -          -        USE
id,-other      error       -        -        -       -          -           -          -        SUBMIT     anew
id,-other      moderation  -        -        -       -          -           -          -        SUBMIT     anew
# A generation of this request.
id*            not-asked   -        -        -       -          -           -          -        ASK
id*            404         -        -        -       -          -           -          -        STOP
id*            queued      -        -        -       -          -           -          -        REATTACH
id*            generating  -        -        -       -          -           -          -        REATTACH
id*            unknown     -        -        -       -          -           -          -        REATTACH
# One after which a later try can have submitted anew, and nothing would be remembered of it.
id             error       no       -        -       -          -           no         -        SEARCH
id             moderation  no       -        -       -          -           no         -        SEARCH
id             completed   no       -        -       -          regenerate  no         -        SEARCH
# One that is final.
id             completed   -        clear    -       -          regenerate  -          -        SUBMIT     anew
id             completed   -        -        -       -          -           -          -        USE
id             error       -        -        -       -          -           -          -        SUBMIT     anew
id             moderation  -        clear    -       -          -           -          -        SUBMIT     anew
id             moderation  -        !clear   -       -          -           -          -        STOP
"""
LINES = [line.split() for line in TABLE.strip().splitlines() if not line.startswith("#")]
HEADINGS, ROWS = LINES[0], LINES[1:]


def fits(row: list[str], case: Case) -> bool:
    def one(pattern: str, value: str) -> bool:
        value = value.replace(" ", "-")
        if pattern.startswith("!"):
            return value != pattern[1:]
        if pattern.endswith("*"):
            return value.startswith(pattern[:-1])
        return pattern in ("-", value)

    return all(one(pattern, value) for pattern, value in zip(row, case, strict=False))


def expected(case: Case) -> list[str]:
    return next(row for row in ROWS if fits(row, case))


def decided(case: Case) -> Decision:
    policy = SubmitPolicy(
        on_changed_request=case.changed,  # type: ignore[arg-type]  # one of the two literals
        on_uncertain_submit=case.uncertain,  # type: ignore[arg-type]
        on_clear=case.clear,  # type: ignore[arg-type]
    )
    return decide(
        RECORDS[case.record],
        REQUEST,
        ATTEMPTS[case.attempt],
        policy,
        complete=COMPLETE[case.complete],
        stands=STANDS[case.stands],
        not_in_logs=LOOKED[case.looked],
        key_changed=KEYS[case.key],
    )


def test_the_table_is_about_every_combination_and_no_line_is_idle():
    assert HEADINGS[: len(Case._fields)] == list(Case._fields)
    assert len(CASES) == 5 * 8 * 2 * 3 * 8 * 2 * 2
    used = {id(expected(case)) for case in CASES}
    assert [row for row in ROWS if id(row) not in used] == []


def test_every_combination_is_decided_as_the_table_says():
    wrong = []
    for case in CASES:
        action, *anew = expected(case)[len(Case._fields) :]
        decision = decided(case)
        if (decision.action.upper(), decision.is_resubmit) != (action, anew == ["anew"]):
            wrong.append((case, decision.action.upper(), decision.is_resubmit, "expected", action, anew))
    assert wrong == []


MONEY = re.compile(r"bill|pay|paid|charge|cost|submitted", re.IGNORECASE)
NEXT = re.compile(r"Check|Look|clear the task|KlingGenerationSensor|durable=False")


def test_every_reason_says_what_it_means_for_money():
    for reason in {decided(case).reason for case in CASES}:
        assert MONEY.search(reason), reason
        assert reason.endswith("."), reason
        assert "  " not in reason


def test_every_reason_names_what_it_is_about():
    for case in CASES:
        about = {"none": "request log|First attempt|nothing was submitted", "intent": "airflow:d:t:0:abc"}
        assert re.search(about.get(case.record.partition(",")[0], "g1"), decided(case).reason), case


def test_no_record_of_the_first_attempt_is_not_that_of_previous_ones():
    case = CASES[0]._replace(record="none", complete="yes")
    assert decided(case._replace(attempt="first")).reason.startswith("First attempt of this task instance")
    assert decided(case._replace(attempt="retry")).reason.startswith("The record of the previous attempts")


@pytest.mark.parametrize(("raw", "said"), [("rendering", "rendering"), ("", "working")])
@pytest.mark.parametrize("asked", ["id", "id, other"])
def test_how_a_generation_stands_is_said_in_the_vendor_s_word(raw: str, said: str, asked: str):
    generation = Generation("g1", GenerationStatus.GENERATING, raw)
    decision = decide(
        RECORDS[asked],
        REQUEST,
        "retry",
        SubmitPolicy(),
        complete=True,
        stands=generation,
        not_in_logs=False,
        key_changed=False,
    )
    assert f" of a previous attempt is {said};" in decision.reason.replace(" still ", " ")


def test_a_failure_without_words_is_said_plainly():
    generation = Generation("g1", GenerationStatus.ERROR, "error", failure=None)
    decision = decide(
        RECORDS["id"],
        REQUEST,
        "retry",
        SubmitPolicy(),
        complete=True,
        stands=generation,
        not_in_logs=False,
        key_changed=False,
    )
    assert "(error: no message)" in decision.reason


def test_whoever_is_stopped_is_told_that_nothing_was_submitted_and_what_to_do():
    stops = {decision.reason for decision in map(decided, CASES) if decision.action == "stop"}
    assert len(stops) == 6
    for reason in stops:
        assert NEXT.search(reason), reason
        assert re.search(r"[Nn]othing was submitted|not charged", reason), reason


def test_who_may_pay_again_is_told_so():
    for decision in map(decided, CASES):
        if decision.action == "submit":
            assert "billed" in decision.reason
            assert decision.is_resubmit is bool(
                re.search("(?i)both are billed|billed again|not charged", decision.reason)
            )


def test_only_a_submit_can_be_a_resubmit():
    assert {decision.action for decision in map(decided, CASES) if decision.is_resubmit} == {"submit"}


def test_trouble_never_leads_to_a_submit():
    """Not to know, or a 404, is no reason to pay."""
    for case in CASES:
        if case.record == "id" and case.stands in ("not asked", "404"):
            assert decided(case).action in ("ask", "stop")


def test_what_changed_is_named():
    reason = decided(CASES[0]._replace(record="id, other", attempt="clear")).reason
    assert "changed: prompt, seed" in reason
    assert "g1" in reason


def test_a_cleared_task_that_is_reused_is_told_how_to_get_a_new_one():
    case = CASES[0]._replace(record="id", stands="completed", complete="yes")
    assert "on_clear='regenerate'" in decided(case._replace(attempt="clear")).reason
    assert "on_clear" not in decided(case._replace(attempt="retry")).reason


def test_the_vendors_words_are_in_the_reason():
    case = CASES[0]._replace(record="id", complete="yes", attempt="retry")
    assert "ModerationError: No faces." in decided(case._replace(stands="moderation")).reason
    assert "GenerationError: The model failed." in decided(case._replace(stands="error")).reason


@pytest.mark.parametrize(
    ("failure", "hopeless"),
    [
        (Failure("ModerationError", "x"), True),
        (Failure("", "Content moderation rejected the prompt"), True),
        (Failure("NSFW", ""), True),
        (Failure("", "The image is inappropriate"), True),
        (Failure("", "violates our content policy"), True),
        (Failure("RiskControl", ""), True),
        (Failure("ValidationError", ""), True),
        (Failure("", "duration is not supported: invalid value"), True),
        (Failure("", "Unsupported image format"), True),
        (Failure("GenerationError", "The model failed"), False),
        (Failure("", "Internal error"), False),
        (Failure("Timeout", "The upstream model did not answer"), False),
        (Failure("", "no message"), False),
    ],
)
def test_which_failures_a_repeat_cannot_fix(failure: Failure, hopeless: bool):
    assert is_hopeless(failure) is hopeless


def test_an_uncertain_submit_is_looked_for_until_the_generation_is_likely_done():
    assert usual_grace(30.0) == 300.0  # the logs lag, however quick the model is
    assert usual_grace(431.0) == 1293.0
    assert SubmitPolicy().uncertain_grace is None  # then it is that of the model

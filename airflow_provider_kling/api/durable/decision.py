"""Whether to pay: the one decision on a task's submit, without I/O.

Given what is remembered of an earlier submit, what the vendor says of it, and what the user chose,
it says: re-attach and wait, use, submit, search the vendor's logs first, ask the vendor
first, or stop. Each comes with the sentence for the log: why, and what it means for money.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from airflow_provider_kling.api.durable.attempt import AttemptKind
from airflow_provider_kling.api.durable.identity import changes
from airflow_provider_kling.api.durable.record import Record
from airflow_provider_kling.api.generation import Failure, Generation, GenerationStatus, is_hopeless

SHORTEST_GRACE: Final = 300.0
"""Seconds: the vendor's logs come from a pipeline that lags."""
GRACE_IN_USUAL_DURATIONS: Final = 3.0
"""The logs may list a generation only when it is done. By the durations that the vendor publishes 98 in
100 are by then."""


def usual_grace(usual_seconds: float) -> float:
    """Seconds after an uncertain submit by which the vendor's logs should have it, if it was accepted.

    :param usual_seconds: the model's usual seconds from submit to completed.
    """
    return max(SHORTEST_GRACE, GRACE_IN_USUAL_DURATIONS * usual_seconds)


@dataclass(frozen=True, slots=True)
class SubmitPolicy:
    """What the user chose.

    :param on_changed_request: the task was cleared, and asks for another request than before:
        ``submit`` this one, or ``fail``.
    :param on_uncertain_submit: a submit that may have been accepted is not in the vendor's logs:
        ``resubmit``, or ``fail``.
    :param on_clear: a finished task is cleared: ``reuse`` its generation, or ``regenerate``.
    :param uncertain_grace: seconds after an uncertain submit in which the logs are searched for it,
        which lag behind and may not list a job before it is done; None for :func:`usual_grace` of the
        model. After a crash they count from when it was sent.
    :param max_cost_usd: limit for one generation, checked before each submit; None for no limit.
    :param check_balance: submit only what the account's balance covers.
    """

    on_changed_request: Literal["submit", "fail"] = "submit"
    on_uncertain_submit: Literal["resubmit", "fail"] = "resubmit"
    on_clear: Literal["reuse", "regenerate"] = "reuse"
    uncertain_grace: float | None = None
    max_cost_usd: float | None = None
    check_balance: bool = False


Action: TypeAlias = Literal["ask", "search", "submit", "reattach", "use", "stop"]
"""What to do next: ask how the recorded generation stands, search the vendor's request log, submit, re-attach
to a generation that is still working, use one that is completed, or stop for a person."""
NotFound: TypeAlias = Literal["not found"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why.

    :param reason: one or two sentences for the log.
    :param is_resubmit: True where a submit comes after an earlier one of the same work.
    """

    action: Action
    reason: str
    is_resubmit: bool = False


def decide(
    record: Record | None,
    request: Mapping[str, str],
    kind: AttemptKind,
    policy: SubmitPolicy,
    *,
    complete: bool,
    stands: Generation | NotFound | None,
    not_in_logs: bool,
    key_changed: bool,
) -> Decision:
    """Decide on a task's submit.

    :param record: what is remembered; an id found in the logs is put into it first. None for nothing.
    :param request: fingerprint of what is asked for now.
    :param kind: why the task runs.
    :param complete: whether the record, or that there is none, is all that was submitted: it was read where
        every submit is recorded first, or this is the very first attempt. False where nothing is stored, or
        where the store may have been emptied since.
    :param stands: what the vendor says of the record's generation; ``not found`` for a 404, None where it was
        not asked.
    :param not_in_logs: whether the logs were searched in vain: for a submit without an id; where ``complete``
        is False, for those later than the record's.
    :param key_changed: whether the record's submit was sent with another API key. The logs list only the
        requests of the key that asks, so that "not found" is then no answer.
    """
    if record is None:
        if complete:
            return Decision("submit", _nothing_sent(kind))
        if not not_in_logs:
            return Decision(
                "search",
                "There is no record of what previous attempts submitted; searching the vendor's request log "
                "before submitting anything that would be billed.",
            )
        return _submit_uncertain(policy, "No submit of a previous attempt is in the vendor's request log")
    if record.generation_id is None:
        if not not_in_logs:
            return Decision(
                "search",
                f"Submit {record.client_request_id} is recorded without a response; searching the vendor's "
                "request log before resubmitting, which would be billed.",
            )
        if key_changed:
            return _stop_for_key(record)
        return _submit_uncertain(
            policy, f"Submit {record.client_request_id} is not in the vendor's request log"
        )
    changed = bool(changes(request, record.fingerprint))
    if changed and kind == "clear":
        return _changed(record, request, policy)
    if stands is None:
        return Decision(
            "ask",
            f"A previous attempt submitted generation {record.generation_id}; checking its status before "
            "submitting anything that would be billed.",
        )
    if stands == "not found":
        return Decision(
            "stop",
            f"The vendor does not know generation {record.generation_id}, which a previous attempt of this "
            "task submitted and which may be billed. Nothing was submitted. Check that the connection still "
            "belongs to the same account, or run the task with durable=False once to pay for a new one.",
        )
    if changed:
        return _differing(stands, record, request)
    if not complete and not not_in_logs and _may_have_successor(stands, policy):
        return Decision(
            "search",
            f"Generation {stands.id} of a previous attempt is {stands.status}, and there is no record of "
            "later attempts; searching the vendor's request log for them before submitting anything that "
            "would be billed.",
        )
    return _known(stands, kind, policy)


def _nothing_sent(kind: AttemptKind) -> str:
    """Why no record means that nothing was sent."""
    if kind == "first":
        return "First attempt of this task instance; submitting (billed on completion)."
    return (
        "The record of the previous attempts says that nothing was submitted; submitting (billed on "
        "completion)."
    )


def _stop_for_key(record: Record) -> Decision:
    return Decision(
        "stop",
        f"Submit {record.client_request_id} is not in the vendor's request log, but the API key of the "
        "connection was changed after it was sent, and the log lists only requests made with the key that "
        "asks. The submit may have been accepted and billed; nothing was submitted by this attempt. Look for "
        "this client request id in the vendor's dashboard, or with a management key in GET /v2/logs with "
        "key_prefix set to the first 8 characters of the old key. If it is there, pass its inference id to "
        "KlingGenerationSensor; or put the old key back and clear the task. If it is not there, run the task "
        "with durable=False once.",
    )


def _may_have_successor(generation: Generation, policy: SubmitPolicy) -> bool:
    """Whether a later attempt may have submitted again, though it knew of this generation."""
    completed = generation.status is GenerationStatus.COMPLETED
    return generation.status is GenerationStatus.ERROR or (completed and policy.on_clear == "regenerate")


def _known(generation: Generation, kind: AttemptKind, policy: SubmitPolicy) -> Decision:
    """The recorded generation of the very same request."""
    name = f"Generation {generation.id}"
    if generation.status is GenerationStatus.COMPLETED:
        if kind == "clear" and policy.on_clear == "regenerate":
            return Decision(
                "submit",
                f"{name} is completed, and the task was cleared with on_clear='regenerate'; submitting "
                "another one, which is billed again.",
                is_resubmit=True,
            )
        hint = ""
        if kind == "clear":
            hint = " Set on_clear='regenerate' to get, and pay for, a new one when you clear the task."
        return Decision(
            "use",
            f"{name} of a previous attempt is completed and paid for; using it, at no further cost.{hint}",
        )
    if generation.status is GenerationStatus.ERROR:
        failure = generation.failure or Failure("", "no message")
        said = (
            f"{name} of a previous attempt ended in an error, which is not charged "
            f"({failure.name or 'error'}: {failure.message})"
        )
        if kind != "clear" and is_hopeless(failure):
            return Decision(
                "stop",
                f"{said}. The same request would be rejected again: change it, then clear the task.",
            )
        return Decision("submit", f"{said}; resubmitting (billed on completion).", is_resubmit=True)
    return Decision(
        "reattach",
        f"{name} of a previous attempt is still {generation.raw_status or 'working'}; waiting for it, at no "
        "further cost.",
    )


def _differing(generation: Generation, record: Record, request: Mapping[str, str]) -> Decision:
    """An automatic retry has another request: it is the same work, and no person chose to pay again."""
    said = f"The request of this retry differs (changed: {_what_changed(record, request)}), but"
    if generation.status is GenerationStatus.ERROR:
        return Decision(
            "submit",
            f"{said} generation {generation.id} of a previous attempt ended in an error, which is not "
            "charged; submitting the changed request (billed on completion).",
            is_resubmit=True,
        )
    reattached: Action = "reattach"
    if generation.status is GenerationStatus.COMPLETED:
        reattached = "use"
    return Decision(
        reattached,
        f"{said} generation {generation.id} of a previous attempt is {generation.raw_status or 'working'}; "
        "continuing with it, at no further cost. A changed request is submitted, and billed, when you clear "
        "the task.",
    )


def _what_changed(record: Record, request: Mapping[str, str]) -> str:
    return ", ".join(changes(request, record.fingerprint)) or "the request"


def _changed(record: Record, request: Mapping[str, str], policy: SubmitPolicy) -> Decision:
    """A person cleared the task, and it asks for something else."""
    what = _what_changed(record, request)
    said = (
        f"A previous attempt submitted generation {record.generation_id} with another request (changed: "
        f"{what})"
    )
    if policy.on_changed_request == "fail":
        return Decision(
            "stop",
            f"{said}, and on_changed_request='fail': nothing was submitted. Get the earlier generation with "
            f"KlingGenerationSensor(generation_id={record.generation_id!r}).",
        )
    return Decision(
        "submit",
        f"{said}; submitting the new one. Both are billed when they complete.",
        is_resubmit=True,
    )


def _submit_uncertain(policy: SubmitPolicy, said: str) -> Decision:
    if policy.on_uncertain_submit == "fail":
        return Decision(
            "stop",
            f"{said}, and on_uncertain_submit='fail': nothing was submitted. Check the vendor's dashboard; "
            "if it is not there, set on_uncertain_submit='resubmit' and clear the task.",
        )
    return Decision(
        "submit",
        f"{said}; submitting (on_uncertain_submit='resubmit'). If an earlier submit was accepted after all, "
        "both are billed.",
        is_resubmit=True,
    )

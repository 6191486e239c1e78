"""Whether to pay: the one decision on a task's submit, without I/O.

Given what is remembered of an earlier submit, what the vendor says of it, and what the user chose,
it says: adopt and wait, adopt and use, submit, look in the vendor's logs first, ask the vendor
first, or stop. Each comes with the sentence for the log: why, and what it means for money.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal

from airflow_provider_kling.api.durable.attempt import AttemptKind
from airflow_provider_kling.api.durable.identity import Fingerprint
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
    :param uncertain_grace: seconds after an uncertain submit in which it is looked for in the logs,
        which lag behind and may not list a job before it is done; None for :func:`usual_grace` of the
        model. After a crash they count from when it was sent.
    """

    on_changed_request: Literal["submit", "fail"] = "submit"
    on_uncertain_submit: Literal["resubmit", "fail"] = "resubmit"
    on_clear: Literal["reuse", "regenerate"] = "reuse"
    uncertain_grace: float | None = None


class Action(enum.Enum):
    """What to do next."""

    ADOPT_AND_WAIT = "adopt and wait"
    ADOPT_AND_USE = "adopt and use"
    SUBMIT = "submit"
    LOOK_UP = "look in the vendor's logs"
    ASK = "ask how the recorded generation stands"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, and why.

    :param reason: one or two sentences for the log.
    :param anew: True where a submit comes after an earlier one of the same work.
    """

    action: Action
    reason: str
    anew: bool = False


class Unknown(enum.Enum):
    """What was asked and has no answer."""

    NOT_ASKED = "not asked"
    NOT_FOUND = "not found"


def decide(
    record: Record | None,
    request: Fingerprint,
    kind: AttemptKind,
    policy: SubmitPolicy,
    *,
    has_store: bool = True,
    stands: Generation | Unknown = Unknown.NOT_ASKED,
    looked_up: Unknown = Unknown.NOT_ASKED,
) -> Decision:
    """Decide on a task's submit.

    :param record: what is remembered; an id found in the logs is put into it first. None for nothing.
    :param request: what is asked for now.
    :param kind: why the task runs.
    :param has_store: whether a submit is always recorded before it is sent, so that no record means
        no submit. False where nothing survives a retry (Airflow before 3.3).
    :param stands: what the vendor says of the record's generation; ``NOT_FOUND`` for a 404.
    :param looked_up: ``NOT_FOUND`` when the logs were searched in vain: for a submit without an id;
        where nothing is remembered, for those later than the record's.
    """
    if record is None:
        if has_store or kind is AttemptKind.FIRST:
            return Decision(
                Action.SUBMIT,
                "This work was never submitted: submitting it; it is billed when it completes.",
            )
        if looked_up is Unknown.NOT_ASKED:
            return Decision(
                Action.LOOK_UP,
                "Nothing is remembered of earlier tries: looking in the vendor's logs before paying.",
            )
        return _submit_uncertain(policy, "No submit of an earlier try is in the vendor's logs")
    if record.generation_id is None:
        if looked_up is Unknown.NOT_ASKED:
            return Decision(
                Action.LOOK_UP,
                f"A submit ({record.client_request_id}) was begun and its outcome is not known: looking "
                "in the vendor's logs before paying.",
            )
        return _submit_uncertain(policy, f"The submit {record.client_request_id} is not in the vendor's logs")
    changed = record.fingerprint != request.digest
    if changed and kind is AttemptKind.CLEAR:
        return _changed(record, request, policy)
    if stands is Unknown.NOT_ASKED:
        return Decision(
            Action.ASK,
            f"Generation {record.generation_id} was submitted before: asking how it stands, before paying.",
        )
    if isinstance(stands, Unknown):
        return Decision(
            Action.STOP,
            f"The vendor does not know generation {record.generation_id}, which an earlier try of this "
            "task submitted and which may be billed. Nothing was submitted. Check that the connection is "
            "still the same account, or run the task with durable=False once to pay for a new one.",
        )
    if changed:
        return _differing(stands, record, request)
    if not has_store and looked_up is Unknown.NOT_ASKED and _may_have_successor(stands, policy):
        return Decision(
            Action.LOOK_UP,
            f"Generation {stands.id} of an earlier try is not the last word ({stands.status}), and nothing "
            "is remembered of later tries: looking for them in the vendor's logs before paying.",
        )
    return _known(stands, kind, policy)


def _may_have_successor(generation: Generation, policy: SubmitPolicy) -> bool:
    """Whether a later try can have submitted anew, though it knew of this generation."""
    completed = generation.status is GenerationStatus.COMPLETED
    return generation.status is GenerationStatus.ERROR or (completed and policy.on_clear == "regenerate")


def _known(generation: Generation, kind: AttemptKind, policy: SubmitPolicy) -> Decision:
    """The recorded generation of the very same request."""
    name = f"Generation {generation.id}"
    if generation.status is GenerationStatus.COMPLETED:
        if kind is AttemptKind.CLEAR and policy.on_clear == "regenerate":
            return Decision(
                Action.SUBMIT,
                f"{name} is completed, and the task was cleared with on_clear='regenerate': submitting "
                "anew, which is billed again.",
                anew=True,
            )
        hint = ""
        if kind is AttemptKind.CLEAR:
            hint = " Set on_clear='regenerate' to get, and pay for, a new one when the task is cleared."
        return Decision(
            Action.ADOPT_AND_USE,
            f"{name} of an earlier try is completed and paid for: using it, at no further cost.{hint}",
        )
    if generation.status is GenerationStatus.ERROR:
        failure = generation.failure or Failure("", "no message")
        said = (
            f"{name} of an earlier try ended in an error, which is not charged "
            f"({failure.name or 'error'}: {failure.message})"
        )
        if kind is not AttemptKind.CLEAR and is_hopeless(failure):
            return Decision(
                Action.STOP,
                f"{said}. The same request would be rejected again: change it, then clear the task.",
            )
        return Decision(Action.SUBMIT, f"{said}: submitting anew; it is billed when it completes.", anew=True)
    return Decision(
        Action.ADOPT_AND_WAIT,
        f"{name} of an earlier try is still {generation.raw_status or 'working'}: waiting for it, at no "
        "further cost.",
    )


def _differing(generation: Generation, record: Record, request: Fingerprint) -> Decision:
    """An automatic retry asks for something else: the work is the same, and nobody chose to pay again."""
    said = f"The request of this retry differs (changed: {_what_changed(record, request)}), and"
    if generation.status is GenerationStatus.ERROR:
        return Decision(
            Action.SUBMIT,
            f"{said} generation {generation.id} of the earlier try ended in an error, which is not charged: "
            "submitting anew; it is billed when it completes.",
            anew=True,
        )
    reattached = Action.ADOPT_AND_WAIT
    if generation.status is GenerationStatus.COMPLETED:
        reattached = Action.ADOPT_AND_USE
    return Decision(
        reattached,
        f"{said} generation {generation.id} of the earlier try is {generation.raw_status or 'working'}: "
        "going on with it, at no further cost. A changed request is submitted, and billed, when the task is "
        "cleared.",
    )


def _what_changed(record: Record, request: Fingerprint) -> str:
    return ", ".join(request.changes(record.parts)) or "the request"


def _changed(record: Record, request: Fingerprint, policy: SubmitPolicy) -> Decision:
    """A person cleared the task, and it asks for something else."""
    what = _what_changed(record, request)
    said = (
        f"An earlier try submitted generation {record.generation_id} with another request (changed: {what})"
    )
    if policy.on_changed_request == "fail":
        return Decision(
            Action.STOP,
            f"{said}, and on_changed_request='fail': nothing was submitted. The earlier generation can be "
            f"had with KlingGenerationSensor(generation_id={record.generation_id!r}).",
        )
    return Decision(
        Action.SUBMIT,
        f"{said}: submitting the new one. Both are billed when they complete.",
        anew=True,
    )


def _submit_uncertain(policy: SubmitPolicy, said: str) -> Decision:
    if policy.on_uncertain_submit == "fail":
        return Decision(
            Action.STOP,
            f"{said}, and on_uncertain_submit='fail': nothing was submitted. Look in the vendor's dashboard; "
            "if it is not there, set on_uncertain_submit='resubmit' and clear the task.",
        )
    return Decision(
        Action.SUBMIT,
        f"{said}: submitting (on_uncertain_submit='resubmit'). Should the earlier one have been accepted "
        "all the same, both are billed.",
        anew=True,
    )

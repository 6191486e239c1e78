"""A task's submits: every request is prepared before the first is paid, then each is paid once."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from airflow_provider_kling.api.billing.cost import check_budget
from airflow_provider_kling.api.catalog.parameter import MediaPlace
from airflow_provider_kling.api.catalog.validation import map_media, validate, with_image
from airflow_provider_kling.api.durable.attempt import AttemptKind, TaskAttempt
from airflow_provider_kling.api.durable.decision import SubmitPolicy
from airflow_provider_kling.api.durable.identity import fingerprint
from airflow_provider_kling.api.durable.record import NOTHING, Record
from airflow_provider_kling.api.durable.submit import (
    DurableSubmit,
    PendingSearch,
    SubmitResult,
)
from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.redaction import clean, logger
from airflow_provider_kling.api.settings import checked_limit
from airflow_provider_kling.api.transport.messages import Flow
from airflow_provider_kling.hooks import metrics
from airflow_provider_kling.task.arguments import request_parameters
from airflow_provider_kling.task.inline_media import reveal
from airflow_provider_kling.task.preflight import check_writable
from airflow_provider_kling.version_compat import REPLACES_MAPPED_TASKS, never_expire

if TYPE_CHECKING:
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.task.options import GenerateOptions
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)

RECORD_KEY: Final = "kling_generation"
"""Key of the record in Airflow's task state store; the variants of a task have one each, with a number."""
PRESIGNED_SECONDS: Final = 86_400
"""How long a presigned URL of a picture works: longer than any queue at the vendor is known to be."""
STOPPING: Final = 60.0
"""Seconds that the process of an attempt may work on after a person cleared it: until its next heartbeat,
and a request that is under way."""
_UUID_WITH_TIME: Final = 7
_FIRST_NAME: Final = re.compile(r"[^.\[]*")


def load_record(context: Context, variant: int | str | None = None) -> Any:
    """The record of a submit that Airflow's task state store has, as plain JSON.

    :param context: Airflow's.
    :param variant: which of several generations of the task instance; None where it makes one.
    :return: None for nothing, as always before Airflow 3.3, which has no such store.
    """
    store: Any = context.get("task_state_store")
    return None if store is None else store.get(_record_key(variant), None)


def save_record(context: Context, record: Mapping[str, Any], *, variant: int | str | None = None) -> None:
    """Save the record of a submit where it survives a retry, as far as this Airflow can.

    :param variant: see :func:`load_record`.
    """
    store: Any = context.get("task_state_store")
    if store is not None:
        store.set(_record_key(variant), dict(record), retention=never_expire())


def _record_key(variant: int | str | None) -> str:
    return RECORD_KEY if variant is None else f"{RECORD_KEY}_{variant}"


def begin_attempt(context: Context, variants: Sequence[int | None]) -> None:
    """Record that nothing was submitted, before anything else of the very first attempt can fail.

    A later attempt without a record cannot tell whether the store was emptied, and has to search the
    vendor's logs.

    :param variants: see :func:`load_record`.
    """
    for variant in variants:
        attempt = attempt_of(context, variant)
        nothing_before = attempt.kind == "first" and not attempt.replaced
        if nothing_before and load_record(context, variant) is None:
            save_record(context, NOTHING, variant=variant)


def attempt_of(context: Context, variant: int | str | None = None) -> TaskAttempt:
    """Which attempt of which task instance runs.

    :param variant: see :func:`load_record`.
    """
    ti: Any = context["ti"]
    task: Any = context["task"]
    map_index = -1 if ti.map_index is None else ti.map_index
    loop: Any = context.get("loop")  # Airflow 3.4 and newer
    loop_index = None if loop is None else int(loop.index)
    dag_run: Any = context.get("dag_run")
    cleared = bool(getattr(dag_run, "clear_number", 0))
    attempt = TaskAttempt(
        ti.dag_id,
        ti.run_id,
        ti.task_id,
        map_index,
        variant,
        loop_index,
        number=ti.try_number,
        # Airflow raises max_tries with each clear, so that "retries" more attempts follow; the first of them
        # is the one that a person asked for.
        first_number=ti.max_tries - (task.retries or 0) + 1,
        renumbered=loop_index is not None and cleared,
    )
    since, until = _previous_attempts(ti, dag_run, task, attempt.kind)
    if REPLACES_MAPPED_TASKS and map_index >= 0 and cleared and attempt.kind == "first":
        # What it may have taken the place of ran before Airflow was upgraded.
        return replace(attempt, previous_since=since, previous_until=until - 86_400.0, replaced=True)
    return replace(attempt, previous_since=since, previous_until=until)


def _previous_attempts(ti: Any, dag_run: Any, task: Any, kind: AttemptKind) -> tuple[float, float]:
    """Epoch seconds between which previous attempts can have submitted, as far as Airflow tells.

    A clear resets ``queued_at`` and ``start_date``, and a run may have no logical date; ``run_after``
    (Airflow 3) never changes. Both can be years ago in a backfill, and count only after a clear.
    """
    names = ["queued_at", "start_date"]
    if getattr(dag_run, "clear_number", None) != 0:
        names += ["run_after", "logical_date"]
    moments = (getattr(dag_run, name, None) for name in names)
    starts = [moment.timestamp() for moment in moments if isinstance(moment, datetime)]
    now = time.time()
    return min(starts, default=now - 86_400.0), min(now, _ended_by(ti, task, kind, now))


def _ended_by(ti: Any, task: Any, kind: AttemptKind, now: float) -> float:
    """Epoch seconds by which the previous attempt had surely ended.

    Airflow 3 makes the id of an attempt, a UUID with the time in it, when the one before it failed or was
    cleared, and tells nothing else of that one.
    """
    given = getattr(ti, "id", None)
    if isinstance(given, str | UUID) and (made := UUID(str(given))).version == _UUID_WITH_TIME:
        return (made.int >> 80) / 1000 + STOPPING
    if kind != "retry" or task.retry_exponential_backoff:
        return now  # a person clears at any moment, and a backoff may begin below the delay
    delay = task.retry_delay
    return now - (delay.total_seconds() if isinstance(delay, timedelta) else float(delay))


def prepare(
    context: Context,
    options: GenerateOptions,
    hook: KlingHook,
    arguments: Sequence[Mapping[str, Any]],
    *,
    several: bool,
    again: bool = False,
) -> list[DurableSubmit]:
    """Validate each request, read its pictures, and check that all may be paid. Submits nothing.

    :param context: Airflow's.
    :param options: the operator's.
    :param hook: of the connection that pays.
    :param arguments: of the operator, a mapping for each generation.
    :param several: whether the task makes a list of variants, each of which is paid for by itself.
    :param again: whether this attempt has checked before that all may be paid.
    :raises KlingError: nothing was submitted.
    """
    policy = replace(options.policy, max_cost_usd=_limit(options, hook))
    submits = [
        _prepared(context, options, hook, policy, reveal(dict(each)), index if several else None)
        for index, each in enumerate(arguments)
    ]
    if several and not again:  # each is checked by itself as well, just before it is submitted
        fresh = [each.request for each in submits if each.unready is None and _is_first(context, each)]
        client = hook.get_conn()
        flow = check_budget(
            client.calls, fresh, max_usd=policy.max_cost_usd, check_balance=policy.check_balance
        )
        client.run(flow)
    return submits


def submit_or_reattach(
    context: Context,
    options: GenerateOptions,
    hook: KlingHook,
    submit: DurableSubmit,
    answer: PendingSearch | None = None,
) -> SubmitResult | PendingSearch:
    """Submit a request, or re-attach to the generation that a previous attempt submitted.

    :param context: Airflow's; the next two are as for :func:`prepare`.
    :param submit: as that prepared it.
    :param answer: the search that it ended with before, answered.
    :return: a search, where the task is deferrable and only the vendor's logs can tell.
    :raises KlingError: see :meth:`.DurableSubmit.submit_or_reattach`.
    """
    variant = submit.attempt.variant
    tags = metrics.task_tags(context)
    operator = type(context["task"]).__name__
    with metrics.resume_decision(operator, tags, RECORD_KEY) as on_decision:
        flow: Flow[SubmitResult | PendingSearch] = submit.submit_regardless()
        if options.durable:
            flow = submit.submit_or_reattach(
                load_record(context, variant),
                elsewhere=options.deferrable,
                answer=answer,
                on_decision=on_decision,
            )
        submitted = hook.get_conn().run(flow, partial(save_record, context, variant=variant))
    if isinstance(submitted, SubmitResult) and not submitted.reattached:
        metrics.count(metrics.SUBMITS, **tags, model=submit.request.model)
    return submitted


def was_submitted(context: Context, variant: int | str | None) -> bool:
    """Whether this task instance submitted a generation before, as far as is remembered."""
    return load_record(context, variant) not in (None, NOTHING)


def replacing(options: GenerateOptions, submit: DurableSubmit) -> DurableSubmit:
    """The same submit, whose video may replace what is at the path."""
    preflight = partial(
        check_writable,
        path=options.path,
        overwrite=True,
        with_sidecar=options.sidecar,
        model=submit.request.model,
    )
    return replace(submit, preflight=preflight)


def _is_first(context: Context, submit: DurableSubmit) -> bool:
    """Whether nothing was submitted before, as far as is known without the vendor's request log."""
    stored = load_record(context, submit.attempt.variant)
    return stored == NOTHING or (stored is None and submit.attempt.kind == "first")


def _prepared(
    context: Context,
    options: GenerateOptions,
    hook: KlingHook,
    policy: SubmitPolicy,
    given: Mapping[str, Any],
    variant: int | str | None,
) -> DurableSubmit:
    calls, attempt = hook.get_conn().calls, attempt_of(context, variant)
    parameters = request_parameters(given)
    try:
        request = hook.prepare(
            given["model"],
            parameters,
            image=given["image"],
            sign_seconds=PRESIGNED_SECONDS if options.presign else None,
            convert_image=options.convert_image,
        )
    except KlingError as error:
        record = Record.decode(load_record(context, variant)) if options.durable else None
        if record is None or record.identity != attempt.identity or record.generation_id is None:
            raise
        request = _without_media(hook.account, given, parameters, record)
        log.warning(
            "%s Generation %s, submitted by a previous attempt, does not need the image any more; "
            "continuing with it unless it has to be resubmitted.",
            error.what,
            record.generation_id,
        )
        return DurableSubmit(calls, request, attempt, policy, unready=error)
    preflight = partial(
        check_writable,
        path=options.path,
        overwrite=options.overwrite,
        with_sidecar=options.sidecar,
        model=request.model,
    )
    return DurableSubmit(calls, request, attempt, policy, preflight=preflight)


def _without_media(
    account: str, given: Mapping[str, Any], parameters: Mapping[str, Any], record: Record
) -> GenerationRequest:
    """A request whose pictures cannot be read: they count as the recorded ones.

    :raises InvalidRequestError: it is not the pictures alone.
    """
    model = given["model"]
    request, _ = validate(GenerationRequest(model, with_image(model, parameters, given["image"])))
    media: set[str] = set()

    def unread(place: MediaPlace, value: Any) -> Any:
        media.update(_FIRST_NAME.findall(place.path)[:1])
        shown = "inline" if str(value)[:5].lower() == "data:" else clean(str(value))
        return {"source": shown}

    described = map_media(model, request.parameters, unread)
    asked = fingerprint({"model": model, **described}, account)
    same = {name: digest for name, digest in asked.items() if name not in media}
    recorded = {name: digest for name, digest in record.fingerprint.items() if name in media}
    return replace(
        request,
        described={"model": model, "parameters": described},
        fingerprint={**same, **recorded},
    )


def _limit(options: GenerateOptions, hook: KlingHook) -> float | None:
    """The limit for one generation in USD: the task's, or else the connection's."""
    limit = options.max_cost_usd
    try:
        return checked_limit(hook.settings.max_cost_usd if limit in (None, "") else limit)
    except ValueError as error:
        raise InvalidRequestError(f"max_cost_usd: {error}") from None

"""A task's submits: every request is prepared before the first is paid, then each is paid once."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.billing.cost import Budget
from airflow_provider_kling.api.catalog.parameter import MediaPlace
from airflow_provider_kling.api.catalog.validation import map_media, validate, with_image
from airflow_provider_kling.api.durable.attempt import AttemptKind, TaskAttempt
from airflow_provider_kling.api.durable.identity import Fingerprint, TaskIdentity, fingerprint
from airflow_provider_kling.api.durable.record import NOTHING, Record
from airflow_provider_kling.api.durable.submit import (
    DurableSubmit,
    PendingSearch,
    SearchAnswer,
    SubmitInput,
    SubmitResult,
)
from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.redaction import clean
from airflow_provider_kling.api.settings import checked_limit
from airflow_provider_kling.api.transport.messages import Flow
from airflow_provider_kling.hooks import metrics
from airflow_provider_kling.task.arguments import request_parameters
from airflow_provider_kling.task.inline_media import reveal
from airflow_provider_kling.task.preflight import Preflight
from airflow_provider_kling.version_compat import never_expire

if TYPE_CHECKING:
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.task.options import GenerateOptions
    from airflow_provider_kling.version_compat import Context

log = logging.getLogger(__name__)

RECORD_KEY: Final = "kling_generation"
"""Key of the record in Airflow's task state store; the variants of a task have one each, with a number."""
PRESIGNED_SECONDS: Final = 86_400
"""How long a presigned URL of a picture works: longer than any queue at the vendor is known to be."""
_FIRST_NAME: Final = re.compile(r"[^.\[]*")


class RecordStore:
    """Keeps the record of a submit in Airflow's task state store, where there is one (3.3 and newer).

    :param context: Airflow's.
    :param variant: which of several generations of the task instance; None where it makes one.
    """

    def __init__(self, context: Context, variant: int | str | None = None) -> None:
        self._store: Any = context.get("task_state_store")
        self._key = RECORD_KEY if variant is None else f"{RECORD_KEY}_{variant}"

    @property
    def exists(self) -> bool:
        """Whether a record survives a retry."""
        return self._store is not None

    def load(self) -> Any:
        """The record that was saved last, as plain JSON; None for nothing."""
        return self._store.get(self._key, None) if self.exists else None

    def save(self, record: Mapping[str, Any]) -> None:
        """Save a record where it survives a retry, as far as this Airflow can."""
        if self.exists:
            self._store.set(self._key, dict(record), retention=never_expire())


def begin_attempt(context: Context, variants: Sequence[int | None]) -> None:
    """Record that nothing was submitted, before anything else of the very first attempt can fail.

    A later attempt without a record cannot tell whether the store was emptied, and has to search the
    vendor's logs.

    :param variants: see :class:`RecordStore`.
    """
    for variant in variants:
        store = RecordStore(context, variant)
        first = attempt_of(context, variant).kind is AttemptKind.FIRST
        if store.exists and first and store.load() is None:
            store.save(NOTHING)


def attempt_of(context: Context, variant: int | str | None = None) -> TaskAttempt:
    """Which attempt of which task instance runs.

    :param variant: see :class:`RecordStore`.
    """
    ti: Any = context["ti"]
    task: Any = context["task"]
    map_index = -1 if ti.map_index is None else ti.map_index
    loop: Any = context.get("loop")  # Airflow 3.4 and newer
    loop_index = None if loop is None else int(loop.index)
    identity = TaskIdentity(ti.dag_id, ti.run_id, ti.task_id, map_index, variant, loop_index)
    dag_run: Any = context.get("dag_run")
    renumbered = loop_index is not None and bool(getattr(dag_run, "clear_number", 0))
    # Airflow raises max_tries with each clear, so that "retries" more attempts follow; the first of them is
    # the one that a person asked for.
    first_number: int = ti.max_tries - (task.retries or 0) + 1
    kind = TaskAttempt(identity, ti.try_number, first_number, renumbered=renumbered).kind
    since, until = _previous_attempts(dag_run, kind, task.retry_delay)
    return TaskAttempt(identity, ti.try_number, first_number, since, until, renumbered)


def _previous_attempts(dag_run: Any, kind: AttemptKind, retry_delay: Any) -> tuple[float, float]:
    """Epoch seconds between which previous attempts ran, as far as the dag run tells.

    A clear resets ``queued_at`` and ``start_date``, and a run may have no logical date; ``run_after``
    (Airflow 3) never changes.
    """
    names = ("run_after", "logical_date", "queued_at", "start_date")
    moments = (getattr(dag_run, name, None) for name in names)
    starts = [moment.timestamp() for moment in moments if isinstance(moment, datetime)]
    now = time.time()
    delay = retry_delay.total_seconds() if isinstance(retry_delay, timedelta) else float(retry_delay)
    # an automatic retry comes no earlier than its delay; a person may clear at any moment
    waited = delay if kind is AttemptKind.RETRY else 0.0
    return min(starts, default=now - 86_400.0), now - waited


class Submits:
    """Prepares a task's requests, and gets a generation for each.

    :param context: Airflow's.
    :param options: the operator's.
    :param hook: of the connection that pays.
    :param several: whether the task makes a list of variants, each of which is paid for by itself.
    """

    def __init__(self, context: Context, options: GenerateOptions, hook: KlingHook, *, several: bool) -> None:
        self._context = context
        self._options = options
        self._hook = hook
        self._several = several
        self._budget = self._limits()

    def prepare(self, arguments: Sequence[Mapping[str, Any]], *, again: bool = False) -> list[SubmitInput]:
        """Validate each request, read its pictures, and check that all may be paid. Sends no request.

        :param arguments: of the operator, a mapping for each generation.
        :param again: whether this attempt has checked before that all may be paid.
        :raises KlingError: nothing was submitted.
        """
        inputs = [self._input(reveal(dict(each)), index) for index, each in enumerate(arguments)]
        if self._several and not again:  # each is checked by itself as well, just before it is submitted
            fresh = [each.request for each in inputs if each.unready is None and self._is_first(each.attempt)]
            client = self._hook.get_conn()
            client.run(self._budget.check(client.calls, fresh))
        return inputs

    def submit_or_reattach(
        self, wanted: SubmitInput, answer: SearchAnswer | None = None
    ) -> SubmitResult | PendingSearch:
        """Submit a request, or re-attach to the generation that a previous attempt submitted.

        :param answer: of the search that it ended with before.
        :return: a search, where the task is deferrable and only the vendor's logs can tell.
        :raises KlingError: see :meth:`.DurableSubmit.submit_or_reattach`.
        """
        store = RecordStore(self._context, wanted.attempt.identity.variant)
        client = self._hook.get_conn()
        options = self._options
        tags = metrics.task_tags(self._context)
        operator = type(self._context["task"]).__name__
        with metrics.ResumeDecision(operator, tags, RECORD_KEY) as on_decision:
            durable = DurableSubmit(client.calls, wanted, on_decision)
            flow: Flow[SubmitResult | PendingSearch] = durable.submit_regardless()
            if options.durable:
                flow = durable.submit_or_reattach(store.load(), elsewhere=options.deferrable, answer=answer)
            submitted = client.run(flow, store.save)
        if isinstance(submitted, SubmitResult) and not submitted.reattached:
            metrics.count(metrics.SUBMITS, **tags, model=wanted.request.model)
        return submitted

    def _is_first(self, attempt: TaskAttempt) -> bool:
        """Whether nothing was submitted before, as far as is known without the vendor's request log."""
        stored = RecordStore(self._context, attempt.identity.variant).load()
        return stored == NOTHING or (stored is None and attempt.kind is AttemptKind.FIRST)

    def _input(self, given: Mapping[str, Any], index: int) -> SubmitInput:
        variant = index if self._several else None
        store = RecordStore(self._context, variant)
        attempt = attempt_of(self._context, variant)
        policy = self._options.policy
        parameters = request_parameters(given)
        try:
            prepared = self._hook.prepare(
                given["model"],
                parameters,
                image=given["image"],
                sign_seconds=PRESIGNED_SECONDS if self._options.presign else None,
                convert_image=self._options.convert_image,
            )
        except KlingError as error:
            record = Record.decode(store.load()) if self._options.durable else None
            own = record is not None and record.identity == attempt.identity.digest
            if record is None or not own or record.generation_id is None:
                raise
            request, asked, described = self._without_media(given, parameters, record)
            log.warning(
                "%s Generation %s, submitted by a previous attempt, does not need the image any more; "
                "continuing with it unless it has to be resubmitted.",
                error.what,
                record.generation_id,
            )
            return SubmitInput(request, asked, attempt, policy, self._budget, described, unready=error)
        request, asked, described = prepared.request, prepared.fingerprint, prepared.described
        options = self._options
        preflight = Preflight(options.path, options.overwrite, options.sidecar, request.model)
        return SubmitInput(request, asked, attempt, policy, self._budget, described, preflight=preflight)

    def _without_media(
        self, given: Mapping[str, Any], parameters: Mapping[str, Any], record: Record
    ) -> tuple[GenerationRequest, Fingerprint, Mapping[str, Any]]:
        """A request whose pictures cannot be read: the same as the recorded one, if all else is.

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
        asked = fingerprint({"model": model, **described}, self._hook.account)
        changed = set(asked.changes(record.parts)) - media
        digest = asked.digest if changed else record.fingerprint
        parts = {**asked.parts, **{name: record.parts[name] for name in media & record.parts.keys()}}
        return request, Fingerprint(digest, parts), {"model": model, "parameters": described}

    def _limits(self) -> Budget:
        limit = self._options.max_cost_usd
        try:
            limit = checked_limit(self._hook.settings.max_cost_usd if limit in (None, "") else limit)
        except ValueError as error:
            raise InvalidRequestError(f"max_cost_usd: {error}") from None
        return Budget(limit, self._options.check_balance)

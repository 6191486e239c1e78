"""What a task orders: each request made ready before the first is paid, then each obtained once."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.billing.cost import Budget
from airflow_provider_kling.api.catalog.parameter import MediaPlace
from airflow_provider_kling.api.catalog.validation import map_media, validate, with_image
from airflow_provider_kling.api.durable.decision import Attempt, SubmitPolicy, usual_grace
from airflow_provider_kling.api.durable.identity import Fingerprint, TaskIdentity, fingerprint
from airflow_provider_kling.api.durable.record import NOTHING, Record
from airflow_provider_kling.api.durable.submit import DurableSubmit, Order, SubmitResult
from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.redaction import clean
from airflow_provider_kling.api.settings import checked_limit
from airflow_provider_kling.task.arguments import request_parameters
from airflow_provider_kling.task.inline_media import reveal

if TYPE_CHECKING:
    from airflow_provider_kling.operators.kling import KlingGenerateOperator
    from airflow_provider_kling.version_compat import BaseOperator, Context


log = logging.getLogger(__name__)

RECORD_KEY: Final = "kling_generation"
"""Key of the record in Airflow's task state store."""


class TaskRun:
    """One try of one task instance.

    :param context: Airflow's.
    :param task: the operator that runs.
    :param variant: which of several generations of this task instance; None where it makes one.
    """

    def __init__(self, context: Context, task: BaseOperator, variant: int | None = None) -> None:
        ti: Any = context["ti"]
        self._store: Any = context.get("task_state_store")
        self._dag_run: Any = context.get("dag_run")
        delay: Any = task.retry_delay
        self._retry_delay = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        self.work = TaskIdentity(
            ti.dag_id, ti.run_id, ti.task_id, ti.map_index if ti.map_index is not None else -1, variant
        )
        self._key = RECORD_KEY if variant is None else f"{RECORD_KEY}_{variant}"
        self.tries: int = ti.try_number
        # Airflow raises max_tries with each clear, so that "retries" more tries follow; the first of
        # them is the one that a person asked for.
        self.first_try: int = ti.max_tries - (task.retries or 0) + 1

    @property
    def is_first(self) -> bool:
        """Whether nothing was submitted before, as far as can be told without the vendor's logs."""
        if self.remembers:
            return self.recall() in (None, NOTHING)
        return Attempt.of(self.tries, self.first_try) is Attempt.FIRST

    @property
    def remembers(self) -> bool:
        """Whether what is remembered survives a retry: Airflow 3.3 and newer."""
        return self._store is not None

    def recall(self) -> Any:
        """What was remembered last, as plain JSON; None for nothing."""
        return self._store.get(self._key, None) if self.remembers else None

    @property
    def remember(self) -> Callable[[Mapping[str, Any]], None]:
        """Stores a record where it survives a retry, as far as this Airflow can."""

        def store(record: Mapping[str, Any]) -> None:
            if self.remembers:
                self._store.set(self._key, dict(record))

        return store

    @property
    def earlier(self) -> tuple[float, float]:
        """Epoch seconds between which earlier tries of this task ran, as far as the dag run tells."""
        moments = (getattr(self._dag_run, name, None) for name in ("logical_date", "queued_at", "start_date"))
        starts = [moment.timestamp() for moment in moments if isinstance(moment, datetime)]
        now = time.time()
        # an automatic retry comes no earlier than its delay; a person may clear at any moment
        again = Attempt.of(self.tries, self.first_try) is Attempt.RETRY
        waited = self._retry_delay if again else 0.0
        return min(starts, default=now - 86_400.0), now - waited


log = logging.getLogger(__name__)

PRESIGNED_SECONDS: Final = 86_400
"""How long a presigned URL of a picture works: longer than any queue at the vendor is known to be."""
_FIRST_NAME: Final = re.compile(r"[^.\[]*")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One generation that a task wants.

    :param run: the task, and which of its variants.
    :param request: ready to send.
    :param described: model and parameters, each medium as its source and checksum.
    :param unready: why the request cannot be sent, where only an earlier one can be adopted.
    """

    run: TaskRun
    request: GenerationRequest
    fingerprint: Fingerprint
    described: Mapping[str, Any]
    unready: KlingError | None = None


class Ordering:
    """Makes a task's requests ready, and obtains a generation for each.

    :param several: whether the task makes a list of variants, each of which is a work of its own.
    """

    def __init__(self, context: Context, task: KlingGenerateOperator, *, several: bool) -> None:
        self._context = context
        self._task = task
        self._several = several
        self._budget = self._limits()

    def prepare(self, arguments: Sequence[Mapping[str, Any]]) -> list[Wanted]:
        """Validate each request, read its pictures, and see that all may be paid.

        :param arguments: of the operator, a mapping for each generation.
        :raises KlingError: nothing was submitted.
        """
        wanted = [
            self._wanted(reveal(dict(each)), TaskRun(self._context, self._task, self._variant(index)))
            for index, each in enumerate(arguments)
        ]
        if self._several:  # each is checked by itself as well, just before it is submitted
            fresh = [each.request for each in wanted if each.unready is None and each.run.is_first]
            client = self._task.hook.get_conn()
            client.run(self._budget.check(client.calls, fresh))
        return wanted

    def obtain(self, wanted: Wanted) -> SubmitResult:
        """Submit it, or adopt what an earlier try submitted.

        :raises KlingError: see :meth:`.DurableSubmit.obtain`.
        """
        task, run = self._task, wanted.run
        order = Order(
            request=wanted.request,
            fingerprint=wanted.fingerprint,
            work=run.work,
            policy=SubmitPolicy(
                on_changed_request=task.on_changed_request,
                on_uncertain_submit=task.on_uncertain_submit,
                on_clear=task.on_clear,
                uncertain_grace=self._grace(wanted.request.model),
            ),
            remembers=run.remembers,
            tries=run.tries,
            first_try=run.first_try,
            earlier_since=run.earlier[0],
            earlier_until=run.earlier[1],
            budget=self._budget,
            unready=wanted.unready,
        )
        client = task.hook.get_conn()
        once = DurableSubmit(client.calls, order)
        flow = once.obtain(run.recall()) if task.durable else once.submit_regardless()
        return client.run(flow, run.remember)

    def _variant(self, index: int) -> int | None:
        return index if self._several else None

    def _wanted(self, given: Mapping[str, Any], run: TaskRun) -> Wanted:
        parameters = request_parameters(given)
        try:
            prepared = self._task.hook.prepare(
                given["model"],
                parameters,
                image=given["image"],
                sign_seconds=PRESIGNED_SECONDS if self._task.presign else None,
            )
        except KlingError as error:
            record = Record.decode(run.recall()) if self._task.durable else None
            if record is None or record.work != run.work.digest or record.generation_id is None:
                raise
            wanted = self._unready(given, parameters, run, record, error)
            log.warning(
                "%s Generation %s of an earlier try of this task needs no picture any more: going on with "
                "it, if it is not to be made anew.",
                error.what,
                record.generation_id,
            )
            return wanted
        return Wanted(run, prepared.request, prepared.fingerprint, prepared.described)

    def _unready(
        self,
        given: Mapping[str, Any],
        parameters: Mapping[str, Any],
        run: TaskRun,
        record: Record,
        error: KlingError,
    ) -> Wanted:
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
        asked = fingerprint({"model": model, **described}, self._task.hook.account)
        changed = set(asked.changes(record.parts)) - media
        digest = asked.digest if changed else record.fingerprint
        parts = {**asked.parts, **{name: record.parts[name] for name in media & record.parts.keys()}}
        return Wanted(
            run,
            request,
            Fingerprint(digest, parts),
            {"model": model, "parameters": described},
            unready=error,
        )

    def _grace(self, model: str) -> float:
        from airflow_provider_kling.api.catalog.models import schedule_for

        if self._task.uncertain_grace is not None:
            return self._task.uncertain_grace
        return usual_grace(schedule_for(None, model).usual_seconds)

    def _limits(self) -> Budget:
        limit = self._task.max_cost_usd
        try:
            limit = checked_limit(self._task.hook.settings.max_cost_usd if limit in (None, "") else limit)
        except ValueError as error:
            raise InvalidRequestError(f"max_cost_usd: {error}") from None
        return Budget(limit, self._task.check_balance)

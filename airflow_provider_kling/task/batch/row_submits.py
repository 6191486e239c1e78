"""The submits of a batch's rows: each row is paid once, or its unchanged video is kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_kling.api.billing.cost import pricing_of
from airflow_provider_kling.api.billing.price_list import Pricing, estimate
from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.durable.record import NOTHING
from airflow_provider_kling.api.durable.submit import DurableSubmit, PendingSearch
from airflow_provider_kling.api.exceptions import BudgetError, InvalidRequestError, KlingError, Recovery
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.hooks.prepare_request import prepare
from airflow_provider_kling.task.arguments import request_parameters
from airflow_provider_kling.task.batch.options import BatchOptions
from airflow_provider_kling.task.batch.rows import Row
from airflow_provider_kling.task.batch.state import DONE, IN_FLIGHT, PENDING, REUSED, UNCERTAIN
from airflow_provider_kling.task.batch.store import BatchStore
from airflow_provider_kling.task.inline_media import reveal
from airflow_provider_kling.task.preflight import check_writable
from airflow_provider_kling.task.sidecar import look_at_target

if TYPE_CHECKING:
    from airflow_provider_kling.hooks.kling import KlingHook

log = logging.getLogger(__name__)


class RowSubmits:
    """Submits rows.

    :param options: of the batch.
    :param hook: of the connection that pays.
    :param store: of the batch.
    :param attempt: of the task.
    """

    def __init__(
        self, options: BatchOptions, hook: KlingHook, store: BatchStore, attempt: TaskAttempt
    ) -> None:
        self.complete = True
        """Whether a row without a record was certainly never submitted."""
        self._options = options
        self._hook = hook
        self._store = store
        self._attempt = attempt
        self._pricing: dict[str, Pricing | None] = {}

    def prepare(self, row: Row) -> GenerationRequest:
        """Check a row and read its pictures.

        :raises InvalidRequestError: naming every problem of the row.
        """
        given = reveal(dict(row.arguments))
        return prepare(
            given["model"],
            request_parameters(given),
            image=given.get("image"),
            account=self._hook.account,
            convert_image=self._options.convert_image,
            log_level=logging.DEBUG,
        )

    def problems(self, row: Row) -> list[str]:
        """What is wrong with a row that has to be submitted yet."""
        record = self._store.load(row)
        if record and record.get("status") in DONE and self._attempt.kind != "clear":
            return []
        try:
            request = self.prepare(row)
            if self._options.skip_unchanged:
                look_at_target(self._options.target(row), request.described)
        except InvalidRequestError as error:
            return [*error.problems] or [error.what]
        except KlingError as error:
            if error.recovery is not Recovery.GIVE_UP:
                raise
            return [error.what]
        return []

    def submit(self, row: Row, *, committed_usd: float, search: bool = False) -> dict[str, Any]:
        """Submit a row, re-attach to what a previous attempt submitted, or keep its unchanged video.

        :param committed_usd: what the batch spent and has in flight.
        :param search: wait until the vendor's request log tells of a submit whose answer was lost; otherwise
            such a row is left as uncertain.
        :return: the record of the row, saved.
        :raises KlingError: it was not submitted, or nobody knows.
        """
        record = self._store.load(row) or {}
        request = self.prepare(row)
        overwrite = self._options.overwrite
        if self._options.skip_unchanged:
            existing = look_at_target(self._options.target(row), request.described)
            if existing is not None and existing.video is not None:
                return self._reuse(row, existing.generation_id, asdict(existing.video), request)
            overwrite = overwrite or existing is not None  # of another request
        usd = self._check_budget(request, committed_usd)
        facts = {"estimate_usd": usd, "overwrite": overwrite, "model": request.model}

        def save(submit: Mapping[str, Any]) -> None:
            self._store.save(row, {**record, **facts, "status": PENDING, "submit": dict(submit)})

        client = self._hook.get_conn()
        stored = record.get("submit") or (NOTHING if self.complete else None)
        durable = DurableSubmit(
            client.calls,
            request,
            replace(self._attempt, variant=row.key),
            self._options.policy,
            preflight=partial(
                check_writable,
                path=self._options.target(row),
                overwrite=overwrite,
                with_sidecar=True,
                model=request.model,
            ),
        )
        result = client.run(durable.submit_or_reattach(stored, elsewhere=not search), save)
        if isinstance(result, PendingSearch):
            uncertain = {**(self._store.load(row) or {**record, **facts}), "status": UNCERTAIN}
            self._store.save(row, uncertain)
            log.warning(
                "Row %d (%s): the vendor may have accepted its submit. The others are submitted first; then "
                "its request log is searched.",
                row.number,
                row.key,
            )
            return uncertain
        accepted = {
            **facts,
            "status": IN_FLIGHT,
            "submit": result.record.encode(),
            "generation_id": result.generation_id,
            "client_request_id": result.record.client_request_id,
            "submitted_at": result.record.intended_at,
            "request": {**request.described},
        }
        self._store.save(row, accepted)
        return accepted

    def _check_budget(self, request: GenerationRequest, committed_usd: float) -> float | None:
        """What a request will cost, in USD, if the batch may spend it; None where that is not known."""
        limit = self._options.max_cost_usd
        try:
            known = estimate(request, self._pricing_of(request.model))
        except KlingError:
            if limit is not None:
                raise
            return None
        if limit is None:
            return known.usd if known else None
        if known is None:
            raise BudgetError(
                f"What a generation of {request.model} costs is not known, and the batch has a limit of "
                f"{limit:g} USD.",
                advice="Give the parameters that the price depends on, or run without max_cost_usd.",
            )
        if committed_usd + known.usd > limit:
            raise BudgetError(
                f"The next generation would cost about {known.usd:g} USD; with about {committed_usd:g} USD "
                f"spent or in flight that exceeds the batch's limit of {limit:g} USD.",
                advice="Raise max_cost_usd and clear the task: it continues with the rest.",
            )
        return known.usd

    def _pricing_of(self, model: str) -> Pricing | None:
        """What a model costs, asked once by each part of the task."""
        if model not in self._pricing:
            client = self._hook.get_conn()
            self._pricing[model] = client.run(pricing_of(client.calls, model))
        return self._pricing[model]

    def _reuse(
        self, row: Row, generation_id: str, video: dict[str, Any], request: GenerationRequest
    ) -> dict[str, Any]:
        del video["skipped"]
        log.info("Row %d (%s) is unchanged; keeping %s.", row.number, row.key, video["path"])
        record = {
            "status": REUSED,
            "generation_id": generation_id,
            "path": video["path"],
            "video": video,
            "cost": {"credits": 0, "usd": 0.0},
            "reused": True,
            "request": {**request.described},
        }
        self._store.save(row, record)
        return record

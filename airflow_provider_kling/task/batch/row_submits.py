"""The submits of a batch's rows: each row is paid once, or its unchanged video is kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.billing.cost import pricing_of
from airflow_provider_kling.api.billing.price_list import Pricing, estimate
from airflow_provider_kling.api.download.targets import target_for
from airflow_provider_kling.api.durable.attempt import TaskAttempt
from airflow_provider_kling.api.durable.record import NOTHING
from airflow_provider_kling.api.durable.submit import DurableSubmit, PendingSearch
from airflow_provider_kling.api.exceptions import BudgetError, KlingError, Money, Recovery
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.hooks.object_storage import place_of
from airflow_provider_kling.hooks.prepare_request import prepare
from airflow_provider_kling.task.arguments import request_parameters
from airflow_provider_kling.task.batch.options import BatchOptions
from airflow_provider_kling.task.batch.rows import Row
from airflow_provider_kling.task.batch.state import DONE, FAILED, IN_FLIGHT, PENDING, REUSED, UNCERTAIN
from airflow_provider_kling.task.batch.store import BatchStore
from airflow_provider_kling.task.inline_media import reveal
from airflow_provider_kling.task.preflight import check_writable
from airflow_provider_kling.task.sidecar import Existing, look_at_target

if TYPE_CHECKING:
    from airflow_provider_kling.hooks.kling import KlingHook

log = logger(__name__)

SEARCH: Final = "search"
"""In the record of an uncertain row: what to search for, as :meth:`.PendingSearch.as_dict` wrote it."""


class RowSubmits:
    """Checks rows, and submits them.

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

    def check(self, row: Row, record: dict[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
        """What becomes of a row in this attempt, and what is wrong with it.

        :param record: of the row; None where it has none.
        :return: the record, which says :data:`.PENDING` of a row that has to be submitted; and a sentence
            for each problem. Pictures are read only of rows that have to be submitted.
        """
        known = record or {"key": row.key, "status": PENDING}
        status, mine = known["status"], known.get("attempt") == self._attempt.number
        cleared = self._attempt.kind == "clear" and not mine
        if row.problems:
            return known, list(row.problems)
        if record is not None and not cleared:
            if known.get("asked") not in (None, row.mark) and status in (*DONE, IN_FLIGHT, UNCERTAIN):
                log.warning(
                    "Row %d (%s) is another one since it was submitted. A retry continues with the earlier "
                    "one, which is paid for; clear the task when it has ended to submit the new one.",
                    row.number,
                    row.key,
                )
            failed = status == FAILED and (mine or not known.get("retryable"))
            if failed or status in (*DONE, IN_FLIGHT, UNCERTAIN):
                return known, []
        try:
            request = self._prepare(row)
            existing = self._existing(row, request)
            if existing is not None and existing.video is not None and not _is_open(known):
                return self._reuse(row, existing, request), []
        except KlingError as error:
            if error.recovery is not Recovery.GIVE_UP:
                raise
            return known, [*getattr(error, "problems", ())] or [error.what]
        if cleared and status in DONE and self._options.policy.on_clear == "reuse":
            submitted = (known.get("submit") or {}).get("fingerprint")
            if submitted == dict(request.fingerprint) and self._is_there(known):
                return known, []
        return {**known, "status": PENDING}, []

    def submit(
        self,
        row: Row,
        *,
        committed_usd: float,
        answer: PendingSearch | None = None,
        search: bool = False,
    ) -> dict[str, Any]:
        """Submit a row, re-attach to what a previous attempt submitted, or keep its unchanged video.

        :param committed_usd: what the batch spent and has in flight.
        :param answer: of the search for a submit whose answer was lost.
        :param search: wait here until the vendor's request log tells of such a submit; otherwise the row is
            left as uncertain.
        :return: the record of the row, saved.
        :raises KlingError: it was not submitted, or nobody knows.
        """
        record = self._store.load(row.name) or {}
        request = self._prepare(row)
        existing = self._existing(row, request)
        if existing is not None and existing.video is not None and not _is_open(record):
            return self._reuse(row, existing, request)
        replaces = existing.sha256 if existing is not None else None
        usd = self._check_budget(request, committed_usd)
        facts = {
            "key": row.key,
            "asked": row.mark,
            "estimate_usd": usd,
            "replaces": replaces,
            "model": request.model,
        }

        def save(submit: Mapping[str, Any]) -> None:
            self._store.save(row.name, {**record, **facts, "status": PENDING, "submit": dict(submit)})

        client = self._hook.get_conn()
        stored = record.get("submit") or (NOTHING if self.complete else None)
        durable = DurableSubmit(
            client.calls,
            request,
            replace(self._attempt, variant=row.key),
            self._options.policy,
            preflight=partial(
                check_writable,
                path=self._options.target(row.name),
                overwrite=self._options.overwrite or replaces is not None,
                with_sidecar=True,
                model=request.model,
            ),
        )
        result = client.run(durable.submit_or_reattach(stored, elsewhere=not search, answer=answer), save)
        if isinstance(result, PendingSearch):
            known = self._store.load(row.name) or {**record, **facts}
            uncertain = {**known, "status": UNCERTAIN, SEARCH: result.as_dict()}
            self._store.save(row.name, uncertain)
            log.warning(
                "Row %d (%s): the vendor may have accepted its submit; searching its request log before the "
                "row is submitted again.",
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
        self._store.save(row.name, accepted)
        return accepted

    def _prepare(self, row: Row) -> GenerationRequest:
        """Check a row's request and read its pictures.

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

    def _existing(self, row: Row, request: GenerationRequest) -> Existing | None:
        """What stands where the video of a row goes; None where that does not matter."""
        if not self._options.skip_unchanged:
            return None
        return look_at_target(self._options.target(row.name), request.described)

    def _is_there(self, record: Mapping[str, Any]) -> bool:
        """Whether the video of a row is where it was saved."""
        path, video = record.get("path"), record.get("video") or {}
        return bool(path) and target_for(place_of(str(path)), "").size() == video.get("size")

    def _check_budget(self, request: GenerationRequest, committed_usd: float) -> float | None:
        """What a request will cost, in USD, if the batch may spend it; None where that is not known."""
        limit = self._options.max_cost_usd
        try:
            known = estimate(request, self._pricing_of(request.model))
        except KlingError as error:
            if limit is not None:
                raise
            log.info("The price of %s is not known; continuing without it: %s", request.model, error.what)
            self._pricing.setdefault(request.model, None)  # not asked again for each row
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
                f"used up by other rows that exceeds the batch's limit of {limit:g} USD.",
                money=Money.NOTHING_SENT,
                advice="Raise max_cost_usd and clear the task: it continues with the rest.",
            )
        return known.usd

    def _pricing_of(self, model: str) -> Pricing | None:
        """What a model costs, asked once by each part of the task."""
        if model not in self._pricing:
            client = self._hook.get_conn()
            self._pricing[model] = client.run(pricing_of(client.calls, model))
        return self._pricing[model]

    def _reuse(self, row: Row, existing: Existing, request: GenerationRequest) -> dict[str, Any]:
        assert existing.video is not None
        video = asdict(existing.video)
        del video["skipped"]
        log.info("Row %d (%s) is unchanged; keeping %s.", row.number, row.key, video["path"])
        record = {
            "key": row.key,
            "asked": row.mark,
            "status": REUSED,
            "generation_id": existing.generation_id,
            "client_request_id": existing.client_request_id,
            "path": video["path"],
            "video": video,
            "cost": {"credits": 0, "usd": 0.0},
            "reused": True,
            "request": {**request.described},
        }
        self._store.save(row.name, record)
        return record


def _is_open(record: Mapping[str, Any]) -> bool:
    """Whether a submit of the row was begun and its outcome is not known."""
    submit = record.get("submit") or {}
    return bool(submit.get("client_request_id")) and not submit.get("generation_id")

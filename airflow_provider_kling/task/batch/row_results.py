"""What becomes of a row that was submitted: its video is saved, or its record says why there is none."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_kling.api.billing.cost import Cost, charges_of
from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError, Recovery
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.api.retry import CLOCK_SKEW
from airflow_provider_kling.task import sidecar
from airflow_provider_kling.task.batch.options import BatchOptions
from airflow_provider_kling.task.batch.state import FAILED, INVALID, SAVED, InFlight
from airflow_provider_kling.task.batch.store import BatchStore
from airflow_provider_kling.task.results import expected_seconds, only_informs, write_sidecar

if TYPE_CHECKING:
    from airflow_provider_kling.api.generation import Generation
    from airflow_provider_kling.api.transport.response_parsing import Charge
    from airflow_provider_kling.hooks.kling import KlingHook

log = logger(__name__)


class RowResults:
    """Saves the videos of rows, and records what became of them.

    :param options: of the batch.
    :param hook: of the connection that pays.
    :param store: of the batch.
    """

    def __init__(self, options: BatchOptions, hook: KlingHook, store: BatchStore) -> None:
        self._options = options
        self._hook = hook
        self._store = store

    def charges(self, ended: Mapping[str, InFlight]) -> Mapping[str, Charge]:
        """What the account was charged for generations, as far as its ledger tells; asked once for all."""
        if not ended:
            return {}
        client = self._hook.get_conn()
        since = min(each.submitted_at for each in ended.values()) - CLOCK_SKEW
        found: Mapping[str, Charge] = {}
        with only_informs("look up what the generations cost"):
            found = client.run(charges_of(client.calls, ended.keys(), since=since))
        return found

    def save(self, each: InFlight, generation: Generation, charge: Charge | None) -> dict[str, Any]:
        """Save a row's video with its sidecar, and record that.

        :param charge: for it, where that is known.
        :return: the record of the row, saved.
        :raises KlingError: the video was not saved; it stays paid and can be saved again.
        """
        record = self._store.load(each.name) or {}
        asked = record.get("request") or {}
        target = self._options.target(each.name)
        replaces = sidecar.is_still(target, record.get("replaces"), model=asked.get("model"))
        saved = self._hook.download(
            generation.id,
            target,
            overwrite=self._options.overwrite or replaces,
            model=asked.get("model"),
            client_request_id=record.get("client_request_id"),
            expected_seconds=expected_seconds(asked),
            generation=generation,
        )
        cost = Cost.best(generation, charge, each.estimate_usd or None).as_dict()
        now = time.time()
        facts = {name: record.get(name) for name in ("client_request_id", "submitted_at")}
        write_sidecar(saved, generation_id=generation.id, request={**asked, **facts}, cost=cost, saved_at=now)
        video = asdict(saved)
        del video["skipped"]
        done = {"status": SAVED, "path": saved.path, "video": video, "cost": cost, "saved_at": now}
        known = {name: value for name, value in record.items() if name not in ("error", "retryable")}
        self._store.save(each.name, {**known, **done})
        return {**known, **done}

    def fail(self, name: str, error: KlingError, *, key: str | None = None) -> dict[str, Any]:
        """Record why a row has no video.

        :param name: of its record.
        :param key: of a row that may have no record yet.
        :return: the record of the row, saved.
        """
        record = self._store.load(name) or {"key": key}
        skipped = isinstance(error, InvalidRequestError) and self._options.on_invalid == "skip"
        failed = {
            **record,
            "status": INVALID if skipped else FAILED,
            "error": str(error)[:1000],
            "retryable": error.recovery is not Recovery.GIVE_UP,
        }
        self._store.save(name, failed)
        return failed

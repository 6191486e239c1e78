"""One run of a batch: check every row, submit as places free up, save what completes, write the manifest.

Money and files are the worker's; the triggerer only waits. What happened to a row is in its record, which
is written before the row is submitted and after everything that happens to it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.billing.price_list import video_seconds, with_defaults
from airflow_provider_kling.api.calls import is_ready, timed_out
from airflow_provider_kling.api.catalog.models import schedule_for
from airflow_provider_kling.api.exceptions import (
    AuthenticationError,
    BudgetError,
    ConnectionLostError,
    GenerationFailedError,
    InsufficientBalanceError,
    InvalidRequestError,
    KlingError,
    RateLimitError,
    Recovery,
    ServiceUnavailableError,
)
from airflow_provider_kling.api.transport.messages import Flow, Sleep
from airflow_provider_kling.hooks.lineage import tell_assets
from airflow_provider_kling.hooks.object_storage import write_lines
from airflow_provider_kling.task import sidecar
from airflow_provider_kling.task.batch.manifest import Manifest
from airflow_provider_kling.task.batch.options import BatchOptions
from airflow_provider_kling.task.batch.row_submits import RowSubmits
from airflow_provider_kling.task.batch.rows import Row
from airflow_provider_kling.task.batch.state import (
    DONE,
    FAILED,
    IN_FLIGHT,
    INVALID,
    PENDING,
    REUSED,
    SAVED,
    UNCERTAIN,
    BatchState,
    InFlight,
)
from airflow_provider_kling.task.batch.store import BatchStore
from airflow_provider_kling.task.submit import attempt_of
from airflow_provider_kling.task.wait import BACKSTOP
from airflow_provider_kling.task.xcom import BATCH
from airflow_provider_kling.triggers.batch import PROGRESS_EVERY, KlingBatchTrigger

if TYPE_CHECKING:
    from airflow_provider_kling.api.generation import Generation
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.version_compat import Context

log = logging.getLogger(__name__)

LINGER: Final = 60.0
"""Seconds after the first end at which the worker is called though few generations have ended."""
PROBLEMS_SHOWN: Final = 20
"""Bad rows that an error names; the log names all."""


class BatchRun:
    """What a task does with a batch, from one start of its process to the next deferral.

    :param context: Airflow's.
    :param options: the operator's.
    :param hook: of the connection that pays.
    :param defer: the operator's own ``defer``.
    """

    def __init__(
        self, context: Context, options: BatchOptions, hook: KlingHook, defer: Callable[..., Any]
    ) -> None:
        self._context = context
        self._options = options
        self._hook = hook
        self._defer = defer
        self._attempt = attempt_of(context)
        self._store = BatchStore(options.path, self._attempt)
        self._state = BatchState(self._attempt.number)
        self._stopped: KlingError | None = None
        self._held: Row | None = None
        self._submits = RowSubmits(options, hook, self._store, self._attempt)
        self._told_at = time.monotonic()

    @property
    def generation_ids(self) -> list[str]:
        """The generations that are in flight."""
        return list(self._state.in_flight)

    def check(self) -> None:
        """Check every row, pictures included, before the first is submitted.

        :raises InvalidRequestError: naming the bad rows; nothing was submitted by this attempt.
        """
        problems: list[str] = []
        bad = total = 0
        for row in self._options.rows():
            total += 1
            found = [*row.problems] or self._submits.problems(row)
            if not found:
                continue
            bad += 1
            sentence = f"Row {row.number} ({row.key}): {' '.join(found)}"
            log.warning("%s", sentence)
            if len(problems) < PROBLEMS_SHOWN:
                problems.append(sentence)
        if total == 0:
            raise InvalidRequestError("The batch has no rows.", advice="Nothing was submitted.")
        if bad and self._options.on_invalid == "fail":
            more = f" and {bad - len(problems)} more, which the log names" if bad > len(problems) else ""
            raise InvalidRequestError(
                f"{bad} of {total} rows cannot be submitted: {' '.join(problems)}{more}",
                problems=problems,
                advice="Nothing was submitted. Correct the rows, or set on_invalid='skip'.",
            )
        log.info("Checked %d rows; %d cannot be submitted and are skipped.", total, bad)

    def begin(self) -> None:
        """Read what previous attempts recorded, and say that the batch began."""
        new = self._store.is_new
        if new and self._attempt.kind != "first":
            log.warning(
                "There is no record of this batch at %s, though this is attempt %d: each row is searched for "
                "in the vendor's request log before it is submitted.",
                self._store.folder,
                self._attempt.number,
            )
        self._submits.complete = not new or self._attempt.kind == "first"
        if new and self._submits.complete:
            self._store.begin({"begun_at": time.time()})

    def run(self, ended: Iterable[str] | None = None) -> None:
        """Save what has ended, submit what has a place, and wait; again and again until nothing is left.

        :param ended: generations that the triggerer saw end; None at the start of an attempt.
        :raises TaskDeferred: to continue in ``execute_complete``.
        """
        known = None if ended is None else BatchState.decode(self._store.load_state(), self._attempt.number)
        if known is None:
            self._read_records(fresh=ended is None)
        else:
            self._state = known
        rows = self._rows_to_submit()
        self._finish_all(ended or ())
        while True:
            self._fill(rows)
            self._tell()
            if not self._state.in_flight:
                return
            self._wait()

    def report(self) -> dict[str, Any]:
        """Write the manifest, tell the assets, and decide whether the task failed.

        :return: the summary.
        :raises KlingError: the batch was stopped, or more rows failed than ``max_failures`` allows.
        """
        state, options = self._state, self._options
        path = f"{self._options.folder}manifest-{self._attempt.identity[:12]}.jsonl"
        manifest = Manifest(path)
        write_lines(path, manifest.lines((row, self._record(row)) for row in self._options.rows()))
        counts, total, summary = manifest.counts, manifest.counts.total(), manifest.summary()
        log.info(
            "Batch: %d rows; %d saved, %d reused, %d failed, %d invalid, %d not submitted; about %g USD. "
            "Manifest: %s",
            total,
            *(counts[name] for name in (SAVED, REUSED, FAILED, INVALID, PENDING)),
            summary["cost_usd"],
            path,
        )
        self._context["ti"].xcom_push(key=BATCH, value=summary)
        if self._stopped is not None:
            raise KlingError(
                f"The batch stopped: {self._stopped.what} {counts[SAVED] + counts[REUSED]} of {total} videos "
                f"are saved, {counts[PENDING]} rows were not submitted.",
                advice=f"{self._stopped.advice} A retry continues with the rest.".strip(),
                recovery=self._stopped.recovery
                if isinstance(self._stopped, BudgetError | AuthenticationError)
                else Recovery.RETRY_TASK,
            )
        failed, allowed = counts[FAILED], options.allowed_failures(total)
        if failed > allowed:
            shown = " ".join(state.errors[:PROBLEMS_SHOWN])
            raise KlingError(
                f"{failed} of {total} rows failed, and max_failures allows {allowed:g}. "
                f"{counts[SAVED] + counts[REUSED]} videos are saved. {shown}".rstrip(),
                advice=f"The manifest {path} names each row. A retry or a clear of the task submits only "
                "what failed.",
                recovery=Recovery.RETRY_TASK if state.retryable else Recovery.GIVE_UP,
            )
        facts = {name: value for name, value in summary.items() if value}
        tell_assets(self._context, options.outlets, [facts], several=False)
        return summary

    # Rows

    def _read_records(self, *, fresh: bool) -> None:
        """Make the state from the records: what is in flight, what is done, what is to be submitted.

        :param fresh: whether an attempt starts, and not a part of one after a deferral.
        """
        state = self._state
        cleared = fresh and self._attempt.kind == "clear"
        for row in self._options.rows():
            state.total += 1
            record = self._record(row)
            status = record["status"]
            if status == IN_FLIGHT:
                self._track(row, record)
            elif status == UNCERTAIN:
                state.uncertain.append(row.number)
            elif status in DONE and not cleared:
                state.spent_usd += (record.get("cost") or {}).get("usd") or 0.0
            elif status == FAILED and not (fresh and (cleared or record.get("retryable"))):
                self._count_failure(row, record)
            elif not row.problems:
                state.todo.append(row.number)
                status = PENDING
            state.counts[status] += 1

    def _rows_to_submit(self) -> Iterator[Row]:
        """The rows of ``todo``, read one by one; each stays in it until it was dealt with."""
        wanted = deque(self._state.todo)
        for row in self._options.rows() if wanted else ():
            if row.number == wanted[0]:
                yield row
                wanted.popleft()
                if not wanted:
                    return

    def _track(self, row: Row, record: Mapping[str, Any]) -> None:
        self._state.in_flight[record["generation_id"]] = InFlight(
            row.number,
            row.key,
            record["submitted_at"],
            record.get("model") or "",
            record.get("estimate_usd") or 0.0,
        )

    # Submitting

    def _fill(self, rows: Iterator[Row]) -> None:
        """Submit rows while there are places and nothing speaks against it."""
        state = self._state
        while state.todo and self._has_place:
            row = self._held or next(rows)
            self._held = None
            if not self._submit(row):
                return
            state.todo.popleft()
        if state.uncertain and not state.todo and not state.in_flight:
            numbers = set(state.uncertain)
            for row in filter(lambda row: row.number in numbers, self._options.rows()):
                if not self._has_place or not self._submit(row, search=True):
                    return
                state.uncertain.remove(row.number)

    @property
    def _has_place(self) -> bool:
        state, options = self._state, self._options
        if options.on_error == "fail" and state.counts[FAILED] > options.allowed_failures(state.total):
            return False
        return self._stopped is None and len(state.in_flight) < options.max_active

    def _submit(self, row: Row, *, search: bool = False) -> bool:
        """Submit a row; false where it has to wait, or no row is submitted any more."""
        state = self._state
        before = UNCERTAIN if search else PENDING
        try:
            record = self._submits.submit(row, committed_usd=state.committed_usd, search=search)
            self._take_in(row, record)
        except (InsufficientBalanceError, BudgetError, AuthenticationError) as error:
            self._stop(error)
            return False
        except (RateLimitError, ServiceUnavailableError, ConnectionLostError) as error:
            if not state.in_flight:
                self._stop(error)
                return False
            log.warning("Could not submit row %d (%s) yet: %s", row.number, row.key, error.what)
            self._held = None if search else row
            return False
        except KlingError as error:
            self._fail(row, error)
        state.counts[before] -= 1
        self._tell()
        return True

    def _take_in(self, row: Row, record: Mapping[str, Any]) -> None:
        if record["status"] == IN_FLIGHT:
            self._track(row, record)
        elif record["status"] == UNCERTAIN:
            self._state.uncertain.append(row.number)
        self._state.counts[record["status"]] += 1

    def _stop(self, error: KlingError) -> None:
        log.warning("No more rows are submitted: %s", error)
        self._stopped = error

    # Ends

    def _finish_all(self, ended: Iterable[str]) -> None:
        """Take in what ended, and give up what is late."""
        for generation_id in ended:
            if generation_id in self._state.in_flight:
                self._finish(generation_id)
        now = time.time()
        for generation_id, each in list(self._state.in_flight.items()):
            if now >= each.submitted_at + self._options.timeout:
                late = timed_out(generation_id, f"{self._options.timeout:g} s were given")
                self._fail(each.row, late)
                self._drop(generation_id)

    def _finish(self, generation_id: str) -> None:
        """Take in the end of a generation: save its video, or record why there is none."""
        each = self._state.in_flight[generation_id]
        try:
            generation = self._hook.get_generation(generation_id)
            if not is_ready(generation):
                return  # the triggerer saw trouble, not an end
            self._save(each, generation)
        except KlingError as error:
            self._fail(each.row, error)
        self._drop(generation_id)

    def _drop(self, generation_id: str) -> None:
        del self._state.in_flight[generation_id]
        self._state.counts[IN_FLIGHT] -= 1

    def _save(self, each: InFlight, generation: Generation) -> None:
        row, usd = each.row, each.estimate_usd
        record = self._store.load(row) or {}
        asked = record.get("request") or {}
        request = {
            **asked,
            "client_request_id": record.get("client_request_id"),
            "submitted_at": record.get("submitted_at"),
        }
        saved = self._hook.download(
            generation.id,
            self._options.target(row),
            overwrite=bool(record.get("overwrite")),
            model=asked.get("model"),
            client_request_id=record.get("client_request_id"),
            expected_seconds=video_seconds(with_defaults(asked["model"], asked["parameters"]))
            if asked
            else None,
        )
        cost = {"credits": generation.credits_used, "usd": usd or None}
        said = sidecar.content(
            saved, generation_id=generation.id, saved_at=time.time(), request=request, cost=cost
        )
        sidecar.write(sidecar.sidecar_path(saved.path), said, generation_id=generation.id)
        video = asdict(saved)
        del video["skipped"]
        facts = {"path": saved.path, "video": video, "cost": cost, "saved_at": time.time()}
        self._store.save(row, {**record, "status": SAVED, **facts})
        self._state.spent_usd += usd
        self._state.counts[SAVED] += 1

    def _fail(self, row: Row, error: KlingError) -> None:
        record = self._store.load(row) or {}
        retryable = error.recovery is not Recovery.GIVE_UP
        skipped = isinstance(error, InvalidRequestError) and self._options.on_invalid == "skip"
        status = INVALID if skipped else FAILED
        failed = {**record, "status": status, "error": str(error)[:1000], "retryable": retryable}
        self._store.save(row, failed)
        self._state.counts[status] += 1
        if skipped:
            return
        log.warning("Row %d (%s) failed: %s", row.number, row.key, error)
        self._count_failure(row, failed)

    def _count_failure(self, row: Row, record: Mapping[str, Any]) -> None:
        self._state.retryable |= bool(record.get("retryable"))
        if len(self._state.errors) < PROBLEMS_SHOWN:
            self._state.errors.append(f"Row {row.number} ({row.key}): {record.get('error')}")

    # Waiting

    def _wait(self) -> None:
        state, options = self._state, self._options
        enough = max(1, min(len(state.in_flight), options.max_active // 4))
        first = min(each.submitted_at for each in state.in_flight.values())
        deadline = max(time.time() + 1.0, first + options.timeout)
        if options.deferrable:
            generations: dict[str, list[list[Any]]] = {}
            for generation_id, each in state.in_flight.items():
                generations.setdefault(each.model, []).append([generation_id, round(each.submitted_at, 1)])
            self._store.save_state(state.encode())
            log.info("Waiting for %d generations in the triggerer.", len(state.in_flight))
            self._defer(
                trigger=KlingBatchTrigger(
                    generations=generations,
                    kling_conn_id=self._hook.kling_conn_id,
                    deadline=deadline,
                    schedule=schedule_for(options.poke_interval, None).as_dict(),
                    enough=enough,
                    linger=LINGER,
                    progress=self._progress(),
                ),
                method_name="execute_complete",
                timeout=timedelta(seconds=options.timeout) + BACKSTOP,
            )
        self._wait_here(deadline)

    def _wait_here(self, deadline: float) -> None:
        """Block until a generation has ended: polls each when its completion is likely.

        :param deadline: epoch seconds.
        """
        client = self._hook.get_conn()
        while True:
            now = time.time()
            waits = {
                generation_id: schedule_for(self._options.poke_interval, each.model or None).next_wait(
                    now - each.submitted_at
                )
                for generation_id, each in self._state.in_flight.items()
            }
            soon = min(waits.values())
            client.run(_pause(max(0.0, min(soon, deadline - now))))
            ended = [each for each, wait in waits.items() if wait <= soon + 1.0 and self._has_ended(each)]
            self._tell()
            self._finish_all(ended)
            if ended or time.time() >= deadline:
                return

    def _has_ended(self, generation_id: str) -> bool:
        try:
            return is_ready(self._hook.get_generation(generation_id))
        except GenerationFailedError:
            return True
        except KlingError as error:
            log.warning("Polling generation %s failed; still waiting: %s", generation_id, error.what)
            return False

    # Telling

    def _progress(self) -> dict[str, int]:
        counts = self._state.counts
        return {
            "done": counts[SAVED] + counts[REUSED],
            "failed": counts[FAILED],
            "total": self._state.total,
        }

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told_at < PROGRESS_EVERY:
            return
        self._told_at = now
        progress = self._progress()
        log.info(
            "%d of %d rows are done, %d are active, %d failed; about %g USD spent.",
            progress["done"],
            progress["total"],
            len(self._state.in_flight),
            progress["failed"],
            self._state.spent_usd,
        )

    # Small things

    def _record(self, row: Row) -> dict[str, Any]:
        """What is recorded of a row; a status at least."""
        if row.problems:
            return {"status": INVALID, "error": " ".join(row.problems)}
        return {"status": PENDING, **(self._store.load(row) or {})}


def _pause(seconds: float) -> Flow[None]:
    yield Sleep(seconds)

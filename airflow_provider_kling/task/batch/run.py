"""One run of a batch: check every row, submit as places free up, save what completes, write the manifest.

Money and files are the worker's; the triggerer only waits. What happened to a row is in its record, which
is written before the row is submitted and after everything that happens to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from airflow_provider_kling.api.calls import is_ready, timed_out
from airflow_provider_kling.api.durable.submit import PendingSearch
from airflow_provider_kling.api.exceptions import (
    AuthenticationError,
    BudgetError,
    ConnectionLostError,
    InsufficientBalanceError,
    InvalidRequestError,
    KlingError,
    RateLimitError,
    Recovery,
    ServiceUnavailableError,
)
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.hooks.lineage import tell_assets
from airflow_provider_kling.hooks.object_storage import write_lines
from airflow_provider_kling.task import xcom
from airflow_provider_kling.task.batch.manifest import Manifest
from airflow_provider_kling.task.batch.options import BatchOptions
from airflow_provider_kling.task.batch.progress import Progress, summary
from airflow_provider_kling.task.batch.row_results import RowResults
from airflow_provider_kling.task.batch.row_submits import SEARCH, RowSubmits
from airflow_provider_kling.task.batch.rows import Row, source_mark
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
from airflow_provider_kling.task.batch.waits import BatchWait
from airflow_provider_kling.task.submit import attempt_of

if TYPE_CHECKING:
    from airflow_provider_kling.api.transport.response_parsing import Charge
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.triggers.batch import BatchEvent
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)

PROBLEMS_SHOWN: Final = 20
"""Bad or failed rows that an error names; the log and the manifest name all."""
LONGEST_PROBLEM: Final = 200
"""Characters of each."""
MOST_UNCERTAIN: Final = 10
"""Rows whose submits got no answer at which no more are submitted until the vendor's request log has told:
so much trouble is the vendor's, and each search has its place in the trigger's row."""
_PASSING: Final = (RateLimitError, ServiceUnavailableError, ConnectionLostError)


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
        self._attempt = attempt_of(context)
        self._store = BatchStore(options.path, self._attempt)
        self._state = BatchState(self._attempt.number)
        self._stopped: KlingError | None = None
        self._rows: Iterator[Row] = iter(())
        self._held: Row | None = None
        self._submits = RowSubmits(options, hook, self._store, self._attempt)
        self._results = RowResults(options, hook, self._store)
        self._wait = BatchWait(options, hook, defer)
        self._manifest = f"{options.folder}manifest-{self._attempt.identity[:12]}.jsonl"
        places = {"manifest": self._manifest, "records": self._store.records}
        self._progress = Progress(partial(xcom.push, context), places)

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # a copy of the operator has the same; its context and its connections cannot be copied

    @property
    def generation_ids(self) -> list[str]:
        """The generations that are in flight."""
        return list(self._state.in_flight)

    # The story

    def begin(self) -> None:
        """Check every row, pictures included, and read what previous attempts recorded.

        :raises InvalidRequestError: naming the bad rows; nothing was submitted by this attempt.
        """
        state, begun = self._state, self._store.begun
        first = self._attempt.kind == "first"
        state.source, state.begun_at = source_mark(self._options.requests), time.time()
        self._tell_of_earlier(begun)
        self._submits.complete = begun is not None or first
        if self._submits.complete:  # said first, as the checks can take long
            self._store.begin({"begun_at": state.begun_at, **(begun or {}), "source": state.source})
        self._check_rows(known=begun is not None or not first)
        state.done_before = state.ended
        self._rows = self._rows_to_submit()
        self._progress.push(self._state)

    def resume(self, event: BatchEvent) -> None:
        """Continue after a deferral: take in what the triggerer saw.

        :param event: of the trigger.
        """
        known = BatchState.decode(self._store.load_state(), self._attempt.number)
        begun = self._store.begun
        self._submits.complete = begun is not None or self._attempt.kind == "first"
        if known is not None and known.source == source_mark(self._options.requests):
            self._state = known
        else:
            if known is not None:
                log.warning(
                    "The rows changed since the batch began; continuing with those that are there now."
                )
            self._state.begun_at = time.time() if known is None else known.begun_at
            self._state.source = source_mark(self._options.requests)
            self._check_rows(known=True, resumed=True)
        for generation_id, at in event.polled.items():
            if (each := self._state.in_flight.get(generation_id)) is not None:
                self._state.in_flight[generation_id] = each._replace(polled_at=at)
        self._rows = self._rows_to_submit()
        self._finish_all(event.ended)
        self._take_answers(event.answers, event.unanswered)

    def run(self) -> None:
        """Submit what has a place, save what has ended, and wait; again and again until nothing is left.

        :raises TaskDeferred: to continue in ``execute_complete``.
        """
        while True:
            self._fill()
            state = self._state
            searches = state.uncertain if self._stopped is None else {}
            if not state.in_flight and not searches:
                return
            if self._options.deferrable:
                self._store.save_state(state.encode())
                self._progress.push(state)
                self._wait.in_triggerer(state.in_flight, self._searches(searches), summary(state))
            elif state.in_flight:
                self._finish_all(self._wait.here(state.in_flight))
            else:
                self._search_here()
            self._progress.tell(state)

    def report(self) -> dict[str, Any]:
        """Write the manifest, tell the assets, and decide whether the task failed.

        :return: the summary.
        :raises KlingError: the batch was stopped, or more rows failed than ``max_failures`` allows.
        """
        state, options = self._state, self._options
        path = self._manifest
        manifest = Manifest(path)
        write_lines(path, manifest.lines(self._records()))
        counts, total = manifest.counts, manifest.counts.total()
        said = {
            **manifest.summary(),
            "updated_at": round(time.time(), 1),
            "estimated_end": None,
            "finished": True,
        }
        log.info(
            "Batch: %d rows; %d saved, %d reused, %d failed, %d invalid, %d not submitted; about %g USD. "
            "Manifest: %s",
            total,
            *(counts[name] for name in (SAVED, REUSED, FAILED, INVALID, PENDING)),
            said["cost_usd"],
            path,
        )
        self._context["ti"].xcom_push(key=xcom.BATCH, value=said)
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
            shown = " ".join(state.errors)
            raise KlingError(
                f"{failed} of {total} rows failed, and max_failures allows {allowed:g}. "
                f"{counts[SAVED] + counts[REUSED]} videos are saved. {shown}".rstrip(),
                advice=f"The manifest {path} names each row. A retry or a clear of the task submits only "
                "what failed.",
                recovery=Recovery.RETRY_TASK if state.retryable else Recovery.GIVE_UP,
            )
        facts = {name: value for name, value in said.items() if value}
        tell_assets(self._context, options.outlets, [facts], several=False)
        return said

    # Rows

    def _tell_of_earlier(self, begun: Mapping[str, Any] | None) -> None:
        """Say what is odd about what previous attempts left."""
        if begun is None and self._attempt.kind != "first":
            log.warning(
                "There is no record of this batch at %s, though this is attempt %d: each row is searched for "
                "in the vendor's request log before it is submitted.",
                self._store.folder,
                self._attempt.number,
            )
        if begun is not None and begun.get("source") not in (None, self._state.source):
            log.warning(
                "The rows changed since a previous attempt of this task. What was submitted continues; rows "
                "that are new are submitted, and rows that are gone are named below."
            )

    def _check_rows(self, *, known: bool, resumed: bool = False) -> None:
        """Check all rows, and make the state from their records.

        :param known: whether there can be records.
        :param resumed: whether the attempt continues after a deferral: what cannot be submitted fails alone.
        :raises InvalidRequestError: rows cannot be submitted.
        """
        state, problems, bad = self._state, list[str](), 0
        names = set[str]()
        for row in self._options.rows():
            state.total += 1
            names.add(row.name)
            record, found = self._submits.check(row, self._store.load(row.name) if known else None)
            if found:
                bad += 1
                sentence = f"Row {row.number} ({row.key}): {' '.join(found)}"
                log.warning("%s", sentence)
                if len(problems) < PROBLEMS_SHOWN:
                    problems.append(sentence)
                if not row.problems:  # the record of a key that is taken twice is the other row's
                    record = {**record, "status": INVALID, "error": " ".join(found)[:1000]}
                state.counts[INVALID] += 1
                if self._options.on_invalid == "skip" and not row.problems:
                    self._store.save(row.name, record)
            else:
                self._take_in(row.number, row.name, record)
            self._progress.tell(state)
        if state.total == 0:
            raise InvalidRequestError("The batch has no rows.", advice="Nothing was submitted.")
        if known:
            self._take_in_removed(names)
        if bad and self._options.on_invalid == "fail" and not resumed:
            more = f" and {bad - len(problems)} more, which the log names" if bad > len(problems) else ""
            raise InvalidRequestError(
                f"{bad} of {state.total} rows cannot be submitted: {' '.join(problems)}{more}",
                problems=problems,
                advice="Nothing was submitted. Correct the rows, or set on_invalid='skip'.",
            )
        log.info("Checked %d rows; %d cannot be submitted and are skipped.", state.total, bad)

    def _take_in(self, number: int, name: str, record: Mapping[str, Any]) -> None:
        """Count a row as its record says."""
        state, status = self._state, record["status"]
        state.counts[status] += 1
        if status == PENDING:
            state.todo.add(number)
        elif status == UNCERTAIN:
            state.uncertain[name] = number
        elif status == IN_FLIGHT:
            state.in_flight[record["generation_id"]] = InFlight(
                number,
                name,
                record["submitted_at"],
                record.get("model") or "",
                record.get("estimate_usd") or 0.0,
            )
        elif status in DONE:
            state.spent_usd += (record.get("cost") or {}).get("usd") or 0.0
        elif status == FAILED:
            self._count_failure(number, record)

    def _take_in_removed(self, names: set[str]) -> None:
        """Continue with what was submitted for rows that are not in the source any more: it is paid for."""
        for name in self._store.names():
            if name in names:
                continue
            record = self._store.load(name) or {}
            if record.get("status") in (IN_FLIGHT, SAVED):
                log.warning(
                    "Row %s is not among the rows any more. Its generation %s was submitted before, and its "
                    "video is saved all the same.",
                    record.get("key", name),
                    record.get("generation_id"),
                )
                self._store.save(name, {**record, "removed": True})
                self._state.total += 1
                self._take_in(0, name, record)
            elif record.get("status") == UNCERTAIN or (record.get("submit") or {}).get("client_request_id"):
                log.warning(
                    "Row %s is not among the rows any more. It is not known whether its submit %s was "
                    "accepted; if so, it is billed. Add the row again, or look in the vendor's dashboard.",
                    record.get("key", name),
                    (record.get("submit") or {}).get("client_request_id"),
                )

    def _rows_to_submit(self) -> Iterator[Row]:
        """The rows of ``todo``, read one by one; each stays in it until it was dealt with."""
        left = len(self._state.todo)
        for row in self._options.rows() if left else ():
            if row.number in self._state.todo:
                yield row
                left -= 1
                if not left:
                    return

    def _records(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Each row's key with its record, those that are gone at the end."""
        names = set[str]()
        for row in self._options.rows():
            names.add(row.name)
            if row.problems:
                yield row.key, {"status": INVALID, "error": " ".join(row.problems)}
            else:
                yield row.key, {"status": PENDING, **(self._store.load(row.name) or {})}
        if len(names) < self._state.total:
            for name in self._store.names():
                record = {} if name in names else self._store.load(name) or {}
                if record.get("removed"):
                    yield record.get("key", name), record

    # Submitting

    def _fill(self) -> None:
        """Submit rows while there are places and nothing speaks against it."""
        state = self._state
        while state.todo and self._has_place:
            row = self._held or next(self._rows, None)
            self._held = None
            if row is None:  # the rows changed while they were read
                log.warning("%d rows are not among the rows any more.", len(state.todo))
                state.todo.clear()
                return
            if not self._submit(row, PENDING):
                return
            state.todo.discard(row.number)

    @property
    def _has_place(self) -> bool:
        state, options = self._state, self._options
        if options.on_error == "fail" and state.counts[FAILED] > options.allowed_failures(state.total):
            return False
        free = state.active < options.max_active and len(state.uncertain) < MOST_UNCERTAIN
        return self._stopped is None and free

    def _submit(
        self, row: Row, before: str, *, answer: PendingSearch | None = None, search: bool = False
    ) -> bool:
        """Submit a row; false where it has to wait, or no row is submitted any more.

        :param before: the status that it is counted under.
        """
        state = self._state
        try:
            record = self._submits.submit(
                row, committed_usd=state.committed_usd, answer=answer, search=search
            )
        except (InsufficientBalanceError, BudgetError, AuthenticationError) as error:
            self._stop(error)
            return False
        except _PASSING as error:
            if not state.active or before == UNCERTAIN:
                self._stop(error)
                return False
            log.warning("Could not submit row %d (%s) yet: %s", row.number, row.key, error.what)
            self._held = row
            return False
        except KlingError as error:
            record = self._results.fail(row.name, error, key=row.key)
        state.counts[before] -= 1
        state.uncertain.pop(row.name, None)
        self._take_in(row.number, row.name, record)
        self._progress.tell(state)
        return True

    def _stop(self, error: KlingError) -> None:
        log.warning("No more rows are submitted: %s", error)
        self._stopped = error

    # Submits whose answers were lost

    def _searches(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """What the triggerer is to search for."""
        records = ((name, self._store.load(name) or {}) for name in names)
        return [{"variant": name, **record.get(SEARCH, {})} for name, record in records]

    def _take_answers(
        self, answers: Mapping[str, PendingSearch], unanswered: Mapping[str, KlingError]
    ) -> None:
        """Continue the rows that were searched for."""
        state = self._state
        for name, error in unanswered.items():
            if (number := state.uncertain.pop(name, None)) is not None:
                self._fail(number, name, UNCERTAIN, error)
        wanted = {
            state.uncertain[name]: answer for name, answer in answers.items() if name in state.uncertain
        }
        for row in self._options.rows() if wanted else ():
            answer = wanted.pop(row.number, None)
            if answer is not None and self._stopped is None:
                self._submit(row, UNCERTAIN, answer=answer)
            if not wanted:
                return

    def _search_here(self) -> None:
        """Search for the submits whose answers were lost, one after the other, and wait for it."""
        wanted = set(self._state.uncertain.values())
        for row in self._options.rows():
            if row.number in wanted and not self._submit(row, UNCERTAIN, search=True):
                return  # the batch stopped

    # Ends

    def _finish_all(self, ended: Iterable[str]) -> None:
        """Take in what ended, and give up what is late."""
        state, now = self._state, time.time()
        late = {
            generation_id
            for generation_id, each in state.in_flight.items()
            if now >= each.submitted_at + self._options.timeout
        }
        due = {each: state.in_flight[each] for each in (*ended, *late) if each in state.in_flight}
        charges = self._results.charges(due)
        for generation_id in due:
            self._finish(generation_id, charges.get(generation_id), late=generation_id in late)
            self._fill()  # while a video comes, the rate limit forgets the request before
            self._progress.tell(state)

    def _finish(self, generation_id: str, charge: Charge | None, *, late: bool) -> None:
        """Take in the end of a generation: save its video, or record why there is none."""
        each = self._state.in_flight[generation_id]
        try:
            generation = self._hook.get_generation(generation_id)
            if not is_ready(generation):
                if not late:
                    return  # the triggerer saw trouble, not an end
                raise timed_out(generation_id, f"{self._options.timeout:g} s were given")
            record = self._results.save(each, generation, charge)
        except _PASSING as error:
            if not late:
                log.warning("Could not take in generation %s yet: %s", generation_id, error.what)
                return
            self._fail(each.number, each.name, IN_FLIGHT, error)
        except KlingError as error:
            self._fail(each.number, each.name, IN_FLIGHT, error)
        else:
            self._state.move(IN_FLIGHT, SAVED)
            self._state.spent_usd += (record.get("cost") or {}).get("usd") or 0.0
        del self._state.in_flight[generation_id]

    def _fail(self, number: int, name: str, before: str, error: KlingError) -> None:
        record = self._results.fail(name, error)
        self._state.move(before, record["status"])
        if record["status"] == FAILED:
            self._count_failure(number, record)

    def _count_failure(self, number: int, record: Mapping[str, Any]) -> None:
        """Note why a row failed, for the error of the task."""
        sentence = f"Row {number} ({record.get('key')}): {record.get('error')}"
        log.warning("%s", sentence)
        self._state.retryable |= bool(record.get("retryable"))
        if len(self._state.errors) < PROBLEMS_SHOWN:
            self._state.errors.append(sentence[:LONGEST_PROBLEM])

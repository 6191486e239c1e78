"""One run of a task that generates: prepare, submit once, wait, land, and say what it cost.

A task makes one generation, or several variants. Each variant is a work of its own: it is paid
once, whatever becomes of the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.cost import Budget
from airflow_provider_kling.api.decision import SubmitPolicy, usual_grace
from airflow_provider_kling.api.errors import (
    DownloadError,
    GenerationFailedError,
    GenerationTimeoutError,
    InvalidRequestError,
    KlingError,
    Recovery,
)
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.api.once import Obtained, Once, Order
from airflow_provider_kling.api.paths import DEFAULT_NAME, check_path
from airflow_provider_kling.api.settings import checked_limit
from airflow_provider_kling.operators.inline import reveal
from airflow_provider_kling.operators.parsing import request_parameters
from airflow_provider_kling.operators.task import TaskRun
from airflow_provider_kling.outcome import Outcome, land, push_cost, tell
from airflow_provider_kling.triggers.kling import failed_event, read_event
from airflow_provider_kling.waiting import Waiting, push_generation

if TYPE_CHECKING:
    from airflow_provider_kling.compat import Context
    from airflow_provider_kling.hooks.preparation import Prepared
    from airflow_provider_kling.operators.kling import KlingGenerateOperator

log = logging.getLogger(__name__)

REQUEST_KEY: Final = "request"
"""XCom of what was asked for: model, parameters with media by source and checksum, client request
id, and the epoch seconds of the submit."""
FAILURE_KEY: Final = "failure"
"""XCom of the variants that have no video, each at its place in the list, as a trigger's event tells it."""
PRESIGNED_SECONDS: Final = 86_400
"""How long a presigned URL of a picture works: longer than any queue at the vendor is known to be."""


@dataclass(slots=True)
class Generating:
    """What a task does with its generations.

    :param context: Airflow's.
    :param task: the operator that runs.
    :param several: whether it makes a list of variants, so that each XCom is a list too.
    """

    context: Context
    task: KlingGenerateOperator
    several: bool = False
    _outcomes: list[Outcome] = field(default_factory=list)
    _failures: list[KlingError] = field(default_factory=list)

    def begin(self, arguments: Sequence[Mapping[str, Any]]) -> list[str]:
        """Submit, or adopt what an earlier try submitted; wait and land if so wanted.

        :param arguments: of the operator, a mapping for each generation.
        :return: the generation ids, in the order of the arguments.
        :raises KlingError: see :class:`.KlingGenerateOperator`.
        """
        budget = self._budget()
        self._check_path()
        prepared = [self._prepare(each) for each in arguments]
        asked = []
        self.task.generation_ids = []  # dag.test() makes all tries with one operator
        for index, each in enumerate(prepared):
            obtained = self._obtain(each, budget, index if self.several else None)
            record = obtained.record
            request = {
                **each.described,
                "client_request_id": record.client_request_id,
                "submitted_at": record.intended_at,
            }
            asked.append(request)
            self.task.generation_ids.append(obtained.generation_id)
            for key, value in (
                ("generation_id", obtained.generation_id),
                ("client_request_id", record.client_request_id),
                (REQUEST_KEY, request),
            ):
                self._push(obtained.generation_id, key, value)
        if self.task.wait_for_completion:
            self._wait(self.task.generation_ids, asked)
        return self.task.generation_ids

    def go_on(self, event: Any) -> list[str]:
        """Go on when the triggerer has seen the end of a wait.

        :raises KlingError: why the wait ended without a video.
        """
        ids, asked = self._pulled("generation_id"), self._pulled(REQUEST_KEY)
        self.several = isinstance(ids, list)
        if not isinstance(ids, list):
            ids, asked = [ids], [asked]
        asked = asked or [None] * len(ids)
        self.task.generation_ids = ids
        by_id = dict(zip(ids, asked, strict=True))
        waited_for = ", ".join(str(each) for each in ids if each)
        with self._sparing_the_others():
            waiting = self._waiting(by_id.get)
            waiting.resumed(event, model=self.task.model, waited_for=waited_for)
        settled = event["generation_id"]
        place = ids.index(settled) if settled in ids else len(ids)
        if self.several:
            self._recall(ids[:place], asked[:place])
        self._wait(ids[place + 1 :], asked[place + 1 :])
        return list(ids) if settled in ids else [settled]

    def _prepare(self, arguments: Mapping[str, Any]) -> Prepared:
        given = reveal(dict(arguments))
        return self.task.hook.prepare(
            given["model"],
            request_parameters(given),
            image=given["image"],
            sign_seconds=PRESIGNED_SECONDS if self.task.presign else None,
        )

    def _obtain(self, prepared: Prepared, budget: Budget, variant: int | None) -> Obtained:
        task = self.task
        run = TaskRun(self.context, task, variant)
        order = Order(
            request=prepared.request,
            fingerprint=prepared.fingerprint,
            work=run.work,
            attempt=run.attempt,
            policy=SubmitPolicy(
                on_changed_request=task.on_changed_request,
                on_uncertain_submit=task.on_uncertain_submit,
                on_clear=task.on_clear,
                uncertain_grace=self._grace(prepared.request.model),
            ),
            remembers=run.remembers,
            tries=run.tries,
            earlier_since=run.earlier[0],
            earlier_until=run.earlier[1],
            budget=budget,
        )
        client = task.hook.get_conn()
        once = Once(client.flows, order)
        flow = once.obtain(run.recall()) if task.durable else once.submit_regardless()
        return client.run(flow, run.remember)

    def _grace(self, model: str) -> float:
        from airflow_provider_kling.hooks.preparation import schedule_for

        if self.task.uncertain_grace is not None:
            return self.task.uncertain_grace
        return usual_grace(schedule_for(None, model).usual_seconds)

    def _wait(self, ids: Sequence[str], asked: Sequence[Any]) -> None:
        for generation_id, request in zip(ids, asked, strict=True):
            known = request or {}
            waiting = self._waiting({generation_id: request}.get)
            wait = waiting.deferred if self.task.deferrable else waiting.here
            model = known.get("model", self.task.model)
            with self._sparing_the_others():
                wait(generation_id, model=model, submitted_at=known.get("submitted_at"))
        if self._failures:
            raise self._without_video()
        tell(self.context, self.task, self._outcomes, several=self.several)

    @contextmanager
    def _sparing_the_others(self) -> Iterator[None]:
        """Keep what becomes of one variant from the others: they are paid, and are waited for and landed."""
        try:
            yield
        except (GenerationFailedError, GenerationTimeoutError, DownloadError) as error:
            if not self.several or error.generation_id is None:
                raise
            log.warning("%s", error)
            self._push(error.generation_id, FAILURE_KEY, failed_event(error.generation_id, error))
            self._failures.append(error)

    def _without_video(self) -> KlingError:
        """The failure of a task some of whose variants have no video."""
        hopeless = any(each.recovery is Recovery.GIVE_UP for each in self._failures)
        count = len(self.task.generation_ids)
        return KlingError(
            f"{len(self._failures)} of {count} variants have no video; all others were waited for"
            f"{' and landed' if self.task.path is not None else ''}. "
            + " ".join(f"[{number}] {error}" for number, error in enumerate(self._failures, 1)),
            advice="Cleared, the task adopts all that the vendor has accepted.",
            recovery=Recovery.GIVE_UP if hopeless else Recovery.RETRY_TASK,
        )

    def _waiting(self, request_of: Callable[[str], Mapping[str, Any] | None]) -> Waiting:
        def finish(generation: Generation) -> None:
            self._finish(generation, request_of(generation.id))

        task = self.task
        return Waiting(task, task.hook, task.poke_interval, task.timeout, finish)

    def _finish(self, generation: Generation, request: Mapping[str, Any] | None) -> None:
        """What is left to do when a video can be fetched."""

        def push(key: str, value: Any) -> None:
            self._push(generation.id, key, value)

        push_generation(push, generation)
        cost = push_cost(self.task.hook, generation, push, request)
        path = None
        if self.task.path is not None:
            path = land(
                self.task.hook,
                generation.id,
                self.task.path,
                push,
                overwrite=self.task.overwrite,
                with_sidecar=self.task.sidecar,
                request=request,
                cost=cost,
            )
        self._outcomes.append(
            Outcome(generation.id, path, generation.duration, request, cost.as_dict() if cost else None)
        )

    def _recall(self, ids: Sequence[str], asked: Sequence[Any]) -> None:
        """What became of the variants before this part of the task, as the XComs have it."""
        outcomes, failures = [], []
        lists = (self._pulled(key) or [] for key in (FAILURE_KEY, "path", "generation", "cost"))
        known = zip_longest(*(each[: len(ids)] for each in lists))
        for generation_id, request, each in zip_longest(ids, asked, known):
            failure, path, generation, cost = each or (None,) * 4
            if failure and (error := read_event(failure).error):
                failures.append(error)
            else:
                duration = (generation or {}).get("duration")
                outcomes.append(Outcome(generation_id, path, duration, request, cost))
        self._outcomes[:0], self._failures[:0] = outcomes, failures

    def _budget(self) -> Budget:
        limit = self.task.max_cost_usd
        try:
            limit = checked_limit(self.task.hook.settings.max_cost_usd if limit in (None, "") else limit)
        except ValueError as error:
            raise InvalidRequestError(f"max_cost_usd: {error}") from None
        return Budget(limit, self.task.check_balance)

    def _check_path(self) -> None:
        """Check the rendered path before anything is paid."""
        if self.task.path is None:
            return
        path = str(self.task.path)
        check_path(path)
        if self.several and DEFAULT_NAME.partition(".")[0] not in path and not path.endswith("/"):
            raise InvalidRequestError(
                f"Several videos cannot all land at {path!r}.",
                advice="Put {generation_id} into the path, or end it with a slash.",
            )

    def _push(self, generation_id: str, key: str, value: Any) -> None:
        """Push an XCom; of several variants, each has its place in the list."""
        if self.several:
            place = self.task.generation_ids.index(generation_id)
            values = [*(self._pulled(key) or [])]
            values += [None] * (place + 1 - len(values))
            values[place] = value
            value = values
        self.context["ti"].xcom_push(key=key, value=value)

    def _pulled(self, key: str) -> Any:
        ti: Any = self.context["ti"]
        return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)

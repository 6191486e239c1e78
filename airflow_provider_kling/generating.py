"""One run of a task that generates: prepare, submit once, wait, land, and say what it cost.

A task makes one generation, or several variants. Each variant is a work of its own: it is paid
once, whatever becomes of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.cost import Budget
from airflow_provider_kling.api.decision import SubmitPolicy
from airflow_provider_kling.api.errors import InvalidRequestError
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.api.once import Obtained, Once, Order
from airflow_provider_kling.api.paths import DEFAULT_NAME, check_path
from airflow_provider_kling.api.settings import checked_limit
from airflow_provider_kling.operators.inline import reveal
from airflow_provider_kling.operators.parsing import request_parameters
from airflow_provider_kling.operators.task import TaskRun
from airflow_provider_kling.outcome import Outcome, land, push_cost, tell
from airflow_provider_kling.waiting import Waiting, push_generation

if TYPE_CHECKING:
    from airflow_provider_kling.compat import Context
    from airflow_provider_kling.hooks.preparation import Prepared
    from airflow_provider_kling.operators.kling import KlingGenerateOperator

REQUEST_KEY: Final = "request"
"""XCom of what was asked for: model, parameters with media by source and checksum, client request
id, and the epoch seconds of the submit."""
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
            self._push("generation_id", obtained.generation_id)
            self._push("client_request_id", record.client_request_id)
            self._push(REQUEST_KEY, request)
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
        if self.several:
            self._recall_outcomes(ids, asked)
        waiting = self._waiting(by_id.get)
        done = waiting.resumed(event, model=self.task.model, waited_for=waited_for)
        left = ids.index(done.id) + 1 if done.id in ids else len(ids)
        self._wait(ids[left:], asked[left:])
        return list(ids) if done.id in ids else [done.id]

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
                uncertain_grace=task.uncertain_grace,
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

    def _wait(self, ids: Sequence[str], asked: Sequence[Any]) -> None:
        for generation_id, request in zip(ids, asked, strict=True):
            known = request or {}
            waiting = self._waiting({generation_id: request}.get)
            wait = waiting.deferred if self.task.deferrable else waiting.here
            model = known.get("model", self.task.model)
            wait(generation_id, model=model, submitted_at=known.get("submitted_at"))
        tell(self.context, self.task, self._outcomes, several=self.several)

    def _waiting(self, request_of: Callable[[str], Mapping[str, Any] | None]) -> Waiting:
        def finish(generation: Generation) -> None:
            self._finish(generation, request_of(generation.id))

        task = self.task
        return Waiting(task, task.hook, task.poke_interval, task.timeout, finish)

    def _finish(self, generation: Generation, request: Mapping[str, Any] | None) -> None:
        """What is left to do when a video can be fetched."""
        push_generation(self._push, generation)
        cost = push_cost(self.task.hook, generation, self._push, request)
        path = None
        if self.task.path is not None:
            path = land(
                self.task.hook,
                generation.id,
                self.task.path,
                self._push,
                overwrite=self.task.overwrite,
                with_sidecar=self.task.sidecar,
                request=request,
                cost=cost,
            )
        self._outcomes.append(
            Outcome(generation.id, path, generation.duration, request, cost.as_dict() if cost else None)
        )

    def _recall_outcomes(self, ids: Sequence[str], asked: Sequence[Any]) -> None:
        """What was finished before this part of the task, as the XComs have it."""
        generations, paths, costs = (self._pulled(key) or [] for key in ("generation", "path", "cost"))
        count = len(generations)
        for each in zip_longest(ids[:count], paths, generations, asked[:count], costs):
            generation_id, path, generation, request, cost = each
            self._outcomes.append(Outcome(generation_id, path, generation.get("duration"), request, cost))

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

    def _push(self, key: str, value: Any) -> None:
        if self.several:
            value = [*(self._pulled(key) or []), value]
        self.context["ti"].xcom_push(key=key, value=value)

    def _pulled(self, key: str) -> Any:
        ti: Any = self.context["ti"]
        return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)

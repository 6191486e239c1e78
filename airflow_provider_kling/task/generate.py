"""One run of a task that generates: order, wait, land, and say what it cost.

A task makes one generation, or several variants. Each variant is a work of its own: it is paid
once, waited for and landed, whatever becomes of the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.api.exceptions import KlingError, Recovery
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.task.results import GenerationOutcome, check_target, push_cost, save_video, tell
from airflow_provider_kling.task.submit import Ordering, Wanted
from airflow_provider_kling.task.wait import ID_KEY, REQUEST_KEY, Waiting, push_generation
from airflow_provider_kling.triggers.kling import failed_event, read_event

if TYPE_CHECKING:
    from airflow_provider_kling.operators.kling import KlingGenerateOperator
    from airflow_provider_kling.version_compat import Context

log = logging.getLogger(__name__)

FAILURE_KEY: Final = "failure"
"""XCom of the variants that have no video, each at its place in the list, as a trigger's event tells it."""


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
    _ids: list[str | None] = field(default_factory=list)
    _asked: list[Mapping[str, Any] | None] = field(default_factory=list)
    _outcomes: dict[int, GenerationOutcome] = field(default_factory=dict)
    _failures: dict[int, KlingError] = field(default_factory=dict)

    def begin(self, arguments: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """Submit, or adopt what an earlier try submitted; wait and land if so wanted.

        :param arguments: of the operator, a mapping for each generation.
        :return: the generation ids, in the order of the arguments.
        :raises KlingError: see :class:`.KlingGenerateOperator`.
        """
        ordering = Ordering(self.context, self.task, several=self.several)
        check_target(self.task.path, several=self.several)
        wanted = ordering.prepare(arguments)
        count = len(wanted)
        self._ids, self._asked = [None] * count, [None] * count
        self.task.generation_ids = []  # dag.test() makes all tries with one operator
        for place in range(count):
            with self._sparing_the_others(place):
                self._order(place, ordering, wanted.pop(0))  # its pictures are not held any longer
        self._wait(range(count))
        return self._ids

    def go_on(self, event: Any) -> list[str | None]:
        """Go on when the triggerer has seen the end of a wait.

        :raises KlingError: why the wait ended without a video.
        """
        ids, asked = self._pulled(ID_KEY), self._pulled(REQUEST_KEY)
        self.several = isinstance(ids, list)
        self._ids = ids if isinstance(ids, list) else [ids]
        self._asked = (asked if isinstance(asked, list) else [asked]) if asked else []
        self._asked += [None] * (len(self._ids) - len(self._asked))
        self.task.generation_ids = [each for each in self._ids if each is not None]
        settled = event.get("generation_id") if isinstance(event, Mapping) else None
        if settled is not None and settled not in self._ids:  # the XCom is gone; the event is not
            self._ids, self._asked, self.several = [settled], [None], False
        place = self._ids.index(settled) if settled is not None else len(self._ids)
        self._recall(place)
        with self._sparing_the_others(place):
            waited_for = ", ".join(self.task.generation_ids)
            self._waiting(place).resumed(event, model=self._model(place), waited_for=waited_for)
        self._wait(range(place + 1, len(self._ids)))
        return self._ids

    def _order(self, place: int, ordering: Ordering, wanted: Wanted) -> None:
        obtained = ordering.obtain(wanted)
        record = obtained.record
        request = {
            **wanted.described,
            "client_request_id": record.client_request_id,
            "submitted_at": record.intended_at,
        }
        self._ids[place], self._asked[place] = obtained.generation_id, request
        self.task.generation_ids.append(obtained.generation_id)
        self._push(place, ID_KEY, obtained.generation_id)
        self._push(place, "client_request_id", record.client_request_id)
        self._push(place, REQUEST_KEY, request)

    def _wait(self, places: Iterable[int]) -> None:
        """Wait for what is still to come, and end the task's work."""
        for place in places:
            generation_id, known = self._ids[place], self._asked[place] or {}
            if generation_id is None or place in self._failures:
                continue
            if not self.task.wait_for_completion:
                self._outcomes[place] = GenerationOutcome(generation_id, request=known)
                continue
            waiting = self._waiting(place)
            wait = waiting.deferred if self.task.deferrable else waiting.here
            with self._sparing_the_others(place):
                wait(generation_id, model=self._model(place), submitted_at=known.get("submitted_at"))
        if self._failures:
            raise self._without_video()
        outcomes = [self._outcomes[place] for place in sorted(self._outcomes)]
        tell(self.context, self.task, outcomes, several=self.several)

    @contextmanager
    def _sparing_the_others(self, place: int) -> Iterator[None]:
        """Keep what becomes of one variant from the others: they are paid, and are waited for and landed."""
        try:
            yield
        except KlingError as error:
            if not self.several or place >= len(self._ids):
                raise
            log.warning("%s", error)
            self._push(place, FAILURE_KEY, failed_event(error.generation_id or "", error))
            self._failures[place] = error

    def _without_video(self) -> KlingError:
        """The failure of a task some of whose variants have no video."""
        again = any(each.recovery is not Recovery.GIVE_UP for each in self._failures.values())
        done = " and landed" if self.task.path is not None else ""
        others = f"; all others were waited for{done}" if self.task.wait_for_completion else ""
        each = " ".join(f"[{place}] {self._failures[place]}" for place in sorted(self._failures))
        return KlingError(
            f"{len(self._failures)} of {len(self._ids)} variants failed{others}. {each}",
            advice="The next try, or the task when it is cleared, adopts what the vendor has accepted.",
            recovery=Recovery.RETRY_TASK if again else Recovery.GIVE_UP,
        )

    def _waiting(self, place: int) -> Waiting:
        def finish(generation: Generation) -> None:
            self._finish(place, generation)

        task = self.task
        return Waiting(task, task.hook, task.poke_interval, task.timeout, finish)

    def _model(self, place: int) -> str:
        asked = self._asked[place] if place < len(self._asked) else None
        model: str = (asked or {}).get("model") or self.task.model
        return model

    def _finish(self, place: int, generation: Generation) -> None:
        """What is left to do when a video can be fetched."""

        def push(key: str, value: Any) -> None:
            self._push(place, key, value)

        request = self._asked[place]
        push_generation(push, generation)
        cost = push_cost(self.task.hook, generation, push, request)
        saved = None
        if self.task.path is not None:
            saved = save_video(
                self.task.hook,
                generation.id,
                self.task.path,
                push,
                overwrite=self.task.overwrite,
                with_sidecar=self.task.sidecar,
                request=request,
                cost=cost,
            )
        self._outcomes[place] = GenerationOutcome(
            generation.id,
            saved.path if saved else None,
            saved.duration if saved else generation.duration,
            request,
            cost.as_dict(),
        )

    def _recall(self, before: int) -> None:
        """What became of the variants before this part of the task, as the XComs have it.

        :param before: the place of the one that was waited for last.
        """
        if not self.several:
            return
        lists = [self._pulled(key) or [] for key in (FAILURE_KEY, "generation", "path", "video", "cost")]
        for place, generation_id in enumerate(self._ids):
            known = (each[place] if place < len(each) else None for each in lists)
            failure, generation, path, video, cost = known
            if failure and (error := read_event(failure).error):
                self._failures[place] = error
            elif place < before and generation_id is not None:
                duration = (video or generation or {}).get("duration")
                self._outcomes[place] = GenerationOutcome(
                    generation_id, path, duration, self._asked[place], cost
                )

    def _push(self, place: int, key: str, value: Any) -> None:
        """Push an XCom; of several variants, each has its place in the list."""
        if self.several:
            values = [*(self._pulled(key) or [])]
            values += [None] * (len(self._ids) - len(values))
            values[place] = value
            value = values
        self.context["ti"].xcom_push(key=key, value=value)

    def _pulled(self, key: str) -> Any:
        ti: Any = self.context["ti"]
        return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)

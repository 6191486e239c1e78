"""One run of a task that generates: submit every variant, wait for each, save its video, report.

A task makes one generation, or several variants. Each variant is paid once, waited for and saved,
whatever becomes of the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_kling.api.durable.submit import DurableSubmit, PendingSearch
from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError, Recovery
from airflow_provider_kling.api.generation import Generation
from airflow_provider_kling.api.polling.poll_tracker import is_ready
from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.hooks import metrics
from airflow_provider_kling.task import sidecar, submit, xcom
from airflow_provider_kling.task.arguments import is_named_later
from airflow_provider_kling.task.preflight import check_target
from airflow_provider_kling.task.results import (
    Variant,
    announce,
    count_completion,
    push_cost,
    push_generation,
    reuse_video,
    save_video,
)
from airflow_provider_kling.task.wait import Wait
from airflow_provider_kling.triggers.batch import BatchEvent, is_batch_event, read_batch_event
from airflow_provider_kling.triggers.kling import failed_event, read_event
from airflow_provider_kling.triggers.submit_search import read_search_event

if TYPE_CHECKING:
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.task.options import GenerateOptions
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)


class GenerateRun:
    """What a task does with its generations, from one start of its process to the next deferral.

    :param context: Airflow's.
    :param options: the operator's.
    :param hook: of the connection that pays.
    :param defer: the operator's own ``defer``.
    """

    def __init__(
        self,
        context: Context,
        options: GenerateOptions,
        hook: KlingHook,
        defer: Callable[..., Any],
    ) -> None:
        self.variants: list[Variant] = []
        self.several = False
        """Whether the task makes a list of variants, so that each XCom is a list too."""
        self.lineage: tuple[list[str], list[str]] = ([], [])
        """URIs of the pictures that went in, and of the videos that came out."""
        self._context = context
        self._options = options
        self._hook = hook
        self._wait = Wait(hook, defer, options.poke_interval, options.timeout)
        self._submits: list[DurableSubmit] = []
        self._polled: Mapping[str, float] = {}
        self._deadline: float | None = None

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # a copy of the operator has the same; its context and its connections cannot be copied

    @property
    def generation_ids(self) -> list[str]:
        """The ids that are known by now."""
        return [each.generation_id for each in self.variants if each.generation_id is not None]

    def prepare(
        self, requested: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, again: bool = False
    ) -> None:
        """Check every request, its pictures and the target, before anything is paid.

        :param requested: arguments of the operator; a list of them for several variants.
        :param again: whether this attempt continues after a deferral.
        :raises KlingError: nothing was submitted.
        """
        self.several = not isinstance(requested, Mapping)
        arguments = [requested] if isinstance(requested, Mapping) else requested
        if self._options.durable and not again:
            submit.begin_attempt(self._context, range(len(arguments)) if self.several else [None])
        check_target(self._options.path, several=self.several or self._options.shares_path)
        self._submits = submit.prepare(
            self._context, self._options, self._hook, arguments, several=self.several, again=again
        )
        self.variants = [Variant(index=index) for index in range(len(arguments))]
        if self._options.skip_unchanged:
            self._keep_unchanged()

    def submit_or_reattach(self, event: Any = None) -> None:
        """Submit each variant, or re-attach to the generation that a previous attempt submitted.

        :param event: of the trigger that searched for submits whose answers were lost.
        :raises TaskDeferred: a submit has to be searched for; the task continues in ``execute_complete``.
        :raises KlingError: see :meth:`.DurableSubmit.submit_or_reattach`.
        """
        answers = {} if event is None else read_search_event(event)
        if event is not None:
            self._restore_submitted()
        pending: dict[int | None, PendingSearch] = {}
        for variant in self.variants:
            wanted = self._submits.pop(0)  # its pictures are not held any longer
            if variant.generation_id is not None or variant.failure is not None:
                continue
            key = variant.index if self.several else None
            with self._apart(variant):
                submitted = submit.submit_or_reattach(
                    self._context, self._options, self._hook, wanted, answers.get(key)
                )
                if isinstance(submitted, PendingSearch):
                    pending[key] = submitted
                    continue
                record, stands = submitted.record, submitted.generation
                variant.reused = submitted.reattached and stands is not None and is_ready(stands)
                variant.generation_id = submitted.generation_id
                variant.request = {
                    xcom.GENERATION_ID: submitted.generation_id,
                    **wanted.request.described,
                    "client_request_id": record.client_request_id,
                    "submitted_at": record.intended_at,
                }
                if variant.replaces is not None:
                    variant.request = {**variant.request, "replaces": variant.replaces}
                self._push(variant, xcom.GENERATION_ID, submitted.generation_id)
                self._push(variant, xcom.CLIENT_REQUEST_ID, record.client_request_id)
                self._push(variant, xcom.REQUEST, variant.request)

        if pending:
            self._wait.until_found(pending)

    def resume(self, event: Any) -> None:
        """Restore the variants from the XComs, and take in what the trigger saw.

        :raises KlingError: why the wait ended without a video.
        """
        if is_batch_event(event):
            self._resume_several(read_batch_event(event))
            return
        ids, requests = xcom.pull(self._context, xcom.GENERATION_ID), xcom.pull(self._context, xcom.REQUEST)
        ended = event.get("generation_id") if isinstance(event, Mapping) else None
        ended = ended if isinstance(ended, str) else None
        self.several = isinstance(ids, list)
        ids = ids if isinstance(ids, list) else [ids]
        if ended is not None and ended not in ids:  # the XCom is gone; the event is not
            ids, requests, self.several = [ended], None, False
        requests = (requests if isinstance(requests, list) else [requests]) if requests else []
        requests += [None] * (len(ids) - len(requests))
        self.variants = [Variant(each, index, requests[index]) for index, each in enumerate(ids)]
        waited_for = ", ".join(self.generation_ids)
        if ended is None:
            read_event(event, waited_for)  # raises
        current = self.variants[ids.index(ended)]
        current.generation = self._wait.resume(event, model=self._model(current), waited_for=waited_for)

    def _resume_several(self, event: BatchEvent) -> None:
        """Restore several variants from the XComs, and ask for those that have ended."""
        self.several = True
        ids, requests = (xcom.pull(self._context, key) or [] for key in (xcom.GENERATION_ID, xcom.REQUEST))
        requests += [None] * (len(ids) - len(requests))
        self.variants = [Variant(each, index, requests[index]) for index, each in enumerate(ids)]
        self._restore()
        self._polled, self._deadline = event.polled, event.deadline
        late = event.deadline is not None and time.time() >= event.deadline
        for variant in self._waiting:
            assert variant.generation_id is not None
            if variant.generation_id in event.ended or late:
                with self._apart(variant):
                    variant.generation = self._wait.ended(
                        variant.generation_id, model=self._model(variant), late=late
                    )

    def wait_or_defer(self) -> Iterator[Variant]:
        """Yield each variant as soon as its video can be fetched.

        :raises TaskDeferred: the worker is freed; the task continues in ``execute_complete``.
        """
        for variant in self._waiting:
            assert variant.generation_id is not None
            if not self._options.wait_for_completion:
                variant.is_done = True
                continue
            if variant.generation is None and not self._continues:
                with self._apart(variant):
                    variant.generation = self._wait_for(variant, variant.generation_id)
            if variant.generation is not None:
                yield variant
        if waiting := {each.generation_id: each for each in self._waiting if each.generation_id}:
            models = {generation_id: self._model(each) for generation_id, each in waiting.items()}
            times = {
                generation_id: (each.request or {}).get("submitted_at")
                for generation_id, each in waiting.items()
            }
            self._wait.until_any_complete(models, times, self._polled, self._deadline, len(self.variants))

    @property
    def _waiting(self) -> list[Variant]:
        """The variants that were submitted, and of which nothing else is known."""
        return [
            each
            for each in self.variants
            if each.generation_id is not None and not each.failure and not each.is_done
        ]

    @property
    def _continues(self) -> bool:
        """Whether the triggerer has waited for several variants already."""
        return self._deadline is not None

    def _wait_for(self, variant: Variant, generation_id: str) -> Generation | None:
        """Wait for a generation; of several in the triggerer, only ask how it stands."""
        submitted_at, model = (variant.request or {}).get("submitted_at"), self._model(variant)
        if not self._options.deferrable:
            return self._wait.block(generation_id, model=model, submitted_at=submitted_at)
        if self.several:
            return self._wait.completed_already(generation_id, model=model, submitted_at=submitted_at)
        return self._wait.until_complete(generation_id, model=model, submitted_at=submitted_at)

    def save(self, variant: Variant) -> None:
        """Push what the vendor said and what it cost; save the video, where there is a path for it.

        :raises KlingError: the generation stays paid and can be saved again.
        """
        generation, options = variant.generation, self._options
        assert generation is not None
        with self._apart(variant):
            push = partial(self._push, variant)
            push_generation(push, generation)
            cost = push_cost(self._hook, generation, push, variant.request)
            if not variant.reused:
                count_completion(self._context, generation, cost, variant.request)
            saved = None
            if options.path is not None:
                saved = save_video(
                    self._hook,
                    generation.id,
                    options.path,
                    push,
                    overwrite=options.overwrite or self._replaces(variant),
                    with_sidecar=options.sidecar,
                    request=variant.request,
                    cost=cost,
                )
            variant.path = saved.path if saved else None
            variant.duration = saved.duration if saved else generation.duration
            variant.cost = cost.as_dict()
            variant.is_done = True

    def report(self) -> str | list[str | None] | None:
        """Tell assets and lineage what was made.

        :return: the generation id; a list of them where there are several variants.
        :raises KlingError: some variants have no video.
        """
        if any(each.failure for each in self.variants):
            raise self._without_video()
        results = [each for each in self.variants if each.is_done]
        self.lineage = announce(self._context, self._options.outlets, results, several=self.several)
        ids = [each.generation_id for each in self.variants]
        return ids if self.several else ids[0]

    def _keep_unchanged(self) -> None:
        """Keep the video at the path if it was made from the same request; note the one of another request.

        What a previous attempt of this task submitted comes first: it is paid for.

        :raises KlingError: a file is there that this provider did not write, or that was changed since.
        """
        path, (variant, wanted) = self._options.path, (self.variants[0], self._submits[0])
        if self.several or path is None or is_named_later(str(path)):
            raise InvalidRequestError(
                "skip_unchanged needs one request, and a path that is known before its generation.",
                advice="Leave it out, or give a path without {generation_id} that names a file.",
            )
        if wanted.unready is not None:
            return
        existing = sidecar.look_at_target(path, wanted.request.described)
        if existing is None:
            return
        if existing.video is not None and not submit.was_submitted(self._context, variant=None):
            reuse_video(partial(self._push, variant), variant, existing, wanted.request.described)
            return
        variant.replaces = existing.sha256
        self._submits[0] = submit.replacing(self._options, wanted)

    def _replaces(self, variant: Variant) -> bool:
        """Whether what is at the path is still the file that this variant's video is to replace."""
        return sidecar.is_still(
            self._options.path, (variant.request or {}).get("replaces"), model=self._model(variant)
        )

    @contextmanager
    def _apart(self, variant: Variant) -> Iterator[None]:
        """Keep the failure of one variant from the others: they are paid, and are waited for and saved."""
        try:
            yield
        except KlingError as error:
            if not self.several:
                raise
            log.warning("%s", error)
            metrics.count_failure(metrics.task_tags(self._context), error)
            self._push(variant, xcom.FAILURE, failed_event(error.generation_id or "", error))
            variant.failure = error

    def _without_video(self) -> KlingError:
        """The failure of a task some of whose variants have no video."""
        failures = {each.index: each.failure for each in self.variants if each.failure}
        again = any(each.recovery is not Recovery.GIVE_UP for each in failures.values())
        done = " and saved" if self._options.path is not None else ""
        others = f"; all others were waited for{done}" if self._options.wait_for_completion else ""
        each = " ".join(f"[{index}] {failure}" for index, failure in failures.items())
        return KlingError(
            f"{len(failures)} of {len(self.variants)} variants failed{others}. {each}",
            advice="The next attempt, or the task when it is cleared, re-attaches to what the vendor "
            "has accepted.",
            recovery=Recovery.RETRY_TASK if again else Recovery.GIVE_UP,
        )

    def _model(self, variant: Variant) -> str:
        model = (variant.request or {}).get("model")
        return model if model and isinstance(model, str) else self._options.model

    def _restore_submitted(self) -> None:
        """The variants that this attempt submitted before it was deferred to search for others."""
        if not self.several:
            return
        keys = (xcom.GENERATION_ID, xcom.REQUEST, xcom.FAILURE)
        lists = [xcom.pull(self._context, key) or [] for key in keys]
        for variant in self.variants:
            known = (each[variant.index] if variant.index < len(each) else None for each in lists)
            variant.generation_id, variant.request, failure = known
            if failure:
                _, variant.failure = read_event(failure)

    def _restore(self) -> None:
        """What became of the variants before this part of the task, as the XComs have it."""
        keys = (xcom.FAILURE, xcom.GENERATION, xcom.PATH, xcom.VIDEO, xcom.COST)
        lists = [xcom.pull(self._context, key) or [] for key in keys]
        for variant in self.variants:
            known = (each[variant.index] if variant.index < len(each) else None for each in lists)
            failure, generation, path, video, cost = known
            if failure:
                _, variant.failure = read_event(failure)
            if variant.failure is None and generation and variant.generation_id is not None:
                variant.path, variant.cost = path, cost
                variant.duration = (video or generation or {}).get("duration")
                variant.is_done = True

    def _push(self, variant: Variant, key: str, value: Any) -> None:
        """Push an XCom; of several variants, each has its place in the list."""
        index = variant.index if self.several else None
        xcom.push(self._context, key, value, index=index, count=len(self.variants))

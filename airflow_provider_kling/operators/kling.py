"""KlingGenerateOperator submits a generation; optionally it waits for it and saves its video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from airflow_provider_kling.api.redaction import logger
from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.links.kling import SAVING_LINKS
from airflow_provider_kling.operators.download import KlingDownloadOperator as KlingDownloadOperator
from airflow_provider_kling.task.arguments import (
    DEFAULT_TIMEOUT,
    REQUEST_ARGUMENTS,
    SUBMIT_CHECKS,
    ArgumentField,
    Check,
    CheckedWhenParsed,
    as_text,
    check_path_if_known,
    refuse,
    request_problems,
    unclear_target,
)
from airflow_provider_kling.task.failures import failing_as_airflow_expects
from airflow_provider_kling.task.inline_media import hide
from airflow_provider_kling.task.mapped_paths import is_shared, is_shared_at_run_time, one_path
from airflow_provider_kling.version_compat import BaseOperator, conf

if TYPE_CHECKING:
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.task.generate import GenerateRun
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)

DEFAULT_MODEL: Final = "kling-video/v1.6/standard/image-to-video"


class KlingGenerateOperator(CheckedWhenParsed, BaseOperator):
    """Turn a picture and a prompt into a generation at the vendor, and pay for it once.

    Returns the generation id, and pushes it as XCom ``generation_id`` as soon as it is known,
    beside ``client_request_id`` and ``request``, what was asked for. With ``wait_for_completion`` it
    also waits, and then pushes what the sensor pushes, ``video_url`` and, as ``generation``, the
    generation as a dict, beside ``cost``; see :class:`.Cost`. With ``path`` it also saves the video,
    as :class:`.KlingDownloadOperator` does, and pushes ``path`` and ``video``.

    A retry, a killed worker or a cleared task does not submit the same work again: it re-attaches to
    what a previous attempt submitted. See the parameters from ``durable`` on.

    :param model: the vendor's model id.
    :param prompt: what should happen in the video.
    :param image: the reference picture: an https URL, a local path, or the URI of an object in
        storage. Fills the model's image parameter.
    :param duration: length of the video in seconds; 5 or 10 for most models.
    :param negative_prompt: what should not be in the video.
    :param cfg_scale: how closely to follow the prompt, 0 to 1.
    :param parameters: any other parameter of the model, by the vendor's name.
    :param kling_conn_id: the Airflow connection of the account that pays.
    :param path: where the video goes: a local path, or the URI of an object in storage
        (``s3://conn@bucket/key``), with ``{generation_id}``, ``{model}``, ``{client_request_id}``, or in a
        loop ``{loop_index}`` in it; one that ends with a slash is completed with
        ``{generation_id}.mp4``. Implies ``wait_for_completion``.
    :param overwrite: replace what is at the path. Otherwise the same video is left as it is, and
        another file is an error.
    :param skip_unchanged: keep the video at the path if it was made from the same request, by model,
        parameters and content of every picture, as the sidecar says, and submit nothing: the XComs are those
        of a new video with a cost of 0, and ``reused`` is true. The video of another request is replaced
        when the new one is complete. A file that was not saved by this provider, or was changed since, is an
        error. Needs a path that is known before the generation, and implies ``sidecar``.
    :param sidecar: write a JSON file beside the video: request, model, ids, times, cost, checksum.
    :param presign: send pictures in object storage as presigned URLs, where the storage can sign,
        instead of their bytes.
    :param convert_image: make a JPEG or PNG of images that the vendor does not take: WebP, AVIF, GIF,
        TIFF, BMP, HEIC (with the extra ``heic``), or too large ones. The log says what was done. Images
        given as a URL are passed on as they are.
    :param max_cost_usd: limit for one generation, in USD, by the vendor's live price list;
        re-attaching to a generation costs nothing more. None takes the connection's limit.
    :param check_balance: submit only what the account's balance covers.
    :param wait_for_completion: wait until the video is there.
    :param deferrable: wait in the triggerer instead of on the worker.
    :param poke_interval: seconds between polls, 1 to 3600; None polls where completion is likely.
    :param timeout: seconds to wait at most.
    :param durable: re-attach to what previous attempts submitted. False submits, and pays, on every
        attempt.
    :param on_changed_request: a previous attempt of this task instance submitted another request:
        ``submit`` this one, or ``fail``.
    :param on_uncertain_submit: a submit that may have been accepted is not in the vendor's logs:
        ``resubmit``, or ``fail``.
    :param on_clear: the task is cleared after its generation completed: ``reuse`` it, or
        ``regenerate`` and pay again.
    :param uncertain_grace: seconds in which the vendor's request log is searched for an uncertain
        submit. The log may list a generation only when it is done. None for three times the model's usual
        duration, and 300 at least.
    :raises AirflowFailException: what a retry cannot fix. When the DAG is parsed: every problem of
        the request that is known by then.
    """

    template_fields: Sequence[str] = (
        *REQUEST_ARGUMENTS,
        "kling_conn_id",
        "path",
        "max_cost_usd",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
    default_model = DEFAULT_MODEL
    pushes_requests = True
    """So that tasks downstream find what was asked for; see :func:`.upstream_request`."""
    complete_when_parsed = True
    """Whether all arguments are there when the operator is made, so that a missing one is an error."""
    operator_extra_links = SAVING_LINKS
    argument_checks: ClassVar[Mapping[str, Check]] = {**SUBMIT_CHECKS, "path": check_path_if_known}
    model: Any = ArgumentField(as_text)
    prompt: Any = ArgumentField(as_text)
    negative_prompt: Any = ArgumentField(as_text)
    path: Any = ArgumentField(as_text)
    kling_conn_id: Any = ArgumentField(as_text)
    image = ArgumentField(hide)
    parameters = ArgumentField(hide)

    def __init__(
        self,
        *,
        model: str = DEFAULT_MODEL,
        prompt: str | None = None,
        image: Any = None,
        duration: int | str | None = None,
        negative_prompt: str | None = None,
        cfg_scale: float | str | None = None,
        parameters: dict[str, Any] | None = None,
        kling_conn_id: str = DEFAULT_CONNECTION_ID,
        path: Any = None,
        overwrite: bool = False,
        skip_unchanged: bool = False,
        sidecar: bool = False,
        presign: bool = False,
        convert_image: bool = False,
        max_cost_usd: float | str | None = None,
        check_balance: bool = False,
        wait_for_completion: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta | None = None,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        durable: bool = True,
        on_changed_request: Literal["submit", "fail"] = "submit",
        on_uncertain_submit: Literal["resubmit", "fail"] = "resubmit",
        on_clear: Literal["reuse", "regenerate"] = "reuse",
        uncertain_grace: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.prompt = prompt
        self.image = image
        self.duration = duration
        self.negative_prompt = negative_prompt
        self.cfg_scale = cfg_scale
        self.parameters = parameters
        self.kling_conn_id = kling_conn_id
        self.path = path
        self.overwrite = overwrite
        self.skip_unchanged = skip_unchanged
        self.sidecar = sidecar or skip_unchanged
        self.presign = presign
        self.convert_image = convert_image
        self.max_cost_usd = max_cost_usd
        self.check_balance = check_balance
        self.wait_for_completion = wait_for_completion or path is not None
        self.deferrable = deferrable
        self.poke_interval = self.argument_checks["poke_interval"](poke_interval)
        self.timeout = self.argument_checks["timeout"](timeout)
        self.durable = durable
        self.on_changed_request = self.argument_checks["on_changed_request"](on_changed_request)
        self.on_uncertain_submit = self.argument_checks["on_uncertain_submit"](on_uncertain_submit)
        self.on_clear = self.argument_checks["on_clear"](on_clear)
        self.uncertain_grace: float | None = self.argument_checks["uncertain_grace"](uncertain_grace)
        self._current_run: GenerateRun | None = None
        given = {
            **self.arguments(),
            "path": path,
            "max_cost_usd": max_cost_usd,
            "skip_unchanged": skip_unchanged,
        }
        refuse(self.problems_when_parsed(given, complete=self.complete_when_parsed))
        self._path_given = path
        if "_airflow_from_mapped" not in kwargs and any(self.iter_mapped_task_groups()):
            refuse([one_path(path)] if is_shared(path, pulls_differ=True) else [])

    @classmethod
    def problems_when_parsed(cls, given: Mapping[str, Any], *, complete: bool) -> Sequence[str]:
        """See :class:`.CheckedWhenParsed`; what makes the request is checked too."""
        request = {"model": cls.default_model, **given}
        return [
            *super().problems_when_parsed(given, complete=complete),
            *request_problems(request, complete=complete),
            *unclear_target(given),
        ]

    @cached_property
    def hook(self) -> KlingHook:
        """The hook of the task's connection."""
        from airflow_provider_kling.hooks.kling import KlingHook

        return KlingHook(self.kling_conn_id)

    def execute(self, context: Context) -> Any:
        """Prepare, submit or re-attach, wait or defer, save, report.

        :return: the generation id.
        """
        with failing_as_airflow_expects(context):
            run = self._start_run(context)
            run.prepare(self.requested(context))  # checks everything; nothing is sent
            run.submit_or_reattach()  # the one call that costs money
            for variant in run.wait_or_defer():  # a deferral continues in execute_complete
                run.save(variant)
            return run.report()

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Continue when the triggerer has seen the end of a wait: save, wait for the next, report.

        :return: the generation id.
        """
        from airflow_provider_kling.triggers.submit_search import is_search_event

        with failing_as_airflow_expects(context):
            run = self._start_run(context)
            if is_search_event(event):  # whether a submit was accepted is known by now
                run.prepare(self.requested(context), again=True)
                run.submit_or_reattach(event)
            else:
                run.resume(event)
            for variant in run.wait_or_defer():
                run.save(variant)
            return run.report()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Pictures in and videos out, for the OpenLineage provider, which calls this where installed."""
        from airflow_provider_kling.hooks.lineage import openlineage

        run = self._current_run
        return openlineage(*(run.lineage if run else ([], [])))

    @property
    def saved_paths(self) -> list[str | None]:
        """Where the video of each variant was saved; None for one without a file."""
        variants = self._current_run.variants if self._current_run else ()
        return [each.path for each in variants]

    def on_kill(self) -> None:
        """Say what keeps running: the vendor has no cancel."""
        from airflow_provider_kling.triggers.kling import keeps_running

        for generation_id in self._current_run.generation_ids if self._current_run else ():
            log.warning(keeps_running(generation_id))

    def requested(self, context: Context) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        """The arguments that make the request; a list of them makes as many variants."""
        return self.arguments()

    def arguments(self) -> dict[str, Any]:
        """The arguments that make the request."""
        return {name: getattr(self, name) for name in REQUEST_ARGUMENTS}

    def _start_run(self, context: Context) -> GenerateRun:
        from airflow_provider_kling.api.durable.decision import SubmitPolicy
        from airflow_provider_kling.task.generate import GenerateRun
        from airflow_provider_kling.task.options import GenerateOptions

        policy = SubmitPolicy(
            self.on_changed_request,
            self.on_uncertain_submit,
            self.on_clear,
            self.uncertain_grace,
            check_balance=self.check_balance,
        )
        options = GenerateOptions(
            model=self.model,
            path=self.path,
            shares_path=context["ti"].map_index not in (None, -1)
            and is_shared_at_run_time(self, self._path_given, self.path),
            overwrite=self.overwrite,
            skip_unchanged=self.skip_unchanged,
            sidecar=self.sidecar,
            presign=self.presign,
            convert_image=self.convert_image,
            max_cost_usd=self.max_cost_usd,
            wait_for_completion=self.wait_for_completion,
            deferrable=self.deferrable,
            poke_interval=self.poke_interval,
            timeout=self.timeout,
            durable=self.durable,
            policy=policy,
            outlets=self.outlets,
        )
        self._current_run = GenerateRun(context, options, self.hook, self.defer)
        return self._current_run

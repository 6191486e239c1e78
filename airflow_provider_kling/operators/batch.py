"""KlingGenerateBatchOperator makes a video of each row of a list, a file or a folder of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from airflow_provider_kling.api.redaction import logger, shown
from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.links.kling import LINKS
from airflow_provider_kling.operators.kling import DEFAULT_MODEL
from airflow_provider_kling.task.arguments import (
    DEFAULT_TIMEOUT,
    REQUEST_ARGUMENTS,
    SUBMIT_CHECKS,
    ArgumentField,
    Check,
    CheckedWhenParsed,
    checked_choice,
    refuse,
    request_problems,
    unclear_target,
)
from airflow_provider_kling.task.failures import failing_as_airflow_expects
from airflow_provider_kling.task.inline_media import hide, is_template
from airflow_provider_kling.version_compat import AirflowFailException, BaseOperator

if TYPE_CHECKING:
    from airflow_provider_kling.hooks.kling import KlingHook
    from airflow_provider_kling.task.batch.run import BatchRun
    from airflow_provider_kling.version_compat import Context

log = logger(__name__)

MOST_ACTIVE: Final = 250
"""Generations in flight; a trigger's row and a record that name them have to stay below 64 kB."""


def _checked_active(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_ACTIVE:
        raise AirflowFailException(f"max_active is {shown(value)}, no whole number from 1 to {MOST_ACTIVE}.")
    return value


def _checked_failures(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise AirflowFailException(
            f"max_failures={shown(value)} is neither a count (0, 1, 2, ...) nor a share above 0 and below 1."
        )
    return value


def _check_path(path: Any) -> None:
    if not isinstance(path, str):
        raise AirflowFailException(f"path must be a text, not {type(path).__name__}.")
    if is_template(path):
        return
    if not path.endswith("/") and "{key}" not in path and "{generation_id}" not in path:
        raise AirflowFailException(
            f"The videos of all rows would be saved at {shown(path)}: put {{key}} into the path, "
            "or end it with a slash."
        )


def _completed(path: Any) -> Any:
    """A folder as the path of each row's video."""
    return f"{path}{{key}}.mp4" if isinstance(path, str) and path.endswith("/") else path


class KlingGenerateBatchOperator(CheckedWhenParsed, BaseOperator):
    """Make a video of each of many requests in one task, and pay for each once.

    Checks every row before the first is submitted; keeps at most ``max_active`` generations in flight;
    frees its worker while they run, with one trigger for all; saves each video as it completes; and
    writes a manifest beside them, a line of JSON for each row. What happened to a row is recorded beside
    the videos, so that a retry, a killed worker or a clear continues where the batch stood.

    Returns the summary, and pushes it as XCom ``batch``: ``total``, ``saved``, ``reused``, ``failed``,
    ``invalid``, ``pending``, ``cost_usd``, ``video_seconds``, ``manifest``.

    :param requests: a list of mappings, for example from XCom; or the path or URI of a ``.jsonl`` or ``.csv``
        file; or a folder with a slash at its end, each picture in which is a request. Each row has a
        ``key``, which names its result (of a picture, its name), and any argument or parameter.
    :param path: where the videos go: a folder with a slash at its end, completed with ``{key}.mp4``, or a
        path with ``{key}`` in it; local, or the URI of object storage (``s3://conn@bucket/videos/``).
    :param max_active: generations in flight at most, 1 to 250.
    :param columns: argument or parameter name -> name of the column in the file.
    :param model: the vendor's model id, for rows that name none.
    :param prompt: likewise, as the next five.
    :param image: the reference picture.
    :param duration: length of the video in seconds.
    :param negative_prompt: what should not be in the video.
    :param cfg_scale: how closely to follow the prompt, 0 to 1.
    :param parameters: any other parameter of the model, by the vendor's name.
    :param kling_conn_id: the Airflow connection of the account that pays.
    :param on_invalid: rows that cannot be submitted: ``fail`` before anything is spent, or ``skip`` them.
    :param on_error: ``continue`` with the other rows when one fails, or ``fail``: submit no more once
        ``max_failures`` is exceeded. What is in flight is saved in both cases.
    :param max_failures: failed rows with which the task still succeeds: a count, or a share below 1.
    :param max_cost_usd: what the whole batch may cost, in USD, by the vendor's price list.
    :param skip_unchanged: keep the video at a row's path if it was made from the same request, by model,
        parameters and content of every picture; one of another request is replaced when its video is
        complete. A file that was not saved by this provider, or was changed since, is a problem of its row.
    :param overwrite: replace whatever is at a row's path.
    :param convert_image: make a JPEG or PNG of pictures that the vendor does not take.
    :param deferrable: wait in the triggerer instead of on the worker; whatever Airflow's
        ``[operators] default_deferrable`` says.
    :param poke_interval: seconds between polls, 1 to 3600; None polls where completion is likely.
    :param timeout: seconds that one generation may take.
    :param on_changed_request: see :class:`.KlingGenerateOperator`, as the next three.
    :param on_uncertain_submit: see there.
    :param on_clear: see there.
    :param uncertain_grace: see there.
    :raises AirflowFailException: what a retry cannot fix.
    """

    operator_extra_links = LINKS
    template_fields: Sequence[str] = (
        "requests",
        "path",
        *REQUEST_ARGUMENTS,
        "kling_conn_id",
        "max_cost_usd",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json", "requests": "json"}
    argument_checks: ClassVar[Mapping[str, Check]] = {
        "max_active": _checked_active,
        "max_failures": _checked_failures,
        "on_invalid": checked_choice("on_invalid", "fail", "skip"),
        "on_error": checked_choice("on_error", "continue", "fail"),
        "path": _check_path,
        **SUBMIT_CHECKS,
    }
    requests = ArgumentField(hide)
    image = ArgumentField(hide)
    parameters = ArgumentField(hide)

    def __init__(
        self,
        *,
        requests: Any,
        path: str,
        max_active: int = 20,
        columns: Mapping[str, str] | None = None,
        model: str = DEFAULT_MODEL,
        prompt: str | None = None,
        image: Any = None,
        duration: int | str | None = None,
        negative_prompt: str | None = None,
        cfg_scale: float | str | None = None,
        parameters: dict[str, Any] | None = None,
        kling_conn_id: str = DEFAULT_CONNECTION_ID,
        on_invalid: Literal["fail", "skip"] = "fail",
        on_error: Literal["continue", "fail"] = "continue",
        max_failures: float = 0,
        max_cost_usd: float | str | None = None,
        skip_unchanged: bool = False,
        overwrite: bool = False,
        convert_image: bool = False,
        deferrable: bool = True,
        poke_interval: float | timedelta | None = None,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        on_changed_request: Literal["submit", "fail"] = "submit",
        on_uncertain_submit: Literal["resubmit", "fail"] = "resubmit",
        on_clear: Literal["reuse", "regenerate"] = "reuse",
        uncertain_grace: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        checks = self.argument_checks
        self.requests = requests
        self.path = path
        self.max_active: int = max_active
        self.columns = columns
        self.model = model
        self.prompt = prompt
        self.image = image
        self.duration = duration
        self.negative_prompt = negative_prompt
        self.cfg_scale = cfg_scale
        self.parameters = parameters
        self.kling_conn_id = kling_conn_id
        self.on_invalid = on_invalid
        self.on_error = on_error
        self.max_failures = max_failures
        self.max_cost_usd = max_cost_usd
        self.skip_unchanged = skip_unchanged
        self.overwrite = overwrite
        self.convert_image = convert_image
        self.deferrable = deferrable
        self.poke_interval = checks["poke_interval"](poke_interval)
        self.timeout = checks["timeout"](timeout)
        self.on_changed_request = on_changed_request
        self.on_uncertain_submit = on_uncertain_submit
        self.on_clear = on_clear
        self.uncertain_grace: float | None = checks["uncertain_grace"](uncertain_grace)
        self._current_run: BatchRun | None = None
        given = {name: getattr(self, name) for name in (*checks, *self._defaults(), "skip_unchanged")}
        refuse(self.problems_when_parsed(given, complete=True))

    @classmethod
    def problems_when_parsed(cls, given: Mapping[str, Any], *, complete: bool) -> Sequence[str]:
        """See :class:`.CheckedWhenParsed`; what all rows share is checked too."""
        shared = {"model": DEFAULT_MODEL, **{name: given.get(name) for name in REQUEST_ARGUMENTS}}
        shared["model"] = given.get("model") or DEFAULT_MODEL
        return [
            *super().problems_when_parsed(given, complete=complete),
            *request_problems(shared, complete=False),
            *unclear_target({**given, "path": _completed(given.get("path"))}),
        ]

    @cached_property
    def hook(self) -> KlingHook:
        """The hook of the task's connection."""
        from airflow_provider_kling.hooks.kling import KlingHook

        return KlingHook(self.kling_conn_id)

    def execute(self, context: Context) -> Any:
        """Check every row, submit and save until nothing is left, report.

        :return: the summary.
        """
        with failing_as_airflow_expects(context):
            run = self._start_run(context)
            run.begin()  # checks every row; nothing is sent
            run.run()  # a deferral continues in execute_complete
            return run.report()

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Continue when the triggerer has seen generations end.

        :return: the summary.
        """
        from airflow_provider_kling.triggers.batch import read_batch_event

        with failing_as_airflow_expects(context):
            run = self._start_run(context)
            run.resume(read_batch_event(event))
            run.run()
            return run.report()

    def on_kill(self) -> None:
        """Say what keeps running: the vendor has no cancel."""
        ids = self._current_run.generation_ids if self._current_run else []
        if ids:
            log.warning(
                "The task was stopped. %d generations keep running: the vendor has no cancel API, and they "
                "are billed on completion. The next attempt of this task re-attaches to them.",
                len(ids),
            )

    def _defaults(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in REQUEST_ARGUMENTS}

    def _start_run(self, context: Context) -> BatchRun:
        from airflow_provider_kling.api.durable.decision import SubmitPolicy
        from airflow_provider_kling.api.settings import checked_limit
        from airflow_provider_kling.task.batch.options import BatchOptions
        from airflow_provider_kling.task.batch.run import BatchRun
        from airflow_provider_kling.task.inline_media import reveal

        limit = self.max_cost_usd
        options = BatchOptions(
            requests=reveal(self.requests),
            path=_completed(self.path),
            defaults={name: value for name, value in self._defaults().items() if value is not None},
            columns=self.columns,
            max_active=self.max_active,
            on_invalid=self.on_invalid,
            on_error=self.on_error,
            max_failures=self.max_failures,
            max_cost_usd=None if limit in (None, "") else checked_limit(limit),
            skip_unchanged=self.skip_unchanged,
            overwrite=self.overwrite,
            convert_image=self.convert_image,
            deferrable=self.deferrable,
            poke_interval=self.poke_interval,
            timeout=self.timeout,
            policy=SubmitPolicy(
                self.on_changed_request, self.on_uncertain_submit, self.on_clear, self.uncertain_grace
            ),
            outlets=self.outlets,
        )
        self._current_run = BatchRun(context, options, self.hook, self.defer)
        return self._current_run

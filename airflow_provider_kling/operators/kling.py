"""KlingGenerateOperator submits a generation, KlingDownloadOperator lands its video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from airflow_provider_kling.compat import BaseOperator, conf
from airflow_provider_kling.failures import failing_as_airflow_expects, goes_on
from airflow_provider_kling.operators.inline import InlineMediaField, reveal
from airflow_provider_kling.operators.parsing import (
    CheckedPartial,
    check_known,
    check_path_if_known,
    checked_choice,
    request_parameters,
)
from airflow_provider_kling.provider import DEFAULT_CONNECTION_ID
from airflow_provider_kling.waiting import (
    COLOR,
    DEFAULT_TIMEOUT,
    Waiting,
    checked_interval,
    checked_seconds,
    push_generation,
)

if TYPE_CHECKING:
    from airflow_provider_kling.api.once import Obtained
    from airflow_provider_kling.compat import Context
    from airflow_provider_kling.hooks.kling import KlingHook

DEFAULT_MODEL: Final = "kling-video/v1.6/standard/image-to-video"


class KlingGenerateOperator(BaseOperator):
    """Turn a picture and a prompt into a generation at the vendor, and pay for it once.

    Returns the generation id, and pushes it as XCom ``generation_id`` as soon as it is known,
    beside ``client_request_id``. With ``wait_for_completion`` it also waits, and then pushes what
    the sensor pushes: ``video_url`` and, as ``generation``, the generation as a dict.

    A retry, a killed worker or a cleared task does not submit the same work again: it adopts what
    an earlier try submitted. See the parameters from ``durable`` on.

    :param model: the vendor's model id.
    :param prompt: what should happen in the video.
    :param image: the reference picture: an https URL, a local path, or the URI of an object in
        storage. Fills the model's image parameter.
    :param duration: length of the video in seconds; 5 or 10 for most models.
    :param negative_prompt: what should not be in the video.
    :param cfg_scale: how closely to follow the prompt, 0 to 1.
    :param parameters: any other parameter of the model, by the vendor's name.
    :param kling_conn_id: the Airflow connection of the account that pays.
    :param wait_for_completion: wait until the video is there.
    :param deferrable: wait in the triggerer instead of on the worker.
    :param poke_interval: seconds between polls, 1 to 3600; None polls where completion is likely.
    :param timeout: seconds to wait at most.
    :param durable: use what earlier tries submitted. False submits on every try, and pays for each.
    :param on_changed_request: an earlier try of this task instance submitted another request:
        ``submit`` this one, or ``fail``.
    :param on_uncertain_submit: a submit that may have been accepted is not in the vendor's logs:
        ``resubmit``, or ``fail``.
    :param on_clear: the task is cleared after its generation completed: ``reuse`` it, or
        ``regenerate`` and pay again.
    :param uncertain_grace: seconds in which an uncertain submit is looked for in the vendor's logs.
    :raises AirflowFailException: what a retry cannot mend. When the DAG is parsed: every problem of
        the request that is known by then.
    """

    template_fields: Sequence[str] = (
        "model",
        "prompt",
        "image",
        "duration",
        "negative_prompt",
        "cfg_scale",
        "parameters",
        "kling_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"parameters": "json"}
    ui_color = COLOR
    default_model = DEFAULT_MODEL
    image = InlineMediaField()
    parameters = InlineMediaField()

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
        wait_for_completion: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poke_interval: float | timedelta | None = None,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        durable: bool = True,
        on_changed_request: Literal["submit", "fail"] = "submit",
        on_uncertain_submit: Literal["resubmit", "fail"] = "resubmit",
        on_clear: Literal["reuse", "regenerate"] = "reuse",
        uncertain_grace: float | timedelta = 300.0,
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
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.poke_interval = checked_interval(poke_interval)
        self.timeout = checked_seconds("timeout", timeout)
        self.durable = durable
        self.on_changed_request = checked_choice("on_changed_request", on_changed_request, "submit", "fail")
        self.on_uncertain_submit = checked_choice(
            "on_uncertain_submit", on_uncertain_submit, "resubmit", "fail"
        )
        self.on_clear = checked_choice("on_clear", on_clear, "reuse", "regenerate")
        self.uncertain_grace = checked_seconds("uncertain_grace", uncertain_grace, least=0.0)
        self._generation_id: str | None = None
        check_known(self._arguments(), complete=True)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Map the task over lists, see ``expand``; what is known of the request is checked at once."""
        return CheckedPartial.of(super().partial(**kwargs))

    @cached_property
    def hook(self) -> KlingHook:
        """The hook of the task's connection."""
        from airflow_provider_kling.hooks.kling import KlingHook

        return KlingHook(self.kling_conn_id)

    def execute(self, context: Context) -> str:
        """Submit, or adopt what an earlier try submitted; wait for it if so wanted.

        :return: the generation id.
        """
        with failing_as_airflow_expects():
            obtained = self._obtain(context)
            if self.wait_for_completion:
                waiting = self._waiting(context)
                wait = waiting.deferred if self.deferrable else waiting.here
                wait(obtained.generation_id, model=self.model, submitted_at=obtained.record.intended_at)
            return obtained.generation_id

    def execute_complete(self, context: Context, event: Any = None) -> str:
        """Go on when the triggerer has seen the end of the wait.

        :return: the generation id.
        """
        with failing_as_airflow_expects():
            return self._waiting(context).resumed(event, model=self.model).id

    def on_kill(self) -> None:
        """Say what goes on: the vendor has no cancel."""
        if self._generation_id is not None:
            self.log.warning(goes_on(self._generation_id))

    def _arguments(self) -> dict[str, Any]:
        names = (
            "model",
            "prompt",
            "image",
            "duration",
            "negative_prompt",
            "cfg_scale",
            "parameters",
        )
        return {name: getattr(self, name) for name in names}

    def _waiting(self, context: Context) -> Waiting:
        return Waiting(
            self,
            self.hook,
            self.poke_interval,
            self.timeout,
            lambda done: push_generation(context, done),
        )

    def _obtain(self, context: Context) -> Obtained:
        from airflow_provider_kling.api.decision import SubmitPolicy
        from airflow_provider_kling.api.once import Once, Order
        from airflow_provider_kling.operators.task import TaskRun

        arguments = reveal(self._arguments())
        prepared = self.hook.prepare(self.model, request_parameters(arguments), image=arguments["image"])
        run = TaskRun(context, self)
        order = Order(
            request=prepared.request,
            fingerprint=prepared.fingerprint,
            work=run.work,
            attempt=run.attempt,
            policy=SubmitPolicy(
                on_changed_request=self.on_changed_request,
                on_uncertain_submit=self.on_uncertain_submit,
                on_clear=self.on_clear,
                uncertain_grace=self.uncertain_grace,
            ),
            remembers=run.remembers,
            tries=run.tries,
            earlier_since=run.earlier[0],
            earlier_until=run.earlier[1],
        )
        client = self.hook.get_conn()
        once = Once(client.flows, order)
        flow = once.obtain(run.recall()) if self.durable else once.submit_regardless()
        obtained = client.run(flow, run.remember)
        self._generation_id = obtained.generation_id
        context["ti"].xcom_push(key="generation_id", value=obtained.generation_id)
        context["ti"].xcom_push(key="client_request_id", value=obtained.record.client_request_id)
        return obtained


class KlingDownloadOperator(BaseOperator):
    """Land the video of a completed generation: whole and verified, or not at all.

    Asks for a fresh URL, streams in constant memory, resumes where the connection breaks, checks
    that it is a whole video, and only then gives the file its name. Never submits anything.
    Returns the path, and pushes what is known of the file as XCom ``video``.

    :param generation_id: the generation, usually from XCom.
    :param path: a local path, or the URI of an object in storage (``s3://conn@bucket/key``). May
        name ``{generation_id}``; one that ends with a slash is completed with ``{generation_id}.mp4``.
    :param kling_conn_id: the connection that submitted it.
    :param overwrite: replace what is there. Otherwise the same video is left as it is, and another
        file is an error.
    :raises AirflowFailException: what a retry cannot mend.
    """

    template_fields: Sequence[str] = ("generation_id", "path", "kling_conn_id")
    ui_color = COLOR

    def __init__(
        self,
        *,
        generation_id: str,
        path: Any,
        kling_conn_id: str = DEFAULT_CONNECTION_ID,
        overwrite: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.generation_id = generation_id
        self.path = path
        self.kling_conn_id = kling_conn_id
        self.overwrite = overwrite
        check_path_if_known(path)

    def execute(self, context: Context) -> str:
        """Land the video.

        :return: the path, with its placeholders filled.
        """
        from airflow_provider_kling.hooks.kling import KlingHook

        with failing_as_airflow_expects():
            hook = KlingHook(self.kling_conn_id)
            landed = hook.download(self.generation_id, self.path, overwrite=self.overwrite)
        facts = asdict(landed)
        del facts["skipped"]
        context["ti"].xcom_push(key="video", value={"generation_id": self.generation_id, **facts})
        return landed.path

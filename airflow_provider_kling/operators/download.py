"""KlingDownloadOperator saves the video of a generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_kling.get_provider_info import DEFAULT_CONNECTION_ID
from airflow_provider_kling.links.kling import SAVING_LINKS
from airflow_provider_kling.task.arguments import (
    ArgumentField,
    Check,
    CheckedWhenParsed,
    as_text,
    check_path_if_known,
    refuse,
)
from airflow_provider_kling.task.failures import failing_as_airflow_expects
from airflow_provider_kling.version_compat import BaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import XComArg

    from airflow_provider_kling.version_compat import Context


class KlingDownloadOperator(CheckedWhenParsed, BaseOperator):
    """Save the video of a completed generation: complete and verified, or not at all.

    Requests a fresh URL, streams in constant memory, resumes where the connection breaks, verifies
    that it is complete, and only then gives the file its name. Never submits anything.
    Returns the path, and pushes it as XCom ``path``, beside what is known of the file as ``video``.

    :param generation_id: the generation, usually from XCom.
    :param path: a local path, or the URI of an object in storage (``s3://conn@bucket/key``). May
        name ``{generation_id}``, and ``{model}``, ``{client_request_id}`` or ``{loop_index}`` where a
        KlingGenerateOperator upstream made it; one that ends with a slash is completed with
        ``{generation_id}.mp4``.
    :param kling_conn_id: the connection that submitted it.
    :param overwrite: replace what is there. Otherwise the same video is left as it is, and another
        file is an error.
    :param sidecar: write a JSON file beside the video: ids, times, checksum, and the request where a
        KlingGenerateOperator upstream made it.
    :raises AirflowFailException: what a retry cannot fix.
    """

    template_fields: Sequence[str] = ("generation_id", "path", "kling_conn_id")
    operator_extra_links = SAVING_LINKS
    argument_checks: ClassVar[Mapping[str, Check]] = {"path": check_path_if_known}
    generation_id: Any = ArgumentField(as_text)
    path: Any = ArgumentField(as_text)
    kling_conn_id: Any = ArgumentField(as_text)

    def __init__(
        self,
        *,
        generation_id: str | XComArg,
        path: Any,
        kling_conn_id: str = DEFAULT_CONNECTION_ID,
        overwrite: bool = False,
        sidecar: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.generation_id = generation_id
        self.path = path
        self.kling_conn_id = kling_conn_id
        self.overwrite = overwrite
        self.sidecar = sidecar
        self.lineage: tuple[list[str], list[str]] = ([], [])
        self.saved_paths: list[str] = []
        refuse(self.problems_when_parsed({"path": path}, complete=True))

    def execute(self, context: Context) -> str:
        """Save the video.

        :return: the path, with its placeholders filled.
        """
        from airflow_provider_kling.hooks.kling import KlingHook
        from airflow_provider_kling.task.results import Variant, announce, save_video
        from airflow_provider_kling.task.xcom import upstream_request

        request = upstream_request(context, self.generation_id)
        with failing_as_airflow_expects(context, submits=False):
            saved = save_video(
                KlingHook(self.kling_conn_id),
                self.generation_id,
                self.path,
                context["ti"].xcom_push,
                overwrite=self.overwrite,
                with_sidecar=self.sidecar,
                request=request,
            )
            self.saved_paths = [saved.path]
            saved_one = Variant(self.generation_id, request=request, path=saved.path, duration=saved.duration)
            self.lineage = announce(context, self.outlets, [saved_one])
        return saved.path

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """The video, for the OpenLineage provider, which calls this where it is installed."""
        from airflow_provider_kling.hooks.lineage import openlineage

        return openlineage(*self.lineage)

"""What a task upstream asked for, found by the generation's id among the XComs of those that generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_kling.task.wait import ID_KEY, REQUEST_KEY

if TYPE_CHECKING:
    from airflow_provider_kling.version_compat import Context

_KEYS: Final = (ID_KEY, REQUEST_KEY)


def asked_upstream(context: Context, generation_id: str) -> Mapping[str, Any] | None:
    """The request of a generation, as the :class:`.KlingGenerateOperator` upstream pushed it.

    Of a mapped task only the instance of the same map index is looked at: to read hundreds of XComs
    would cost more than is won.

    :param context: Airflow's, of the task that asks.
    :return: model, parameters, client request id, epoch seconds of the submit; None where no task
        upstream made this generation.
    """
    ti: Any = context["ti"]
    task: Any = context["task"]
    for task_id in sorted(task.get_flat_relative_ids(upstream=True)):
        if not _generates(task.dag.get_task(task_id)):
            continue
        for index in dict.fromkeys((ti.map_index, -1)):
            pulled = (ti.xcom_pull(task_ids=task_id, key=key, map_indexes=index) for key in _KEYS)
            ids, requests = (each if isinstance(each, list) else [each] for each in pulled)
            request = dict(zip(ids, requests, strict=False)).get(generation_id)
            if isinstance(request, Mapping):
                return request
    return None


def _generates(task: Any) -> bool:
    """Whether a task pushes requests, mapped or not, without loading what makes it one."""
    kind = getattr(task, "operator_class", None) or type(task)
    return bool(getattr(kind, "pushes_requests", False))

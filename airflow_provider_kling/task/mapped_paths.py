"""One path for each mapped task instance: whether a template can differ between them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow_provider_kling.task.inline_media import is_template


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SAME_FOR_ALL: Final = _names(
    "dag dag_run ds ds_nodash ts ts_nodash ts_nodash_with_tz run_id logical_date execution_date "
    "data_interval_start data_interval_end prev_ds prev_ds_nodash prev_execution_date next_ds "
    "partition_key next_execution_date prev_data_interval_start_success prev_data_interval_end_success "
    "partition_date prev_start_date_success prev_end_date_success yesterday_ds yesterday_ds_nodash "
    "tomorrow_ds tomorrow_ds_nodash params var conn conf inlets outlets inlet_events outlet_events "
    "triggering_asset_events triggering_dataset_events test_mode expanded_ti_count templates_dict"
)
"""Names in Airflow's context whose values are the same for every mapped instance of a task."""
_SAME_OF_THE_INSTANCE: Final = _names(
    "dag_id task_id run_id try_number max_tries queue pool operator logical_date dag_run dag_version_id"
)
_INSTANCE: Final = frozenset({"ti", "task_instance", "task"})
_DIFFERENT_MACROS: Final = frozenset({"uuid", "random", "time"})
_CLOCKS: Final = frozenset({"now", "utcnow", "today", "time_ns"})
_TEXTS: Final = frozenset({"params", "var", "conn", "conf", "templates_dict"})
"""Names whose values may end with a slash, or hold ``{generation_id}``."""
_TEXT_ATTRIBUTES: Final = frozenset({"conf", "xcom_pull"})


def may_differ(
    path: str, *, pulls_differ: bool = False, params_differ: bool = False, rendered: bool = False
) -> bool:
    """Whether a template can give each mapped instance a path of its own.

    An unknown name, such as a macro of the user's, may differ: to refuse a DAG that works is
    the worse mistake, and a path that turns out to be taken is noticed before the video is paid.

    :param path: a text with templates.
    :param pulls_differ: whether an XCom may differ without naming the map index, as in a mapped task group.
    :param params_differ: whether ``params`` are mapped over too.
    :param rendered: whether it is known that what it renders to tells no generations apart.
    """
    from jinja2 import Environment, TemplateSyntaxError, nodes
    from jinja2.meta import find_undeclared_variables

    try:
        # It is parsed only, and what it makes is a path, not HTML.
        tree = Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"]).parse(path)  # noqa: S701
    except TemplateSyntaxError:
        return True  # which Airflow reports
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        if node.name == "random":
            return True
        node.name = "string"  # Airflow's own are not known here
    names = find_undeclared_variables(tree)
    if names - _SAME_FOR_ALL - _INSTANCE - {"macros"} or (params_differ and "params" in names):
        return True
    if any(node.attr in _CLOCKS for node in tree.find_all(nodes.Getattr)):
        return True
    last = list(tree.find_all(nodes.Output))[-1].nodes[-1]
    if not (rendered or isinstance(last, nodes.TemplateData)):
        attributes = {node.attr for node in (last, *last.find_all(nodes.Getattr)) if hasattr(node, "attr")}
        if attributes & _TEXT_ATTRIBUTES or {node.name for node in last.find_all(nodes.Name)} & _TEXTS:
            return True
    same = _SAME_OF_THE_INSTANCE if pulls_differ else _SAME_OF_THE_INSTANCE | {"xcom_pull"}
    used = [
        (node.node.name, node.attr)
        for node in tree.find_all(nodes.Getattr)
        if isinstance(node.node, nodes.Name)
    ]
    harmless = sum(name in _INSTANCE and attribute in same for name, attribute in used)
    mentioned = sum(node.name in _INSTANCE for node in tree.find_all(nodes.Name))
    return mentioned > harmless or any(
        name == "macros" and attribute in _DIFFERENT_MACROS for name, attribute in used
    )


def same_path_for_all(
    path: Any, expanded: Mapping[str, Sequence[Any] | None], *, params_differ: bool = False
) -> str:
    """What is wrong where mapped instances would save at one path; empty where each may have its own.

    :param path: as it is given to ``partial``.
    :param expanded: what ``expand`` is given: a list by the argument's name, None where it comes later. An
        empty name stands for all that comes later.
    :param params_differ: see :func:`may_differ`.
    """
    own = "path" in expanded
    params_differ = params_differ or "params" in expanded or "" in expanded
    counts = [None if values is None else len(values) for name, values in expanded.items() if name != "path"]
    several = any(count is None or count > 1 for count in counts)
    paths = list(expanded["path"] or ()) if own else [path]
    for index, each in enumerate(paths):
        if (several or each in paths[:index]) and is_shared(each, params_differ=params_differ):
            return one_path(each)
    return ""


def is_shared(path: Any, *, pulls_differ: bool = False, params_differ: bool = False) -> bool:
    """Whether all mapped instances would save at this path, as far as that is known.

    :param pulls_differ: see :func:`may_differ`.
    :param params_differ: see there.
    """
    from airflow_provider_kling.api.paths import tells_apart

    if not isinstance(path, str | os.PathLike) or tells_apart(str(path)):
        return False
    if not isinstance(path, str) or not is_template(path):
        return True
    return not may_differ(path, pulls_differ=pulls_differ, params_differ=params_differ)


def is_shared_at_run_time(operator: Any, given: Any, rendered: Any) -> bool:
    """Whether the other mapped instances of a running task save at the same path.

    :param operator: the task that runs, which is mapped or in a mapped task group.
    :param given: its path as the DAG's author wrote it.
    :param rendered: its path.
    """
    mapped = operator.dag.task_dict.get(operator.task_id) if operator.dag else None
    partial = getattr(mapped, "partial_kwargs", None)
    if not is_shared(rendered) or (partial is not None and "path" not in partial):
        return False
    if not isinstance(given, str) or not is_template(given):
        return True
    mapped_over = getattr(getattr(mapped, "expand_input", None), "value", None)
    params_differ = not isinstance(mapped_over, Mapping) or "params" in mapped_over
    return not may_differ(given, pulls_differ=partial is None, params_differ=params_differ, rendered=True)


def one_path(path: object) -> str:
    """The sentence about it."""
    return (
        f"The videos of all mapped tasks would be saved at {str(path)!r}: put {{generation_id}} into the "
        "path, or end it with a slash."
    )

"""The only home of Airflow imports that differ between 2.11 and 3.3.

``apache-airflow-providers-common-compat`` knows where each version keeps its classes; what it does
not know stands here, with the reason.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from airflow import __version__
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseHook,
    BaseOperator,
    BaseOperatorLink,
    BaseSensorOperator,
    Context,
    ObjectStoragePath,
    PokeReturnValue,
    XCom,
    conf,
)

__all__ = [
    "HAS_PLUGIN_VIEWS",
    "REPLACES_MAPPED_TASKS",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "Context",
    "ObjectStoragePath",
    "OperatorPartial",
    "PokeReturnValue",
    "RetryDecision",
    "RetryPolicy",
    "XCom",
    "conf",
    "never_expire",
    "reads_lineage",
    "start_span",
    "stats",
    "validate_mapping_kwargs",
]

try:  # 3.0 and newer
    from airflow.sdk.definitions.mappedoperator import OperatorPartial, validate_mapping_kwargs
except ImportError:  # 2.11
    from airflow.models.mappedoperator import (  # type: ignore[import-not-found,no-redef]  # 3.x is installed
        OperatorPartial,
        validate_mapping_kwargs,
    )


def stats() -> Any:
    """What sends Airflow's metrics: the module that a version keeps them in, or its ``Stats``.

    Imported when it is used: no DAG file needs it.
    """
    from airflow.providers.common.compat.sdk import Stats

    return Stats


def start_span(name: str) -> AbstractContextManager[Any]:
    """Begin a span of Airflow's tracer: its own up to 3.1, OpenTelemetry's from 3.2 on."""
    try:
        from airflow.traces.tracer import Trace  # type: ignore[import-not-found]  # 2.11 to 3.1
    except ImportError:
        from opentelemetry import trace

        return trace.get_tracer("airflow_provider_kling").start_as_current_span(name)
    span: AbstractContextManager[Any] = Trace.start_span(span_name=name)
    return span


def reads_lineage() -> bool:
    """Whether a plugin reads what hooks report to Airflow's collector of lineage.

    Airflow's collector loads the asset module of every provider also where nobody reads it: with the Amazon
    provider half a second of CPU (3.3, measured).
    """
    try:  # 3.2 and newer
        from airflow.sdk.plugins_manager import get_hook_lineage_readers_plugins
    except ImportError:
        from airflow import plugins_manager

        plugins_manager.initialize_hook_lineage_readers_plugins()  # type: ignore[attr-defined]  # until 3.1
        return bool(plugins_manager.hook_lineage_reader_classes)  # type: ignore[attr-defined]
    return bool(get_hook_lineage_readers_plugins())


def never_expire() -> timedelta:
    """The retention of a state store's key that no clean-up removes; 3.3 and newer, which have stores.

    Imported when it is used: no DAG file needs it.
    """
    from airflow.sdk.execution_time.context import NEVER_EXPIRE

    return NEVER_EXPIRE


try:  # 3.3 and newer
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
except ImportError:

    class RetryPolicy:  # type: ignore[no-redef]  # stands in where there is none
        """Says plainly that this Airflow has no retry policies."""

        def __init__(self) -> None:
            raise RuntimeError("Retry policies need Airflow 3.3 or newer; leave retry_policy out.")

    RetryDecision = None  # type: ignore[assignment,misc]  # never reached without a policy

_VERSION = tuple(int(part) for part in __version__.split(".")[:2])
HAS_PLUGIN_VIEWS = _VERSION >= (3, 1)
"""Whether Airflow can show the plugin's views."""

REPLACES_MAPPED_TASKS = _VERSION >= (3, 4)
"""Whether a clear gives new instances, with attempt 1, to a mapped task that ran on an older version."""

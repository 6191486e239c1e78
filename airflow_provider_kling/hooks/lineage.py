"""Where a video comes from and goes to: for Airflow's hook-level lineage, for assets, for OpenLineage."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from airflow_provider_kling.api.paths import file_of, scheme_of
from airflow_provider_kling.api.redaction import clean, logger
from airflow_provider_kling.version_compat import reads_lineage

if TYPE_CHECKING:
    from airflow_provider_kling.version_compat import BaseHook, Context

log = logger(__name__)

_PLAIN: Final = "/!$&'()*+,;=:@~"
"""What a URI's path may hold as it is; everything else is percent-encoded, as Airflow's assets are ASCII."""


def place_uri(place: str) -> str | None:
    """The URI of a file or an object, without a connection id or a signature in it.

    :param place: a local path, or a URI such as ``s3://conn@bucket/key``, where a ``#``, ``?`` or ``%``
        is part of the key; but http(s) URLs are encoded already, and have queries.
    :return: ASCII; None for what has no place, such as a picture that was given inline.
    """
    scheme = scheme_of(place)
    if scheme == "data":
        return None
    if scheme in ("", "file"):
        path = file_of(place) if scheme else Path(place)
        return f"file://{quote(os.fsencode(os.path.abspath(path)), _PLAIN)}"
    rest = place.partition("://")[2]
    if scheme in ("http", "https"):
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, key = rest.partition("/")
    kept = f"{_PLAIN}%" if scheme in ("http", "https") else _PLAIN
    return f"{scheme}://{quote(host.rpartition('@')[2], '[]:')}{slash}{quote(key, kept, errors='replace')}"


def media_uris(described: Any) -> list[str]:
    """URIs of what the media of a request were read from, as :meth:`.KlingHook.prepare` describes them."""
    if isinstance(described, Mapping):
        if "source" in described and "sha256" in described:
            source = described["source"]
            uri = place_uri(source) if scheme_of(source) or os.path.exists(source) else None
            return [uri] if uri is not None else []
        described = list(described.values())
    return [uri for each in described for uri in media_uris(each)] if isinstance(described, list) else []


def collect(hook: BaseHook, *, inputs: Iterable[str] = (), outputs: Iterable[str] = ()) -> None:
    """Report to Airflow's collector of hook-level lineage, where a plugin reads it; never fails the task."""
    try:
        _collect(hook, inputs, outputs)
    except Exception as error:  # what a plugin raises is no reason to fail a paid task
        log.warning("Could not report lineage; continuing: %s: %s", type(error).__name__, clean(str(error)))


def _collect(hook: BaseHook, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    if not reads_lineage():
        return
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    collector: Any = get_hook_lineage_collector()  # type: ignore[no-untyped-call]  # Airflow's is untyped
    for uri in inputs:
        collector.add_input_asset(context=hook, uri=uri)
    for uri in outputs:
        collector.add_output_asset(context=hook, uri=uri)


def tell_assets(
    context: Context, outlets: Iterable[Any], facts: Sequence[Mapping[str, Any]], *, several: bool = False
) -> None:
    """Give the events of a task's outlet assets the generations' facts as ``extra``.

    An alias among the outlets gets an asset of its own for each video, by the video's URI.

    :param facts: of each generation, plain JSON; ``path`` is where the video is, if it was saved.
    :param several: whether an asset's event gets a list of each fact.
    """
    from airflow.providers.common.compat.sdk import Asset, AssetAlias

    events: Any = context["outlet_events"]
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            for each in facts:
                uri = place_uri(os.fspath(each["path"])) if each.get("path") else None
                if uri is not None:
                    events[outlet].add(Asset(uri), extra={name: _hashable(it) for name, it in each.items()})
        elif isinstance(outlet, Asset):
            for name in dict.fromkeys(name for each in facts for name in each):
                values = [each.get(name) for each in facts]
                events[outlet].extra[name] = values if several else values[-1]


def _hashable(value: Any) -> Any:
    return _Hashable(value) if isinstance(value, dict) else value


class _Hashable(dict[str, Any]):
    """A dict among the facts of an alias: Airflow 2.11 puts their values into a set, and fails on others."""

    def __hash__(self) -> int:  # type: ignore[override]  # dict has none
        return hash(frozenset(self.items()))


def openlineage(inputs: Iterable[str], outputs: Iterable[str]) -> Any:
    """What the OpenLineage provider wants to know of a task; only it calls this, so it is installed."""
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    def datasets(uris: Iterable[str]) -> list[Any]:
        return [Dataset(namespace=namespace, name=name) for namespace, name in map(dataset_name, uris)]

    return OperatorLineage(inputs=datasets(inputs), outputs=datasets(outputs))


def dataset_name(uri: str) -> tuple[str, str]:
    """Namespace and name of a dataset, as the OpenLineage specification names files and objects.

    :param uri: as :func:`place_uri` wrote it.
    """
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    if scheme == "file":
        return "file", unquote(f"/{path}")
    return f"{scheme}://{host}", unquote(path) or "/"

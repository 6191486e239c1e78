"""Object storage, as Airflow gives it: ``ObjectStoragePath`` over fsspec, with Airflow's connections."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from airflow_provider_kling.api.durable.identity import place_in
from airflow_provider_kling.api.paths import (
    expand_path,
    file_of,
    is_stored,
    local_path,
    scheme_of,
)
from airflow_provider_kling.api.temporary_files import temporary_name


def open_path(uri: str, conn_id: str | None = None) -> Any:
    """The path object for a URI such as ``s3://conn@bucket/key``.

    :param conn_id: the Airflow connection to use, where the URI names none.
    """
    from airflow_provider_kling.version_compat import ObjectStoragePath

    return ObjectStoragePath(uri, conn_id=conn_id) if conn_id else ObjectStoragePath(uri)


def place_of(text: str, conn_id: str | None = None) -> Any:
    """What a path as text stands for: a local path, or the path object of an object in storage.

    :param text: a local path, a ``file:`` URI, or the URI of an object.
    :param conn_id: the Airflow connection to use, where the URI names none.
    :raises ValueError: a ``file:`` URI that names a host.
    """
    if scheme_of(text) == "file":
        return file_of(text)
    return open_path(text, conn_id) if "://" in text else text


def target_path(path: Any, **facts: str | None) -> Any:
    """Where a video goes.

    :param path: see :func:`.expand_path`.
    :param facts: what its placeholders stand for; the client request id tells the pass of a loop.
    :return: a local path as text, or a path object.
    """
    place = place_in(facts.get("client_request_id") or "")
    loop_index = None if place is None or place.loop_index is None else str(place.loop_index)
    expanded = expand_path(path, {**facts, "loop_index": loop_index})
    return open_path(expanded, getattr(path, "conn_id", None)) if "://" in expanded else expanded


def write_text(path: str, text: str) -> None:
    """Write a small file in one step for every reader; what is there is replaced.

    :param path: a local path, a ``file:`` URI, or the URI of an object in storage.
    :raises OSError: it could not be written.
    :raises ValueError: a ``file:`` URI that names a host.
    """
    write_lines(path, [text])


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Write a file line by line, and in one step for every reader; what is there is replaced.

    :param path: see :func:`write_text`.
    :param lines: with their line ends; only one is in memory at a time.
    :raises OSError: it could not be written.
    """
    place = place_of(path)
    if is_stored(place):
        with place.fs.open(place.path, "wb") as stored:  # appears when it is closed
            for line in lines:
                stored.write(line.encode(errors="backslashreplace"))
        return
    place = local_path(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    staged = place.with_name(temporary_name(place.name, secrets.token_hex(4)))
    try:
        with staged.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(lines)
        staged.replace(place)
    finally:
        staged.unlink(missing_ok=True)

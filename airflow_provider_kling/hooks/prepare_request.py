"""A request made ready: validated, its pictures read, its fingerprint taken."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_kling.api.catalog.texts import left_over
from airflow_provider_kling.api.catalog.validation import map_media, validate, with_image
from airflow_provider_kling.api.durable.identity import fingerprint
from airflow_provider_kling.api.exceptions import KlingError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.media.resolve import Resolved, resolve_all
from airflow_provider_kling.api.redaction import logger, shown
from airflow_provider_kling.api.transport.response_parsing import identifier
from airflow_provider_kling.hooks.object_storage import open_path

log = logger(__name__)


def prepare(
    model: str,
    parameters: Mapping[str, Any],
    *,
    image: Any,
    account: str,
    sign_seconds: int | None = None,
    convert_image: bool = False,
    log_level: int = logging.INFO,
) -> GenerationRequest:
    """See :meth:`.KlingHook.prepare`.

    :param account: who pays; part of the fingerprint.
    :param sign_seconds: how long a presigned URL is to work; None sends the bytes.
    :param convert_image: see there.
    :param log_level: of the line about each medium.
    """
    request, warnings = validate(GenerationRequest(model, with_image(model, parameters, image)))
    for warning in warnings:
        log.warning("%s", warning)
    sent, media = resolve_all(
        model, request.parameters, open_path=open_path, sign_seconds=sign_seconds, convert=convert_image
    )
    content = map_media(model, request.parameters, lambda place, _: media[place.path].sha256)
    for place, resolved in media.items():
        if resolved.size is not None:
            log.log(log_level, "%s: %s, %d bytes.", place, resolved.source, resolved.size)
    described = map_media(model, request.parameters, lambda place, _: _shown(media[place.path]))
    return replace(
        request,
        parameters=sent,
        described={"model": model, "parameters": described},
        fingerprint=fingerprint({"model": model, **content}, account),
    )


def _shown(resolved: Resolved) -> Any:
    shown = {"source": resolved.source, "sha256": resolved.sha256}
    return shown if resolved.size is None else {**shown, "size": resolved.size}


def checked_generation_id(generation_id: Any) -> str:
    """A generation id as text; a DAG that renders templates to native objects makes a number of some.

    :raises KlingError: it is no id: the task that should give it pushed none or several, for example.
    """
    known = identifier(generation_id)
    if known is None or left_over(known):
        raise KlingError(
            f"{shown(generation_id)} is not a generation id.",
            advice="The task that should give it pushed none or several: pass generation_id=generate.output, "
            "and use expand for several.",
        )
    return known

"""A request made ready: validated, its pictures read, its fingerprint taken."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_kling.api.catalog.texts import left_over
from airflow_provider_kling.api.catalog.validation import map_media, validate, with_image
from airflow_provider_kling.api.durable.identity import Fingerprint, fingerprint
from airflow_provider_kling.api.exceptions import KlingError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.media.resolve import Resolved, resolve_all
from airflow_provider_kling.api.redaction import shown
from airflow_provider_kling.api.transport.response_parsing import identifier
from airflow_provider_kling.hooks.object_storage import open_path

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that is ready to send.

    :param request: model and parameters, media as the API takes them.
    :param fingerprint: tells it from other requests; pictures count by content.
    :param media: what each media value was read from.
    :param described: model and parameters, each medium as its source and checksum: fit for a log,
        XCom, a file.
    """

    request: GenerationRequest
    fingerprint: Fingerprint
    media: Mapping[str, Resolved]
    described: Mapping[str, Any]


def prepare(
    model: str,
    parameters: Mapping[str, Any],
    *,
    image: Any,
    account: str,
    sign_seconds: int | None = None,
    convert_image: bool = False,
    log_level: int = logging.INFO,
) -> Prepared:
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
    return Prepared(
        request=GenerationRequest(model, sent),
        fingerprint=fingerprint({"model": model, **content}, account),
        media=media,
        described={
            "model": model,
            "parameters": map_media(model, request.parameters, lambda place, _: _shown(media[place.path])),
        },
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

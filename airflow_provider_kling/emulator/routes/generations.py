"""Submit and poll."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from airflow_provider_kling.api.catalog.models import Model, find_model
from airflow_provider_kling.api.catalog.validation import MediaPlace, inspect, map_media
from airflow_provider_kling.api.polling.schedule import USUAL_SECONDS
from airflow_provider_kling.emulator.context import EMULATED, Emulated, vendor_exchange
from airflow_provider_kling.emulator.faults.directives import Directives, caption, read_directives
from airflow_provider_kling.emulator.faults.rules import FaultRule
from airflow_provider_kling.emulator.options import AnswerStyle, EmulatorOptions
from airflow_provider_kling.emulator.prices import price_of, video_seconds
from airflow_provider_kling.emulator.rendering.media import (
    BadMedia,
    check_picture,
    check_sound,
    decode_data_uri,
)
from airflow_provider_kling.emulator.rendering.video import EncoderMissing
from airflow_provider_kling.emulator.rendering.video_store import VideoBrief, VideoFile
from airflow_provider_kling.emulator.routes.answers import generation_body
from airflow_provider_kling.emulator.routes.cdn import signed_url
from airflow_provider_kling.emulator.state import Stage, StoredGeneration
from airflow_provider_kling.emulator.vendor import (
    VIDEO_SCOPE,
    Refusal,
    bad_body,
    bad_query,
    json_response,
    scope_missing,
    tells_file_facts,
)

_LARGE_BODY = 64 * 1024
_MEDIA_PATIENCE = 1.0
_MODEL_ID = re.compile(r"[a-z0-9._-]{1,60}(/[a-z0-9._-]{1,60}){1,4}")


class _Media:
    """The media of one request, while it is checked.

    ``shown`` are the parameters with each medium replaced by its sha256 or its URL; ``pictures``
    the reference pictures in their order, as (True, URL) or (False, sha256).
    """

    def __init__(self, emulated: Emulated, model: Model, parameters: Mapping[str, Any]) -> None:
        self._emulated = emulated
        self._model = model
        self.problems: list[str] = []
        self.pictures: list[tuple[bool, str]] = []
        self.shown: dict[str, Any] = map_media(model.id, parameters, self._take)

    def _take(self, place: MediaPlace, value: Any) -> Any:
        if not isinstance(value, str) or not value.lower().startswith("data:"):
            if place.kind == "image":
                self.pictures.append((True, str(value)))
            return value
        try:
            content = decode_data_uri(value)
            if place.kind in ("image", "mask"):
                check_picture(content, mask=place.kind == "mask")
            elif place.kind == "audio":
                check_sound(content)
        except BadMedia as error:
            self.problems.append(f"{self._model.id}: {place.path}: {error}")
            return "unreadable"
        if place.kind == "image":
            digest = self._emulated.pictures.keep(content)
            self.pictures.append((False, digest))
        else:
            digest = hashlib.sha256(content).hexdigest()
        return f"sha256:{digest} ({len(content)} bytes)"


async def submit(request: web.Request) -> web.StreamResponse:
    """``POST`` on a generation path."""
    emulated = request.app[EMULATED]
    key = emulated.caller(request)
    if VIDEO_SCOPE not in key.scopes:
        raise scope_missing()
    raw = await request.read()
    exchange = vendor_exchange()
    refused_id = exchange.answer_id or ""
    model_id = "unknown"
    try:
        body = await _off_loop_if_large(raw, _read_body, raw)
        model_id = str(body.get("model", "unknown"))
        model, parameters, directives = _validated(body, emulated.options)
        media = await _off_loop_if_large(raw, _Media, emulated, model, parameters)
        if media.problems:
            raise bad_body(media.problems)
        generation = emulated.state.accept(
            key,
            model,
            media.shown,
            price=price_of(model.id, parameters),
            seconds=video_seconds(parameters),
            client_request_id=exchange.client_request_id,
            directives=directives,
        )
    except Refusal:
        emulated.state.note(key, refused_id, model_id, exchange.client_request_id)
        raise
    exchange.entry.accepted, exchange.entry.generation_id = True, generation.id
    exchange.answer_id = generation.id
    for text in directives.faults:
        rule = FaultRule.parse(text)
        if rule.call != "submit":
            rule.generation_id = generation.id
            emulated.faults.enforce(rule)
    _prepare_video(emulated, generation, media)
    return json_response(
        generation_body(generation, emulated.options, Stage.QUEUED),
        status=emulated.options.submit_status,
        usd=generation.price.usd,
        credits_used=generation.price.credits,
    )


async def poll(request: web.Request) -> web.StreamResponse:
    """``GET`` on a generation path."""
    emulated = request.app[EMULATED]
    account = emulated.caller(request).account
    generation_id = request.query.get("generation_id")
    if not generation_id:
        raise bad_query("generation_id is required")
    generation = emulated.state.generations.get(generation_id)
    if generation is None or generation.account is not account:
        raise Refusal(404, f"Generation {generation_id} was not found")
    now = emulated.clock.now()
    if generation.media_ready is None and now >= generation.due:
        # Only when time was pushed forward: let a fetch that is under way end.
        await _media_patience(generation)
        now = emulated.clock.now()
    emulated.state.settle(now)
    stage = generation.stage(now)
    url, file = None, None
    if stage is Stage.COMPLETED:
        url = signed_url(request, generation, now)
        if emulated.options.answers is not AnswerStyle.OLD and tells_file_facts(generation.model):
            file = await _file(emulated, generation)
    return json_response(generation_body(generation, emulated.options, stage, url, file))


async def _file(emulated: Emulated, generation: StoredGeneration) -> VideoFile | None:
    """The video, rendered to know its size; None without PyAV."""
    if generation.brief is None:
        return None
    with contextlib.suppress(EncoderMissing):
        return await emulated.videos.get(generation.brief)
    return None


def _read_body(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise bad_body([f"the body is not JSON ({type(error).__name__})"]) from error
    if not isinstance(body, dict):
        raise bad_body(["the body has to be a JSON object"])
    return body


def _validated(body: dict[str, Any], options: EmulatorOptions) -> tuple[Model, dict[str, Any], Directives]:
    parameters = {name: value for name, value in body.items() if name != "model"}
    model_id = body.get("model")
    model = find_model(model_id) if isinstance(model_id, str) else None
    if model is None and options.unknown_models and _MODEL_ID.fullmatch(str(model_id)):
        model = _unknown_model(str(model_id))
    if model is None:
        raise bad_body([f"model: {str(model_id)[:100]!r} is not one of the vendor's video models"])
    found = inspect(model.id, parameters, as_sent=True)
    directives = read_directives(parameters)
    problems = [*found.problems, *directives.problems]
    if problems:
        raise bad_body(problems)
    return model, found.parameters, directives


def _unknown_model(model_id: str) -> Model:
    """A model that accepts any parameters."""
    return Model(
        id=model_id,
        parameters={},
        required=frozenset(),
        ignored=frozenset(),
        rules=(),
        image_parameter=None,
        documented=False,
        usual_seconds=USUAL_SECONDS,
    )


async def _off_loop_if_large(raw: bytes, work: Any, *arguments: Any) -> Any:
    """In a thread: decoding takes a while, and polls must not wait for it."""
    if len(raw) > _LARGE_BODY:
        return await asyncio.to_thread(work, *arguments)
    return work(*arguments)


def _prepare_video(emulated: Emulated, generation: StoredGeneration, media: _Media) -> None:
    urls = [value for is_url, value in media.pictures if is_url]
    if not urls:
        digest = media.pictures[0][1] if media.pictures else None
        _brief(generation, digest)
        generation.media_ready = generation.accepted_at
        return
    task = asyncio.create_task(_fetch(emulated, generation, media.pictures))
    emulated.tasks.add(task)
    task.add_done_callback(emulated.tasks.discard)


async def _fetch(emulated: Emulated, generation: StoredGeneration, pictures: list[tuple[bool, str]]) -> None:
    digests: list[str] = []
    try:
        for is_url, value in pictures:
            if is_url:
                value = await emulated.pictures.fetch(value, emulated.session())
            digests.append(value)
    except BadMedia as error:
        generation.media_problem = str(error)
    else:
        _brief(generation, digests[0])
    generation.media_ready = emulated.clock.now()


def _brief(generation: StoredGeneration, digest: str | None) -> None:
    ratio = generation.parameters.get("aspect_ratio")
    generation.brief = VideoBrief(
        f"No. {generation.number + 1}: {generation.id}",
        generation.seconds,
        caption(generation.parameters),
        digest,
        ratio if digest is None and isinstance(ratio, str) else None,
    )


async def _media_patience(generation: StoredGeneration) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + _MEDIA_PATIENCE
    while generation.media_ready is None and loop.time() < end:
        await asyncio.sleep(0.01)

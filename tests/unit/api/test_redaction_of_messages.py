"""What messages, logs and records show of values that give access: nothing of it, whoever builds the message."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_kling.api.catalog.models import MODELS
from airflow_provider_kling.api.catalog.validation import inspect, validate, with_image
from airflow_provider_kling.api.durable.record import Record
from airflow_provider_kling.api.durable.search import SubmitSearch
from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.media.resolve import resolve_all
from airflow_provider_kling.api.paths import check_path, expand_path
from airflow_provider_kling.api.polling.schedule import Schedule
from airflow_provider_kling.api.redaction import (
    clean,
    excerpt,
    hide_secrets,
    hide_secrets_in_logs_of,
    logger,
    secrets_in,
    shown,
)
from airflow_provider_kling.api.retry import checked_span
from airflow_provider_kling.api.settings import Settings, checked_limit, checked_rate
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.error_mapping import error_from_no_response, error_from_response
from airflow_provider_kling.api.transport.messages import Call, ConnectionLost, FailureReason, HttpResponse
from airflow_provider_kling.api.transport.tls_and_proxy import ca_file
from airflow_provider_kling.hooks.connection import settings_from
from airflow_provider_kling.hooks.prepare_request import checked_generation_id
from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator
from airflow_provider_kling.operators.kling import KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor
from airflow_provider_kling.task.batch.rows import read_rows
from airflow_provider_kling.task.inline_media import hide, reveal
from airflow_provider_kling.task.mapped_paths import one_path
from airflow_provider_kling.task.preflight import check_writable
from airflow_provider_kling.triggers.arguments import TriggerArguments
from airflow_provider_kling.triggers.kling import read_event
from airflow_provider_kling.version_compat import AirflowFailException

SECRET = "S3cretS3cretS3cret"
CONTENT = base64.b64encode(bytes(range(256)) * 4).decode()

URLS = [
    f"https://{SECRET}@host.example/x.png",
    f"https://user:{SECRET}@host.example/x.png",
    f"HTTPS://{SECRET}:x@host.example:8443/x.png",
    f"s3://KEY:{SECRET}@bucket/x.png",
    f"https://b.s3.amazonaws.com/x.png?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}",
    f"https://b.s3.amazonaws.com/x.png?AWSAccessKeyId={SECRET}&Expires=1&Signature={SECRET}",
    f"https://storage.googleapis.com/b/x.png?X-Goog-Signature={SECRET}",
    f"https://a.blob.core.windows.net/c/x.png?sv=2024-01-01&sig={SECRET}",
    f"https://cdn.aimlapi.com/x.mp4?cacheKey={SECRET}&ksSecret={SECRET}&ksTime=6a",
    f"https://host.example/x.png?token={SECRET}",
]
CONTENTS = [
    f"data:image/png;base64,{CONTENT}",
    CONTENT,
    CONTENT[-100:],
    f"...{CONTENT[-60:]}",
    str(base64.b64decode(CONTENT)),
    repr(CONTENT.encode()),
]
HIDDEN = st.one_of(st.sampled_from(URLS), st.sampled_from(CONTENTS))
TEXTS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "see ", "'", "(", "x="]),
    HIDDEN,
    st.sampled_from(["", "'", ") ", "\n"]),
)


def poll_of(body: Any) -> str:
    response = HttpResponse(200, {"content-type": "application/json"}, json.dumps(body).encode())
    generation = Endpoints(Settings("key"), lambda: 0.0).read_poll(response, "1")
    return f"{generation.failure} {generation.raw_status}"


BUILDERS: dict[str, Callable[[str], Any]] = {
    "clean": clean,
    "hide_secrets": hide_secrets,
    "shown": shown,
    "excerpt": lambda text: excerpt(text.encode()),
    "an error": lambda text: KlingError(f"It was {text}.", advice=f"Change {text}."),
    "a request": lambda text: validate(
        GenerationRequest("kling-video/v1.6/standard/image-to-video", {"prompt": 1.5, "image_url": 7, "cfg_scale": text})
    ),
    "an unknown parameter": lambda text: validate(
        GenerationRequest("klingai/v2.5-turbo/pro/text-to-video", {"prompt": "x", text: text, "duration": text})
    ),
    "a model": lambda text: vars(inspect(text, {})),
    "an image": lambda text: with_image("klingai/v2.5-turbo/pro/text-to-video", {"prompt": text}, text),
    "a missing image": lambda text: resolve_all(
        "kling-video/v1.6/standard/image-to-video", {"prompt": "x", "image_url": f"/nowhere/{text}"}, open_path=print
    ),
    "an image of a new model": lambda text: resolve_all("klingai/v9", {"start_image": text}, open_path=broken_storage),
    "a path": check_path,
    "a path after paying": lambda text: expand_path(text, {"generation_id": "1"}),
    "a path that is shared": lambda text: hide_secrets(one_path(text)),
    "a generation id": checked_generation_id,
    "a failure": lambda text: poll_of({"status": "error", "error": {"name": text, "message": text}}),
    "details": lambda text: poll_of({"status": "error", "error": {"detail": [{"loc": ["body", "u"], "msg": text}]}}),
    "an unknown shape": lambda text: poll_of({"status": "error", "error": {"what": {"input": text}}}),
    "a status": lambda text: poll_of({"status": text}),
    "a template field": lambda text: hide({"image": text, "list": [text]}),
    "an answer": lambda text: error_from_response(
        HttpResponse(400, {"content-type": "application/json"}, json.dumps({"message": text}).encode()), Call.SUBMIT
    ),
    "an answer's details": lambda text: error_from_response(
        HttpResponse(422, {}, json.dumps({"detail": [{"loc": [text], "msg": text}]}).encode()), Call.SUBMIT
    ),
    "a gateway's page": lambda text: error_from_response(
        HttpResponse(502, {"content-type": "text/html"}, f"<p>{text}</p>".encode()), Call.POLL
    ),
    "a redirect": lambda text: error_from_response(HttpResponse(302, {"location": text}, b""), Call.POLL),
    "a lost connection": lambda text: error_from_no_response(
        ConnectionLost(FailureReason.PROXY_UNUSABLE, "api.example", text), Call.SUBMIT
    ),
    "an event": lambda text: read_event({"schema": 0, "generation_id": text}),
    "an event's shape": lambda text: read_event([text], text),
    "an event's error": lambda text: read_event(
        {"schema": 1, "generation_id": "1", "error": {"kind": "KlingError", "message": text}}
    ),
    "a trigger's arguments": lambda text: TriggerArguments.read({"generation_id": "1", text: 1, "timeout": text}).odd,
    "a search": lambda text: SubmitSearch.from_dict({"names": text, "model": text, "since": text}),
    "a record": lambda text: Record.decode({"schema": 1, "generation_id": text}),
    "a base URL": lambda text: Settings("key", base_url=text),
    "a generation path": lambda text: Settings("key", generation_path=text),
    "a proxy": lambda text: Settings("key", proxy=text),
    "a CA bundle": lambda text: ca_file(Settings("key", ca_bundle=text)),
    "a limit of cost": checked_limit,
    "a rate": checked_rate,
    "a time span": lambda text: checked_span("timeout", text),  # type: ignore[arg-type]
    "a poll interval": lambda text: Schedule.fixed(text),  # type: ignore[arg-type]
    "a connection": lambda text: settings_from(
        SimpleNamespace(conn_id=text, host=text, port=None, schema="", password="key"), {"proxy": text, text: text}
    ),
    "a connection's number": lambda text: settings_from(
        SimpleNamespace(conn_id="c", host="", port=None, schema="", password="key"), {"read_timeout": text}
    ),
    "a batch": lambda text: list(read_rows(text)),
    "a batch's row": lambda text: [row.problems for row in read_rows([{"key": text * 9}, {"key": text}, text])],
    "a batch's options": lambda text: KlingGenerateBatchOperator(
        task_id="t", requests=[], path="x/", max_active=text  # type: ignore[arg-type]
    ),
    "a batch's path": lambda text: KlingGenerateBatchOperator(task_id="t", requests=[], path=text),
    "an operator": lambda text: KlingGenerateOperator(
        task_id="t", prompt="x", image=text, duration=text, path=text, max_cost_usd=text,
        on_clear=text,  # type: ignore[arg-type]
    ),
    "a sensor": lambda text: KlingGenerationSensor(task_id="t", generation_id=text, poke_interval=text),
    "a target": lambda text: check_writable("id", path=f"nowhere://{text}", overwrite=False, with_sidecar=False, model="m"),
    "a log": lambda text: logged("%s about %r", text, OSError(text)),
}  # fmt: skip


ACCEPTS = (
    *(
        "an image of a new model",
        "an image",
        "a path after paying",
        "a generation id",
        "a base URL",
        "a proxy",
    ),
    *("a connection", "a CA bundle", "an operator", "a sensor", "a batch's path", "a search", "a record"),
)
"""Their results are values, and no messages."""


def logged(message: str, *args: object) -> str:
    stream = io.StringIO()
    own = logger("tests.of_this_package")
    own.propagate = False
    handler = logging.StreamHandler(stream)
    own.addHandler(handler)
    own.warning(message, *args)
    own.removeHandler(handler)
    return stream.getvalue()


def broken_storage(uri: str) -> Any:
    raise OSError(f"cannot reach {uri}")


@settings(deadline=None, max_examples=25)
@given(text=TEXTS)
@pytest.mark.parametrize("builder", BUILDERS)
def test_no_message_holds_what_gives_access(builder: str, text: str) -> None:
    try:
        made = BUILDERS[builder](text)
    except InvalidRequestError as error:
        made = (str(error), error.problems)
    except (KlingError, AirflowFailException, ValueError) as error:
        made = str(error)
    else:
        if builder in ACCEPTS:
            made = ""  # what was accepted is used, and not shown
    assert SECRET not in str(made)
    for start in (0, 40, len(CONTENT) // 2, len(CONTENT) - 60):
        assert CONTENT[start : start + 40] not in str(made)


@pytest.mark.parametrize("url", URLS)
def test_a_template_field_shows_no_url_that_gives_access_and_still_has_it(url: str) -> None:
    hidden = hide({"image_url": url, "prompt": "A boat."})

    assert SECRET not in str(hidden) + repr(hidden)
    assert "x.png" in str(hidden) or "x.mp4" in str(hidden)
    assert reveal(hidden) == {"image_url": url, "prompt": "A boat."}
    assert SECRET in secrets_in(url)


def test_what_gives_no_access_stays_readable() -> None:
    for text in (
        "https://host.example/pictures/mug.png",
        "s3://my_aws@media/pictures/mug.png",
        "A boat; call me@x.example, 100% sure?",
        "ec717f15-8895-787f-99c4-258bfc985000:klingai/v2.5-turbo/pro/image-to-video",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "/data/warehouse/kling/videos/day=2026-01-01/clip.mp4",
        "Is it red?",
        *MODELS,
    ):
        assert hide_secrets(text) == text
        assert hide(text) == text


def test_urllib3_writes_no_signed_url_at_debug() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("tests.connectionpool")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    hide_secrets_in_logs_of(logger.name)
    hide_secrets_in_logs_of(logger.name)
    with contextlib.closing(handler):
        line = '%s://%s:%s "%s %s %s" %s %s'
        logger.debug(
            line, "https", "cdn", 443, "GET", f"/x.mp4?ksSecret={SECRET}&ksTime=6a", "HTTP/1.1", 200, 7
        )
        logger.debug(f"a message with https://{SECRET}@host/x")

    assert SECRET not in stream.getvalue()
    assert 'https://cdn:443 "GET /x.mp4?… HTTP/1.1" 200 7' in stream.getvalue()
    assert len(logger.filters) == 1

"""What messages, logs and records show of values that give access: nothing of it, whoever builds the message."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_kling.api.catalog.models import MODELS
from airflow_provider_kling.api.catalog.validation import inspect, validate, with_image
from airflow_provider_kling.api.exceptions import InvalidRequestError, KlingError
from airflow_provider_kling.api.generation import GenerationRequest
from airflow_provider_kling.api.media.resolve import resolve_all
from airflow_provider_kling.api.paths import check_path, expand_path
from airflow_provider_kling.api.redaction import (
    clean,
    excerpt,
    hide_secrets,
    hide_secrets_in_logs_of,
    secrets_in,
    shown,
)
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.api.transport.messages import HttpResponse
from airflow_provider_kling.hooks.prepare_request import checked_generation_id
from airflow_provider_kling.task.inline_media import hide, reveal
from airflow_provider_kling.task.mapped_paths import one_path

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
    response = HttpResponse(
        200, {"content-type": "application/json"}, __import__("json").dumps(body).encode()
    )
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
    "a model": lambda text: inspect(text, {}),
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
}  # fmt: skip


ACCEPTS = ("an image of a new model", "an image", "a path after paying", "a generation id")
"""Their results are values, and no messages."""


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
    except KlingError as error:
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

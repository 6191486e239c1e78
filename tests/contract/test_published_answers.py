"""Each answer that the vendor publishes, through both clients: read as it is meant, and saved under a safe name."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_kling.api.async_client import AsyncKlingClient
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.exceptions import GenerationFailedError, Recovery
from airflow_provider_kling.api.generation import Generation, GenerationRequest, GenerationStatus
from airflow_provider_kling.api.paths import expand_path
from airflow_provider_kling.api.polling.poll_tracker import is_ready
from airflow_provider_kling.api.settings import Settings
from tests.contract.published_answers import ANSWERS, Published

BY_ID = {each.id: each for each in ANSWERS}


def body_of(published: Published) -> dict[str, Any]:
    body: dict[str, Any] = {"id": published.id, "status": published.status}
    if published.url is not None:
        body["video"] = {"url": published.url}
    if published.size is not None:
        body["video"] |= {"content_type": "video/mp4", "file_name": "output.mp4", "file_size": published.size}
    if published.credits is not None:
        body["meta"] = {"usage": {"tokens_used": published.credits}}
    if published.detail is not None:
        body["error"] = {"detail": [published.detail]}
    return body


class Vendor(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        (asked,) = parse_qs(urlsplit(self.path).query)["generation_id"]
        self.answer(200, body_of(BY_ID[asked]))

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.answer(201, body_of(BY_ID[sent["prompt"]]))

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Tests need no access log."""


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Vendor) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Settings("test-key-0123456789", f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def check(read: Generation, published: Published) -> None:
    assert read.id == published.id
    assert read.status is GenerationStatus(published.status)
    assert (read.video_url, read.video_size) == (published.url, published.size)
    if published.detail is not None:
        with pytest.raises(GenerationFailedError) as failed:
            is_ready(read)
        assert failed.value.message == "Could not detect face in the image (image_url)"
        assert failed.value.name == "face_detection_error"
        assert failed.value.recovery is Recovery.GIVE_UP
        assert "loc" not in str(failed.value)
    else:
        assert is_ready(read) is (published.status == "completed")


def test_the_blocking_client_reads_each(settings: Settings) -> None:
    with KlingClient(settings) as client:
        for published in ANSWERS:
            check(client.get_generation(published.id), published)
            submitted = client.submit(GenerationRequest("klingai/new", {"prompt": published.id}))
            check(submitted, published)


def test_the_async_client_reads_each(settings: Settings) -> None:
    async def read() -> None:
        async with AsyncKlingClient(settings) as client:
            for published in ANSWERS:
                check(await client.get_generation(published.id), published)
                request = GenerationRequest("klingai/new", {"prompt": published.id})
                check(await client.submit(request), published)

    asyncio.run(read())


def test_each_id_becomes_a_file_of_its_own(tmp_path: Path) -> None:
    for published in ANSWERS:
        Path(expand_path(f"{tmp_path}/", {"generation_id": published.id})).touch(exist_ok=False)
    assert len(list(tmp_path.iterdir())) == len(ANSWERS)

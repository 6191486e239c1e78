"""Submit and poll at the emulator, as the vendor documents them."""

from __future__ import annotations

import base64
import http.server
import io
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from PIL import Image

from airflow_provider_kling.emulator import AnswerStyle, EmulatorOptions, EmulatorThread, IdStyle

OLD_PATH, NEW_PATH = "/v2/generate/video/kling/generation", "/v2/video/generations"
IMAGE_MODEL = "kling-video/v1.6/standard/image-to-video"
TEXT_MODEL = "kling-video/v1.6/standard/text-to-video"
SAMPLE_PICTURE = "https://example.org/pictures/mona_lisa_extended.jpg"


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with EmulatorThread(EmulatorOptions(frozen_clock=True, keys=("first", "second"))) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared: EmulatorThread) -> EmulatorThread:
    shared.reset()
    return shared


def submit(emulator: EmulatorThread, path: str = OLD_PATH, **request: Any) -> requests.Response:
    headers = {"Authorization": "Bearer first", **request.pop("headers", {})}
    body = {"model": TEXT_MODEL, "prompt": "a cat", **request}
    return requests.post(emulator.url + path, json=body, headers=headers, timeout=10)


def poll(
    emulator: EmulatorThread, generation_id: str, path: str = OLD_PATH, key: str = "first"
) -> requests.Response:
    return requests.get(
        emulator.url + path,
        params={"generation_id": generation_id},
        headers={"Authorization": f"Bearer {key}"},
        timeout=10,
    )


def data_uri(size: tuple[int, int] = (400, 400), kind: str = "png") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


@pytest.mark.parametrize(("to", "of"), [(OLD_PATH, NEW_PATH), (NEW_PATH, OLD_PATH)])
def test_a_generation_goes_through_its_stages_on_both_paths(emulator, to: str, of: str):
    accepted = submit(emulator, to)
    assert accepted.status_code == 201
    generation_id = accepted.json()["id"]
    assert accepted.json()["status"] == "queued"
    seen = []
    for seconds in (0, 1, 4.9, 0.1):
        emulator.clock.advance(seconds)
        seen.append(poll(emulator, generation_id, of).json()["status"])
    assert seen == ["queued", "generating", "generating", "completed"]
    answer = poll(emulator, generation_id).json()
    assert answer["id"] == generation_id
    assert answer["video"]["duration"] == 5
    assert answer["meta"] == {"usage": {"credits_used": 580_000}}


def test_the_headers_of_the_answers(emulator):
    accepted = submit(emulator, headers={"X-Client-Request-Id": "dag:run.1-x_Y"})
    generation_id = accepted.json()["id"]
    assert accepted.headers["x-inference-id"] == generation_id
    assert accepted.headers["x-client-request-id"] == "dag:run.1-x_Y"
    assert accepted.headers["x-aimlapi-credits-used"] == "580000"
    assert accepted.headers["x-aimlapi-usd-spent"] == "0.290000000"
    polled = poll(emulator, generation_id)
    assert polled.headers["x-inference-id"] == generation_id
    assert polled.headers["x-aimlapi-credits-used"] == "0"
    assert "x-client-request-id" not in polled.headers
    refused = submit(emulator, duration=7)
    assert refused.headers["x-inference-id"] not in ("", generation_id)
    malformed = poll(emulator, "no id!")
    assert malformed.status_code == 404
    assert "x-inference-id" not in malformed.headers


@pytest.mark.parametrize("wrong", ["a b", "a/b", "x" * 129, "ä".encode()])
def test_an_invalid_client_request_id_is_dropped_without_a_word(emulator, wrong: str | bytes):
    accepted = submit(emulator, headers={"X-Client-Request-Id": wrong})
    assert accepted.status_code == 201
    assert "x-client-request-id" not in accepted.headers
    assert emulator.generations[0]["client_request_id"] is None
    assert emulator.journal[-1].client_request_id


def test_the_vendor_does_not_dedupe_by_client_request_id(emulator):
    headers = {"X-Client-Request-Id": "same"}
    ids = {submit(emulator, headers=headers).json()["id"] for _ in range(2)}
    assert len(ids) == 2
    assert [each["client_request_id"] for each in emulator.generations] == ["same", "same"]


@pytest.mark.parametrize("header", [None, "Bearer wrong", "first", "Basic first", "Bearer "])
def test_a_missing_or_wrong_key_is_401_on_every_route_that_needs_one(emulator, header: str | None):
    headers = {} if header is None else {"Authorization": header}
    answers = [
        requests.request(method, emulator.url + path, headers=headers, json={}, timeout=10)
        for method, path in [
            ("POST", OLD_PATH),
            ("GET", NEW_PATH + "?generation_id=x"),
            ("GET", "/v2/logs?period=24h"),
            ("GET", "/v2/billing"),
            ("GET", "/v1/billing/balance"),
            ("GET", "/v2/billing/transactions"),
            ("GET", "/v1/key"),
        ]
    ]
    assert [answer.status_code for answer in answers] == [401] * 7
    assert emulator.stats["accepted"] == 0


def test_the_error_body_is_the_vendors(emulator):
    body = poll(emulator, "unknown-generation").json()
    assert set(body) == {"message", "path", "requestId", "statusCode", "timestamp"}
    assert body["statusCode"] == 404
    assert body["path"] == OLD_PATH
    assert "unknown-generation" in body["message"]
    assert body["timestamp"].endswith("Z")


def test_a_generation_of_another_account_is_not_there(emulator):
    generation_id = submit(emulator).json()["id"]
    assert poll(emulator, generation_id, key="first").status_code == 200
    assert poll(emulator, generation_id, key="second").status_code == 404


def test_a_poll_without_an_id_is_a_bad_query(emulator):
    assert poll(emulator, "").status_code == 400


@pytest.mark.parametrize(("method", "path"), [("GET", "/v2/nothing"), ("DELETE", OLD_PATH)])
def test_unknown_endpoints_are_404(emulator, method: str, path: str):
    answer = requests.request(method, emulator.url + path, timeout=10)
    assert answer.status_code == 404
    assert answer.json()["message"] == f"Cannot {method} {path}"


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"duration": 7}, "duration"),
        ({"promt": "x"}, "promt"),
        ({"prompt": None}, "prompt"),
        ({"model": "kling-video/v9/none"}, "v9"),
        ({"model": None}, "model"),
        ({"model": IMAGE_MODEL}, "image_url"),
        ({"model": IMAGE_MODEL, "image_url": "/a/local/file.png"}, "image_url"),
        ({"prompt": "[emulator: nonsense]"}, "nonsense"),
    ],
)
def test_a_bad_body_is_refused_with_what_was_expected(emulator, request_: dict, named: str):
    answer = submit(emulator, **request_)
    assert answer.status_code == 400
    title, *details = answer.json()["message"]
    assert title == "Body validation error"
    assert any(named in detail["message"] for detail in details)
    assert emulator.generations == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(emulator, body: bytes):
    headers = {"Authorization": "Bearer first", "Content-Type": "application/json"}
    answer = requests.post(emulator.url + OLD_PATH, data=body, headers=headers, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["message"][0] == "Body validation error"


def test_ratio_and_aspect_ratio_are_taken_without_effect_on_image_to_video(emulator):
    answer = submit(emulator, model=IMAGE_MODEL, image_url=SAMPLE_PICTURE, aspect_ratio="1:1")
    assert answer.status_code == 201


def test_integers_may_be_strings_as_in_the_vendors_samples(emulator):
    assert submit(emulator, duration="10").status_code == 201
    assert emulator.generations[0]["seconds"] == 10


def test_pictures_sent_as_data_are_checked_and_never_shown(emulator):
    good = submit(emulator, model=IMAGE_MODEL, image_url=data_uri())
    assert good.status_code == 201
    shown = emulator.generations[0]["parameters"]["image_url"]
    assert shown.startswith("sha256:")
    for bad in (data_uri((299, 400)), data_uri((900, 300)), data_uri(kind="gif")):
        answer = submit(emulator, model=IMAGE_MODEL, image_url=bad)
        assert answer.status_code == 400
        assert "image_url" in answer.json()["message"][1]["message"]
        assert "base64" not in answer.text


def test_a_large_picture_is_taken(emulator):
    buffer = io.BytesIO()
    Image.effect_noise((1800, 1800), 90).convert("RGB").save(buffer, "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    assert len(uri) > 4_000_000
    assert submit(emulator, model=IMAGE_MODEL, image_url=uri).status_code == 201


def test_the_account_pays_once_when_completed_and_not_for_failures(emulator):
    def balance() -> float:
        headers = {"Authorization": "Bearer first"}
        answer = requests.get(emulator.url + "/v2/billing", headers=headers, timeout=10)
        return answer.json()["current_balance"]

    submit(emulator)
    failed = submit(emulator, prompt="x [emulator: fail]").json()["id"]
    assert balance() == 1000.0
    emulator.clock.advance(60)
    assert balance() == 999.71
    assert poll(emulator, failed).json()["error"]["name"] == "GenerationError"
    assert balance() == 999.71
    assert [each["charged"] for each in emulator.generations] == [True, False]


def test_out_of_credits_is_403_and_accepts_nothing():
    options = EmulatorOptions(frozen_clock=True, keys=("first",), balance=0.28)
    with EmulatorThread(options) as emulator:
        answer = submit(emulator)
        assert answer.status_code == 403
        assert "credits" in answer.json()["message"]
        assert emulator.generations == []


@pytest.mark.parametrize(
    ("directive", "after", "name"), [("moderation", 1, "ModerationError"), ("fail", 6, None)]
)
def test_failures_are_told_with_name_and_message(emulator, directive: str, after: float, name):
    generation_id = submit(emulator, prompt=f"x [emulator: {directive}]").json()["id"]
    emulator.clock.advance(after)
    answer = poll(emulator, generation_id).json()
    assert answer["status"] == "error"
    assert answer["error"]["name"] == (name or "GenerationError")
    assert answer["error"]["message"]
    assert "video" not in answer


def test_stall_never_ends_and_slow_takes_as_long_as_it_says(emulator):
    stalled = submit(emulator, prompt="x [emulator: stall]").json()["id"]
    slow = submit(emulator, prompt="x [emulator: slow=500]").json()["id"]
    emulator.clock.advance(500.5)
    assert poll(emulator, slow).json()["status"] == "generating"
    emulator.clock.advance(1)
    assert poll(emulator, slow).json()["status"] == "completed"
    emulator.clock.advance(10_000_000)
    assert poll(emulator, stalled).json()["status"] == "generating"


def test_submit_can_answer_200_and_ids_can_be_uuids_with_the_model():
    options = EmulatorOptions(submit_status=200, ids=IdStyle.UUID_MODEL, keys=("first",))
    with EmulatorThread(options) as emulator:
        answer = submit(emulator)
        assert answer.status_code == 200
        assert answer.json()["id"].endswith(f":{TEXT_MODEL}")
        assert poll(emulator, answer.json()["id"]).json()["status"] == "queued"


def test_old_answers_vary_as_met_in_the_wild():
    options = EmulatorOptions(answers=AnswerStyle.OLD, keys=("first",), frozen_clock=True)
    with EmulatorThread(options) as emulator:
        plain = submit(emulator).json()
        nulls = submit(emulator).json()
        failed = submit(emulator, prompt="[emulator: fail] x").json()
        assert (plain["status"], set(plain)) == ("waiting", {"id", "status", "meta"})
        assert plain["meta"] == {"usage": {"tokens_used": 580_000}}
        assert nulls["video"] is nulls["error"] is nulls["duration"] is None
        emulator.clock.advance(2)
        assert [poll(emulator, each["id"]).json()["status"] for each in (plain, nulls)] == [
            "active",
            "processing",
        ]
        emulator.clock.advance(60)
        done = poll(emulator, plain["id"]).json()
        assert (done["status"], done["duration"]) == ("succeeded", 5)
        assert set(done["video"]) == {"url"}
        error = poll(emulator, failed["id"]).json()
        assert error["status"] == "failed"
        assert isinstance(error["error"], str)


@pytest.fixture
def picture_host() -> Iterator[tuple[str, list[str]]]:
    """A web server with one good picture, one too small, and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            sizes = {"/good.png": (640, 320), "/small.png": (64, 64)}
            if self.path not in sizes:
                self.send_error(404)
                return
            buffer = io.BytesIO()
            Image.new("RGB", sizes[self.path], "green").save(buffer, "PNG")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(buffer.getvalue())

        def log_message(self, *_: Any) -> None:
            """Silence: the test asks for what it wants to know."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_picture_url_is_fetched_once(emulator, picture_host):
    host, asked = picture_host
    answer = submit(emulator, model=IMAGE_MODEL, image_url=f"{host}/good.png")
    emulator.clock.advance(10)
    for _ in range(3):
        assert poll(emulator, answer.json()["id"]).json()["status"] == "completed"
    assert asked == ["/good.png"]


@pytest.mark.parametrize(
    ("path", "says"), [("/gone.png", "404"), ("/small.png", "at least 300"), (None, "fetched")]
)
def test_a_picture_that_cannot_be_used_ends_in_error_without_a_charge(
    emulator, picture_host, path: str | None, says: str
):
    url = picture_host[0] + path if path else "http://127.0.0.1:9/x.png?secret=1"
    generation_id = submit(emulator, model=IMAGE_MODEL, image_url=url).json()["id"]
    emulator.clock.advance(10)
    answer = poll(emulator, generation_id).json()
    assert answer["status"] == "error"
    assert says in answer["error"]["message"]
    assert "secret" not in answer["error"]["message"]
    assert emulator.stats["charges"] == 0


def test_offline_pictures_stand_in_for_urls_out_of_reach():
    options = EmulatorOptions(offline_pictures=True, keys=("first",), frozen_clock=True)
    with EmulatorThread(options) as emulator:
        generation_id = submit(emulator, model=IMAGE_MODEL, image_url="http://127.0.0.1:9/x.png").json()["id"]
        emulator.clock.advance(10)
        assert poll(emulator, generation_id).json()["status"] == "completed"


def test_a_poll_does_not_wait_for_a_slow_picture_before_it_is_due(emulator, picture_host):
    generation_id = submit(emulator, model=IMAGE_MODEL, image_url=SAMPLE_PICTURE).json()["id"]
    began = time.monotonic()
    poll(emulator, generation_id)
    assert time.monotonic() - began < 0.5


def test_an_avatars_sound_is_checked_too(emulator):
    def speak(sound: bytes) -> requests.Response:
        uri = f"data:audio/mpeg;base64,{base64.b64encode(sound).decode()}"
        return submit(emulator, model="klingai/avatar-pro", image_url=data_uri(), audio_url=uri)

    assert speak(b"ID3" + bytes(5000)).status_code == 201
    refused = speak(b"not a sound at all")
    assert refused.status_code == 400
    assert "audio_url" in refused.json()["message"][1]["message"]

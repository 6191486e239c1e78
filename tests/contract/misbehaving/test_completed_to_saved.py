"""Between "completed" and "saved", whatever each endpoint answers: typed, true about money, and saved if it can be.

The generation is paid by then. Real HTTP, with the answers that hypothesis makes up; the task instance is
a stand-in that keeps what is pushed as strictly as Airflow's database does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from airflow_provider_kling.api.calls import VendorCalls
from airflow_provider_kling.api.client import KlingClient
from airflow_provider_kling.api.download import resumable_fetch, save_video
from airflow_provider_kling.api.exceptions import KlingError, Money
from airflow_provider_kling.api.retry import RetryPolicy
from airflow_provider_kling.api.settings import Settings
from airflow_provider_kling.api.transport.endpoints import Endpoints
from airflow_provider_kling.hooks.kling import KlingHook
from airflow_provider_kling.task import sidecar
from airflow_provider_kling.task.batch.options import BatchOptions
from airflow_provider_kling.task.batch.row_results import RowResults
from airflow_provider_kling.task.batch.state import InFlight
from airflow_provider_kling.task.generate import GenerateRun
from airflow_provider_kling.task.options import GenerateOptions
from airflow_provider_kling.task.results import save_video as save_and_push
from airflow_provider_kling.triggers.kling import EVENT_SCHEMA
from tests.media_samples import mp4
from tests.misbehaving_server import Connection, Server, misbehaving

pytestmark = pytest.mark.usefixtures("plain_environment")

KEY = "sk-5d0c8e4b7a19f263-never-to-be-shown"
SIGNATURE = "b7a19f263e5d0c84"
GENERATION = "gen-7f3a"
MODEL = "kling-video/v1.6/standard/text-to-video"
TRUE = (Money.ALREADY_PAID, Money.ONCE, Money.GOES_ON, Money.NOT_CHARGED)
"""What an error may say about money when a generation was submitted and its wait is over."""


@dataclass
class Answer:
    """What an endpoint answers.

    :param cut: bytes of the body that never come.
    """

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b"{}"
    cut: int = 0

    def send(self, connection: Connection) -> None:
        head = f"HTTP/1.1 {self.status} X\r\n"
        named = {name.lower() for name, _ in self.headers}
        if "content-length" not in named and "transfer-encoding" not in named:
            head += f"Content-Length: {len(self.body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        body = self.body[: len(self.body) - self.cut] if self.cut else self.body
        connection.send(head.encode("latin-1", "replace") + b"Connection: close\r\n\r\n" + body)
        connection.close()


class Vendor:
    """Answers each endpoint as it is told; what it is not told, as the vendor does."""

    def __init__(self) -> None:
        self.told: dict[str, Answer] = {}
        self.server = Server()
        self.video = b""

    def __call__(self, connection: Connection) -> None:
        path = connection.request.split(b" ")[1].decode("latin-1")
        name = next((name for name, part in PLACES.items() if part in path), "other")
        self.told.get(name, self.usual(name)).send(connection)

    def usual(self, name: str) -> Answer:
        if name == "poll":
            return Answer(body=json.dumps(self.completed()).encode())
        if name == "video":
            return Answer(body=self.video, headers=[("Content-Type", "video/mp4")])
        return Answer(body=json.dumps({"data": [], "pagination": {"has_more": False}}).encode())

    def completed(self) -> dict[str, Any]:
        url = f"http://{self.server.address}/cdn/{GENERATION}.mp4?ksSecret={SIGNATURE}&ksTime=1"
        return {"id": GENERATION, "status": "completed", "video": {"url": url}, "meta": {"usage": {}}}


PLACES = {
    "poll": "generation_id=",
    "prices": "/v1/models",
    "ledger": "/v2/billing",
    "video": "/cdn/",
}


class TaskInstance:
    """Keeps XComs as a PostgreSQL column of JSON does: what it cannot hold is an error."""

    dag_id, task_id, run_id, map_index, try_number = "d", "t", "r", -1, 1

    def __init__(self, **known: Any) -> None:
        self.xcoms = dict(known)

    def xcom_push(self, key: str, value: Any) -> None:
        told = json.dumps(value, allow_nan=False, ensure_ascii=False)
        assert "\\u0000" not in told
        told.encode()  # half a character cannot be stored
        self.xcoms[key] = json.loads(told)

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int = -1) -> Any:
        return self.xcoms.get(key)


class Hook(KlingHook):
    """Of a connection to the vendor of these tests; its pauses take no time."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._told = Settings(KEY, f"http://{address}", connect_timeout=1, read_timeout=1)
        self._made: KlingClient | None = None

    @property
    def settings(self) -> Settings:  # type: ignore[override]
        return self._told

    def get_conn(self) -> KlingClient:
        if self._made is None:
            calls = VendorCalls(Endpoints(self._told, lambda: 1_800_000_000.0), rng=lambda: 0.5)
            self._made = KlingClient(self._told, calls=calls, sleep=lambda seconds: None)
        return self._made


@pytest.fixture(scope="module")
def _vendor() -> Iterator[Vendor]:
    vendor = Vendor()
    vendor.video = mp4(1, size=(64, 36))
    with misbehaving(vendor) as vendor.server:
        yield vendor


@pytest.fixture
def vendor(_vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    _vendor.told = {}
    briefly = partial(
        save_video.save_video,
        retries=RetryPolicy(attempts=2),
        pause=lambda s: None,
        now=lambda: 1_800_000_000.0,
    )
    monkeypatch.setattr(save_video, "save_video", briefly)
    monkeypatch.setattr(resumable_fetch, "MOST_BYTES", 1024 * 1024)
    return _vendor


# What an endpoint may answer.

texts = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", "0", "-1", "9" * 5000, "NaN", "\x00", "\ud83d", "a" * 9000, "\r\nX: 1", KEY]),
)
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, 1e308, -0.0]))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)
bodies = st.one_of(
    st.binary(max_size=200),
    values.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"", b"<html>no</html>", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe{"]),
)
statuses = st.one_of(
    st.just(200),
    st.sampled_from([201, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 410]),
    st.sampled_from([408, 416, 418, 429, 500, 502, 503, 504, 520, 599, 999]),
)
lines = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30)
locations = st.sampled_from(
    [
        "/cdn/again",
        "//",
        "http://[x",
        "http://example.com/v",
        "https://127.0.0.1:9/v",
        "http://10.0.0.1/v",
        "file:///etc/passwd",
        "ftp://x/y",
        "x" * 9000,
        "http://user:hunter2@example.com/",
        "",
    ]
)
headers = st.lists(
    st.one_of(
        st.tuples(st.just("Content-Type"), st.sampled_from(["text/html", "application/json", "", "x" * 5000])),
        st.tuples(st.just("Content-Encoding"), st.sampled_from(["gzip", "br", "identity", "\xff", "gzip, gzip"])),
        st.tuples(st.just("Content-Length"), st.sampled_from(["9" * 5000, "-1", "x", "0", "7", "1e3", "5, 5"])),
        st.tuples(st.just("Content-Range"), st.sampled_from(["bytes 0-0/9", "bytes */x", "bytes 9-1/2", "x"])),
        st.tuples(st.just("Location"), locations),
        st.tuples(st.just("Retry-After"), st.sampled_from(["9" * 400, "-1", "NaN", "Thu, 99 Foo", "1e309", "inf"])),
        st.tuples(st.sampled_from(["ETag", "Digest", "Repr-Digest", "Content-MD5", "X-Goog-Hash"]),
                  st.one_of(lines, st.just("sha-256=:AAAA:"), st.just("md5=AAAA"))),
        st.tuples(st.sampled_from(["Set-Cookie", "Accept-Ranges", "x-inference-id", "Trailer"]), lines),
    ),
    max_size=3,
)  # fmt: skip
answers = st.builds(Answer, statuses, headers, bodies)
documented = st.fixed_dictionaries(
    {},
    optional={
        "data": st.one_of(
            values,
            st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "id": st.one_of(values, st.just(MODEL)),
                        "aliases": values,
                        "pricing": values,
                        "reference_id": st.one_of(values, st.just(GENERATION)),
                        "amount": st.one_of(
                            values, st.fixed_dictionaries({"usd": values, "credits": values})
                        ),
                    },
                ),
                max_size=3,
            ),
        ),
        "pagination": st.one_of(values, st.fixed_dictionaries({"has_more": values, "next_cursor": values})),
    },
)
"""Close to what the vendor documents, with anything in each place."""
tables = st.one_of(
    answers, st.builds(Answer, st.just(200), headers, documented.map(lambda it: json.dumps(it).encode()))
)
urls = st.one_of(
    texts,
    st.builds("{}://{}/v.mp4?ksSecret={}".format, st.sampled_from(["http", "https", "ftp", "HTTP", "s3", ""]),
              st.sampled_from(["example.com", "127.0.0.1:9", "[", "10.0.0.1", "user:hunter2@example.com", "x:0"]),
              st.just(SIGNATURE)),
)  # fmt: skip
polls = st.fixed_dictionaries(
    {"id": st.one_of(st.just(GENERATION), values), "status": st.one_of(st.just("completed"), values)},
    optional={
        "video": st.one_of(
            values, st.fixed_dictionaries({"url": urls}, optional={"file_size": values, "duration": values})
        ),
        "meta": st.one_of(
            values, st.fixed_dictionaries({"usage": st.fixed_dictionaries({"credits_used": values})})
        ),
        "error": values,
        "duration": values,
    },
)
described = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(["model", "parameters", "client_request_id", "submitted_at", "generation_id"]), values
    ),
)
"""What an XCom may say of the request, after a person or another version wrote it."""

_settings = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass
class Outcome:
    error: BaseException | None
    xcoms: dict[str, Any]
    saved: bytes | None
    log: str


def finish(
    vendor: Vendor, folder: Path, request: Any = None, *, with_sidecar: bool = True, **told: Answer
) -> Outcome:
    """What ``execute_complete`` does with the event of a completed generation."""
    vendor.told = told
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("airflow_provider_kling")
    ti = TaskInstance(generation_id=GENERATION, request=request)
    options = GenerateOptions(
        model=MODEL, path=folder / "v.mp4", sidecar=with_sidecar, wait_for_completion=True, timeout=60
    )
    hook = Hook(vendor.server.address)
    error: BaseException | None = None
    logger.addHandler(handler)
    try:
        run = GenerateRun({"ti": ti, "outlet_events": {}}, options, hook, defer=lambda **kwargs: None)  # type: ignore[typeddict-item]
        run.resume({"schema": EVENT_SCHEMA, "generation_id": GENERATION, "status": "completed"})
        for variant in run.wait_or_defer():
            run.save(variant)
        assert run.report() == GENERATION
    except Exception as raised:
        error = raised
    finally:
        logger.removeHandler(handler)
        hook.get_conn().close()
    place = folder / "v.mp4"
    return Outcome(error, ti.xcoms, place.read_bytes() if place.exists() else None, "\n".join(records))


def check(outcome: Outcome, vendor: Vendor) -> None:
    """What holds whatever was answered."""
    said = str(outcome.error)
    if outcome.error is not None:
        assert isinstance(outcome.error, KlingError), repr(outcome.error)
        assert GENERATION in said
        assert outcome.error.money in TRUE, said
        assert len(said) < 3000
    for text in (said, outcome.log):
        assert KEY not in text
        assert SIGNATURE not in text
        assert "hunter2" not in text
    if outcome.saved is not None:
        assert outcome.saved == vendor.video
        assert outcome.xcoms["path"].endswith("/v.mp4")
        assert outcome.xcoms["video"]["sha256"] == hashlib.sha256(vendor.video).hexdigest()
        assert outcome.error is None
    elif outcome.error is None:
        raise AssertionError("neither a video nor an error")


@_settings
@given(prices=tables, ledger=tables, request=described)
@example(prices=Answer(body=b'{"data": [{"id": "x", "aliases": 7}]}'), ledger=Answer(), request=None)
@example(
    prices=Answer(),
    ledger=Answer(body=json.dumps({"data": [], "pagination": {"next_cursor": "\ud83d"}}).encode()),
    request={"model": MODEL, "parameters": {"duration": 10**400}, "submitted_at": "yesterday"},
)
def test_what_only_informs_never_fails_the_task(vendor: Vendor, prices: Answer, ledger: Answer, request: Any):
    """Price list, ledger, and what an XCom says of the request: the video is saved, whatever they are."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = finish(vendor, Path(folder), request, prices=prices, ledger=ledger)
    check(outcome, vendor)
    assert outcome.saved == vendor.video, outcome.error
    assert set(outcome.xcoms["cost"]) == {"credits", "usd", "source", "usd_source"}


@_settings
@given(poll=st.one_of(answers, polls.map(lambda said: Answer(body=json.dumps(said).encode()))))
@example(
    poll=Answer(
        body=json.dumps({"status": "completed", "video": {"url": "http://example.com/\x00"}}).encode()
    )
)
def test_any_answer_about_the_generation(vendor: Vendor, poll: Answer):
    with tempfile.TemporaryDirectory() as folder:
        check(finish(vendor, Path(folder), poll=poll), vendor)


@_settings
@given(
    video=st.one_of(
        answers,
        st.builds(Answer, statuses, headers, st.just(b"VIDEO"), st.sampled_from([0, 0, 1, 500, 5000])),
    )
)
def test_any_answer_of_the_cdn(vendor: Vendor, video: Answer):
    """Also the video itself with odd headers, or cut."""
    if video.body == b"VIDEO":
        video = Answer(video.status, video.headers, vendor.video, min(video.cut, len(vendor.video)))
    with tempfile.TemporaryDirectory() as folder:
        check(finish(vendor, Path(folder), video=video), vendor)


@pytest.mark.parametrize(
    "location", ["http://example.com/v.mp4", "http://10.0.0.1/v.mp4", "https://x.invalid/v.mp4"]
)
def test_a_url_that_leads_elsewhere_is_paid_all_the_same(vendor: Vendor, tmp_path: Path, location: str):
    said = {**vendor.completed(), "video": {"url": f"{location}?ksSecret={SIGNATURE}"}}
    outcome = finish(vendor, tmp_path, poll=Answer(body=json.dumps(said).encode()))
    check(outcome, vendor)
    assert isinstance(outcome.error, KlingError)
    assert outcome.error.money is Money.ALREADY_PAID
    redirected = finish(vendor, tmp_path, video=Answer(302, [("Location", location)], b""))
    check(redirected, vendor)
    assert isinstance(redirected.error, KlingError)
    assert redirected.error.money is Money.ALREADY_PAID


@pytest.mark.parametrize(
    "what",
    ["sidecar.content", "sidecar.write", "metrics", "assets", "lineage", "prices", "a folder in its place"],
)
def test_whatever_else_fails_the_video_is_saved_and_told(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
):
    """Each with an error that nobody expects."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"of {what}, with {KEY}?")

    from airflow_provider_kling.hooks import lineage, metrics
    from airflow_provider_kling.task import results

    places = {
        "sidecar.content": [(sidecar, "content")],
        "sidecar.write": [(sidecar, "write")],
        "metrics": [(metrics, "count"), (metrics, "timing"), (metrics, "task_tags")],
        "assets": [(results, "tell_assets")],
        "lineage": [(lineage, "reads_lineage"), (results, "media_uris")],
        "prices": [(results, "cost_of"), (results, "video_seconds")],
    }
    for module, name in places.get(what, []):
        monkeypatch.setattr(module, name, fail)
    if what == "a folder in its place":
        (tmp_path / "v.json").mkdir()
    outcome = finish(vendor, tmp_path, {"model": MODEL, "parameters": {"prompt": "x"}})
    assert outcome.error is None
    assert outcome.saved == vendor.video
    assert outcome.xcoms["path"] == str(tmp_path / "v.mp4")


@_settings
@given(prices=tables, ledger=tables)
def test_a_sensor_and_a_download_are_as_robust(vendor: Vendor, prices: Answer, ledger: Answer):
    """They push with Airflow's own method."""
    from airflow_provider_kling.task.results import count_completion, push_cost, push_generation

    vendor.told = {"prices": prices, "ledger": ledger}
    ti = TaskInstance()
    hook = Hook(vendor.server.address)
    generation = hook.get_generation(GENERATION)
    push_generation(ti.xcom_push, generation)
    cost = push_cost(hook, generation, ti.xcom_push, {"model": MODEL, "parameters": {}})
    count_completion({"ti": ti}, generation, cost, None)  # type: ignore[typeddict-item]
    with tempfile.TemporaryDirectory() as folder:
        save_and_push(
            hook, GENERATION, Path(folder, "v.mp4"), ti.xcom_push, overwrite=False, with_sidecar=True
        )
        assert Path(folder, "v.mp4").read_bytes() == vendor.video
    assert ti.xcoms["generation"]["id"] == GENERATION
    hook.get_conn().close()


class Records:
    """Of a batch, in memory."""

    def __init__(self, record: Any) -> None:
        self.record = record

    def load(self, name: str) -> Any:
        return self.record

    def save(self, name: str, record: Any) -> None:
        self.record = json.loads(json.dumps(record))


@_settings
@given(
    ledger=tables, request=described.filter(lambda it: it is None or "model" not in it), broken=st.booleans()
)
def test_so_is_a_row_of_a_batch(vendor: Vendor, ledger: Answer, request: Any, broken: bool):
    """Its charge is looked up for all rows at once, and its sidecar may have no place."""
    vendor.told = {"ledger": ledger}
    with tempfile.TemporaryDirectory() as folder:
        options = BatchOptions(
            requests=[], path=f"{folder}/{{key}}.mp4", defaults={}, max_active=1, timeout=60
        )
        if broken:
            Path(folder, "row.json").mkdir()
        hook = Hook(vendor.server.address)
        records = Records({"request": request})
        results = RowResults(options, hook, records)  # type: ignore[arg-type]
        each = InFlight(1, "row", 1_799_999_000.0, MODEL, 0.3)
        charges = results.charges({GENERATION: each})
        results.save(each, hook.get_generation(GENERATION), charges.get(GENERATION))
        hook.get_conn().close()
        assert Path(folder, "row.mp4").read_bytes() == vendor.video
    assert records.record["status"] == "saved"
    assert records.record["path"].endswith("row.mp4")

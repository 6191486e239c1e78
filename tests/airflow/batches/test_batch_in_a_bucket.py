"""A batch whose rows, pictures, videos and records are in object storage, over a real S3 protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.batches.life import BatchLife
from tests.media_samples import picture

NEEDED = "needs s3fs, Airflow's Amazon provider and moto's server, which requirements/airflow-3.3.txt has"
boto3 = pytest.importorskip("boto3", reason=NEEDED)
pytest.importorskip("moto.server", reason=NEEDED)
pytest.importorskip("s3fs", reason=NEEDED)
pytest.importorskip("airflow.providers.amazon", reason=NEEDED)

from tests.faulty_s3 import FaultyS3, serving  # noqa: E402  # it needs moto

BUCKET = "media"
KEY = {"aws_access_key_id": "an-access-key", "aws_secret_access_key": "a-secret-key"}
IMAGE_MODEL = "kling-video/v1.6/standard/image-to-video"


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyS3]:
    with serving() as server:
        yield server


@pytest.fixture
def s3(server: FaultyS3) -> Iterator[Any]:
    client = boto3.client("s3", endpoint_url=server.url, region_name="us-east-1", **KEY)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for name in objects(client):
        client.delete_object(Bucket=BUCKET, Key=name)
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch, server: FaultyS3) -> None:
    """The Airflow connection ``store`` of type aws."""
    connection = {
        "conn_type": "aws",
        "login": KEY["aws_access_key_id"],
        "password": KEY["aws_secret_access_key"],
        "extra": {"endpoint_url": server.url, "region_name": "us-east-1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_STORE", json.dumps(connection))


def objects(client: Any) -> dict[str, int]:
    listed = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {each["Key"]: each["Size"] for each in listed}


def put(client: Any, name: str, content: bytes) -> None:
    client.put_object(Bucket=BUCKET, Key=name, Body=content)


def arguments(requests: str, **more: Any) -> dict[str, Any]:
    given = {
        "requests": requests,
        "path": f"s3://store@{BUCKET}/clips/",
        "model": IMAGE_MODEL,
        "max_active": 2,
    }
    return {**given, "prompt": "It turns.", "duration": 5, "skip_unchanged": True, **more}


def manifest(client: Any, life: BatchLife) -> dict[str, Any]:
    path = life.xcom["batch"]["manifest"].partition(f"{BUCKET}/")[2]
    lines = client.get_object(Bucket=BUCKET, Key=path)["Body"].read().decode().splitlines()
    return {line["key"]: line for line in map(json.loads, lines)}


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_prefix_of_pictures_and_then_only_what_changed(
    s3: Any, frozen_vendor: EmulatorThread, deferrable: bool
) -> None:
    for n in range(3):
        put(s3, f"pictures/{n}.png", picture("PNG", size=(320, 320 + n)))
    put(s3, "pictures/below/not.png", picture("PNG", size=(320, 320)))
    given = arguments(f"s3://store@{BUCKET}/pictures/", deferrable=deferrable)
    accepted = frozen_vendor.stats["accepted"]
    first = BatchLife(frozen_vendor, given, run_id=f"first {deferrable}")
    assert first.to_the_end() == "success", first.error
    found = objects(s3)
    lines = manifest(s3, first)
    assert {key: line["status"] for key, line in lines.items()} == dict.fromkeys("012", "saved")
    for key, line in lines.items():
        assert found[f"clips/{key}.mp4"] == line["video"]["size"]
        assert f"clips/{key}.json" in found
    assert frozen_vendor.stats["accepted"] - accepted == 3

    put(s3, "pictures/1.png", picture("PNG", size=(320, 400)))
    second = BatchLife(frozen_vendor, given, run_id=f"second {deferrable}")
    assert second.to_the_end() == "success", second.error
    assert frozen_vendor.stats["accepted"] - accepted == 4
    assert [line["status"] for line in manifest(s3, second).values()] == ["reused", "saved", "reused"]


@pytest.mark.parametrize("kill_at", [2, 5, 9, 12])
def test_rows_of_a_csv_with_a_kill_and_a_clear(s3: Any, frozen_vendor: EmulatorThread, kill_at: int) -> None:
    put(s3, "pictures/mug.png", picture("PNG", size=(320, 320)))
    rows = f"\ufeffsku,text,picture\ncup,A cup.,s3://store@{BUCKET}/pictures/mug.png\n"
    put(s3, "rows.csv", (rows + f'mug,"A mug,\nblue.",s3://store@{BUCKET}/pictures/mug.png\n').encode())
    columns = {"key": "sku", "prompt": "text", "image": "picture"}
    given = arguments(f"s3://store@{BUCKET}/rows.csv", columns=columns)
    accepted = frozen_vendor.stats["accepted"]
    life = BatchLife(frozen_vendor, given, run_id=f"killed {kill_at}")
    assert life.attempt(kill_at=kill_at) == "killed"
    assert life.to_the_end() == "success", life.error
    assert sorted(manifest(s3, life)) == ["cup", "mug"]
    life.attempt(cleared=True)
    assert life.to_the_end() == "success", life.error
    assert frozen_vendor.stats["accepted"] - accepted == 2

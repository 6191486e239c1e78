"""A batch whose rows, pictures, videos and records are in object storage, over a real S3 protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import RealAirflow, Run
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


@pytest.fixture
def stored(airflow: RealAirflow, s3: Any, server: FaultyS3) -> RealAirflow:
    connection = {
        "conn_type": "aws",
        "login": KEY["aws_access_key_id"],
        "password": KEY["aws_secret_access_key"],
        "extra": {"endpoint_url": server.url, "region_name": "us-east-1"},
    }
    airflow.env["AIRFLOW_CONN_STORE"] = json.dumps(connection)
    return airflow


def objects(client: Any) -> dict[str, int]:
    listed = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {each["Key"]: each["Size"] for each in listed}


def put(client: Any, name: str, content: bytes) -> None:
    client.put_object(Bucket=BUCKET, Key=name, Body=content)


def batch(requests: str, **arguments: object) -> str:
    given = {"requests": requests, "path": f"s3://store@{BUCKET}/clips/", "model": IMAGE_MODEL, **arguments}
    told = ", ".join(f"{name}={value!r}" for name, value in {"prompt": "It turns.", **given}.items())
    return f"""
    from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator

    KlingGenerateBatchOperator(task_id="batch", poke_interval=1, duration=5, skip_unchanged=True, {told})
    """


def manifest(client: Any, run: Run) -> dict[str, Any]:
    path = run["batch"].xcom["batch"]["manifest"].partition(f"{BUCKET}/")[2]
    lines = client.get_object(Bucket=BUCKET, Key=path)["Body"].read().decode().splitlines()
    return {line["key"]: line for line in map(json.loads, lines)}


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_prefix_of_pictures_and_then_only_what_changed(
    stored: RealAirflow, s3: Any, vendor: EmulatorThread, deferrable: bool
) -> None:
    for n in range(3):
        put(s3, f"pictures/{n}.png", picture("PNG", size=(320, 320 + n)))
    put(s3, "pictures/below/not.png", picture("PNG", size=(320, 320)))
    text = batch(f"s3://store@{BUCKET}/pictures/", deferrable=deferrable)
    first = stored.run(text)
    assert first.state == "success", first.log[-4000:]
    found = objects(s3)
    lines = manifest(s3, first)
    assert {key: line["status"] for key, line in lines.items()} == dict.fromkeys("012", "saved")
    for key, line in lines.items():
        assert found[f"clips/{key}.mp4"] == line["video"]["size"]
        assert f"clips/{key}.json" in found
    assert vendor.stats["accepted"] == 3

    put(s3, "pictures/1.png", picture("PNG", size=(320, 400)))
    second = stored.run(text)
    assert second.state == "success", second.log[-4000:]
    assert vendor.stats["accepted"] == 4
    assert [line["status"] for line in manifest(s3, second).values()] == ["reused", "saved", "reused"]


def test_rows_of_a_csv_in_a_bucket_and_a_clear(stored: RealAirflow, s3: Any, vendor: EmulatorThread) -> None:
    put(s3, "pictures/mug.png", picture("PNG", size=(320, 320)))
    rows = f"\ufeffsku,text,picture\ncup,A cup.,s3://store@{BUCKET}/pictures/mug.png\n"
    put(s3, "rows.csv", (rows + f'mug,"A mug,\nblue.",s3://store@{BUCKET}/pictures/mug.png\n').encode())
    columns = {"key": "sku", "prompt": "text", "image": "picture"}
    run = stored.run(batch(f"s3://store@{BUCKET}/rows.csv", columns=columns))
    assert run.state == "success", run.log[-4000:]
    assert sorted(manifest(s3, run)) == ["cup", "mug"]
    run.clear("batch").go_on()
    assert run.state == "success", run.log[-4000:]
    assert vendor.stats["accepted"] == 2

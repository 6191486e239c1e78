"""From a bucket to a bucket, over a real S3 protocol and through an Airflow connection of type aws."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_kling.emulator import EmulatorOptions, EmulatorThread
from tests.airflow.conftest import connected
from tests.airflow.real_airflow import ROOT, RealAirflow, Run
from tests.media_samples import m4a, mp4, picture

NEEDED = "needs s3fs, Airflow's Amazon provider and moto's server, which requirements/airflow-3.3.txt has"
boto3 = pytest.importorskip("boto3", reason=NEEDED)
pytest.importorskip("moto.server", reason=NEEDED)
pytest.importorskip("s3fs", reason=NEEDED)
pytest.importorskip("airflow.providers.amazon", reason=NEEDED)

from tests.faulty_s3 import FaultyS3, UploadFault, serving  # noqa: E402  # it needs moto

BUCKET = "media"
MIB = 1024 * 1024
KEY = {"aws_access_key_id": "an-access-key", "aws_secret_access_key": "a-secret-key"}
REQUEST = 'prompt="Steam rises.", duration=5'


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyS3]:
    with serving() as server:
        yield server


@pytest.fixture
def s3_url(server: FaultyS3) -> Iterator[str]:
    yield server.url
    server.fault = None


@pytest.fixture
def s3(s3_url: str) -> Iterator[Any]:
    """A client of a storage with one empty bucket."""
    client = boto3.client("s3", endpoint_url=s3_url, region_name="us-east-1", **KEY)
    client.create_bucket(Bucket=BUCKET)
    yield client
    for name in objects(client):
        client.delete_object(Bucket=BUCKET, Key=name)
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def bucket_airflow(airflow: RealAirflow, s3: Any, s3_url: str) -> RealAirflow:
    """A real Airflow with a connection ``store`` of type aws to that storage."""
    return with_store(airflow, s3_url)


def with_store(airflow: RealAirflow, s3_url: str) -> RealAirflow:
    connection = {
        "conn_type": "aws",
        "login": KEY["aws_access_key_id"],
        "password": KEY["aws_secret_access_key"],
        "extra": {
            "endpoint_url": s3_url,
            "region_name": "us-east-1",
            "config_kwargs": {"retries": {"max_attempts": 1}},  # s3fs has its own
        },
    }
    airflow.env["AIRFLOW_CONN_STORE"] = json.dumps(connection)
    return airflow


def objects(client: Any) -> list[str]:
    return [each["Key"] for each in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def read(client: Any, key: str) -> bytes:
    body: bytes = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return body


def submits(vendor: EmulatorThread) -> int:
    return sum(entry.accepted for entry in vendor.journal)


def succeeded(run: Run) -> Run:
    assert run.state == "success", run.log[-5000:]
    return run


def test_from_a_bucket_to_a_bucket(bucket_airflow: RealAirflow, vendor: EmulatorThread, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="pictures/mug.png", Body=picture("PNG"))
    run = succeeded(
        bucket_airflow.run(f"""
    KlingGenerateOperator(
        task_id="generate", image="s3://store@media/pictures/mug.png", {REQUEST},
        path="s3://store@media/videos/{{generation_id}}.mp4", sidecar=True,
    )
    """)
    )

    xcom = run["generate"].xcom
    generation_id = xcom["return_value"]
    assert xcom["path"] == f"s3://store@media/videos/{generation_id}.mp4"
    assert objects(s3) == [
        "pictures/mug.png",
        f"videos/{generation_id}.json",
        f"videos/{generation_id}.mp4",
    ]
    video = read(s3, f"videos/{generation_id}.mp4")
    assert hashlib.sha256(video).hexdigest() == xcom["video"]["sha256"]
    assert b"ftyp" in video[:16]
    said = json.loads(read(s3, f"videos/{generation_id}.json"))
    assert said["request"]["image_url"]["source"] == "s3://store@media/pictures/mug.png"
    assert said["video"]["sha256"] == xcom["video"]["sha256"]


def test_a_presigned_url_goes_in_place_of_the_bytes(
    bucket_airflow: RealAirflow, vendor: EmulatorThread, s3: Any, s3_url: str
) -> None:
    s3.put_object(Bucket=BUCKET, Key="mug.png", Body=picture("PNG"))
    run = succeeded(
        bucket_airflow.run(f"""
    KlingGenerateOperator(
        task_id="generate", image="s3://store@media/mug.png", {REQUEST}, presign=True,
        wait_for_completion=True,
    )
    """)
    )

    (generation,) = vendor.generations
    assert urlsplit(generation["parameters"]["image_url"]).netloc == urlsplit(s3_url).netloc
    assert run["generate"].xcom["generation"]["status"] == "completed"
    assert "Signature" not in run.log
    assert "Signature" not in json.dumps(run["generate"].rendered)


def test_media_are_read_from_a_bucket_wherever_they_stand(
    bucket_airflow: RealAirflow, vendor: EmulatorThread, s3: Any
) -> None:
    given = {
        "cup.png": picture("PNG"),
        "mug.jpg": picture("JPEG"),
        "mask #1 50%.png": picture("PNG", (640, 40)),
        "voice.m4a": m4a(),
        "walk.mp4": mp4(1),
    }
    for name, content in given.items():
        s3.put_object(Bucket=BUCKET, Key=f"in/{name}", Body=content)
    run = succeeded(
        bucket_airflow.run("""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    BUCKET = "s3://store@media/in"
    line = [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
    KlingGenerateOperator(
        task_id="masks", model="kling-video/v1/standard/image-to-video", prompt="A cup.", duration=5,
        image=f"{BUCKET}/cup.png",
        parameters={
            "static_mask": f"{BUCKET}/mask #1 50%.png",
            "dynamic_masks": [{"mask": f"{BUCKET}/mask #1 50%.png", "trajectories": line}],
        },
    )
    KlingGenerateOperator(
        task_id="elements", model="klingai/video-o1-reference-to-video", prompt="A cup.",
        image=[f"{BUCKET}/cup.png", ObjectStoragePath(f"{BUCKET}/mug.jpg")],
        parameters={
            "elements": [
                {
                    "frontal_image_url": f"{BUCKET}/{{{{ 'mug' }}}}.jpg",
                    "reference_image_urls": [ObjectStoragePath(f"{BUCKET}/cup.png"), f"{BUCKET}/mug.jpg"],
                },
            ],
        },
    )
    KlingGenerateOperator(
        task_id="speaks", model="klingai/avatar-standard", image=ObjectStoragePath(f"{BUCKET}/mug.jpg"),
        parameters={"audio_url": f"{BUCKET}/voice.m4a"},
    )
    KlingGenerateOperator(
        task_id="walks", model="klingai/video-o1-video-to-video-reference", prompt="A cup.",
        parameters={"video_url": f"{BUCKET}/walk.mp4", "image_list": [f"{BUCKET}/cup.png"]},
    )
    """)
    )

    received = {each["id"]: each["parameters"] for each in vendor.generations}
    masks, elements, speaks, walks = (
        received[run[name].xcom["return_value"]] for name in ("masks", "elements", "speaks", "walks")
    )
    cup, mug, mask, voice, walk = (
        f"sha256:{hashlib.sha256(each).hexdigest()} ({len(each)} bytes)" for each in given.values()
    )
    assert (masks["image_url"], masks["static_mask"]) == (cup, mask)
    assert [each["mask"] for each in masks["dynamic_masks"]] == [mask]
    assert elements["image_list"] == [cup, mug]
    assert elements["elements"] == [{"frontal_image_url": mug, "reference_image_urls": [cup, mug]}]
    assert (speaks["image_url"], speaks["audio_url"]) == (mug, voice)
    assert (walks["video_url"], walks["image_list"]) == (walk, [cup])
    asked = run["masks"].xcom["request"]["parameters"]
    assert asked["dynamic_masks"][0]["mask"]["source"] == "s3://store@media/in/mask #1 50%.png"


def test_a_video_is_saved_at_a_path_object_in_a_bucket(
    bucket_airflow: RealAirflow, vendor: EmulatorThread, s3: Any
) -> None:
    run = succeeded(
        bucket_airflow.run(f"""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    bucket = ObjectStoragePath("s3://media", conn_id="store")
    generate = KlingGenerateOperator(
        task_id="generate", model="kling-video/v1.6/standard/text-to-video", {REQUEST}, sidecar=True,
        path=bucket / "{{{{ dag.dag_id }}}}" / "{{generation_id}} #1 50%.mp4",
    )
    KlingDownloadOperator(
        task_id="download", generation_id=generate.output, path=bucket / "{{{{ ds }}}}" / "again.mp4"
    )
    """)
    )

    generation_id = run["generate"].xcom["return_value"]
    day = run["download"].xcom["path"].split("/")[-2]
    assert objects(s3) == sorted(
        [
            f"{day}/again.mp4",
            f"{run.dag_id}/{generation_id} #1 50%.json",
            f"{run.dag_id}/{generation_id} #1 50%.mp4",
        ]
    )
    assert day.count("-") == 2


def test_the_example_over_a_prefix(bucket_airflow: RealAirflow, vendor: EmulatorThread, s3: Any) -> None:
    for name in ("mug.jpg", "lamp.jpg"):
        body = (ROOT / "dags" / "pictures" / name).read_bytes()
        s3.put_object(Bucket=BUCKET, Key=f"pictures/{name}", Body=body)
    s3.put_object(Bucket=BUCKET, Key="pictures/notes.txt", Body=b"no picture")
    run = succeeded(
        bucket_airflow.test(
            ROOT / "dags" / "kling_bucket_to_bucket.py",
            KLING_PICTURES="s3://store@media/pictures",
            KLING_OUTPUT="s3://store@media",
        )
    )

    ids = [run[f"generate[{index}]"].xcom["return_value"] for index in (0, 1)]
    videos = [name for name in objects(s3) if name.endswith(".mp4")]
    assert videos == sorted(f"videos/{each}.mp4" for each in ids)
    assert submits(vendor) == 2


def test_a_bucket_that_is_not_there_ends_in_an_error_and_the_same_generation_is_saved_later(
    bucket_airflow: RealAirflow, vendor: EmulatorThread, s3: Any
) -> None:
    s3.put_object(Bucket=BUCKET, Key="mug.png", Body=picture("PNG"))
    run = bucket_airflow.run(f"""
    KlingGenerateOperator(
        task_id="generate", image="s3://store@media/mug.png", {REQUEST}, path="s3://store@elsewhere/clip.mp4"
    )
    """)
    assert run["generate"].state == "failed"
    assert "s3://store@elsewhere/clip.mp4" in run.log
    s3.create_bucket(Bucket="elsewhere")

    succeeded(run.clear("generate").go_on())

    assert submits(vendor) == 1
    assert s3.head_object(Bucket="elsewhere", Key="clip.mp4")["ContentLength"] > 1000
    s3.delete_object(Bucket="elsewhere", Key="clip.mp4")
    s3.delete_bucket(Bucket="elsewhere")


@pytest.fixture
def heavy_vendor() -> Iterator[EmulatorThread]:
    """An emulator whose videos are so large that they are uploaded in three parts."""
    options = EmulatorOptions(queued_seconds=0, generating_seconds=0, log_lag=0, video_bytes=11 * MIB)
    with EmulatorThread(options) as emulator:
        yield emulator


@pytest.mark.parametrize(
    ("fault", "state", "why"),
    [
        pytest.param(
            UploadFault(2, 403, "AccessDenied", "Access Denied"), "failed", "Access Denied.", id="refused"
        ),
        pytest.param(
            UploadFault(2, 503, "SlowDown", "Please reduce your request rate."),
            "up_for_retry",
            "Please reduce your request rate. ",
            id="overloaded",
        ),
        pytest.param(UploadFault(3, None), "up_for_retry", "onnect", id="connection lost"),
        pytest.param(UploadFault(None, 500), "up_for_retry", "Please try again. ", id="not put together"),
        pytest.param(UploadFault(None, 200), "up_for_retry", "Please try again. ", id="200 with an error"),
    ],
)
def test_an_upload_that_breaks_leaves_what_was_there_and_a_later_attempt_saves_it(
    fault: UploadFault,
    state: str,
    why: str,
    started_airflow: RealAirflow,
    heavy_vendor: EmulatorThread,
    server: FaultyS3,
    s3: Any,
) -> None:
    airflow = with_store(connected(started_airflow, heavy_vendor), server.url)
    s3.put_object(Bucket=BUCKET, Key="again.mp4", Body=b"the video of last week")
    server.fault, server.met = fault, 0
    begun = airflow.begin("""
    KlingGenerateOperator(
        task_id="generate", model="kling-video/v1.6/standard/text-to-video", prompt="A cat.", duration=5,
        path="s3://store@media/clip.mp4", sidecar=True, retries=1, retry_delay=timedelta(hours=1),
    )
    KlingGenerateOperator(
        task_id="again", model="kling-video/v1.6/standard/text-to-video", prompt="A dog.", duration=5,
        path="s3://store@media/again.mp4", overwrite=True, retries=1, retry_delay=timedelta(hours=1),
    )
    """)
    run = begun.go_on()

    assert server.met > 0
    assert [run[name].state for name in ("generate", "again")] == [state] * 2, run.log[-5000:]
    assert objects(s3) == ["again.mp4"]
    assert read(s3, "again.mp4") == b"the video of last week"
    assert s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []
    for task_id, name in (("generate", "clip.mp4"), ("again", "again.mp4")):
        generation_id = run[task_id].xcom["generation_id"]
        said = f"Could not write s3://store@media/{name} for the video of generation {generation_id}: "
        assert said in run.log
        assert why in run.log.partition(said)[2].partition("\n")[0]
    server.fault = None

    succeeded((run.clear("generate", "again") if state == "failed" else run).go_on())

    assert submits(heavy_vendor) == len(heavy_vendor.generations) == 2
    for task_id, name in (("generate", "clip.mp4"), ("again", "again.mp4")):
        video = run[task_id].xcom["video"]
        assert video["size"] >= 11 * MIB
        assert hashlib.sha256(read(s3, name)).hexdigest() == video["sha256"]
    assert objects(s3) == ["again.mp4", "clip.json", "clip.mp4"]


def test_a_report_of_the_costs_as_csv(bucket_airflow: RealAirflow, vendor: EmulatorThread, s3: Any) -> None:
    run = succeeded(
        bucket_airflow.run("""
    generate = KlingGenerateOperator(
        task_id="generate", model="kling-video/v1.6/standard/text-to-video", prompt="A cat.", duration=5,
        wait_for_completion=True,
    )

    @task
    def report(**context):
        from airflow_provider_kling.cost_report import KlingCostReport

        costs = KlingCostReport()
        costs.tell(costs.of_run(context), csv_path="s3://store@media/costs/run.csv")

    generate >> report()
    """)
    )

    assert read(s3, "costs/run.csv").decode() == (
        "dag,task,model,generations,failed,credits,usd,loop_pass\n"
        f"{run.dag_id},generate,kling-video/v1.6/standard/text-to-video,1,0,580000.0,0.29,\n"
    )

"""Users with few rights at a bucket, as IAM grants them: to put objects is enough, and to be refused costs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_kling.emulator import EmulatorThread
from tests.airflow.real_airflow import RealAirflow, Run

NEEDED = "needs s3fs, Airflow's Amazon provider and moto's server, which requirements/airflow-3.3.txt has"
boto3 = pytest.importorskip("boto3", reason=NEEDED)
authorization = pytest.importorskip("moto.core.authorization", reason=NEEDED)
pytest.importorskip("moto.server", reason=NEEDED)
pytest.importorskip("s3fs", reason=NEEDED)
pytest.importorskip("airflow.providers.amazon", reason=NEEDED)

from tests.faulty_s3 import serving  # noqa: E402  # it needs moto

BUCKET = "media"
ROOT_KEY = {"aws_access_key_id": "an-access-key", "aws_secret_access_key": "a-secret-key"}
PUT, ABORT, GET, LIST = "s3:PutObject", "s3:AbortMultipartUpload", "s3:GetObject", "s3:ListBucket"
RIGHTS = {
    "writer": [PUT, ABORT],
    "bare_writer": [PUT],
    "owner": ["s3:*"],
    "reader": [GET, LIST],
    "nobody": ["s3:ListAllMyBuckets"],
}
"""A user of each name, with these rights."""


@dataclass
class Storage:
    """A bucket that belongs to nobody else.

    :param connections: an Airflow connection for each user, as the environment has it.
    """

    root: Any
    connections: dict[str, str]

    @property
    def objects(self) -> list[str]:
        return [each["Key"] for each in self.root.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    @property
    def uploads(self) -> list[str]:
        """Keys of the uploads that were begun and neither completed nor given up."""
        begun = self.root.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return [each["Key"] for each in begun]


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    with serving() as s3:
        where = {"endpoint_url": s3.url, "region_name": "us-east-1"}
        root, iam = (boto3.client(service, **where, **ROOT_KEY) for service in ("s3", "iam"))
        root.create_bucket(Bucket=BUCKET)
        connections = {}
        for user, actions in RIGHTS.items():
            statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            iam.create_user(UserName=user)
            iam.put_user_policy(UserName=user, PolicyName="rights", PolicyDocument=policy)
            key = iam.create_access_key(UserName=user)["AccessKey"]
            connections[f"AIRFLOW_CONN_{user.upper()}"] = json.dumps(
                {
                    "conn_type": "aws",
                    "login": key["AccessKeyId"],
                    "password": key["SecretAccessKey"],
                    "extra": {**where, "config_kwargs": {"retries": {"max_attempts": 1}}},
                }
            )
        yield Storage(root, connections)


def run_with(airflow: RealAirflow, storage: Storage, paths: dict[str, str], more: str = "") -> Run:
    """A task for each path, by its name; permissions are only asked for meanwhile."""
    tasks = "\n".join(
        f'KlingGenerateOperator(task_id="{name}", model="kling-video/v1.6/standard/text-to-video", '
        f'prompt="A boat.", duration=5, path={path!r}, retries=2{more})'
        for name, path in paths.items()
    )
    with authorization.enable_iam_authentication():
        return airflow.run(tasks, **storage.connections)


def accepted(vendor: EmulatorThread) -> int:
    return sum(entry.accepted for entry in vendor.journal)


@pytest.mark.parametrize("sidecar", [False, True])
@pytest.mark.parametrize("user", ["writer", "bare_writer", "owner"])
def test_who_may_put_objects_gets_the_video(
    airflow: RealAirflow, vendor: EmulatorThread, storage: Storage, user: str, sidecar: bool
) -> None:
    folder = f"{user}-{sidecar}"
    paths = {
        "fixed": f"s3://{user}@{BUCKET}/{folder}/film.mp4",
        "folder": f"s3://{user}@{BUCKET}/{folder}/all/",
    }
    run = run_with(airflow, storage, paths, f", sidecar={sidecar}")

    assert run.state == "success", run.log[-5000:]
    assert accepted(vendor) == 2
    names = [each for each in storage.objects if each.startswith(f"{folder}/")]
    assert len(names) == (4 if sidecar else 2)
    for task in run.tasks.values():
        key = task.xcom["path"].partition(f"@{BUCKET}/")[2]
        assert storage.root.head_object(Bucket=BUCKET, Key=key)["ContentLength"] == task.xcom["video"]["size"]
    if user == "bare_writer":
        assert "s3:AbortMultipartUpload" in run.log  # what was begun cannot be taken back without it
    else:
        assert [each for each in storage.uploads if each.startswith(f"{folder}/")] == []


def test_who_may_not_pays_nothing_and_nothing_is_left(
    airflow: RealAirflow, vendor: EmulatorThread, storage: Storage
) -> None:
    storage.root.put_object(Bucket=BUCKET, Key="taken.mp4", Body=b"another film")
    before = storage.objects
    paths = {
        "reader": f"s3://reader@{BUCKET}/refused/film.mp4",
        "reader_folder": f"s3://reader@{BUCKET}/refused/",
        "nobody": f"s3://nobody@{BUCKET}/refused/film.mp4",
        "mistyped_by_owner": "s3://owner@mdeia/refused/film.mp4",
        "mistyped_by_writer": "s3://writer@mdeia/refused/",
        "taken": f"s3://owner@{BUCKET}/taken.mp4",
        "no_bucket": "s3://owner@/film.mp4",
        "no_connection": f"s3://stranger@{BUCKET}/film.mp4",
        "long_key": f"s3://writer@{BUCKET}/{'k' * 1021}.mp4",
    }
    run = run_with(airflow, storage, paths)

    states = {name: task.state for name, task in run.tasks.items()}
    later = {"no_connection": "up_for_retry"}  # it may be there by then
    assert states == dict.fromkeys(paths, "failed") | later, run.log[-5000:]
    assert accepted(vendor) == 0
    assert [entry.path for entry in vendor.journal if entry.method == "POST"] == []
    assert storage.objects == before
    assert [each for each in storage.uploads if "bare_writer" not in each] == []
    assert run.log.count("Nothing was submitted by this attempt") >= len(paths)

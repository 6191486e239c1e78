"""Each picture under a prefix becomes a video under another: listed, generated, landed, told as an asset.

One task a picture generates, waits in the triggerer and lands the video, with a JSON sidecar beside
it. Set ``KLING_PICTURES`` and ``KLING_OUTPUT`` to work from a bucket to a bucket, for example
``s3://my_aws@media/pictures`` and ``s3://my_aws@media``.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, Asset, ObjectStoragePath, task

from airflow_provider_kling.operators.kling import KlingGenerateOperator

PICTURES = os.environ.get("KLING_PICTURES", f"file://{Path(__file__).parent / 'pictures'}")
OUTPUT = os.environ.get("KLING_OUTPUT", "output")
VIDEOS = Asset("x-kling://videos")

with DAG("kling_bucket_to_bucket", schedule=None, catchup=False, tags=["kling"], doc_md=__doc__) as dag:

    @task
    def list_pictures() -> list[str]:
        """URIs of the pictures under the prefix."""
        found = ObjectStoragePath(PICTURES).iterdir()
        return sorted(str(each) for each in found if each.suffix.lower() in (".jpg", ".jpeg", ".png"))

    KlingGenerateOperator.partial(
        task_id="generate",
        prompt="The camera moves slowly around what is seen.",
        duration=5,
        path=f"{OUTPUT}/videos/{{generation_id}}.mp4",
        sidecar=True,
        deferrable=True,
        poke_interval=5,
        retries=2,
        outlets=[VIDEOS],
    ).expand(image=list_pictures())

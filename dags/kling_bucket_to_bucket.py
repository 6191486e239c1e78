"""Each picture under a prefix becomes a video under another: listed, generated, saved, and told as an asset.

One task a picture generates, waits in the triggerer and lands the video, with a JSON sidecar beside
it. Set ``KLING_PICTURES`` and ``KLING_OUTPUT`` to work from a bucket to a bucket, for example
``s3://my_aws@media/pictures`` and ``s3://my_aws@media``.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, AirflowFailException, Asset, ObjectStoragePath, task

from airflow_provider_kling.operators.kling import KlingGenerateOperator

log = logging.getLogger(__name__)

PICTURES = os.environ.get("KLING_PICTURES", f"file://{Path(__file__).parent / 'pictures'}")
OUTPUT = os.environ.get("KLING_OUTPUT", "output")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif")
"""What ``convert_image`` turns into a picture that the vendor takes."""
VIDEOS = Asset("x-kling://videos")

with DAG("kling_bucket_to_bucket", schedule=None, catchup=False, tags=["kling"], doc_md=__doc__) as dag:

    @task
    def list_pictures() -> list[str]:
        """URIs of the pictures under the prefix; says what it leaves out, and fails where there are none."""
        files = sorted(str(each) for each in ObjectStoragePath(PICTURES).iterdir() if each.is_file())
        pictures = [each for each in files if each.lower().endswith(SUFFIXES)]
        for each in sorted(set(files) - set(pictures)):
            log.warning("%s is not known as a picture, and makes no video.", each)
        if not pictures:
            raise AirflowFailException(f"No picture is under {PICTURES}: {len(files)} other files are there.")
        return pictures

    KlingGenerateOperator.partial(
        task_id="generate",
        prompt="The camera moves slowly around what is seen.",
        duration=5,
        path=f"{OUTPUT}/videos/{{generation_id}}.mp4",
        convert_image=True,
        sidecar=True,
        deferrable=True,
        poke_interval=5,
        retries=2,
        outlets=[VIDEOS],
    ).expand(image=list_pictures())

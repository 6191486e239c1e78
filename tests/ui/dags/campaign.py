"""One DAG with a task for each state that the tab shows."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_kling.operators.batch import KlingGenerateBatchOperator
from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator
from airflow_provider_kling.sensors.kling import KlingGenerationSensor

PICTURE = os.path.join(os.path.dirname(__file__), "mug.jpg")
OUTPUT = os.environ["KLING_OUTPUT"]
HERE = {"image": PICTURE, "duration": 5, "poke_interval": 1}

with DAG("campaign", schedule=None, catchup=False, tags=["kling"]):
    KlingGenerateOperator(
        task_id="finished", prompt="Steam rises from the mug.", path=f"{OUTPUT}/{{generation_id}}.mp4", **HERE
    )
    KlingGenerateOperator(
        task_id="waiting",
        prompt="[emulator: slow=3000] The mug turns slowly.",
        wait_for_completion=True,
        deferrable=True,
        **HERE,
    )
    KlingGenerateOperator(
        task_id="failed", prompt="[emulator: moderation] A mug.", wait_for_completion=True, **HERE
    )
    KlingGenerateOperator(
        task_id="retried",
        prompt="{{ '' if ti.try_number > 1 else 1 / 0 }}The second attempt succeeds.",
        path=f"{OUTPUT}/{{generation_id}}.mp4",
        retries=1,
        retry_delay=timedelta(seconds=1),
        uncertain_grace=1,  # the first attempt leaves no record, so the second looks in the vendor's logs
        **HERE,
    )
    KlingGenerateOperator.partial(
        task_id="mapped",
        path=f"{OUTPUT}/{{generation_id}}.mp4",
        map_index_template="{{ task.prompt }}",
        **HERE,
    ).expand(prompt=["Morning light moves over the mug.", "Rain on the window behind the mug."])

    @task.kling_generate(path=f"{OUTPUT}/variants/{{generation_id}}.mp4", retries=0, **HERE)
    def variants() -> list[dict[str, Any]]:
        return [
            {"prompt": "Steam rises.", "cfg_scale": 0.3},
            {"prompt": "The mug turns."},
            {"prompt": "[emulator: fail] The mug breaks."},
        ]

    variants()
    generate = KlingGenerateOperator(
        task_id="generate", image=PICTURE, prompt="Steam, seen from above.", duration=5
    )
    wait = KlingGenerationSensor(task_id="wait", generation_id=generate.output, poke_interval=5)
    wait >> KlingDownloadOperator(task_id="download", generation_id=generate.output, path=f"{OUTPUT}/three/")

    KlingGenerateOperator(
        task_id="vendor_only", prompt="The video that only the vendor has.", wait_for_completion=True, **HERE
    )

    SCENES = (
        "Morning light",
        "Rain on the window",
        "Candle light",
        "Snow outside",
        "A slow turn",
        "Steam rises",
    )
    ROWS = [
        {"key": f"mug-{number:03}", "prompt": f"{scene} around the mug."}
        for number, scene in enumerate(SCENES)
    ]
    KlingGenerateBatchOperator(
        task_id="batch",
        requests=[
            *ROWS,
            {"key": "mug-broken", "prompt": "[emulator: moderation] A mug."},
            {"key": "mug-odd", "prompt": "A mug.", "duration": 7},
        ],
        path=f"{OUTPUT}/batch/",
        max_active=8,
        max_failures=2,
        on_invalid="skip",
        **HERE,
    )
    KlingGenerateBatchOperator(
        task_id="batch_running",
        requests=[
            *ROWS[:3],
            *({**row, "prompt": f"[emulator: slow=3000] {row['prompt']}"} for row in ROWS[3:]),
        ],
        path=f"{OUTPUT}/batch_running/",
        max_active=5,
        **HERE,
    )

    @task
    def foreign() -> str:
        return "nothing to do with Kling"

    foreign()

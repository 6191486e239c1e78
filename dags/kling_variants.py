"""Four variants of one picture, side by side, for an editor to choose from.

The variants are known when the DAG is parsed, so each is checked then: a wrong ``cfg_scale`` is an
import error, not a failed night.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kling.operators.kling import KlingDownloadOperator, KlingGenerateOperator

PICTURE = Path(__file__).parent / "pictures" / "mug.jpg"
OUTPUT = os.environ.get("KLING_OUTPUT", "output")

VARIANTS = [
    {"prompt": "Steam rises from the mug.", "cfg_scale": 0.3},
    {"prompt": "Steam rises from the mug.", "cfg_scale": 0.8},
    {"prompt": "The mug turns slowly on the table.", "cfg_scale": 0.5},
    {"prompt": "Morning light moves over the mug.", "cfg_scale": 0.5},
]

with DAG("kling_variants", schedule=None, catchup=False, tags=["kling"], doc_md=__doc__) as dag:
    generate = KlingGenerateOperator.partial(
        task_id="generate",
        image=str(PICTURE),
        duration=5,
        wait_for_completion=True,
        deferrable=True,
        poke_interval=5,
        map_index_template="{{ task.prompt }} (cfg {{ task.cfg_scale }})",
    ).expand_kwargs(VARIANTS)
    KlingDownloadOperator.partial(
        task_id="download", path=os.path.join(OUTPUT, "variants", "{generation_id}.mp4")
    ).expand(generation_id=generate.output)

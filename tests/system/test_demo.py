"""``make demo``, as a new user runs it: a picture in, a playable file out, nothing left running."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import av
import pytest
from airflow.version import version as airflow_version

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(airflow_version < "3", reason="the demo runs on the newest Airflow")
def test_the_demo_leaves_a_video_made_from_the_picture() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    run = subprocess.run(
        [sys.executable, "scripts/demo.py"],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for step in ("generate", "wait", "download"):
        assert re.search(rf"^ *[\d.]+ s +{step} ", run.stdout, re.MULTILINE), run.stdout
    last = run.stdout.strip().splitlines()[-1]
    path, _, facts = last.partition(": ")
    with av.open(str(ROOT / path)) as container:
        video = container.streams.video[0]
        frames = sum(1 for _ in container.decode(video))
        assert (video.codec_context.name, video.width, video.height) == ("h264", 1280, 720)
        assert frames / float(video.average_rate or 1) == pytest.approx(5.0, abs=0.05)
    assert "1280x720" in facts
    assert "5.00 s" in facts
    log = (ROOT / ".airflow" / "demo" / "airflow.log").read_text().splitlines()
    assert len(log) > 20
    assert [line for line in log if re.match(r"\S+ (warning|error|critical) ", line)] == []

"""The manifest of a batch."""

from __future__ import annotations

import json

from airflow_provider_kling.task.batch.manifest import Manifest


def test_a_line_for_each_row_and_the_sums():
    manifest = Manifest("/clips/manifest.jsonl")
    rows = [
        (
            "a",
            {
                "status": "saved",
                "request": {"model": "m"},
                "cost": {"usd": 0.3},
                "video": {"duration": 5.0},
                "error": "before",
            },
        ),
        (
            "b",
            {"status": "reused", "cost": {"usd": 0.0}, "video": {"duration": 10.0}, "reused": True},
        ),
        ("c", {"status": "failed", "error": "Moderation", "secret": "x"}),
    ]
    lines = [json.loads(line) for line in manifest.lines(rows)]
    assert [line["status"] for line in lines] == ["saved", "reused", "failed"]
    assert "error" not in lines[0]
    assert lines[0]["request"] == {"model": "m"}
    assert "secret" not in lines[2]
    summary = manifest.summary()
    assert (summary["total"], summary["saved"], summary["reused"], summary["failed"]) == (3, 1, 1, 1)
    assert (summary["cost_usd"], summary["video_seconds"]) == (0.3, 15.0)

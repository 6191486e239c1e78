"""What there is to look at: one run of each DAG, and 300 generations that were made before."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.system.dag_run import eventually
from tests.ui.airflow_server import ROOT, AirflowServer

PATIENCE: Final = 1800.0
"""Seconds; much more than needed, for a machine that has other things to do."""
GALLERY: Final = "shop_campaign"
GENERATIONS: Final = 300
UNFINISHED: Final = ("waiting", "batch_running")
"""Tasks that wait for as long as anybody looks."""

_SEED = """
import json, sys
from datetime import datetime, timedelta, UTC
from pathlib import Path
from tests.unit.ui.airflow_rows import MODEL, Rows, generated, request

videos, count = sorted(Path(sys.argv[1]).rglob("*.mp4")), int(sys.argv[2])
now = datetime.now(UTC).replace(microsecond=0)
models = [MODEL, "kling-video/v1.6/pro/image-to-video", "kling-video/v2/master/text-to-video"]
subjects = ["A mug", "A lamp", "The mug", "Two cups", "A teapot"]
moves = ["turns slowly on the table.", "stands in the morning light.", "steams in the cold air.", "glows at night."]
with Rows() as rows:
    for number in range(count):
        at = now - timedelta(hours=1 + number * 2)
        run = f"scheduled__{at.isoformat()}"
        model = models[number % 7 % 3]
        asked = {"prompt": f"{subjects[number % 5]} {moves[number % 4]}", "model": model, "submitted_at": at.timestamp()}
        xcoms = generated(f"gen-{number:04}", path=videos[number % len(videos)], usd=0.25 * (1 + number % 3), **asked)
        state = "success"
        if number % 12 == 5:
            state = "failed"
            kind = ["GenerationFailedError", "GenerationTimeoutError", "DownloadError"][number % 3]
            message = "The vendor's moderation rejected the prompt. Not charged. Change the prompt, then clear the task."
            xcoms = {"generation_id": f"gen-{number:04}", "request": request(**asked),
                     "failure": {"schema": 1, "generation_id": f"gen-{number:04}", "error": {"kind": kind, "message": message}}}
        wait = 60 + number * 37 % 140
        rows.run("shop_campaign", run, at=at)
        rows.task("shop_campaign", run, "product_video", xcoms, state=state, at=at, xcoms_at=at + timedelta(seconds=wait))
"""


class Stage(AirflowServer):
    """The server, its runs, and what they are expected to show."""

    def __init__(self, home: Path, *, prefix: str = "") -> None:
        home.mkdir()
        super().__init__(home, prefix=prefix, dags=(ROOT / "dags" / "kling_human_choice.py",))
        self.runs: dict[str, str] = {}

    @contextlib.contextmanager
    def begun(self) -> Iterator[Stage]:
        """Run Airflow and the DAGs, until each task is where it is to be looked at."""
        with self:
            self.runs = {dag_id: self.run(dag_id) for dag_id in ("campaign", "kling_human_choice")}
            states: dict[Any, Any] = {}

            def settled() -> bool:
                nonlocal states
                states = self.states("campaign", self.runs["campaign"])
                over = {key: state for key, state in states.items() if key[0] not in UNFINISHED}
                asked = self.states("kling_human_choice", self.runs["kling_human_choice"])
                return (
                    len(states) == 14
                    and all(state in ("success", "failed") for state in over.values())
                    and all(states.get((task_id, -1)) == "deferred" for task_id in UNFINISHED)
                    and asked.get(("choose", -1)) in ("awaiting_input", "deferred")
                )

            try:
                eventually(settled, PATIENCE, "every task where it is to be looked at", every=3)
            except AssertionError as error:
                raise AssertionError(f"{error}: {states}; see {self.log}") from None
            self.seed(GENERATIONS)
            yield self

    def seed(self, count: int) -> None:
        """Write generations into the database, as their tasks would have left them."""
        command = [sys.executable, "-W", "ignore", "-c", _SEED, str(self.output), str(count)]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    def view(self, task_id: str, *, dag_id: str = "campaign", map_index: int = -1, user: str = "anna") -> Any:
        """What the app says about a task instance."""
        found = self.get(f"api/dags/{dag_id}/runs/{self.runs[dag_id]}/tasks/{task_id}/{map_index}", user=user)
        return json.loads(found.text) if found.ok else found.status_code

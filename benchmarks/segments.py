"""An executor that runs each task in a fresh interpreter, as a container does, and notes what that took."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.executors.base_executor import BaseExecutor

NOTES = "KLING_SEGMENTS"
"""Environment variable with the file that the notes go to, a line of JSON for each segment."""


class SegmentExecutor(BaseExecutor):
    """Runs one workload at a time through ``airflow.sdk.execution_time.execute_workload``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs | {"parallelism": 1})
        self._under_way: list[tuple[Any, subprocess.Popen[bytes]]] = []

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        for workload in workload_items:
            del self.queued_tasks[workload.key]
            command = [sys.executable, "-m", "airflow.sdk.execution_time.execute_workload"]
            process = subprocess.Popen([*command, "--json-string", workload.model_dump_json()])
            self._under_way.append((workload, process))

    def sync(self) -> None:
        for each in list(self._under_way):
            # The resources of the supervisor and of the task's own process, which it waited for.
            pid, status, used = os.wait4(each[1].pid, os.WNOHANG)
            if pid:
                self._under_way.remove(each)
                self._ended(*each, os.waitstatus_to_exitcode(status), used)

    def _ended(
        self, workload: Any, process: subprocess.Popen[bytes], code: int, used: resource.struct_rusage
    ) -> None:
        process.returncode = code
        note = {
            "run": workload.ti.run_id,
            "task": workload.ti.task_id,
            "failed": code,
            "cpu": used.ru_utime + used.ru_stime,
            "mb": used.ru_maxrss / 1000,
        }
        with Path(os.environ[NOTES]).open("a") as notes:
            notes.write(json.dumps(note) + "\n")
        self.success(workload.key) if code == 0 else self.fail(workload.key)

    def end(self) -> None:
        self.terminate()

    def terminate(self) -> None:
        for _, process in self._under_way:
            process.kill()

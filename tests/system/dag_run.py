"""One DAG run in a cluster: what it does, and what a person does to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.system.cluster import AirflowCluster


def eventually(condition: Callable[[], Any], seconds: float, what: str, every: float = 0.5) -> Any:
    """Wait until a condition is true, and return what it returned.

    :raises AssertionError: it was not in time; says what was awaited.
    """
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(every)
    return value


class DagRun:
    """One run of a DAG in a cluster."""

    def __init__(self, cluster: AirflowCluster, dag_id: str, run_id: str) -> None:
        self._cluster = cluster
        self.dag_id = dag_id
        self.run_id = run_id

    def tasks(self, task_id: str | None = None) -> list[dict[str, Any]]:
        """The task instances: ``task_id``, ``map_index``, ``state``, ``try_number`` and more.

        From Airflow 3.4 on there is a row for each attempt, and the one in use is told; the passes of a loop
        have their number as their index.
        """
        rows = self._cluster.rows(
            "SELECT * FROM task_instance WHERE dag_id = %s AND run_id = %s", self.dag_id, self.run_id
        )
        rows = [
            {**row, "map_index": row["map_index" if "map_index" in row else "region_index"]}
            for row in rows
            if row.get("working_set", True) and row["state"] != "removed"
            if task_id in (None, row["task_id"])
        ]
        return sorted(rows, key=lambda row: (row["task_id"], row["map_index"]))

    def states(self) -> dict[str, str]:
        """Task id (and map index) -> state."""
        return {_name(task): task["state"] for task in self.tasks()}

    @property
    def state(self) -> str:
        """The state of the run."""
        query = "SELECT state FROM dag_run WHERE dag_id = %s AND run_id = %s"
        return str(self._cluster.rows(query, self.dag_id, self.run_id)[0]["state"])

    def await_end(self, seconds: float) -> str:
        """Wait until the run is over; returns its state."""
        what = f"the end of {self.dag_id}"
        try:
            eventually(lambda: self.state in ("success", "failed"), seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; its tasks are {self.states()}") from None
        return self.state

    def await_state(self, task_id: str, state: str, seconds: float, count: int = 1) -> None:
        """Wait until so many instances of a task are in a state."""
        eventually(
            lambda: sum(task["state"] == state for task in self.tasks(task_id)) >= count,
            seconds,
            f"{count} instances of {self.dag_id}.{task_id} {state}",
        )

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """A value that a task pushed; None where it pushed none."""
        (task,) = (each for each in self.tasks(task_id) if each["map_index"] == map_index)
        return self.xcom_of(task, key)

    def xcom_of(self, task: Mapping[str, Any], key: str = "return_value") -> Any:
        """A value that a task instance of :meth:`tasks` pushed; None where it pushed none."""
        if "working_set" in task:  # Airflow 3.4 and newer
            query = "SELECT value FROM xcom_v2 WHERE task_instance_id = %s AND key = %s"
            values = [str(task["id"]), key]
        else:
            query = (
                "SELECT value FROM xcom WHERE dag_id = %s AND run_id = %s AND task_id = %s AND key = %s"
                " AND map_index = %s"
            )
            values = [self.dag_id, self.run_id, task["task_id"], key, task["map_index"]]
        rows = self._cluster.rows(query, *values)
        return rows[0]["value"] if rows else None

    def log(self, task_id: str, map_index: int = -1, attempt: int | None = None) -> str:
        """What a task instance logged on the worker and in the triggerer.

        :param attempt: in one try; None for all, in their order.
        """
        folder = self._cluster.home / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}"
        folder /= f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        paths = sorted(folder.glob(f"attempt={attempt or '*'}.log*"))
        return "".join(path.read_text() for path in paths)

    def events(self, task_id: str) -> list[str]:
        """What Airflow's audit log says of a task."""
        query = "SELECT event FROM log WHERE dag_id = %s AND run_id = %s AND task_id = %s"
        return [row["event"] for row in self._cluster.rows(query, self.dag_id, self.run_id, task_id)]

    def set_state(self, task_id: str, state: str) -> None:
        """Mark a task instance, as a person does in the UI."""
        path = f"dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{task_id}"
        self._cluster.call("PATCH", path, {"new_state": state})

    def clear(self, *task_ids: str, **options: Any) -> None:
        """Clear task instances, as a person does in the UI.

        :param options: what else the request says, such as ``include_downstream``.
        """
        body = {
            "dag_run_id": self.run_id,
            "dry_run": False,
            "only_failed": False,
            "reset_dag_runs": True,
            **({"task_ids": list(task_ids)} if task_ids else {}),
            **options,
        }
        self._cluster.call("POST", f"dags/{self.dag_id}/clearTaskInstances", body)

    def clear_all(self) -> None:
        """Clear the whole run, as a person does in the UI."""
        body = {"dry_run": False, "only_failed": False}
        self._cluster.call("POST", f"dags/{self.dag_id}/dagRuns/{self.run_id}/clear", body)


def _name(task: Mapping[str, Any]) -> str:
    index = task["map_index"]
    return f"{task['task_id']}[{index}]" if index >= 0 else str(task["task_id"])

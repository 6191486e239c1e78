"""How a batch runs, and what follows from it for each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_kling.api.durable.decision import SubmitPolicy
from airflow_provider_kling.task.batch.rows import Row, read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How a batch runs; see :class:`.KlingGenerateBatchOperator` for each."""

    requests: Any
    path: str
    defaults: Mapping[str, Any]
    columns: Mapping[str, str] | None = None
    max_active: int
    on_invalid: str = "fail"
    on_error: str = "continue"
    max_failures: float = 0
    max_cost_usd: float | None = None
    skip_unchanged: bool = False
    overwrite: bool = False
    convert_image: bool = False
    deferrable: bool = True
    poke_interval: float | None = None
    timeout: float
    policy: SubmitPolicy = field(default_factory=SubmitPolicy)
    outlets: Sequence[Any] = ()

    def rows(self) -> Iterator[Row]:
        """The rows with the defaults of the batch, read one by one.

        :raises InvalidRequestError: see :func:`.read_rows`.
        """
        defaults = self.defaults.get("parameters") or {}
        for row in read_rows(self.requests, columns=self.columns):
            parameters = {**defaults, **(row.arguments.get("parameters") or {})}
            yield replace(row, arguments={**self.defaults, **row.arguments, "parameters": parameters})

    def target(self, name: str) -> str:
        """Where the video of a row goes; may still name the generation.

        :param name: see :attr:`.Row.name`.
        """
        return self.path.replace("{key}", name)

    @property
    def folder(self) -> str:
        """Where the manifest goes, with a slash at its end."""
        head, slash, _ = self.path.partition("{")[0].rpartition("/")
        return head + slash

    def allowed_failures(self, total: int) -> float:
        """How many rows may fail.

        :param total: rows of the batch.
        """
        return self.max_failures * total if 0 < self.max_failures < 1 else self.max_failures

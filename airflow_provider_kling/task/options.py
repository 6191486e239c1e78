"""How a task generates: the arguments of an operator as a value, without the operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kling.api.durable.decision import SubmitPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """How a task generates; see :class:`.KlingGenerateOperator` for each."""

    model: str
    path: Any = None
    shares_path: bool = False
    overwrite: bool = False
    skip_unchanged: bool = False
    sidecar: bool = False
    presign: bool = False
    convert_image: bool = False
    max_cost_usd: float | str | None = None
    wait_for_completion: bool = False
    deferrable: bool = False
    poke_interval: float | None = None
    timeout: float
    durable: bool = True
    policy: SubmitPolicy = field(default_factory=SubmitPolicy)
    outlets: Sequence[Any] = ()

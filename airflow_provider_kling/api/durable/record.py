"""What is remembered of a submit where it survives a retry: written before it, completed after it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeGuard

from airflow_provider_kling.api.exceptions import UnusableRecordError

SCHEMA: Final = 1
NOTHING: Final[Mapping[str, Any]] = {"schema": SCHEMA, "nothing": True}
"""Stored in place of a record where none is left: the only submit was certainly refused."""


@dataclass(frozen=True, slots=True)
class Record:
    """One submit of one work.

    :param identity: :attr:`.TaskAttempt.identity` of the task instance that wrote it.
    :param client_request_id: what the submit carries.
    :param model: the model asked for.
    :param fingerprint: of the request and the account; see :func:`.fingerprint`.
    :param count: how often this work was deliberately resubmitted before.
    :param intended_at: epoch seconds, just before the submit.
    :param generation_id: what the vendor answered; None until then.
    :param attempt: the number of the attempt that last continued with it.
    :param key_mark: :func:`.key_mark` of the API key that the submit was sent with; empty where it is not
        known.
    """

    identity: str
    client_request_id: str
    model: str
    fingerprint: Mapping[str, str]
    count: int = 0
    intended_at: float = 0.0
    generation_id: str | None = None
    attempt: int = 0
    key_mark: str = ""

    def encode(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"schema": SCHEMA, **asdict(self), "fingerprint": dict(self.fingerprint)}

    @classmethod
    def decode(cls, stored: Any) -> Record | None:
        """From plain JSON; None where nothing is stored.

        :raises UnusableRecordError: of a newer schema, or not a record at all.
        """
        if stored is None or stored == NOTHING:
            return None
        schema = stored.get("schema") if isinstance(stored, Mapping) else None
        if not _is_count(schema) or schema < 1:
            raise UnusableRecordError(
                "The record of the previous attempt's submit cannot be read; nothing was submitted."
            )
        if schema > SCHEMA:
            raise UnusableRecordError(
                f"The record of the previous attempt's submit has schema {schema}, and this version of the "
                f"provider reads up to {SCHEMA}; nothing was submitted."
            )
        known: dict[str, Any] = {name: stored.get(name) for name in cls.__dataclass_fields__}
        known["key_mark"] = stored.get("key_mark", "")
        if not _is_sound(known):
            raise UnusableRecordError(
                "The record of the previous attempt's submit is damaged; nothing was submitted."
            )
        return cls(**known)


def _is_sound(known: Mapping[str, Any]) -> bool:
    texts = ("identity", "client_request_id", "model")
    return (
        all(isinstance(known[name], str) and known[name] for name in texts)
        and isinstance(known["fingerprint"], Mapping)
        and known["fingerprint"] != {}
        and all(isinstance(each, str) for pair in known["fingerprint"].items() for each in pair)
        and _is_count(known["count"])
        and _is_count(known["attempt"])
        and isinstance(known["key_mark"], str)
        and isinstance(known["intended_at"], int | float)
        and not isinstance(known["intended_at"], bool)
        and math.isfinite(known["intended_at"])
        and (
            known["generation_id"] is None
            or (isinstance(known["generation_id"], str) and known["generation_id"] != "")
        )
    )


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0

"""Which work a submit is for: the name it carries at the vendor, and what tells two requests apart."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from airflow_provider_kling.api.exceptions import InvalidRequestError

_MAKER: Final = "airflow"
_LOOP: Final = "pass"
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")
_ACCOUNT: Final = "account (connection and URL)"


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """A task instance, the same for all of its attempts.

    :param map_index: -1 where the task is not mapped.
    :param variant: which of several generations of the task instance: a number, or the key of a batch's row;
        None where it makes one.
    :param loop_index: which pass of a loop it is; None where the task is in none.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    variant: int | str | None = None
    loop_index: int | None = None

    @property
    def digest(self) -> str:
        """Names the work in its record; two works never share it."""
        return _digest(self.place)

    @property
    def place(self) -> list[Any]:
        """All that tells it from other work, as plain JSON."""
        more = {"variant": self.variant, "loop": self.loop_index}
        given = {name: value for name, value in more.items() if value is not None}
        place = [self.dag_id, self.run_id, self.task_id, self.map_index]
        return [*place, given] if given else place


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a request asks for, and who pays, without its content.

    :param digest: equal for equal requests.
    :param parts: parameter name -> short digest of its value, to say what changed.
    """

    digest: str
    parts: Mapping[str, str]

    def changes(self, earlier: Mapping[str, str]) -> tuple[str, ...]:
        """Names of what differs from an earlier request's parts."""
        names = sorted(self.parts.keys() | earlier.keys())
        return tuple(name for name in names if self.parts.get(name) != earlier.get(name))


def fingerprint(body: Mapping[str, Any], account: str) -> Fingerprint:
    """Tell requests apart.

    :param body: model and parameters, pictures replaced by what stands for their content.
    :param account: the connection id and base URL that pay; never the key.
    :raises InvalidRequestError: a value that JSON does not have, such as a date or a NaN.
    """
    facts = {**body, _ACCOUNT: account}
    parts: dict[str, str] = {}
    for name, value in facts.items():
        try:
            parts[name] = _digest(value)[:12]
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(
                f"Parameter {name!r} cannot be sent: it is not JSON ({error}).",
                problems=[f"{name!r} is not JSON ({error})"],
            ) from None
    return Fingerprint(_digest(facts), parts)


def client_request_id(work: TaskIdentity, request: Fingerprint, count: int) -> str:
    """The ``X-Client-Request-Id`` of a submit: 1 to 128 characters of ``A-Z a-z 0-9 . _ : -``.

    The same for each attempt of the same work, so that a later one finds it in the vendor's request log.
    Readable in front, exact behind: the digest covers everything, separators included.

    :param count: how often this work was deliberately resubmitted.
    """
    exact = _digest([*work.place, request.digest, count])[:32]
    place = f"{readable(work.dag_id)}:{readable(work.task_id)}"
    indexes = [f"{work.map_index}"] if work.map_index >= 0 else []
    if work.loop_index is not None:
        indexes.append(f"{_LOOP}{work.loop_index}")
    if indexes:
        place += f":{'.'.join(indexes)}"
    return f"{_MAKER}:{place}:{count}:{exact}"


class Place(NamedTuple):
    """Whose submit a client request id names.

    :param dag: cut to 32 characters, and without what the vendor would not keep; so is the task.
    :param position: index of a mapped task, of a loop's pass, or of both, as in ``3``, ``pass1`` or
        ``3.pass1``; empty for neither.
    """

    dag: str
    task: str
    position: str

    @property
    def loop_index(self) -> int | None:
        """Which pass of a loop it is; None where the task is in none."""
        last = self.position.rpartition(".")[2]
        number = last.removeprefix(_LOOP)
        return int(number) if last != number and number.isdecimal() else None


def place_in(client_request_id: str) -> Place | None:
    """Dag and task in a client request id, as far as it names them; None for ids of other makers."""
    parts = client_request_id.split(":")
    if parts[0] != _MAKER or len(parts) not in (5, 6):
        return None
    return Place(parts[1], parts[2], parts[3] if len(parts) == 6 else "")


def readable(name: str) -> str:
    """The part of a name that a client request id holds."""
    return _FOREIGN.sub("-", name)[:32]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()

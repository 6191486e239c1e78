"""Which work a submit is for: the name it carries at the vendor, and what tells two requests apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from airflow_provider_kling.api.durable.attempt import TaskAttempt, digest
from airflow_provider_kling.api.exceptions import InvalidRequestError

_MAKER: Final = "airflow"
_LOOP: Final = "pass"
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")
_ACCOUNT: Final = "account (connection and URL)"


def fingerprint(body: Mapping[str, Any], account: str) -> dict[str, str]:
    """Tell requests, and who pays for them, apart without their content.

    :param body: model and parameters, pictures replaced by what stands for their content.
    :param account: the connection id and base URL that pay; never the key.
    :return: the digest of each value by its name; equal for equal requests, and to say what changed.
    :raises InvalidRequestError: a value that JSON does not have, such as a date or a NaN.
    """
    parts: dict[str, str] = {}
    for name, value in {**body, _ACCOUNT: account}.items():
        try:
            parts[name] = digest(value)[:32]
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(
                f"Parameter {name!r} cannot be sent: it is not JSON ({error}).",
                problems=[f"{name!r} is not JSON ({error})"],
            ) from None
    return parts


def changes(request: Mapping[str, str], earlier: Mapping[str, str]) -> tuple[str, ...]:
    """Names of what differs between the fingerprints of two requests."""
    return tuple(name for name in sorted({*request, *earlier}) if request.get(name) != earlier.get(name))


def client_request_id(work: TaskAttempt, request: Mapping[str, str], count: int) -> str:
    """The ``X-Client-Request-Id`` of a submit: 1 to 128 characters of ``A-Z a-z 0-9 . _ : -``.

    The same for each attempt of the same work, so that a later one finds it in the vendor's request log.
    Readable in front, exact behind: the digest covers everything, separators included.

    :param request: its :func:`fingerprint`.
    :param count: how often this work was deliberately resubmitted.
    """
    exact = digest([*work.place, request, count])[:32]
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

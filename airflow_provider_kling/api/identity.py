"""Which work a submit is for: the name it carries at the vendor, and what tells two requests apart."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

LONGEST_CLIENT_REQUEST_ID: Final = 128
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]+")
_SIGNATURES: Final = re.compile(
    r"x-(amz|goog|oss|cos|ms)-.*|awsaccesskeyid|googleaccessid|signature|expires|policy|key-pair-id"
    r"|s(ig|e|t|p|v|r|ks|ke|kt|kv|koid|ktid|pr)|ks(secret|time)|cachekey|token|hash",
    re.IGNORECASE,
)
"""Query parameters that sign a URL: they differ at each signing, the picture does not."""


@dataclass(frozen=True, slots=True)
class Work:
    """A task instance, whatever the number of its tries.

    :param map_index: -1 where the task is not mapped.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def digest(self) -> str:
        """Names the work in its record; two works never share it."""
        return _digest([self.dag_id, self.run_id, self.task_id, self.map_index])


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
    """
    facts = {**body, "account": account}
    parts = {name: _digest(value)[:12] for name, value in facts.items()}
    return Fingerprint(_digest(facts), parts)


def unsigned(url: str) -> str:
    """A URL without the query parameters that sign it, so that signing anew changes nothing."""
    parts = urlsplit(url)
    query = [
        (k, v) for k, v in parse_qsl(parts.query, keep_blank_values=True) if not _SIGNATURES.fullmatch(k)
    ]
    return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))


def client_request_id(work: Work, request: Fingerprint, count: int) -> str:
    """The ``X-Client-Request-Id`` of a submit: 1 to 128 characters of ``A-Z a-z 0-9 . _ : -``.

    The same for each try of the same work, so that a later try finds it in the vendor's logs.
    Readable in front, exact behind: the digest covers everything, separators included.

    :param count: how often this work was deliberately submitted anew.
    """
    exact = _digest([work.dag_id, work.run_id, work.task_id, work.map_index, request.digest, count])[:32]
    place = f"{_readable(work.dag_id)}:{_readable(work.task_id)}"
    if work.map_index >= 0:
        place += f":{work.map_index}"
    return f"airflow:{place}:{count}:{exact}"


def _readable(name: str) -> str:
    return _FOREIGN.sub("-", name)[:32]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()

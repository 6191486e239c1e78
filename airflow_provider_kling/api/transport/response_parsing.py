"""What the vendor's JSON says, whatever of it is absent, null or of an unexpected type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_kling.api.exceptions import MalformedReplyError
from airflow_provider_kling.api.generation import Failure, Generation, GenerationStatus
from airflow_provider_kling.api.redaction import clean
from airflow_provider_kling.api.transport.error_mapping import MESSAGE_KEYS, error_name, error_text

_LONGEST_ID: Final = 500
_LONGEST_NUMBER: Final = 40  # digits
_LONGEST_TEXT = 8192  # of a URL, an id or a name: what is longer reaches no XCom, record, trigger row or log
_MOST_BYTES = 1 << 50  # of a video; what is longer is no length


@dataclass(frozen=True, slots=True)
class LogRow:
    """What is read of a row of the vendor's request logs.

    :param inference_id: the generation id, if the request was accepted.
    :param failed: the request was refused, or its generation ended in ``error``.
    :param model: the model asked for.
    :param created: epoch seconds.
    :param usd: what was charged.
    :param credits: the same in the vendor's credits.
    """

    client_request_id: str | None
    inference_id: str | None
    failed: bool = False
    model: str | None = None
    created: float | None = None
    usd: float | None = None
    credits: float | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """An entry of the account's ledger.

    :param reference_id: the generation id, for the charge of a generation.
    """

    reference_id: str | None
    usd: float | None
    credits: float | None


def read_generation(body: Mapping[str, Any], asked_id: str | None = None, *, key: str = "") -> Generation:
    """Read the vendor's generation object; every key but the documented required ones may be absent or null.

    :param body: the JSON object.
    :param asked_id: the id that was asked for; it stands for the answer's own, as the answer is
        about what was asked. None for a submit, whose answer must name one.
    :param key: the API key, to keep it out of messages if the answer repeats it.
    :raises MalformedReplyError: no id, or no status.
    """
    raw_id, raw_status = body.get("id"), body.get("status")
    generation_id = asked_id or identifier(raw_id)
    if not generation_id:
        raise MalformedReplyError(f"The answer names no generation id; it has {names(body, key)}.")
    video = mapping(body.get("video"))
    url = text(video.get("url"))
    if not isinstance(raw_status, str) or not raw_status.strip():
        if asked_id is not None and url is None:
            raise MalformedReplyError(
                f"The answer about generation {asked_id} names no status; it has {names(body, key)}.",
                generation_id=asked_id,
            )
        raw_status = ""  # a submit that names its id was accepted, whatever else it says
    status = GenerationStatus.parse(raw_status)
    if status is GenerationStatus.UNKNOWN and url is not None:
        status = GenerationStatus.COMPLETED  # a video is there, whatever the word for that is
    usage = {**mapping(body.get("meta")), **mapping(mapping(body.get("meta")).get("usage"))}
    credits = number(usage.get("credits_used"))
    return Generation(
        id=generation_id,
        status=status,
        # a documented word needs no cleaning, which each poll of a wait would pay for
        raw_status=raw_status if raw_status == status else clean(raw_status, key),
        video_url=url,
        duration=_first(number(video.get("duration")), number(body.get("duration"))),
        video_size=_bytes(video.get("file_size")),
        failure=_failure(body, key) if status is GenerationStatus.ERROR else None,
        credits_used=_first(credits, number(usage.get("tokens_used"))),
    )


def _failure(body: Mapping[str, Any], key: str) -> Failure:
    error = body.get("error")
    if not error:  # then the reason, if any, stands beside the status
        error = {name: body[name] for name in MESSAGE_KEYS if body.get(name)}
    return Failure(clean(error_name(error), key), clean(error_text(error), key) or "no message")


def read_log_page(body: Mapping[str, Any], page_size: int, key: str = "") -> tuple[list[LogRow], bool]:
    """Read a page of the request logs.

    :param page_size: rows that were asked for.
    :return: the rows, newest first, and whether there are more.
    :raises MalformedReplyError: no rows that can be read.
    """
    # The documentation names the rows' keys and the pagination's, but not the list's own name.
    # Never "no rows" in doubt: to a search for a submit, that would be a reason to pay again.
    rows = _rows(body, "logs", key)
    has_more = mapping(body.get("pagination")).get("has_more")
    return (
        [
            LogRow(
                text(row.get("client_request_id")),
                identifier(row.get("inference_id")),
                row.get("status") == "failed",
                text(row.get("model")),
                moment(row.get("created")),
                number(mapping(row.get("cost")).get("usd")),
                number(mapping(row.get("cost")).get("credits")),
            )
            for row in rows
        ],
        has_more if isinstance(has_more, bool) else len(rows) >= page_size,
    )


def read_ledger(body: Mapping[str, Any], key: str = "") -> tuple[list[Charge], str | None]:
    """Read a page of the ledger.

    :return: the entries, newest first, and where the next page begins; None for the last one.
    :raises MalformedReplyError: no entries that can be read.
    """
    charges = []
    for row in _rows(body, "ledger", key):
        amount = mapping(row.get("amount"))
        charges.append(
            Charge(
                identifier(row.get("reference_id")), number(amount.get("usd")), number(amount.get("credits"))
            )
        )
    pagination = mapping(body.get("pagination"))
    return charges, None if pagination.get("has_more") is False else text(pagination.get("next_cursor"))


def _rows(body: Mapping[str, Any], what: str, key: str) -> list[dict[str, Any]]:
    lists = [value for value in body.values() if isinstance(value, list)]
    rows = [row for each in lists for row in each]
    if not lists or not all(isinstance(row, dict) for row in rows):
        raise MalformedReplyError(f"The {what} answer has no readable rows; it has {names(body, key)}.")
    return rows


def moment(value: Any) -> float | None:
    """Epoch seconds of an ISO 8601 time, UTC where it names no zone; None for anything else."""
    try:
        parsed = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def mapping(value: Any) -> Mapping[str, Any]:
    """An object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str | None:
    """A string that is neither empty nor longer than a URL can be; None for anything else.

    One with control characters or half a character is none: it can be neither stored nor sent.
    """
    fits = isinstance(value, str) and 0 < len(value) <= _LONGEST_TEXT and value.isprintable()
    return value if fits else None


def identifier(value: Any) -> str | None:
    """An id, opaque but for what no id has; None for anything else.

    A whole number is the id that it spells. What could forge a line of a log, or cannot be stored in a
    database, is no id: control and invisible characters, half a character, more than 500 characters.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**_LONGEST_NUMBER:
        return str(value)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_ID:
        return None
    return value if value.isprintable() and value.strip() == value else None


def number(value: Any) -> float | None:
    """A finite number, also where the vendor sent it as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        parsed = float(value)
    except (ValueError, OverflowError):
        return None
    return parsed if math.isfinite(parsed) else None


def _bytes(value: Any) -> int | None:
    """A length in bytes; None for anything that cannot be one."""
    size = number(value)
    return int(size) if size is not None and 0 < size < _MOST_BYTES and size.is_integer() else None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def names(body: Mapping[str, Any], key: str) -> str:
    """The names in an answer, for the message that something is missing from it."""
    return clean(", ".join(map(str, body)), key) or "no keys"

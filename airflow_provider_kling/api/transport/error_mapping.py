"""One table from what went wrong on the wire to the error that is raised.

The vendor's error body is ``{"message", "path", "requestId", "statusCode", "timestamp"}``, where
``message`` may be a string, an object or a list; some answers nest it under ``error``; a gateway
on the way answers HTML.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from airflow_provider_kling.api.exceptions import (
    ApiError,
    AuthenticationError,
    BadRequestError,
    ConnectionLostError,
    GatewayError,
    InsufficientBalanceError,
    KlingError,
    Money,
    NotFoundError,
    RateLimitError,
    Recovery,
    ServiceUnavailableError,
)
from airflow_provider_kling.api.redaction import clean, excerpt
from airflow_provider_kling.api.transport.messages import Call, ConnectionLost, HttpResponse

_Error = TypeVar("_Error", ApiError, ConnectionLostError)
_STATUS_ERRORS: Final[dict[int, type[ApiError]]] = {
    401: AuthenticationError,
    402: InsufficientBalanceError,
    403: AuthenticationError,
    404: NotFoundError,
    408: ServiceUnavailableError,
    429: RateLimitError,
}
_CANNOT_PAY = re.compile(
    r"\b(?:balance|credits?|funds?|funding|payments?|top(?:ping)?[\s-]?up|out of money|not enough money"
    r"|spending (?:limit|cap)|insufficient quota|exceeded your (?:current )?quota|quota (?:is )?exceeded"
    r"|billing (?:hard )?limit|in arrears|unpaid|overdue|resource pack(?:age)?)\b",
    re.IGNORECASE,
)
"""Words of a 403 or 429 that waiting does not help: a person has to pay. Any other 429 is a rate limit: its
retries end by themselves, while a task that gives up at night stays failed until a person clears it."""
_PLAINLY_CANNOT_PAY = re.compile(
    r"\b(?:insufficient|not enough|no|low|out of|run out of) (?:account )?(?:balance|credits?|funds?|money)\b"
    r"|\b(?:balance|credits?|funds?) (?:is |are )?(?:insufficient|not enough|too low|exhausted|depleted)\b",
    re.IGNORECASE,
)
"""Words that mean it whatever else is said, of a price "per second" for example; and also in a 400."""
_FREE = re.compile(r"\bfree[\s-]?(?:tier|limit|credits?|quota)", re.IGNORECASE)
_RATE = re.compile(
    r"\bfree[\s-]?tier|\bfree limit|\b(?:per|for the|each|an) (?:second|minute|hour|day)\b|\bhourly\b"
    r"|\bdaily\b|\brate[\s-]?limit|\btoo many requests|\bconcurren",
    re.IGNORECASE,
)
"""Words of a limit that passes by itself, also where the message advises to pay for a higher one."""
MESSAGE_KEYS: Final = (
    "message",
    "msg",
    "error_msg",
    "error_message",
    "errorMessage",
    "task_status_msg",
    "failure_reason",
    "fail_reason",
    "reason",
    "error",
    "detail",
    "details",
    "errors",
    "description",
    "title",
)
"""Where an error body, or a generation's error, says what is wrong: the first that says anything counts. A
body that has none of them is shown as JSON, so that nothing it says is lost."""
_DETAIL_KEYS: Final = ("errors", "details", "detail", "issues", "meta", "data")
"""Where an error body lists what its message only sums up, such as "Validation failed"."""
_DEEPEST_NAME: Final = 4
_NAME_KEYS: Final = ("name", "type", "error_code", "errorCode", "code")
_OWN_KEYS: Final = ("requestId", "statusCode")
"""What the vendor's error bodies have, and a gateway's own do not."""
_OWN_HEADER: Final = "x-inference-id"
"""What each answer of the vendor carries."""
_NEVER_REACHED: Final = (407, 511, 521, 523, 525, 526)
"""With these a proxy, or Cloudflare in front of the vendor, says that it made no connection: the proxy
wants a password (407), the network a login (511), the vendor is down (521), has no route (523), or agrees on
no TLS (525, 526). All others are uncertain (at 520, 522, 524, 502 and 504 a connection may have carried the
submit): asking the vendor's logs costs minutes, submitting again costs a video."""
_JUDGES_THE_REQUEST: Final = (400, 411, 413, 414, 415, 422, 431)
"""What a gateway itself finds wrong with a submit, its size above all: a repeat is refused again. Any other
refusal that is not the vendor's passes like an outage: networks get repaired, and the video is paid for."""


def error_from_response(
    response: HttpResponse,
    call: Call,
    *,
    generation_id: str | None = None,
    retry_after: float | None = None,
    key: str = "",
) -> ApiError:
    """The error for an answer that is not a success.

    :param call: which endpoint was asked.
    :param generation_id: the generation it was about.
    :param retry_after: seconds the answer asked to wait.
    :param key: the API key, to keep it out of the message if the answer repeats it.
    """
    details = _json_object(response.body)
    message = clean(error_text(details), key) if details else unreadable(response, key)
    message = message or "no message"
    own = _own_facts(details or {})
    request_id = clean(str(own["requestId"]), key) if own.get("requestId") else None
    status = response.status
    about = f" about generation {generation_id}" if generation_id else ""
    ticket = f" (request id {request_id})" if request_id else ""

    if 300 <= status < 400:
        return GatewayError(
            f"The {call} request{about} was answered with a redirect ({status}) to "
            f"{_host_of(response.headers.get('location', ''))}. It was not "
            "followed, because the API key must not reach another host.",
            status=status,
            message=message,
            money=Money.NOT_SPENT if call is Call.SUBMIT else None,
            recovery=Recovery.RETRY_TASK if call is Call.SUBMIT else None,
            advice="Check the host of the connection, and whether this network asks for a login.",
            generation_id=generation_id,
        )
    cannot_pay = _speaks_of_money(status, message)
    from_vendor = bool(own) or _OWN_HEADER in response.headers or (bool(details) and cannot_pay)
    kind = _STATUS_ERRORS.get(status) or (ServiceUnavailableError if status >= 500 else BadRequestError)
    if cannot_pay and from_vendor:
        kind = InsufficientBalanceError
    gateway = not from_vendor and _is_a_gateways(status, call)
    if gateway:
        kind = GatewayError
    if gateway:
        who = "A firewall, proxy or other gateway, and not the vendor,"
    elif from_vendor or status < 500:
        who = "The vendor"
    elif status in _NEVER_REACHED:
        who = "A gateway, which did not reach the vendor,"
    else:
        who = "The vendor, or a gateway before it,"
    error = kind(
        f"{who} answered the {call} request{about} with {status}: {message.rstrip('.')}{ticket}.",
        status=status,
        message=message,
        request_id=request_id,
        retry_after=retry_after,
        from_vendor=bool(own),
        advice=None if gateway else _advice(kind, call, request_id, status),
        # A submit is not sent again by itself here: the task's retry asks the vendor's logs first.
        recovery=Recovery.RETRY_TASK if gateway and call is Call.SUBMIT else None,
        generation_id=generation_id,
    )
    return _of_submit(error) if call is Call.SUBMIT else error


def _speaks_of_money(status: int, message: str) -> bool:
    """Whether a refusal says that the account cannot pay."""
    if status not in (400, 403, 429):
        return False
    if _PLAINLY_CANNOT_PAY.search(message):
        return status != 429 or not _FREE.search(message)
    return status != 400 and bool(_CANNOT_PAY.search(message)) and not _RATE.search(message)


def _is_a_gateways(status: int, call: Call) -> bool:
    """Whether a refusal without the vendor's JSON is some gateway's and may pass."""
    if status in (408, 429) or status >= 500:
        return False
    return call is not Call.SUBMIT or status not in _JUDGES_THE_REQUEST


def _advice(kind: type[ApiError], call: Call, request_id: str | None, status: int) -> str | None:
    """What to do next, where the kind's own advice is about another call."""
    if kind is ServiceUnavailableError and request_id is None:
        return "Retries usually help."
    if kind is RateLimitError and call is not Call.SUBMIT:
        return "Retries help; requests_per_minute in the connection's extra prevents it."
    if kind is NotFoundError and call is not Call.POLL:
        if call is Call.SUBMIT:
            return "Check the model, and the connection's host and generation path."
        return "Check the host of the connection."
    if kind is BadRequestError and call is Call.POLL:
        return "Check the generation id, and that the connection is the one that submitted it."
    if kind is BadRequestError and call is not Call.SUBMIT:
        return "Check the host of the connection; a retry would be refused again."
    if kind is AuthenticationError and status == 403:
        return (
            "Check the API key in the password field of the Airflow connection, its scope and its spending "
            "limit, and whether the account has balance left."
        )
    if kind is InsufficientBalanceError and call is not Call.SUBMIT:
        return "Top up the AI/ML API account or raise the key's limit."
    return None


def error_from_no_response(
    lost: ConnectionLost, call: Call, generation_id: str | None = None
) -> ConnectionLostError:
    """The error for a request that got no answer."""
    about = f" about generation {generation_id}" if generation_id else ""
    error = ConnectionLostError(
        f"The {call} request{about} got no answer: {lost.reason}.",
        maybe_sent=lost.why.maybe_sent,
        recovery=None if lost.why.passing else Recovery.GIVE_UP,
        generation_id=generation_id,
    )
    return _of_submit(error) if call is Call.SUBMIT else error


def _of_submit(error: _Error) -> _Error:
    return error.with_money(Money.NOT_SPENT if certainly_refused(error) else Money.MAY_BE_SPENT)


def certainly_refused(error: KlingError) -> bool:
    """Whether a submit that met this error was certainly not accepted, so that nothing is billed.

    True when it was never sent, when the vendor itself refused it, or when a gateway did, which forwards
    nothing that it refuses. A time-out, a connection lost after sending, an unreadable answer and most of a
    gateway's 5xx are not certain.
    """
    if isinstance(error, ConnectionLostError):
        return not error.maybe_sent
    if isinstance(error, ServiceUnavailableError) and not isinstance(error, GatewayError):
        return error.status in _NEVER_REACHED or (error.status == 503 and error.from_vendor)
    return isinstance(error, ApiError)


def unreadable(response: HttpResponse, key: str = "") -> str:
    """What an answer says that is not the JSON it should be, in a few words."""
    if response.encoding:
        return f"an answer encoded with {clean(response.encoding[:100])!r}, which was not asked for nor read"
    return excerpt(response.body, key)


def error_text(body: Any) -> str:
    """The message in an error body of any of the known shapes, as one string.

    :param body: a string, an object with a message under one of the known names (nested or not), a list of
        either, such as ``detail: [{"loc", "msg", "type", "input"}]``, or anything.
    """
    try:
        return _text_of(body)
    except RecursionError:
        return "a message that is nested too deeply to be shown"


def error_name(body: Any) -> str:
    """The name of an error, such as ``face_detection_error``; empty where the body has none.

    :param body: see :func:`error_text`.
    """
    for _ in range(_DEEPEST_NAME):
        if isinstance(body, list):
            body = next((each for each in body if isinstance(each, dict)), None)
        if not isinstance(body, dict):
            return ""
        for key in _NAME_KEYS:
            value = body.get(key)
            if value and not isinstance(value, bool):
                return error_text(value)
        body = body.get("error") or body.get("detail") or body.get("details") or body.get("errors")
    return ""


def _text_of(body: Any) -> str:
    if body is None:
        return ""
    if isinstance(body, str):
        return body
    if isinstance(body, dict):
        for key in MESSAGE_KEYS:
            if body.get(key) and (said := _text_of(body[key])):
                where = _where(body)
                return ": ".join([f"{said.rstrip('.')}{where}" if where else said, *_details(body, key)])
        return json.dumps(body, default=str) if body else ""
    if isinstance(body, list):
        return "; ".join(filter(None, map(_text_of, body)))
    return str(body)


def _details(body: dict[str, Any], told: str) -> list[str]:
    """What an error body lists of the reasons beside its message.

    :param told: the key of the message.
    """
    listed = (body.get(key) for key in _DETAIL_KEYS if key != told)
    return [said for each in listed if isinstance(each, dict | list) and (said := _text_of(each))][:1]


def _where(problem: dict[str, Any]) -> str:
    """The parameter that a validation error is about; a ``loc`` begins with the part of the request."""
    listed = problem.get("loc") or problem.get("path")
    if not isinstance(listed, list):
        return ""
    names = [str(each) for each in listed if isinstance(each, str | int)]
    return f" ({'.'.join((names[1:] if problem.get('loc') else names) or names)})" if names else ""


def _host_of(url: str) -> str:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    return clean(host or "an unnamed address")


def _own_facts(details: dict[str, Any]) -> dict[str, Any]:
    """What only the vendor itself puts into an error body, nested under ``error`` or not."""
    nested = details.get("error")
    facts = {**(nested if isinstance(nested, dict) else {}), **details}
    return {name: facts[name] for name in _OWN_KEYS if facts.get(name) is not None}


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None

"""The error tree.

::

    KlingError                       what happened, what it means for money, what to do next
      InvalidRequestError            found by us before any call; also a ValueError
      ConfigurationError             the connection cannot be used as it is; also a ValueError
      ConnectionLostError            no answer; ``sent`` says whether the request can have arrived
      ApiError                       the vendor refused: status, message, request id
        AuthenticationError · InsufficientBalanceError · BadRequestError · NotFoundError
        RateLimitError · ServiceUnavailableError (GatewayError)
      MalformedReplyError            an answer that cannot be read
      BudgetError                    the request costs more than the limit or the balance allows
      StoppedError                   the operator decided not to submit, and a person has to decide
      UnusableRecordError            the record of a previous attempt cannot be read
      SubmitUncertainError           the vendor may have accepted the submit
      GenerationFailedError          the generation ended in ``error``: the vendor's name and message
      GenerationTimeoutError         the wait is over, the generation may still complete
      DownloadError                  the video did not arrive whole

Each error knows three things beside its message: whether a repeat can help (:class:`Recovery`),
whether money was spent (:class:`Money`), and what a person should do next (``advice``). None of
them knows Airflow; one place in the provider turns them into a retry or a failure of the task.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Sequence
from typing import Any, Self, TypedDict, Unpack

from airflow_provider_kling.api.redaction import hide_secrets


class Recovery(enum.Enum):
    """What can still help after an error."""

    RETRY_CALL = "retry the call"
    """Temporary: the same call may succeed a moment later, and so may a retry of the task."""
    RETRY_TASK = "retry the task"
    """This call failed; a later attempt of the task may succeed."""
    GIVE_UP = "give up"
    """A retry does not help: a person has to act."""


class Money(enum.StrEnum):
    """What an error means for money, in the words that the user reads."""

    NOT_SPENT = "No money was spent."
    NOTHING_SENT = "Nothing was sent, so this cost nothing."
    MAY_BE_SPENT = "The vendor may have accepted the request; if so, it is billed."
    GOES_ON = "The generation keeps running at the vendor and is billed on completion."
    ONCE = "Status checks cost nothing; the generation is billed once, on completion."
    ALREADY_PAID = "The generation is already paid for; a retry costs nothing more."
    NOT_CHARGED = "The vendor does not charge for a generation that failed."


class ErrorFacts(TypedDict, total=False):
    """What each error may be told when it is made; see :class:`KlingError`."""

    money: Money | None
    advice: str | None
    recovery: Recovery | None
    generation_id: str | None
    client_request_id: str | None
    is_whole: bool


class KlingError(Exception):
    """Base of all errors of this package.

    :param what: what happened, one or two sentences, with the id or the parameter it is about.
        What gives access in it is hidden, see :func:`.hide_secrets`.
    :param money: what it means for money; None takes the class's usual answer, and an error that
        has none says nothing about money.
    :param advice: what a person should do next.
    :param recovery: overrides the class's usual answer.
    :param generation_id: the generation it is about, where one is known.
    :param client_request_id: the ``X-Client-Request-Id`` of the submit it is about, where known.
    :param is_whole: ``what`` says all of it, money and advice included, as it was told by another process.
    """

    recovery: Recovery = Recovery.GIVE_UP
    money: Money | None = None
    advice: str = ""

    def __init__(
        self,
        what: str,
        *,
        money: Money | None = None,
        advice: str | None = None,
        recovery: Recovery | None = None,
        generation_id: str | None = None,
        client_request_id: str | None = None,
        is_whole: bool = False,
    ) -> None:
        what = hide_secrets(what)
        self.what = what
        self.is_whole = is_whole
        self.generation_id = generation_id
        self.client_request_id = client_request_id
        if money is not None:
            self.money = money
        if advice is not None:
            self.advice = hide_secrets(advice)
        if recovery is not None:
            self.recovery = recovery
        super().__init__(what)

    def __reduce__(self) -> tuple[Any, ...]:
        # Copied and pickled by its facts, as Celery and others do with what a task raised.
        return _unmade, (type(self), self.args), self.__dict__

    def with_money(self, money: Money) -> Self:
        """The same error with another answer on money, for who knows more than who raised it."""
        other = copy.copy(self)
        other.money = money
        other.__cause__, other.__context__ = self.__cause__, self.__context__
        return other.with_traceback(self.__traceback__)

    def __str__(self) -> str:
        if self.is_whole:
            return self.what
        return " ".join(part for part in (self.what, self.money, self.advice) if part)


def _unmade(kind: type[KlingError], args: tuple[Any, ...]) -> KlingError:
    return kind.__new__(kind, *args)


class InvalidRequestError(KlingError, ValueError):
    """The request cannot be right; nothing was sent.

    :param problems: every problem found, one sentence each.
    """

    money = Money.NOT_SPENT

    def __init__(self, what: str, *, problems: Sequence[str] = (), **facts: Unpack[ErrorFacts]) -> None:
        super().__init__(what, **facts)
        self.problems = tuple(map(hide_secrets, problems))


class ConfigurationError(KlingError, ValueError):
    """The connection or the settings cannot be used as they are; nothing was sent."""

    money = Money.NOTHING_SENT


class ConnectionLostError(KlingError):
    """No answer came: name resolution, connect, TLS, time-out, or a connection that broke.

    :param maybe_sent: whether the request can have reached the vendor.
    """

    recovery = Recovery.RETRY_CALL

    def __init__(self, what: str, *, maybe_sent: bool, **facts: Unpack[ErrorFacts]) -> None:
        super().__init__(what, **facts)
        self.maybe_sent = maybe_sent


class ApiError(KlingError):
    """The vendor answered with an error.

    :param status: HTTP status.
    :param message: the vendor's message, made one line.
    :param request_id: the vendor's ``requestId``, for a support ticket; None where it sent none.
    :param retry_after: seconds the vendor asked to wait; None where it named none.
    :param from_vendor: True when the body is the vendor's own JSON, not a gateway's page.
    """

    def __init__(
        self,
        what: str,
        *,
        status: int,
        message: str,
        request_id: str | None = None,
        retry_after: float | None = None,
        from_vendor: bool = False,
        **facts: Unpack[ErrorFacts],
    ) -> None:
        super().__init__(what, **facts)
        self.status = status
        self.message = message
        self.request_id = request_id
        self.retry_after = retry_after
        self.from_vendor = from_vendor


class AuthenticationError(ApiError):
    """401, or 403 for another reason than credit: the key is wrong, or not allowed to do this."""

    advice = "Check the API key in the password field of the Airflow connection."


class InsufficientBalanceError(ApiError):
    """403 or 429 that speaks of balance or credits: the account cannot pay."""

    advice = "Top up the AI/ML API account or raise the key's limit, then clear the task."


class BadRequestError(ApiError):
    """400 and other refusals of what was sent: a repeat is refused again."""

    advice = "Correct the request; a retry would be refused again."


class NotFoundError(ApiError):
    """404: no such generation for this account, or no such endpoint."""

    advice = "Check that the connection is the one that submitted it, and its host and generation path."


class RateLimitError(ApiError):
    """429: too many requests or concurrent generations."""

    recovery = Recovery.RETRY_CALL
    advice = "Retries help; a pool or fewer parallel tasks prevents it."


class ServiceUnavailableError(ApiError):
    """5xx: trouble at the vendor, at the model behind it, or at a gateway on the way."""

    recovery = Recovery.RETRY_CALL
    advice = "Retries usually help; otherwise ask the vendor with the request id."


class GatewayError(ServiceUnavailableError):
    """A firewall, proxy or login page answered, and not the vendor."""

    advice = "Check the firewall, proxy or VPN on the way to the vendor, and the connection's host and proxy."


class MalformedReplyError(KlingError):
    """An answer that is not what the vendor documents; carries a short excerpt in its message."""

    recovery = Recovery.RETRY_CALL


class BudgetError(KlingError):
    """The generation was not submitted: too expensive, or its price is unknown."""

    money = Money.NOT_SPENT


class StoppedError(KlingError):
    """The provider decided not to submit; a person has to decide."""


class UnusableRecordError(KlingError):
    """A record that this version cannot read: it does not tell whether something was paid."""

    advice = (
        "Search the vendor's request log for the task's client request id. Then remove the record (task "
        "state store, key 'kling_generation') to submit again, or update the provider."
    )


class SubmitUncertainError(KlingError):
    """The vendor may have accepted the submit, and no generation id is known."""

    recovery = Recovery.RETRY_TASK
    money = Money.MAY_BE_SPENT


class GenerationFailedError(KlingError):
    """The generation ended in ``error``.

    :param name: the vendor's name of the error, for example a moderation verdict.
    :param message: the vendor's message.
    :param recovery: ``RETRY_TASK`` where the reason may pass, for the task that submitted it: waiting for the
        same generation again changes nothing.
    """

    money = Money.NOT_CHARGED

    def __init__(
        self,
        what: str,
        *,
        name: str,
        message: str,
        **facts: Unpack[ErrorFacts],
    ) -> None:
        super().__init__(what, **facts)
        self.name = name
        self.message = message


class GenerationTimeoutError(KlingError):
    """The time to wait is over; the generation may still complete, and then it is billed."""

    recovery = Recovery.RETRY_TASK
    money = Money.GOES_ON


class DownloadError(KlingError):
    """The video did not arrive whole, or is not a video. Never a reason to submit again."""

    recovery = Recovery.RETRY_TASK
    money = Money.ALREADY_PAID

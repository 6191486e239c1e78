"""What errors say about money: once, wherever they were made and however often they were wrapped on their way."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api import exceptions
from airflow_provider_kling.api.durable.search import SubmitSearch, _unreadable, not_searched
from airflow_provider_kling.api.durable.submit import _uncertain
from airflow_provider_kling.api.exceptions import KlingError, Money, Recovery, SubmitUncertainError
from airflow_provider_kling.triggers.batch import _told
from airflow_provider_kling.triggers.kling import failed_event, read_event
from airflow_provider_kling.triggers.submit_search import _failed, read_search_event
from tests.unit.api.test_exceptions import KINDS, made

PACKAGE = Path(exceptions.__file__).parents[1]
_SPENT = re.compile(
    r"\b(?:spent|billed|paid for|charged|charges? for|costs? (?:nothing|you)|further cost"
    r"|may have (?:been )?accepted)\b|\bnot (?:known|certain) whether\b[^.]*\baccepted\b",
    re.IGNORECASE,
)


class Built(NamedTuple):
    """An error as the source makes it; what is filled in is an ellipsis."""

    where: str
    kind: type[KlingError]
    said: str
    money: Money | None


def statements(text: str) -> int:
    """How many sentences of a text say what was, or will be, paid; those of :class:`Money` count as one each."""
    for each in Money:
        text = text.replace(each, "It was spent.")
    return sum(bool(_SPENT.search(sentence)) for sentence in re.split(r"(?<=[.:])\s", text))


def built() -> Iterator[Built]:
    """Each error of the package that is made with a text of its own."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            kind = getattr(exceptions, getattr(node.func, "id", getattr(node.func, "attr", "")), None)
            if not (isinstance(kind, type) and issubclass(kind, KlingError)):
                continue
            given = {each.arg: each.value for each in node.keywords}
            money = kind.money
            if (told := given.get("money")) is not None:
                money = getattr(Money, getattr(told, "attr", ""), money)
            advice = _text(given["advice"]) if "advice" in given else kind.advice
            where = f"{path.relative_to(PACKAGE)}:{node.lineno}"
            yield Built(where, kind, f"{_text(node.args[0])} {advice}", money)


def _text(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) for part in parts)
        case ast.BinOp(left=left, right=right):
            return _text(left) + _text(right)
        case ast.IfExp(body=body, orelse=other):
            return max(_text(body), _text(other), key=statements)
        case ast.Call(func=ast.Attribute(value=value)):
            return _text(value)
    return "…"


BUILT = list(built())


def test_errors_are_found_in_the_source() -> None:
    assert len(BUILT) > 80
    assert {each.kind for each in BUILT} >= {SubmitUncertainError, exceptions.DownloadError}


@pytest.mark.parametrize("error", BUILT, ids=lambda error: error.where)
def test_an_error_speaks_of_money_once(error: Built) -> None:
    said = statements(error.said) + (error.money is not None)
    assert said <= 1, (error.money, error.said)


def test_a_budget_of_which_a_part_is_spent_does_not_say_that_nothing_was() -> None:
    spent = [each for each in BUILT if "other rows" in each.said and each.kind is exceptions.BudgetError]
    assert [each.money for each in spent] == [Money.NOTHING_SENT]


errors = st.builds(
    lambda kind, money, recovery: _with(made(kind), money, recovery),
    st.sampled_from(KINDS),
    st.one_of(st.none(), st.sampled_from(Money)),
    st.sampled_from(Recovery),
)
SEARCH = SubmitSearch(("airflow:d:t:0:1",), "m", 1.0, 2.0)


def _with(error: KlingError, money: Money | None, recovery: Recovery) -> KlingError:
    error.money, error.recovery = money, recovery
    return error


def _searched(error: KlingError) -> KlingError:
    with pytest.raises(SubmitUncertainError) as caught:
        read_search_event(_failed(error))
    return caught.value


def _waited(error: KlingError) -> KlingError:
    read = read_event(failed_event("g1", error))[1]
    assert read is not None
    return read


WRAPPED: dict[str, Any] = {
    "the log cannot be read": lambda error: _unreadable(error, [SEARCH]),
    "the search ended": lambda error: not_searched(error.what, error),
    "the event of a wait": _waited,
    "the event of a search": _searched,
    "the event of a search whose log cannot be read": lambda error: _searched(_unreadable(error, [SEARCH])),
    "the event of a batch": lambda error: _told(failed_event("g1", error)["error"]),
    "who knows more": lambda error: error.with_money(Money.MAY_BE_SPENT),
}


@pytest.mark.parametrize("how", WRAPPED)
@given(error=errors)
def test_wrapping_an_error_says_nothing_of_money_twice(how: str, error: KlingError) -> None:
    wrapped = WRAPPED[how](error)
    assert statements(str(wrapped)) <= 1, str(wrapped)
    for read in (_searched, _waited):
        assert str(read(wrapped)) == str(wrapped)


@given(error=errors)
def test_who_reads_an_event_is_told_what_who_wrote_it_was(error: KlingError) -> None:
    assert str(_searched(error)) == str(_waited(error)) == str(error)


def test_an_uncertain_submit_is_uncertain_once() -> None:
    for error in (_uncertain(SEARCH), not_searched("It is down."), _unreadable(made(KlingError), [SEARCH])):
        assert statements(str(error)) == 1, str(error)

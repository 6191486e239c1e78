"""Texts that cannot be what their author meant, or that no database can store.

A template whose value is missing renders to ``None``; one that pulls a list renders to how Python writes a
list; one inside another value stays as it is. All are texts, the vendor would take them, and they would be
paid. What is not recognized here is taken for a text that is meant: people write brackets too.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from airflow_provider_kling.api.catalog.problems import Problems

_LEFT_OVER: Final = frozenset(
    {"None", "null", "NULL", "undefined", "Undefined", "nan", "NaN", "NaT", "<NA>", "#N/A", "#REF!"}
)
_AROUND: Final = " \t\r\n.,;:!?|/-'\"()"
"""What a template may have around its value."""
_BETWEEN: Final = re.compile(r"[\s,;|]+")
_LONGEST_MISSING: Final = 200  # characters of a text of nothing but missing values
_LONGEST_READ: Final = 100_000  # characters that are looked at
_OBJECT = re.compile(
    r"<[\w.]+(?: [^\n]{0,200}?)? at 0x[0-9a-fA-F]+>"  # <function f at 0x7f...>
    r"|\bLazy\w*Sequence\(|\b(?:Mapped|Plain)?XComArg\(|<(?:Task|DAG|DagRun|Mapped|TaskInstance)\b[^<>]{0,300}>"
    r"|<(?:class|module|enum|built-in (?:function|method)|slot wrapper) [^<>]{1,300}>|\[object \w+\]"
    r"|<\w*Accessor\b[^<>]{0,200}>"  # of Airflow's context
    r"|\bdatetime\.(?:datetime|date|time|timedelta)\(\d|\b(?:UUID|TzInfo|DateTime)\(['\d]"
    r"|^<[A-Z]\w*(?:[ :(][^<>]{0,500})?>$"
)
_TEMPLATE = re.compile(r"\{\{.{0,500}?\}\}|\{%.{0,500}?%\}", re.DOTALL)
_MADE: Final = re.compile(r"[A-Za-z_][\w.]*\(.*\)", re.DOTALL)
_KINDS: Final = re.compile(
    r"(?:frozen)?set|o?dict_(?:keys|values|items)|OrderedDict|defaultdict|Counter|deque|range|mappingproxy"
    r"|bytearray|array|namespace|DataFrame|Series|Row|PosixPath|WindowsPath|Decimal|UUID|Timestamp"
    r"|(?:date)?time|date|[tT]imedelta|DateTime|\w*(?:Error|Exception)"
)
_OBJECTS: Final = re.compile(r"[\[({]\s*(?:<[^<>]{1,300}>\s*,?\s*)+[\])}]")
_INVISIBLE: Final = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
_INDEX = re.compile(r"\[\d+\]")
_HALF = re.compile("[\ud800-\udfff]")


def left_over(text: str) -> str:
    """What a text is instead of what its author meant, in words that follow "is"; empty for any other."""
    bare = text.strip()[:_LONGEST_READ]
    if _is_missing(bare):
        return f"{bare[:40]!r}, which is what a template leaves whose value is missing"
    if found := _OBJECT.search(bare):
        return f"not text but how Python writes an object ({found[0][:40]!r})"
    if found := _TEMPLATE.search(bare):
        return f"a template that was not rendered ({found[0][:40]!r}); only the operator's own arguments are"
    if len(text) <= _LONGEST_READ and _is_value(bare):
        return "how Python writes a list or mapping; a template that is rendered to text gave it"
    return ""


def _is_missing(bare: str) -> bool:
    """Whether nothing but missing values are in it: ``None``, ``None.`` or ``None, None``."""
    if len(bare) > _LONGEST_MISSING:
        return False
    words = {word if word in _LEFT_OVER else word.strip(_AROUND) for word in _BETWEEN.split(bare)} - {""}
    return bool(words) and words <= _LEFT_OVER


def _is_value(bare: str) -> bool:
    """Whether it is how Python, or JSON, writes a list, a mapping, bytes, or an object of a known kind."""
    if _OBJECTS.fullmatch(bare):
        return True
    brackets = bare[:1] in ("[", "{", "(") and bare[-1:] in ("]", "}", ")")
    quoted = bare[:2] in ("b'", 'b"') and bare[-1:] == bare[1]
    if not (brackets or quoted or _MADE.fullmatch(bare)):
        return False
    try:
        return isinstance(json.loads(bare), list | dict)
    except (ValueError, RecursionError):
        pass
    try:
        return _is_written(ast.parse(bare, mode="eval").body)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def _is_written(node: ast.expr) -> bool:
    """Whether an expression is how a value is written, and not words in brackets."""
    match node:
        case ast.List(elts) | ast.Tuple(elts):
            return all(map(_is_part, elts))
        case ast.Set(elts):
            return all(map(_is_part, elts))
        case ast.Dict(keys, values):
            return all(each is not None and _is_part(each) for each in (*keys, *values))
        case ast.Call(ast.Name(name) | ast.Attribute(attr=name)):
            return bool(_KINDS.fullmatch(name)) and all(map(_is_part, node.args))
        case ast.Constant(bytes()):
            return True
    return False


def _is_part(node: ast.expr) -> bool:
    """Whether it is a part of a written value: a constant, a call, a value, or a name for a missing one."""
    match node:
        case ast.Constant() | ast.Call() | ast.UnaryOp(operand=ast.Constant()):
            return True
        case ast.Name(name):
            return name in ("nan", "inf", "null", "true", "false")
    return _is_written(node)


def unstorable(text: str) -> str:
    """Why Airflow's database or the vendor cannot take a text, in words that follow it; empty for most."""
    if "\0" in text:
        return "has a NUL character in it, which PostgreSQL cannot store"
    if half := _HALF.search(text):
        return f"has half of a character in it (U+{ord(half[0]):04X}, as a cut emoji leaves it)"
    return ""


def is_blank(text: str) -> bool:
    """Whether nothing can be seen of a text."""
    return not "".join(text.split()).strip(_INVISIBLE)


def judge_texts(
    value: Any, path: str, findings: Problems, never_blank: Callable[[str], bool] | None = None
) -> None:
    """Report each text in a value that cannot be meant or stored, keys included.

    :param path: where the value stands.
    :param never_blank: whether a text must not be empty, by the name that it has: a template whose name is
        not known renders to nothing.
    """
    for place, text in _texts(value, path):
        if why := unstorable(text):
            findings.add(f"{findings.subject(place)} {why}")
        elif why := left_over(text):
            findings.add(f"{findings.subject(place)} is {why}")
        elif never_blank and is_blank(text) and never_blank(_INDEX.sub("", place.rpartition(".")[2])):
            findings.add(f"{findings.subject(place)} must not be empty")


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if value[:5].lower() != "data:":  # megabytes, and judged as a medium
            yield path, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            if isinstance(name, str) and (why := unstorable(name)):
                yield f"a name in {path}" if path else "a name", why and name
            yield from _texts(each, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _texts(each, f"{path}[{index}]")

"""Texts that cannot be what their author meant, or that no database can store.

A template whose value is missing renders to ``None``; one that pulls a list renders to how Python writes a
list. Both are texts, the vendor would take them, and they would be paid.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from airflow_provider_kling.api.catalog.problems import Problems

_LEFT_OVER: Final = frozenset({"None", "null", "undefined", "Undefined", "nan", "NaN", "NaT", "<NA>"})
_LONGEST_READ: Final = 100_000  # characters that are looked at
_OBJECT = re.compile(
    r"<[\w.]+(?: [^<>]{0,200})? at 0x[0-9a-fA-F]+>"  # <function f at 0x7f...>
    r"|\bLazy\w*Sequence\(|\b(?:Mapped|Plain)?XComArg\(|<(?:Task|DAG|DagRun|Mapped|TaskInstance)\b[^<>]{0,300}>"
)
_HALF = re.compile("[\ud800-\udfff]")


def left_over(text: str) -> str:
    """What a text is instead of what its author meant, in words that follow "is"; empty for any other."""
    bare = text.strip()
    if bare in _LEFT_OVER:
        return f"{bare!r}, which is what a template leaves whose value is missing"
    if found := _OBJECT.search(bare[:_LONGEST_READ]):
        return f"not text but how Python writes an object ({found[0][:40]!r})"
    if bare[:1] in ("[", "{", "(") and bare[-1:] in ("]", "}", ")") and len(bare) <= _LONGEST_READ:
        try:
            value = ast.literal_eval(bare)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return ""
        if isinstance(value, list | tuple | dict | set):
            return "how Python writes a list or mapping; a template that is rendered to text gave it"
    return ""


def unstorable(text: str) -> str:
    """Why Airflow's database or the vendor cannot take a text, in words that follow it; empty for most."""
    if "\0" in text:
        return "has a NUL character in it, which PostgreSQL cannot store"
    if half := _HALF.search(text):
        return f"has half of a character in it (U+{ord(half[0]):04X}, as a cut emoji leaves it)"
    return ""


def judge_texts(value: Any, path: str, findings: Problems) -> None:
    """Report each text in a value that cannot be meant or stored, keys included.

    :param path: where the value stands.
    """
    for place, text in _texts(value, path):
        if why := unstorable(text):
            findings.add(f"{findings.subject(place)} {why}")
        elif why := left_over(text):
            findings.add(f"{findings.subject(place)} is {why}")


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

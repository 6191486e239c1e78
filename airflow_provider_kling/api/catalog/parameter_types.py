"""The kinds of parameters that models take: what each allows, and how a value is read.

A kind reads a value into what should be sent (``"5"`` becomes ``5``),
reports what cannot be right to :class:`~airflow_provider_kling.api.catalog.problems.Problems` instead of
raising, and finds the media inside a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_kling.api.catalog.parameter import (
    PENDING,
    Fetch,
    MediaKind,
    MediaPlace,
    Parameter,
    Pending,
)
from airflow_provider_kling.api.catalog.problems import Problems, did_you_mean, listed
from airflow_provider_kling.api.catalog.texts import is_blank
from airflow_provider_kling.api.paths import text_of
from airflow_provider_kling.api.redaction import shown

__all__ = [
    "PENDING",
    "Boolean",
    "Choice",
    "Fetch",
    "Integer",
    "ListOf",
    "Media",
    "MediaKind",
    "MediaPlace",
    "Number",
    "ObjectOf",
    "Parameter",
    "Pending",
    "Text",
]

_FEW = 12  # names that a message lists; of more it only shows the nearest
_EXACT = 2**53  # beyond this, not every reader of JSON keeps a whole number as it is


class Text(Parameter):
    """Free text.

    :param max_length: in characters; None where the vendor names no limit.
    """

    __slots__ = ("max_length",)

    def __init__(self, max_length: int | None = None) -> None:
        super().__init__()
        self.max_length: Final = max_length

    def allowed(self, as_sent: bool = False) -> str:
        return "text" + (f" of at most {self.max_length:,} characters" if self.max_length else "")

    def _read(self, value: Any, path: str, findings: Problems) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and not findings.as_sent:
            value = str(value)  # "2024", rendered by a DAG that renders templates to native objects
        if not isinstance(value, str) or value.lstrip()[:5].lower() == "data:":
            return self.refuse(value, path, findings)
        if self.max_length is not None and len(value) > self.max_length:
            return self.refuse(value, path, findings)
        return value

    def is_blank(self, value: object) -> bool:
        return isinstance(value, str) and is_blank(value)


class Integer(Parameter):
    """A whole number: one of a few, or within a range. ``"5"`` and ``5.0`` are read as ``5``.

    :param choices: the only allowed values; empty for any within the range.
    """

    __slots__ = ("choices", "maximum", "minimum")

    def __init__(
        self,
        *,
        choices: tuple[int, ...] = (),
        minimum: int | None = None,
        maximum: int | None = None,
        default: int | None = None,
    ) -> None:
        super().__init__(default=default)
        self.choices: Final = choices
        self.minimum: Final = minimum
        self.maximum: Final = maximum

    def allowed(self, as_sent: bool = False) -> str:
        if self.choices:
            return listed(self.choices)
        return f"a whole number{_range(self.minimum, self.maximum)}"

    def _read(self, value: Any, path: str, findings: Problems) -> Any:
        number = _as_number(value)
        if (
            isinstance(number, int)
            and (not self.choices or number in self.choices)
            and _within(number, self.minimum, self.maximum)
        ):
            return number
        return self.refuse(value, path, findings)


class Number(Parameter):
    """A number, whole or not; ``"0.5"`` is read as ``0.5``. Infinity and NaN are refused."""

    __slots__ = ("maximum", "minimum")

    def __init__(self, *, minimum: float | None = None, maximum: float | None = None) -> None:
        super().__init__()
        self.minimum: Final = minimum
        self.maximum: Final = maximum

    def allowed(self, as_sent: bool = False) -> str:
        return f"a number{_range(self.minimum, self.maximum)}"

    def _read(self, value: Any, path: str, findings: Problems) -> Any:
        number = _as_number(value)
        if number is not None and _within(number, self.minimum, self.maximum):
            return number
        return self.refuse(value, path, findings)


def _as_number(value: object) -> int | float | None:
    """The finite number that ``value`` is or spells, whole ones as int; a bool is none."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not -_EXACT <= value <= _EXACT:  # NaN and the infinities too
        return None
    return int(value) if isinstance(value, int) or value.is_integer() else float(value)


def _within(number: float, least: float | None, most: float | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most)


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f" of at most {most}"
    return f" of at least {least}" if most is None else f" from {least} to {most}"


class Boolean(Parameter):
    """True or false; ``"true"`` and ``"False"``, as templates render them, are read as such."""

    __slots__ = ()

    def __init__(self, *, default: bool | None = None) -> None:
        super().__init__(default=default)

    def allowed(self, as_sent: bool = False) -> str:
        return "true or false"

    def _read(self, value: Any, path: str, findings: Problems) -> Any:
        spelled = value.strip().lower() if isinstance(value, str) else value
        if isinstance(value, bool) or spelled in ("true", "false"):
            return spelled in (True, "true")
        return self.refuse(value, path, findings)


class Choice(Parameter):
    """One of a list of names.

    :param any_case: upper and lower case are the same to the vendor; lower case is sent.
    """

    __slots__ = ("any_case", "names")

    def __init__(self, names: tuple[str, ...], *, any_case: bool = False, default: str | None = None) -> None:
        super().__init__(default=default)
        self.names: Final = names
        self.any_case: Final = any_case

    def allowed(self, as_sent: bool = False) -> str:
        if len(self.names) > _FEW:
            return f"one of {len(self.names)} names (listed in the vendor's documentation)"
        return listed(map(repr, self.names))

    def _read(self, value: Any, path: str, findings: Problems) -> Any:
        if not isinstance(value, str):
            return self.refuse(value, path, findings)
        name = value.lower() if self.any_case else value
        if name not in self.names:
            return self.refuse(value, path, findings, did_you_mean(value, self.names))
        return name


class Media(Parameter):
    """A picture, mask, video or sound.

    A user gives a URL, a path or the URI of an object storage; what travels is an http(s) URL or
    the content itself as a base64 data URI.
    """

    __slots__ = ("kind",)

    def __init__(self, kind: MediaKind) -> None:
        super().__init__()
        self.kind: Final = kind

    def allowed(self, as_sent: bool = False) -> str:
        article = "an" if self.kind in ("image", "audio") else "a"
        form = "http(s) URL or base64 data URI" if as_sent else "URL, path or data URI"
        return f"the {form} of {article} {self.kind}"

    def _read(self, value: Any, path: str, findings: Problems) -> Any:
        if not findings.as_sent and _is_path(value):
            value = text_of(value)
        right = _travels if findings.as_sent else str.strip
        if not (isinstance(value, str) and right(value)):
            return self.refuse(value, path, findings)
        return value

    def map_media(self, value: Any, path: str, fetch: Fetch) -> Any:
        if isinstance(value, str) or _is_path(value):
            return fetch(MediaPlace(path, self.kind), value if isinstance(value, str) else text_of(value))
        return value


def _is_path(value: object) -> bool:
    # pathlib's paths and Airflow's storage paths; the latter are no os.PathLike
    return callable(getattr(value, "as_uri", None))


def _travels(text: str) -> bool:
    head = text[:200].lower()  # the rest may be megabytes, and is not read
    if head.startswith(("http://", "https://")):
        return len(text) > len("https://")
    described, base64, _ = head.partition(";base64,")
    return described.startswith("data:") and len(text) > len(described) + len(base64) > len(described)


class ListOf(Parameter):
    """A list.

    :param item: what each item is.
    :param or_one: the vendor also takes one item as it is, without a list around it.
    """

    __slots__ = ("item", "max_items", "min_items", "or_one")

    def __init__(
        self,
        item: Parameter,
        *,
        min_items: int = 0,
        max_items: int | None = None,
        or_one: bool = False,
        nullable: bool = False,
    ) -> None:
        super().__init__(nullable=nullable)
        self.item: Final = item
        self.min_items: Final = min_items
        self.max_items: Final = max_items
        self.or_one: Final = or_one

    def allowed(self, as_sent: bool = False) -> str:
        item = self.item.allowed(as_sent)
        match self.min_items, self.max_items:
            case 0, None:
                count = ""
            case least, None:
                count = f" of at least {least}"
            case 0, most:
                count = f" of at most {most}"
            case least, most:
                count = f" of {least} to {most}"
        return f"{item + ', or ' if self.or_one else ''}a list{count}, each {item}"

    def _read(self, value: Any, path: str, findings: Problems) -> Any:
        if self.or_one and not isinstance(value, list | tuple):
            return self.item.read(value, path, findings)
        if not isinstance(value, list | tuple) or not self._has_room_for(len(value)):
            return self.refuse(value, path, findings)
        return [self.item.read(item, f"{path}[{i}]", findings) for i, item in enumerate(value)]

    def _has_room_for(self, count: int) -> bool:
        return self.min_items <= count and (self.max_items is None or count <= self.max_items)

    def map_media(self, value: Any, path: str, fetch: Fetch) -> Any:
        if isinstance(value, list | tuple):
            return [self.item.map_media(each, f"{path}[{i}]", fetch) for i, each in enumerate(value)]
        return self.item.map_media(value, path, fetch) if self.or_one else value


class ObjectOf(Parameter):
    """An object with named fields; the parameters of a model as a whole are one, at path ``""``.

    A field whose value is None counts as not given and is left out.

    :param fields: what each field is.
    :param required: the fields that have to be there; a required text must not be blank.
    """

    __slots__ = ("fields", "required")

    def __init__(self, fields: Mapping[str, Parameter], required: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.fields: Final = fields
        self.required: Final = required

    def allowed(self, as_sent: bool = False) -> str:
        return f"an object with the fields {', '.join(self.fields)}"

    def _read(self, value: Any, path: str, findings: Problems) -> Any:
        if not isinstance(value, Mapping):
            return self.refuse(value, path, findings)
        given: dict[str, Any] = {}
        for name, each in value.items():
            parameter = self.fields.get(name) if isinstance(name, str) else None
            if parameter is None:
                unknown = f"has no {_field(path)} {shown(name)}{self._hint(name)}"
                findings.add(f"{findings.subject(path)} {unknown}")
            elif each is not None:
                given[name] = parameter.read(each, _join(path, name), findings)
            elif findings.as_sent and not parameter.nullable and name not in self.required:
                parameter.refuse(None, _join(path, name), findings)
        for name in filter(self.required.__contains__, self.fields):
            if name not in given:
                findings.add(
                    f"{findings.subject(path)} needs the {_field(path)} '{name}'"
                    f" ({self.fields[name].allowed(findings.as_sent)})"
                )
            elif self.fields[name].is_blank(given[name]):
                findings.add(f"{findings.subject(_join(path, name))} must not be empty")
        return given

    def _hint(self, name: object) -> str:
        near = did_you_mean(name, self.fields) if isinstance(name, str) else ""
        return near or f"; it has {', '.join(self.fields)}"

    def map_media(self, value: Any, path: str, fetch: Fetch) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            name: self.fields[name].map_media(each, _join(path, name), fetch)
            if name in self.fields and each is not None
            else each
            for name, each in value.items()
        }


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _field(path: str) -> str:
    return "field" if path else "parameter"

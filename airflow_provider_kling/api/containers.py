"""The kinds that hold other kinds: lists and objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_kling.api.catalog.parameter import (
    Fetch,
    Parameter,
)
from airflow_provider_kling.api.catalog.problems import (
    Findings,
    did_you_mean,
    shown,
)


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

    def _read(self, value: Any, path: str, findings: Findings) -> Any:
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

    def _read(self, value: Any, path: str, findings: Findings) -> Any:
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

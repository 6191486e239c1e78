"""The kinds of parameters that models take: what each allows, and how a value is read.

A kind reads a value into what should be sent (``"5"`` becomes ``5``),
reports what cannot be right to :class:`~airflow_provider_kling.api.catalog.problems.Findings` instead of
raising, and finds the media inside a value.
"""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_kling.api.catalog.parameter import (
    PENDING,
    Fetch,
    MediaKind,
    MediaPlace,
    Parameter,
    Pending,
)
from airflow_provider_kling.api.catalog.problems import (
    Findings,
    did_you_mean,
    listed,
)
from airflow_provider_kling.api.containers import ListOf, ObjectOf
from airflow_provider_kling.api.paths import text_of

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

    def _read(self, value: Any, path: str, findings: Findings) -> Any:
        if not isinstance(value, str):
            return self.refuse(value, path, findings)
        if self.max_length is not None and len(value) > self.max_length:
            return self.refuse(value, path, findings)
        return value

    def is_blank(self, value: object) -> bool:
        return isinstance(value, str) and not value.strip()


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

    def _read(self, value: Any, path: str, findings: Findings) -> Any:
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

    def _read(self, value: Any, path: str, findings: Findings) -> Any:
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

    def _read(self, value: Any, path: str, findings: Findings) -> Any:
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

    def _read(self, value: Any, path: str, findings: Findings) -> Any:
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

    def _read(self, value: Any, path: str, findings: Findings) -> Any:
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
    head = text[:200].lower()  # the rest may be megabytes, and nothing of it is looked at
    if head.startswith(("http://", "https://")):
        return len(text) > len("https://")
    described, base64, _ = head.partition(";base64,")
    return described.startswith("data:") and len(text) > len(described) + len(base64) > len(described)

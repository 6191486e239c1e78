"""The rows of a batch: a list, a JSONL or CSV file, or a prefix of pictures, read one by one."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from airflow_provider_kling.api.exceptions import InvalidRequestError
from airflow_provider_kling.api.paths import is_stored, local_path, safe_name
from airflow_provider_kling.api.redaction import shown
from airflow_provider_kling.hooks.object_storage import place_of
from airflow_provider_kling.task.arguments import NAMED_PARAMETERS

KEY: Final = "key"
"""Names a row and its result."""
LONGEST_LINE: Final = 16 * 1024
"""Characters of a line in a JSONL or CSV file, so that no record of a row has 64 kB. A picture does not
belong into one."""
LONGEST_KEY: Final = 200
PICTURE_SUFFIXES: Final = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".avif",
    ".heic",
    ".heif",
    ".gif",
    ".tif",
    ".tiff",
)
"""What counts as a picture under a prefix. Other files are named in the log: a picture that is passed over
silently would cost its clip, a file that is no picture costs one line."""
_ARGUMENTS: Final = frozenset({"model", "image", "parameters", *NAMED_PARAMETERS})


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a batch.

    :param number: its place in the source, from 1.
    :param key: names it; unique in the batch.
    :param arguments: of :class:`.KlingGenerateOperator`, those that make the request.
    :param problems: why it cannot be used, a sentence each.
    """

    number: int
    key: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    problems: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The key as a file's name."""
        return safe_name(self.key)

    @property
    def mark(self) -> str:
        """A digest of its arguments, which tells whether the source says something else by now."""
        return _digest(self.arguments)


def source_mark(requests: Any) -> str:
    """What tells whether a source is still the one that was read; cheap, and not certain for files.

    :param requests: see :func:`read_rows`.
    :return: empty where it is not there.
    """
    if not isinstance(requests, str):
        return _digest(requests)
    try:
        if requests.endswith("/"):
            return _digest(_files_below(requests))
        place: Any = place_of(requests)
        if is_stored(place):
            facts = dict(place.fs.info(place.path))
            return _digest([facts.get(name) for name in ("size", "ETag", "etag", "mtime", "LastModified")])
        stat = local_path(place).stat()
    except (FileNotFoundError, InvalidRequestError):
        return ""
    return _digest([stat.st_size, stat.st_mtime_ns])


def _digest(value: Any) -> str:
    try:
        plain = json.dumps(value, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError):  # names that are no text; the row is refused for them
        plain = repr(value)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]


def read_rows(requests: Any, *, columns: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Read the rows of a batch, one by one.

    :param requests: a list of mappings; or, as text, the path or URI of a ``.jsonl`` or ``.csv`` file, or
        one that ends with a slash: each picture below it becomes a request.
    :param columns: argument or parameter name -> name of the column or field in the source; a name
        that is not in it is taken as it is.
    :raises InvalidRequestError: it is none of these, or cannot be read.
    """
    if isinstance(requests, str):
        suffix = PurePosixPath(requests.partition("?")[0]).suffix.lower()
        if requests.endswith("/"):
            yield from _pictures(requests)
        elif suffix in (".jsonl", ".ndjson"):
            yield from _named(_json_lines(requests), columns)
        elif suffix == ".csv":
            yield from _named(_csv_lines(requests), columns)
        else:
            raise InvalidRequestError(
                f"requests={shown(requests)} is neither a .jsonl nor a .csv file nor a folder with a slash "
                "at its end."
            )
    elif isinstance(requests, Sequence) and not isinstance(requests, bytes):
        yield from _named(enumerate(requests, 1), columns)
    else:
        raise InvalidRequestError(
            f"requests must be a list of mappings or the path of a file, not {type(requests).__name__}."
        )


class _Unreadable(NamedTuple):
    """Stands for a row that cannot be read."""

    why: str


def _named(items: Iterator[tuple[int, Any]], columns: Mapping[str, str] | None) -> Iterator[Row]:
    sources = {source: name for name, source in (columns or {}).items()}
    seen: set[str] = set()
    for number, item in items:
        if not isinstance(item, Mapping):
            why = item.why if isinstance(item, _Unreadable) else f"it is no mapping but {shown(item)}"
            yield Row(number, f"row {number}", problems=(f"{why}.",))
            continue
        given = {sources.get(name, name): value for name, value in item.items() if value not in (None, "")}
        row = _row(number, given)
        folded = row.name.lower() if row.key else ""
        if not row.problems and folded in seen:
            row = Row(number, row.key, row.arguments, (f"its key {shown(row.key)} is in the batch already.",))
        seen.add(folded)
        yield row


def _row(number: int, given: Mapping[Any, Any]) -> Row:
    key = given.get(KEY)
    key = str(key) if isinstance(key, int) and not isinstance(key, bool) else key
    problems = []
    if not isinstance(key, str) or not key.strip():
        problems.append(f"it has no {KEY!r}, which names its result.")
        key = f"row {number}"
    elif len(key) > LONGEST_KEY or not key.isprintable():
        problems.append(f"its key {shown(key)} is longer than {LONGEST_KEY} characters or not printable.")
        key = f"row {number}"
    if odd := [name for name in given if not isinstance(name, str)]:
        if odd == [None] and isinstance(given[None], list):  # as the csv module has it
            problems.append(f"it has more values than columns: {len(given[None])} too many.")
        else:
            problems.append(f"its names must be texts, not {', '.join(map(shown, odd))}.")
    named = {name: value for name, value in given.items() if isinstance(name, str) and name != KEY}
    arguments = {name: value for name, value in named.items() if name in _ARGUMENTS}
    further = {name: value for name, value in named.items() if name not in _ARGUMENTS}
    parameters = arguments.get("parameters") or {}
    if isinstance(parameters, Mapping):
        arguments["parameters"] = {**parameters, **further}
    else:
        problems.append(f"its 'parameters' must be a mapping, not {type(parameters).__name__}.")
    return Row(number, key, arguments, tuple(problems))


def _json_lines(uri: str) -> Iterator[tuple[int, Any]]:
    for number, line in _lines(uri):
        if not line.strip():
            continue
        if len(line) > LONGEST_LINE:
            yield number, _Unreadable(f"its line is longer than {LONGEST_LINE:,} characters")
            continue
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            item = _Unreadable(f"its line is no JSON ({error})")
        yield number, item


def _csv_lines(uri: str) -> Iterator[tuple[int, Any]]:
    too_long: list[int] = []

    def lines() -> Iterator[str]:
        for number, line in _lines(uri):
            if len(line) > LONGEST_LINE:
                too_long.append(number)
            yield line[:LONGEST_LINE]

    reader = csv.DictReader(lines(), strict=True)
    names = reader.fieldnames
    if not names or not any(map(str.strip, names)):
        raise InvalidRequestError(f"{shown(uri)} has no header line with the names of its columns.")
    number = 0
    while True:
        number += 1
        try:
            item: Any = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            item = _Unreadable(f"it cannot be read as CSV near line {reader.line_num} ({error})")
        if too_long:
            item = _Unreadable(f"line {too_long.pop()} is longer than {LONGEST_LINE:,} characters")
        elif isinstance(item, dict) and any(each is None for name, each in item.items() if name is not None):
            missing = [name for name, value in item.items() if value is None]
            item = _Unreadable(f"it has no value for the columns {', '.join(map(shown, missing))}")
        yield number, item


def _lines(uri: str) -> Iterator[tuple[int, str]]:
    """The lines of a text file; of one that is too long, a little more than :data:`LONGEST_LINE`."""
    try:
        with _open(uri) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
            number = 0
            while line := text.readline(LONGEST_LINE + 1):
                number += 1
                if not line.endswith("\n") and len(line) > LONGEST_LINE:
                    while (rest := text.readline(LONGEST_LINE)) and not rest.endswith("\n"):
                        pass
                yield number, line
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{shown(uri)} is not UTF-8 text ({error.reason}).") from None
    except FileNotFoundError:
        raise InvalidRequestError(f"{shown(uri)} does not exist.") from None


def _open(uri: str) -> Any:
    place: Any = place_of(uri)
    stored: bool = is_stored(place)
    return place.open("rb") if stored else local_path(place).open("rb")


def _files_below(prefix: str) -> list[str]:
    """The files right below a prefix, sorted; no hidden ones, and none that are sidecars."""
    place: Any = place_of(prefix)
    stored: bool = is_stored(place)
    if stored:
        # one listing tells names and kinds; asking each object costs a request for each
        listed = place.fs.ls(place.path, detail=True)
        files = (each["name"].rstrip("/") for each in listed if each["type"] == "file")
        found = (str(place / PurePosixPath(each).name) for each in files)
    else:
        folder = local_path(place)
        if not folder.is_dir():
            raise InvalidRequestError(f"{shown(prefix)} is no folder.")
        found = (entry.path for entry in os.scandir(folder) if entry.is_file())
    names = ((PurePosixPath(each), each) for each in found)
    return sorted(
        each for path, each in names if not path.name.startswith(".") and path.suffix.lower() != ".json"
    )


def _pictures(prefix: str) -> Iterator[Row]:
    seen = set[str]()
    for number, file in enumerate(_files_below(prefix), 1):
        path = PurePosixPath(file)
        problems = []
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            problems.append(f"{shown(path.name)} does not look like a picture.")
        if path.stem.lower() in seen:
            problems.append(f"another picture is called {shown(path.stem)} too.")
        seen.add(path.stem.lower())
        yield Row(number, path.stem, {"image": file, "parameters": {}}, tuple(problems))

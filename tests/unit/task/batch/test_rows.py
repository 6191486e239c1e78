"""Rows of a batch, whatever they are read from."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kling.api.exceptions import InvalidRequestError
from airflow_provider_kling.task.batch.rows import LONGEST_LINE, Row, read_rows


def read(requests: Any, **columns: str) -> list[Row]:
    return list(read_rows(requests, columns=columns))


def written(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def test_a_list_of_mappings():
    (row,) = read([{"key": "a", "prompt": "P", "cfg_scale": None, "aspect_ratio": "1:1"}])
    assert (row.number, row.key, row.problems) == (1, "a", ())
    assert row.arguments == {"prompt": "P", "parameters": {"aspect_ratio": "1:1"}}


def test_columns_are_renamed_and_a_number_may_be_a_key():
    (row,) = read([{"sku": 7, "text": "P"}], key="sku", prompt="text")
    assert (row.key, row.arguments["prompt"]) == ("7", "P")


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"prompt": "P"}, "no 'key'"),
        ({"key": " ", "prompt": "P"}, "no 'key'"),
        ({"key": "a" * 201}, "longer than 200"),
        ({"key": "a\nb"}, "not printable"),
        ({"key": "a", "parameters": "x"}, "must be a mapping"),
        ("text", "no mapping but 'text'"),
        (7, "no mapping but 7"),
        ("https://host.example/a.png", "no mapping but 'https://host.example/a.png'"),
        ({1: "x"}, "names must be texts, not 1"),
    ],
)
def test_what_is_wrong_with_a_row(item: Any, words: str):
    (row,) = read([item])
    assert words in " ".join(row.problems)


def test_keys_that_are_one_name_on_some_storage():
    rows = read([{"key": "Mug"}, {"key": "mug"}])
    assert [bool(row.problems) for row in rows] in ([False, True], [False, False])
    assert len({row.name.lower() for row in rows if not row.problems}) == sum(
        not row.problems for row in rows
    )


@given(st.lists(st.text(min_size=1, max_size=30), max_size=20))
def test_rows_without_a_problem_have_names_of_their_own(keys: list[str]):
    rows = [row for row in read([{"key": key} for key in keys]) if not row.problems]
    names = [row.name.lower() for row in rows]
    assert len(set(names)) == len(names)
    allowed = set(string.ascii_lowercase + string.digits + "._-")
    assert all(set(name) <= allowed for name in names)


@given(
    st.lists(
        st.tuples(
            st.text(string.ascii_letters, min_size=1, max_size=9),
            st.text(
                st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=40
            ),
        ),
        min_size=1,
        max_size=10,
        unique_by=lambda pair: pair[0].lower(),
    )
)
def test_csv_and_jsonl_say_the_same(tmp_path_factory: Any, pairs: list[tuple[str, str]]):
    import csv

    folder = tmp_path_factory.mktemp("rows")
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["key", "prompt"])
        lines.writerows(pairs)
    text = "".join(json.dumps({"key": key, "prompt": prompt}) + "\n" for key, prompt in pairs)
    expected = [(key, {"prompt": prompt, "parameters": {}}) for key, prompt in pairs]
    for name in (str(folder / "rows.csv"), written(folder / "rows.jsonl", text)):
        assert [(row.key, row.arguments) for row in read(name)] == expected


def test_a_bom_and_quotes_and_newlines_in_a_csv(tmp_path: Path):
    source = written(tmp_path / "rows.csv", '\ufeffkey,prompt\r\na,"one\ntwo, ""three"""\r\n')
    (row,) = read(source)
    assert row.arguments["prompt"] == 'one\ntwo, "three"'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("key,prompt\na\n", "no value for the columns 'prompt'"),
        ("key,prompt\na,b,c,d\n", "more values than columns"),
        ('key,prompt\na,"b"x\n', "cannot be read as CSV"),
        (f"key,prompt\na,{'x' * (LONGEST_LINE + 5)}\nb,c\n", "longer than"),
    ],
)
def test_odd_lines_of_a_csv_are_named(tmp_path: Path, text: str, words: str):
    rows = read(written(tmp_path / "rows.csv", text))
    assert words in " ".join(problem for row in rows for problem in row.problems)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "no JSON"),
        ("[1]", "no mapping"),
        ('"x"', "no mapping but 'x'"),
        ("x" * (LONGEST_LINE + 5), "longer than"),
    ],
)
def test_odd_lines_of_a_jsonl_are_named_and_the_next_is_read(tmp_path: Path, line: str, words: str):
    first, second = read(written(tmp_path / "rows.jsonl", f'{line}\n{{"key": "b"}}\n'))
    assert words in " ".join(first.problems)
    assert (second.key, second.problems) == ("b", ())


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_a_file_that_is_no_text(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"key\n\xff\xfe\n")
    with pytest.raises(InvalidRequestError, match="UTF-8"):
        read(str(tmp_path / name))


@pytest.mark.parametrize(
    "requests", ["/nowhere/rows.csv", "/nowhere/rows.jsonl", "/nowhere/", "rows.txt", 7, b"x"]
)
def test_what_is_no_batch(requests: Any):
    with pytest.raises(InvalidRequestError):
        read(requests)


def test_a_folder_of_pictures(tmp_path: Path):
    for name in ("b.png", "a.JPG", "b.jpg", "notes.txt", ".hidden.png", "a.json"):
        (tmp_path / name).touch()
    rows = read(f"{tmp_path}/")
    assert {row.key: bool(row.problems) for row in rows if row.key != "b"} == {"a": False, "notes": True}
    assert [bool(row.problems) for row in rows if row.key == "b"] == [False, True]

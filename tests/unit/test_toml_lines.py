"""The line of a key, in every way that TOML can write one."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sluicegate.toml_lines import key_lines, line_of

TEXT = '''\
# [not.a.table]
top = """
[also] = "not"
fake = 1
"""
"quoted.key" = 'x' # = [
\u0020 dotted . inner."last one" = [
  1, "]", # ]
  { a = 1 }, '[',
]
literal = \'\'\'
# [[x]]
\'\'\'

[table."sub.table"]
k = 1

[[many]]
a = 1
[many.child]
b = 2
[[many.deep]]
c = 3
[[many]]
a = 4
[[many.deep]]
c = 5
[[many.deep]]
c = 6
inline = { x = 1, y = [ { z = 2 } ] }
'''


def test_each_key_has_its_line() -> None:
    tomllib.loads(TEXT)
    lines = key_lines(TEXT)
    assert lines == {
        ("top",): 2,
        ("quoted.key",): 6,
        ("dotted",): 7,
        ("dotted", "inner"): 7,
        ("dotted", "inner", "last one"): 7,
        ("literal",): 11,
        ("table", "sub.table"): 15,
        ("table", "sub.table", "k"): 16,
        ("many", 0): 18,
        ("many", 0, "a"): 19,
        ("many", 0, "child"): 20,
        ("many", 0, "child", "b"): 21,
        ("many", 0, "deep", 0): 22,
        ("many", 0, "deep", 0, "c"): 23,
        ("many", 1): 24,
        ("many", 1, "a"): 25,
        ("many", 1, "deep", 0): 26,
        ("many", 1, "deep", 0, "c"): 27,
        ("many", 1, "deep", 1): 28,
        ("many", 1, "deep", 1, "c"): 29,
        ("many", 1, "deep", 1, "inline"): 30,
    }


def test_what_has_no_line_of_its_own_has_that_of_what_holds_it() -> None:
    lines = key_lines(TEXT)
    assert line_of(lines, ("many", 1, "deep", 1, "inline", "y", 0, "z")) == 30
    assert line_of(lines, ("many", 1, "missing")) == 24
    assert line_of(lines, ("nothing",)) is None


def test_windows_line_ends_and_no_last_one() -> None:
    assert key_lines("a = 1\r\n\r\n[t]\r\nb = 2") == {("a",): 1, ("t",): 3, ("t", "b"): 4}


_names = st.text(st.characters(codec="utf-8", exclude_characters="\x7f", min_codepoint=32), max_size=6)
_values = st.one_of(st.integers(-9, 9), st.booleans(), _names)


def _toml_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(
    st.dictionaries(_names, _values, max_size=4), st.integers(0, 3), st.lists(_names, unique=True, max_size=3)
)
def test_every_top_level_key_is_found_where_it_was_written(
    top: dict[str, Any], blanks: int, tables: list[str]
) -> None:
    rows = [""] * blanks
    expected: dict[tuple[str | int, ...], int] = {}
    for key, value in top.items():
        rows.append(
            f"{_toml_string(key)} = {_toml_string(value) if isinstance(value, str) else str(value).lower()}"
        )
        expected[(key,)] = len(rows)
    for name in [name for name in tables if name not in top]:
        rows += ["", f"[[{_toml_string(name)}]] # [", 'k = """', "[x]", 'y = 1"""']
        expected[(name, 0)] = len(rows) - 3
        expected[(name, 0, "k")] = len(rows) - 2
    text = "\n".join(rows)
    tomllib.loads(text)
    assert key_lines(text) == expected

"""TOML that is written is read again as the same value."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.toml_text import key_text, value_text

# What could end a text, begin an escape, or be read as another line end.
AWKWARD = st.lists(
    st.sampled_from(['"', '"""', "\\", "\n", "\r", "\r\n", "\x00", "\x7f", "a", "é", "\u2028"])
)
TEXTS = st.text() | AWKWARD.map("".join)
SCALARS = (
    TEXTS
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.datetimes(min_value=datetime(1, 1, 2), timezones=st.just(UTC)).map(lambda at: at.replace(fold=0))
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner, max_size=5), max_leaves=10
)


@given(VALUES, st.booleans())
def test_what_is_written_is_read(value: Any, lines: bool) -> None:
    read = tomllib.loads(f"key = {value_text(value, lines=lines)}\n")["key"]
    assert read == value
    assert repr(read) == repr(value)


@given(TEXTS)
def test_keys_are_read_again(name: str) -> None:
    assert tomllib.loads(f"{key_text(name)} = 1") == {name: 1}


@pytest.mark.parametrize("value", [None, [None], {"a": None}, float("nan"), float("inf"), "\ud800", b"x"])
def test_what_toml_does_not_have_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        value_text(value)


def test_a_text_of_several_lines_stands_on_several() -> None:
    assert value_text('say "hi"\nand """go"""', lines=True) == '"""\nsay "hi"\nand \\"\\""go\\"\\"\\""""'
    assert value_text("a" * 200, lines=True) == f'"{"a" * 200}"'
    assert value_text(["x" * 60, "y" * 60], lines=True).count("\n") == 3

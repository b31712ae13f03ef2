"""Patterns over names: what they match, what they do not, and that none of them takes long."""

from __future__ import annotations

import itertools

import pytest

from sluicegate.globs import Globs, globs_of


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "", True),
        ("*", "a/b\nc", True),
        ("local/*", "local/Qwen/Qwen3", True),
        ("local/*", "local", False),
        ("local/*", "Local/x", False),
        ("gpt-?", "gpt-4", True),
        ("gpt-?", "gpt-4o", False),
        ("a.b", "aXb", False),
        ("[ab]", "a", False),
        ("[ab]", "[ab]", True),
        ("*mini*", "gpt-4o-mini-high", True),
        ("mini", "gpt-mini", False),
    ],
)
def test_a_pattern_matches_whole_names(pattern: str, name: str, matches: bool) -> None:
    assert Globs((pattern,)).match(name) is matches


def test_one_pattern_or_name_is_enough_and_none_is_nothing() -> None:
    assert Globs(("a", "b*")).match("x", "bc")
    assert not Globs(()).match("", "a")
    assert globs_of(None) is None
    assert globs_of(("a",)) is globs_of(("a",))


def test_many_stars_are_no_trap() -> None:
    # With backtracking each of these would take longer than the universe is old.
    assert Globs(("*" * 256,)).match("a" * 256)
    assert not Globs(("a*" * 127 + "b",)).match("a" * 256)
    assert not Globs(("*a" * 127 + "*b",)).match("a" * 256 + "c")
    assert Globs(("*a" * 127 + "*b",)).match("a" * 256 + "b")


PATTERNS = ["a*b*c", "*a*", "a?*b", "ab*ab", "*ab", "a*", "**a?", "a*a*a"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_is_what_trying_everything_finds(pattern: str) -> None:
    def slow(pattern: str, name: str) -> bool:
        if not pattern:
            return not name
        if pattern[0] == "*":
            return any(slow(pattern[1:], name[at:]) for at in range(len(name) + 1))
        return bool(name) and pattern[0] in ("?", name[0]) and slow(pattern[1:], name[1:])

    names = ["".join(letters) for size in range(6) for letters in itertools.product("abc", repeat=size)]
    glob = Globs((pattern,))
    assert [glob.match(name) for name in names] == [slow(pattern, name) for name in names]

"""Patterns over names, in which `*` stands for any text, slashes too, and `?` for any character."""

import re
from functools import lru_cache


class Globs:
    """Some patterns; a name matches when one of them does, as a whole and case-sensitive."""

    __slots__ = ("_pattern",)

    def __init__(self, patterns: tuple[str, ...]) -> None:
        one_of = "|".join(_expression(pattern) for pattern in patterns)
        # No pattern at all matches nothing: an empty list is not a missing one.
        self._pattern = re.compile(one_of or "(?!)", re.DOTALL)

    def match(self, *names: str) -> bool:
        """Whether one of the names matches."""
        return any(self._pattern.fullmatch(name) is not None for name in names)


@lru_cache(maxsize=4096)
def globs_of(patterns: tuple[str, ...] | None) -> Globs | None:
    """The patterns, compiled once; None where nothing is restricted."""
    return None if patterns is None else Globs(patterns)


def _expression(pattern: str) -> str:
    first, *others = ["".join("." if c == "?" else re.escape(c) for c in part) for part in pattern.split("*")]
    if not others:
        return first
    # What stands between two stars is taken where it is found first, and never tried again (an atomic group):
    # with plain `.*` a pattern of many stars takes a time exponential in their number.
    between = "".join(f"(?>.*?{part})" for part in others[:-1] if part)
    return f"{first}{between}.*{others[-1]}"

"""Find the line of every key in a TOML text: `tomllib` parses but keeps no positions.

The text has already been parsed without an error, so this scan only has to find where keys stand: it
follows strings, comments and brackets, and ignores the values.
"""

import re
import tomllib
from typing import Any

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r]|\#[^\n]*)*")
_KEY = re.compile(r"""\s*(?:"(?P<basic>(?:[^"\\]|\\.)*)"|'(?P<literal>[^']*)'|(?P<bare>[A-Za-z0-9_-]+))\s*""")
# What changes the state inside a value: strings, comments, brackets and the end of a line.
_MARK = re.compile(
    r'''
      """ (?: [^"\\] | \\. | "(?!"") )* """  | \'\'\' .*? \'\'\'
    | " (?: [^"\\\n] | \\. )* "             | ' [^'\n]* '
    | \# [^\n]*  | [\[\]{}]  | \n
    ''',
    re.DOTALL | re.VERBOSE,
)


class TomlError(ValueError):
    """A text that is no TOML; `line` is where."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse(raw: bytes) -> tuple[dict[str, Any], dict[Path, int]]:
    """The values of a TOML file, and the lines of its keys. Raises TomlError."""
    try:
        text = raw.decode("utf-8")
        return tomllib.loads(text), key_lines(text)
    except UnicodeDecodeError as error:
        raise TomlError(raw.count(b"\n", 0, error.start) + 1, "not valid UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"^(.*?) \(at (?:line (\d+), column \d+|end of document)\)$", str(error))
        what, line = (at[1], at[2]) if at else (str(error), None)
        raise TomlError(int(line) if line else text.count("\n") + 1, f"not valid TOML: {what}") from None
    except RecursionError:
        raise TomlError(1, "nested too deep") from None


def key_lines(text: str) -> dict[Path, int]:
    """Line numbers (from 1) by key path; the n-th `[[name]]` has the path `("name", n)`, n from 0.

    Keys inside inline tables and arrays have no entry of their own: use `line_of`.
    """
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    position = 0
    line = 1
    while position < len(text):
        blank = _BLANK.match(text, position)
        position = blank.end() if blank else position
        if position >= len(text):
            break
        if text[position] == "\n":
            line += 1
            position += 1
            continue
        if text[position] == "[":
            double = text.startswith("[[", position)
            keys, position = _dotted(text, position + (2 if double else 1))
            table = _resolve(keys, counts, double)
            lines.setdefault(table, line)
            position = _line_end(text, position)
            continue
        keys, position = _dotted(text, position)
        if not keys:  # not TOML; `tomllib` has refused it before
            position = _line_end(text, position)
            continue
        for depth in range(1, len(keys) + 1):
            lines.setdefault((*table, *keys[:depth]), line)
        position, passed = _skip_value(text, position)
        line += passed
    return lines


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """The line of `path`, or of the nearest thing around it that has one."""
    for end in range(len(path), 0, -1):
        found = lines.get(path[:end])
        if found is not None:
            return found
    return None


def _dotted(text: str, position: int) -> tuple[list[str], int]:
    """A dotted key from `position`; the position behind it."""
    keys: list[str] = []
    while True:
        match = _KEY.match(text, position)
        if match is None:
            return keys, position
        basic = match["basic"]
        if basic is not None:
            keys.append(tomllib.loads(f'k = "{basic}"')["k"])
        else:
            keys.append(match["bare"] if match["literal"] is None else match["literal"])
        position = match.end()
        if not text.startswith(".", position):
            return keys, position
        position += 1


def _resolve(keys: list[str], counts: dict[Path, int], double: bool) -> Path:
    """The path of a table header, with the index of the array elements it stands in."""
    path: Path = ()
    for index, key in enumerate(keys):
        path = (*path, key)
        if index == len(keys) - 1 and double:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _skip_value(text: str, position: int) -> tuple[int, int]:
    """From behind a key to the end of its value's last line; how many lines were passed."""
    depth = 0
    passed = 0
    while True:
        match = _MARK.search(text, position)
        if match is None:
            return len(text), passed
        mark = match[0]
        if mark == "\n" and depth == 0:
            return match.start(), passed
        position = match.end()
        passed += mark.count("\n")
        if mark in "[{":
            depth += 1
        elif mark in "]}":
            depth -= 1

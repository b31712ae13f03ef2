"""Values as TOML text: what `tomllib` reads again as the same value."""

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
# A list of more than that many characters goes over several lines.
_WIDTH = 100


def key_text(name: str) -> str:
    """A key, in quotes where it needs them."""
    return name if name and _BARE.issuperset(name) else _quoted(name)


def value_text(value: Any, *, lines: bool = False) -> str:
    """One value; with `lines` a text of several lines, or a long list, stands on several.

    Raises ValueError for what TOML does not have: null, numbers that are none, and half of a character.
    """
    if isinstance(value, str):
        return _block(value) if lines and "\n" in value else _quoted(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key_text(str(key))} = {value_text(inner)}" for key, inner in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        items = [value_text(inner) for inner in value]
        plain = f"[{', '.join(items)}]"
        return plain if not lines or len(plain) <= _WIDTH else "[\n  " + ",\n  ".join(items) + ",\n]"
    return _scalar(value)


def table_text(heading: str, values: Mapping[str, Any]) -> str:
    """A table with its heading, such as `[[workspace]]`."""
    lines = [f"{key_text(key)} = {value_text(value, lines=True)}" for key, value in values.items()]
    return "\n".join([heading, *lines, ""])


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    raise ValueError(f"{type(value).__name__} has no place in TOML")


def _quoted(text: str) -> str:
    """A basic string. JSON has the same escapes, but leaves DEL as it is."""
    text.encode()  # Half of a surrogate pair is no text: a ValueError.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _block(text: str) -> str:
    """A multi-line basic string: line ends stay, everything else is escaped as in a plain one."""
    # A line end that is not "\n" would be read as one, so it is escaped like any control character.
    inside = "\n".join(_quoted(line)[1:-1].replace(r"\"", '"') for line in text.split("\n"))
    # Quotation marks stay too, but for those that could end it.
    return '"""\n' + re.sub(r'"(?="|\Z)', r'\\"', inside) + '"""'

"""Records as the values of a file: without what is left at its default, in forms that TOML has."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct

from sluicegate.toml_text import value_text

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_JSON = "json:"
# Their values are anything that JSON has.
_FREE = ("response_format", "tools", "tool_choice")


def plain_of(record: Struct, kind: type[Struct]) -> dict[str, Any]:
    """The fields that `kind` has, by their keys in a file; those at their default are left out."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        value = getattr(record, field.name)
        default = field.default if field.default_factory is NODEFAULT else field.default_factory()
        if field.required or value != default:
            values[field.encode_name] = _plain(field.encode_name, value)
    return values


def _plain(key: str, value: Any) -> Any:
    if key in ("expires", "expires_at"):
        return time_of(value)
    if key == "context_window":
        return int(value) if value.isdigit() else value
    if key in _FREE:
        return _free(value)
    return _simple(value)


def time_of(millis: int) -> datetime | int:
    """Milliseconds since 1970 as a time; beyond the year 9999 they stay a number."""
    return millis if millis > _LAST else _EPOCH + timedelta(milliseconds=millis)


def _simple(value: Any) -> Any:
    if isinstance(value, Struct):
        return plain_of(value, type(value))
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return {key: _simple(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_simple(inner) for inner in value]
    return value


def _free(value: Any) -> Any:
    """What TOML has no form for, null above all, becomes JSON behind «json:»."""
    simple = _simple(value)
    if isinstance(simple, str):
        return _JSON + json.dumps(simple) if simple.startswith(_JSON) else simple
    try:
        value_text(simple)
    except ValueError:
        return _JSON + json.dumps(simple, ensure_ascii=False)
    return simple

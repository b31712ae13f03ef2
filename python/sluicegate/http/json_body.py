"""A JSON body of the management API → a checked value. Bounded before any decoder sees it."""

import json
import re
from itertools import accumulate
from typing import Any, NoReturn, TypeVar

import msgspec
import orjson

from sluicegate import errors
from sluicegate.errors import GatewayError

T = TypeVar("T")

# As on the data plane. Deeper nesting overflows the stack of some decoders.
MAX_DEPTH = 64

# A string, whole or cut off at the end of the body: one pass, whatever the text.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_WHERE = re.compile(r"^(.*?)(?: - at `(?:key in )?\$\.?(.*?)`)?$", re.DOTALL)
_FIELD = re.compile(r"(missing required|contains unknown) field `(.*)`")
_QUOTED = re.compile(r"(?<=enum value) .*", re.DOTALL)
_LONGEST_NAME = 200
_LONGEST_REASON = 500


def read(body: bytes, kind: type[T]) -> T:
    """The body as `kind`. Raises a 400 that names the field."""
    return convert(_parse(body), kind)


def convert(value: Any, kind: type[T], *, strict: bool = True) -> T:
    """A value as `kind`; texts become numbers and booleans where not `strict`."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None


def invalid(said: str) -> GatewayError:
    """What msgspec says, as an error that names the field."""
    match = _WHERE.match(said)
    what, where = (match[1], match[2] or "") if match else (said, "")
    field = _FIELD.search(what)
    if field is not None:
        where = f"{where}.{field[2]}".removeprefix(".")
    param = errors.printable(where, _LONGEST_NAME) or None
    shown = f"{param}: " if param else ""
    if field is not None and field[1] == "missing required":
        return errors.bad_request("missing_required_parameter", f"{shown}this field is required.", param)
    if field is not None:
        return errors.bad_request(
            "unknown_parameter", f"{shown}there is no such field. Check its spelling, or leave it out.", param
        )
    # It quotes values that are none of a list: nobody knows what was pasted there.
    what = errors.printable(_QUOTED.sub("", what), _LONGEST_REASON)
    return errors.bad_request("invalid_value", f"{shown}{what[:1].lower()}{what[1:]}.", param)


def _parse(body: bytes) -> Any:
    brackets = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    if max(accumulate(1 if b in b"[{" else -1 for b in brackets), default=0) > MAX_DEPTH:
        raise errors.bad_request("json_too_deep", f"The body is nested deeper than {MAX_DEPTH} levels.")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise errors.bad_request("invalid_utf8", f"The body is not UTF-8 (byte {error.start}).") from None
    try:
        # Stricter than the standard library's: no NaN, no half of a surrogate pair.
        orjson.loads(body)
        return json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
    except ValueError as error:
        at = f" (character {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        raise errors.bad_request("invalid_json", f"The body is not valid JSON{at}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                shown = errors.printable(name, _LONGEST_NAME)
                raise errors.bad_request("duplicate_key", f"The key `{shown}` stands there twice.", shown)
            seen.add(name)
    return found


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError
    return number


def _no_constant(_name: str) -> NoReturn:
    raise ValueError

"""A JSON document for a JSON schema: always the same one, made from the schema alone.

It knows the subset that structured output and tool parameters use. What it cannot satisfy (a `pattern` that
no sample matches, `not`, `if`) it refuses by SchemaError; it never returns a document that does not fit.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

# A recursive schema is opened twice and then closed by null, an empty list or a left-out property.
MAX_SAME_REF = 2
# Schemas that multiply (each node with several references) stop here: 5,000 values are a 100 KiB answer.
MAX_VALUES = 5_000

_FORMATS = {
    "date": "2026-01-{:02d}",
    "date-time": "2026-01-{:02d}T12:00:00Z",
    "time": "12:00:{:02d}Z",
    "duration": "PT{}M",
    "email": "demo{}@example.com",
    "hostname": "demo{}.example.com",
    "ipv4": "192.0.2.{}",
    "ipv6": "2001:db8::{}",
    "uri": "https://example.com/{}",
    "uuid": "00000000-0000-4000-8000-{:012d}",
}
_UNSUPPORTED = ("not", "if", "dependentSchemas", "unevaluatedProperties", "contains", "patternProperties")


class SchemaError(ValueError):
    """The demo cannot make a document for this schema; the text says why."""


class _TooDeepError(SchemaError):
    """This branch of a recursive schema has to be left out."""


def document(schema: Schema, *, word: str | None = None) -> Any:
    """A document that satisfies the schema; `word` is the text where any text will do."""
    return _Maker(schema, word).make(schema, "value", 0, ())


class _Maker:
    """One run: the root for `$ref`, and how many values it may still make."""

    def __init__(self, root: Schema, word: str | None) -> None:
        self._root = root
        self._word = word
        self._left = MAX_VALUES

    def make(self, schema: Any, name: str, turn: int, refs: tuple[str, ...]) -> Any:
        """`name` is the property's; `turn` makes the items of a list differ; `refs` are open references."""
        if schema is True:
            schema = {}
        if not isinstance(schema, Mapping):
            raise SchemaError(f"{name}: a schema must be an object")
        self._left -= 1
        if self._left < 0:
            raise SchemaError(f"the schema asks for more than {MAX_VALUES} values")
        for keyword in _UNSUPPORTED:
            if keyword in schema:
                raise SchemaError(f"{name}: the demo does not know '{keyword}'")
        if "$ref" in schema:
            return self._follow(schema, name, turn, refs)
        if "allOf" in schema:
            return self.make(_merge(schema), name, turn, refs)
        alternatives = _alternatives(schema)
        if alternatives:
            return self._first(alternatives, name, turn, refs)
        return self._value(schema, name, turn, refs)

    def _value(self, schema: Schema, name: str, turn: int, refs: tuple[str, ...]) -> Any:
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            values = schema["enum"]
            if not values:
                raise SchemaError(f"{name}: 'enum' is empty")
            return values[turn % len(values)]
        return self._typed(schema.get("type") or _implied(schema), schema, name, turn, refs)

    def _typed(self, kind: Any, schema: Schema, name: str, turn: int, refs: tuple[str, ...]) -> Any:
        match kind:
            case "object":
                return self._object(schema, name, refs)
            case "array":
                return self._array(schema, name, refs)
            case "string":
                return _text(schema, name, turn, self._word)
            case "integer" | "number":
                return _number(schema, name, turn, whole=kind == "integer")
            case "boolean":
                return turn % 2 == 0
            case "null":
                return None
        raise SchemaError(f"{name}: the demo does not know the type {kind!r}")

    def _follow(self, schema: Schema, name: str, turn: int, refs: tuple[str, ...]) -> Any:
        ref = schema["$ref"]
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise SchemaError(f"{name}: only references inside the schema can be followed")
        if refs.count(ref) >= MAX_SAME_REF:
            raise _TooDeepError(f"{name}: the schema never ends")
        target: Any = self._root
        for part in ref[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, Mapping) or key not in target:
                raise SchemaError(f"{name}: {ref} points to nothing")
            target = target[key]
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        merged = _merge({"allOf": [target, rest]}) if rest else target
        return self.make(merged, name, turn, (*refs, ref))

    def _first(self, schemas: list[Any], name: str, turn: int, refs: tuple[str, ...]) -> Any:
        for schema in schemas:
            try:
                return self.make(schema, name, turn, refs)
            except _TooDeepError:
                continue
        raise _TooDeepError(f"{name}: the schema never ends")

    def _object(self, schema: Schema, name: str, refs: tuple[str, ...]) -> dict[str, Any]:
        required = schema.get("required", [])
        made: dict[str, Any] = {}
        properties = schema.get("properties", {})
        for key, value in properties.items():
            if value is False:
                continue
            try:
                made[key] = self.make(value, key, 0, refs)
            except _TooDeepError:
                if key in required:
                    raise
        extra = schema.get("additionalProperties", True)
        wanted = [key for key in required if key not in made]
        wanted += [f"key{i}" for i in range(schema.get("minProperties", 0) - len(made) - len(wanted))]
        if wanted and extra is False:
            raise SchemaError(f"{name}: {wanted[0]!r} is required but not allowed")
        made.update({key: self.make(extra, key, i, refs) for i, key in enumerate(wanted)})
        if len(made) > schema.get("maxProperties", math.inf):
            made = {key: value for key, value in made.items() if key in required}
        return made

    def _array(self, schema: Schema, name: str, refs: tuple[str, ...]) -> list[Any]:
        first = [self.make(s, f"{name}{i}", i, refs) for i, s in enumerate(schema.get("prefixItems", []))]
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", math.inf)
        items = schema.get("items", True)
        # Two items where both bounds allow it: a list of one hides mistakes of whoever reads it.
        wanted = int(min(max(least, len(first) or 2), most))
        made = first[:wanted]
        try:
            while items is not False and len(made) < wanted:
                made.append(self.make(items, name, len(made), refs))
        except _TooDeepError:
            if len(made) < least:
                raise
        if schema.get("uniqueItems") and len({repr(item) for item in made}) < len(made):
            made = list({repr(item): item for item in made}.values())
        if len(made) < least:
            raise SchemaError(f"{name}: {least} different items cannot be made")
        return made


def _alternatives(schema: Schema) -> list[Any]:
    """The schemas of which one has to fit; null comes last, as the emptiest."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            rest = {key: value for key, value in schema.items() if key != keyword}
            return [_merge({"allOf": [rest, alternative]}) for alternative in schema[keyword]]
    kind = schema.get("type")
    if isinstance(kind, list) and "enum" not in schema and "const" not in schema:
        return [{**schema, "type": k} for k in sorted(kind, key=lambda k: k == "null")]
    return []


def _implied(schema: Schema) -> str:
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    if any(key in schema for key in ("minimum", "maximum", "multipleOf")):
        return "number"
    return "string"


def _merge(schema: Schema) -> dict[str, Any]:
    merged = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        if not isinstance(part, Mapping):
            continue
        flat = _merge(part) if "allOf" in part else part
        for key, value in flat.items():
            if key == "properties":
                merged[key] = {**merged.get(key, {}), **value}
            elif key == "required":
                merged[key] = [*merged.get(key, []), *value]
            elif key.startswith("min") and key in merged:
                merged[key] = max(merged[key], value)
            elif key.startswith("max") and key in merged:
                merged[key] = min(merged[key], value)
            else:
                merged[key] = value
    return merged


def _text(schema: Schema, name: str, turn: int, word: str | None) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    suffix = f" {turn + 1}" if turn else ""
    candidates = [f"{word}{suffix}"] if word else []
    candidates.append(f"demo {name}{suffix}")
    if schema.get("format") in _FORMATS:
        candidates = [_FORMATS[schema["format"]].format(turn + 1)]
    fill = max(int(least), 1)
    candidates += [f"demo {name}{suffix}".ljust(fill, ".")[: int(min(most, fill))]]
    if "pattern" in schema:
        numbers = [str(turn + 1).rjust(width, "1") for width in range(1, 17)]
        letters = [letter * width for letter in ("a", "A") for width in range(1, 17)]
        candidates += ["demo", "Demo", "2026-01-01", "12:00", "A1", "AB-123", "+15550100", "demo_1", "demo-1"]
        candidates += ["#aabbcc", "1.0.0", "demo@example.com", "https://example.com", *numbers, *letters]
    try:
        pattern = re.compile(schema.get("pattern", ""))
    except re.error as error:
        raise SchemaError(f"{name}: 'pattern' is not a regular expression: {error}") from None
    for text in candidates:
        if least <= len(text) <= most and pattern.search(text):
            return text
    raise SchemaError(f"{name}: the demo finds no text for these limits or this 'pattern'")


def _number(schema: Schema, name: str, turn: int, *, whole: bool) -> int | float:
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
    step = schema.get("multipleOf", 1)

    def fits(value: float) -> bool:
        return low <= value <= high and above < value < below and (not whole or value == int(value))

    floor = max(low, above)
    start = math.ceil(floor / step) if floor > -math.inf else 1
    if floor == -math.inf and min(high, below) < step:
        # Downwards from the upper bound, by one step for each turn.
        start = math.floor(min(high, below) / step) - 2 * turn - 1
    for factor in (start + turn, start, start + 1, start + turn + 1):
        value = factor * step
        if fits(value):
            return int(value) if whole or float(value).is_integer() else value
    middle = (floor + min(high, below)) / 2
    if "multipleOf" not in schema and math.isfinite(middle) and fits(middle):
        return int(middle) if whole else middle
    raise SchemaError(f"{name}: no number fits these limits")

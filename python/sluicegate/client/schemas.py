"""JSON Schema where msgspec's own is not enough: pydantic's types, and what strict servers accept."""

from __future__ import annotations

from typing import Any

_Json = dict[str, Any]


def is_pydantic(kind: Any) -> bool:
    """A pydantic model or dataclass, told without importing pydantic."""
    return hasattr(kind, "__pydantic_validator__") or hasattr(kind, "model_json_schema")


def schema_of_foreign(kind: Any) -> _Json:
    """msgspec's `schema_hook`: the schema of a pydantic type. Raises NotImplementedError for any other."""
    if not is_pydantic(kind):
        raise NotImplementedError(kind)
    from pydantic import TypeAdapter  # noqa: PLC0415 - the caller has imported it already

    return TypeAdapter(kind).json_schema()


def decode_foreign(kind: Any, value: Any) -> Any:
    """msgspec's `dec_hook`: validates by pydantic; its error is a ValueError, to which msgspec adds the
    path.
    """
    if not is_pydantic(kind):
        raise NotImplementedError(kind)
    from pydantic import TypeAdapter  # noqa: PLC0415

    return TypeAdapter(kind).validate_python(value)


def hoisted(schema: _Json) -> _Json:
    """With its root in place of a `$ref`, and all `$defs` at the root, where the references look for them."""
    definitions: _Json = {}
    root = _without_definitions(schema, definitions)
    reference = root.pop("$ref", None)
    if reference is not None:
        root = {**definitions[reference.rpartition("/")[2]], **root}
        if not _refers(definitions, reference):
            del definitions[reference.rpartition("/")[2]]
    return {**root, "$defs": definitions} if definitions else root


def _refers(node: Any, reference: str) -> bool:
    if isinstance(node, list):
        return any(_refers(item, reference) for item in node)
    if not isinstance(node, dict):
        return False
    return node.get("$ref") == reference or any(_refers(value, reference) for value in node.values())


def _without_definitions(node: Any, found: _Json) -> Any:
    if isinstance(node, list):
        return [_without_definitions(item, found) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _without_definitions(value, found) for key, value in node.items() if key != "$defs"}
    for name, definition in node.get("$defs", {}).items():
        found[name] = _without_definitions(definition, found)
    return kept


def strict(schema: _Json) -> tuple[_Json, bool]:
    """The schema as OpenAI's strict mode wants it, and whether it can be strict at all.

    Every object is closed and all its members are required; members of any name (`dict[str, int]`) cannot
    be had.
    """
    closed = _closed(schema)
    return closed, not _is_open(closed)


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: _closed(value) for key, value in node.items() if key not in ("default", "discriminator")}
    if isinstance(node.get("properties"), dict):
        # The names of members are no keywords.
        made["properties"] = {name: _closed(value) for name, value in node["properties"].items()}
        made["required"] = list(node["properties"])
        made["additionalProperties"] = False
    return made


def _is_open(node: Any) -> bool:
    if isinstance(node, list):
        return any(_is_open(item) for item in node)
    if not isinstance(node, dict):
        return False
    if node.get("type") == "object" and node.get("additionalProperties", True) is not False:
        return True
    return any(_is_open(value) for value in node.values())

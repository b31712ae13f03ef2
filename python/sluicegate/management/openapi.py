"""The operations as an OpenAPI 3.1 document, made of the very structs that requests and answers are."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from sluicegate import __version__
from sluicegate.management.dispatch import PREFIX
from sluicegate.management.operation import NoQuery, Operation

_REF = "#/components/schemas/{name}"
_ERROR_REF = {"$ref": "#/components/schemas/Error"}

_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What happened, and what to do."},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"], "description": "The field, parameter or header."},
                "code": {"type": "string", "description": "Stable: build on this one."},
            },
        }
    },
}

_MEANINGS = {
    400: "The request cannot be accepted as it is; `param` names the field.",
    401: "No admin key, or one that is not in force.",
    403: "The key may not do this.",
    404: "There is no such object for this key; one of another workspace is the same.",
    408: "The body came too slowly.",
    409: "Something that exists stands against it: a name that is taken, or a use.",
    412: "`If-Match` names another version than the one that is there.",
    413: "The body is too large.",
    415: "The body is not declared as JSON, or is compressed.",
    422: "The Idempotency-Key came with another request before.",
    500: "A fault of the gateway; the log has the request id.",
    503: "The database does not answer. Try again shortly.",
}

# Blanks around a header's value are no part of it.
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": "The ETag that was read: the change is refused if somebody was faster.",
    "schema": {"type": "string", "pattern": '^[ \\t]*("[0-9]{1,9}"|\\*)[ \\t]*$'},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same request with the same key creates once, and gives the same answer for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[\\x20-\\x7e]+$"},
}


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document of these operations."""
    listed = list(operations)
    kinds: list[Any] = []
    for operation in listed:
        kinds += [kind for kind in (operation.body, operation.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    refs = iter(schemas)
    paths: dict[str, Any] = {}
    for operation in listed:
        body = next(refs) if operation.body is not None else None
        answer = next(refs) if operation.answer is not None else None
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, body, answer)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sluicegate management API",
            "version": __version__,
            "description": "Times are milliseconds since 1970. Errors have the shape of the OpenAI API.",
        },
        "servers": [{"url": PREFIX}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": _portable({**components, "Error": _ERROR}),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An admin key: sk-sgadmin-…"}
            },
        },
    }


def statuses(operation: Operation) -> list[int]:
    """Every error status that this operation can have."""
    found = {400, 500, 503}
    if operation.permission is not None:
        found |= {401, 403}
    if "{" in operation.path:
        found.add(404)
    if operation.body is not None:
        found |= {408, 413, 415}
    if operation.permission is None and operation.body is not None:
        found |= {401, 403}
    if operation.creates:
        found |= {409, 422}
    if operation.conflicts:
        found.add(409)
    if operation.takes_if_match:
        found.add(412)
    return sorted(found)


def _described(operation: Operation, body: Any, answer: Any) -> dict[str, Any]:
    success: dict[str, Any] = {"description": "Done."}
    if answer is not None:
        success["content"] = {"application/json": {"schema": _portable(answer)}}
    if operation.media:
        success["content"] = {kind: {"schema": {"type": "string"}} for kind in operation.media}
    if operation.versioned and answer is not None:
        success["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "For If-Match."}}
    responses = {str(operation.status): success}
    for status in statuses(operation):
        content = {"application/json": {"schema": _ERROR_REF}}
        responses[str(status)] = {"description": _MEANINGS[status], "content": content}
    found: dict[str, Any] = {
        "operationId": operation.id.replace(".", "_"),
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation),
        "responses": responses,
    }
    if operation.permission is None:
        found["security"] = []
    else:
        found["x-permission"] = operation.permission
    if body is not None:
        content = {"application/json": {"schema": _portable(body)}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"{(\w+)}", operation.path)
    ]
    if operation.query is not NoQuery:
        found += _query_parameters(operation.query)
    if operation.takes_if_match:
        found.append(_IF_MATCH)
    if operation.creates:
        found.append(_IDEMPOTENCY_KEY)
    return found


def _query_parameters(kind: type[Struct]) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components([kind], ref_template=_REF)
    schema = components[kind.__name__]
    found = []
    for name, given in schema["properties"].items():
        inner = dict(given)
        described = {"description": inner.pop("description")} if "description" in inner else {}
        found.append(
            {"name": name, "in": "query", "required": False, "schema": _portable(inner), **described}
        )
    return found


def _portable(schema: Any) -> Any:
    """Patterns as everybody reads them: Python's `\\Z` is `$` elsewhere."""
    if isinstance(schema, dict):
        return {
            key: value.replace(r"\Z", "$")
            if key == "pattern" and isinstance(value, str)
            else _portable(value)
            for key, value in schema.items()
        }
    if isinstance(schema, list | tuple):
        return [_portable(part) for part in schema]
    return schema

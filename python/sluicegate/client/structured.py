"""Answers of a type: the schema that is asked for, and the value that the text is turned into."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar, is_typeddict

import msgspec

from sluicegate.client.errors import OutputError
from sluicegate.client.schemas import decode_foreign, hoisted, is_pydantic, schema_of_foreign, strict

if TYPE_CHECKING:
    from sluicegate.client.answer import Answer

T = TypeVar("T")
_SHOWN = 200


def response_format(kind: type[Any]) -> dict[str, Any]:
    """The `response_format` of a request. Raises OutputError for a type that is no object in JSON."""
    if not _is_object(kind):
        raise OutputError(
            f"output={getattr(kind, '__name__', kind)!s} cannot be asked for: give a msgspec Struct, a "
            "dataclass, a TypedDict or a pydantic model."
        )
    try:
        schema = msgspec.json.schema(kind, schema_hook=schema_of_foreign)
    except TypeError as error:
        raise OutputError(f"output={kind.__name__} has a field that JSON cannot hold: {error}") from None
    closed, is_strict = strict(hoisted(schema))
    name = "".join(c if c.isalnum() or c in "_-" else "_" for c in kind.__name__)[:64]
    return {"type": "json_schema", "json_schema": {"name": name, "strict": is_strict, "schema": closed}}


def value(kind: type[T], answer: Answer[Any]) -> T:
    """The text of an answer as a value. Raises OutputError, which says where it does not fit."""
    name = kind.__name__
    if answer.refusal:
        raise _failed(answer, f"The model refused to answer: {answer.refusal[:_SHOWN]}")
    if answer.finish_reason == "length":
        raise _failed(answer, f"The {name} is cut off: the answer reached its limit. Raise max_tokens.")
    try:
        return msgspec.json.decode(_bare(answer.content), type=kind, dec_hook=decode_foreign)
    except msgspec.MsgspecError as error:
        shown = answer.content[:_SHOWN]
        raise _failed(
            answer,
            f"The answer is no {name}: {error}. Check that the model supports structured output; "
            f"it wrote: {shown!r}",
        ) from None


def _is_object(kind: Any) -> bool:
    if not isinstance(kind, type):
        return False
    return (
        issubclass(kind, msgspec.Struct)
        or dataclasses.is_dataclass(kind)
        or is_typeddict(kind)
        or is_pydantic(kind)
    )


def _bare(text: str) -> str:
    """Without the code fence that models put around JSON when a server ignores `response_format`."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.removesuffix("```").partition("\n")[2]
    return text


def _failed(answer: Answer[Any], message: str) -> OutputError:
    error = OutputError(message, code="invalid_output")
    error.partial = answer
    return error

"""Tokens of chat requests, from Python objects or from the JSON body itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sluicegate.tokens import core
from sluicegate.tokens.encoding import Encoding, for_any_model, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike
    from typing import Any


def count_messages(  # noqa: PLR0913 (what a chat request can hold beside its messages, each by its own name)
    messages: Iterable[Mapping[str, Any] | Any],
    *,
    model: str,
    tokenizer: Encoding | str | PathLike[str] | None = None,
    tools: Iterable[Mapping[str, Any]] | None = None,
    response_format: Mapping[str, Any] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
) -> core.MessageCount:
    """The tokens that a chat request sends to `model`, counted as OpenAI's cookbook does.

    `messages`, `tools`, `response_format` and `tool_choice` are those of the request; messages may also be
    objects of the `openai` package, pydantic models, dataclasses or msgspec structs. Images count by size and
    detail, read from `data:` URLs; nothing is fetched. `tokenizer` is an `Encoding`, the name of one, or the
    path of a `tokenizer.json`; without it the model's own is taken. Where none is known the count is an
    estimate of one token for three bytes. `exact` and `reasons` of the result say how far to trust it.

    Raises ValueError for a message that is no object, TypeError for a value that has no JSON.
    """
    body: dict[str, Any] = {"messages": list(messages)}
    extra = {"tools": tools, "response_format": response_format, "tool_choice": tool_choice}
    body |= {name: value for name, value in extra.items() if value is not None}
    return count_request(_json(body), model=model, tokenizer=tokenizer)


def count_request(
    body: bytes, *, model: str, tokenizer: Encoding | str | PathLike[str] | None = None
) -> core.MessageCount:
    """As `count_messages`, from the JSON body of a request to `/v1/chat/completions`.

    `model` counts, not the body's own `model`: an alias says nothing about the tokenizer. Raises ValueError
    for what is not JSON or has no `messages`.
    """
    found = for_any_model(model) if tokenizer is None else resolve(tokenizer)
    return core.count_chat(body, model, found)


def _json(body: dict[str, Any]) -> bytes:
    import orjson  # noqa: PLC0415 (importing it takes longer than all of this package)

    return orjson.dumps(body, default=_plain)


def _plain(value: Any) -> Any:
    """A value that orjson does not know: pydantic's, msgspec's, any mapping or iterable."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_none=True)
    if hasattr(value, "__struct_fields__"):
        import msgspec  # noqa: PLC0415

        return msgspec.to_builtins(value)
    if hasattr(value, "keys"):
        return dict(value)
    if hasattr(value, "__iter__"):
        return list(value)
    raise TypeError(f"a value of the type {type(value).__name__} cannot be part of a request")

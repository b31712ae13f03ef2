"""What comes back: answers, tool calls, steps, vectors; and how a plain answer's body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from msgspec import Struct, field

from sluicegate.client.errors import ProtocolError
from sluicegate.engine import Chunk, ToolCallDelta, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sluicegate.engine import Chunks

T = TypeVar("T")


class ToolCall(Struct, frozen=True):
    """A call that the model asks for; `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


class ToolResult(Struct, frozen=True):
    """What the model was told of a call: a result, or an error that it may act upon."""

    call: ToolCall
    content: str
    failed: bool = False


class Step(Struct, frozen=True):
    """One request and its answer, with the results of the tools that it called."""

    content: str
    thinking: str
    tool_calls: tuple[ToolCall, ...]
    results: tuple[ToolResult, ...]
    usage: Usage | None


class Answer(Struct, Generic[T], frozen=True):
    """A whole answer.

    With tools, texts and calls are those of the last step, `usage` the sum of all steps. `messages` is the
    whole conversation, this answer included, ready for the next request. `output` is the value that was
    asked for with `output=`. `body` is the JSON of a plain answer as it came, for fields that have no
    attribute here.
    """

    content: str
    thinking: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    output: T | None = None
    steps: tuple[Step, ...] = ()
    messages: tuple[dict[str, Any], ...] = ()
    body: bytes = b""

    def message(self) -> dict[str, Any]:
        """The assistant's message, as the next request needs it."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content or None}
        if self.refusal:
            message["refusal"] = self.refusal
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
                for c in self.tool_calls
            ]
        elif not self.content:
            # Servers refuse a message without anything in it.
            message["content"] = ""
        return message

    def chunk(self) -> Chunk:
        """All of it as one chunk: what a stream gives of an answer that was there already."""
        calls = tuple(
            ToolCallDelta(index, call.id, call.name, call.arguments)
            for index, call in enumerate(self.tool_calls)
        )
        return Chunk(
            self.content,
            thinking=self.thinking,
            refusal=self.refusal,
            tool_calls=calls,
            finish_reason=self.finish_reason,
            usage=self.usage,
        )


class Embeddings(Struct, frozen=True):
    """Vectors in the order of the texts."""

    vectors: tuple[list[float], ...]
    model: str
    usage: Usage | None = None


class _Details(Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None

    def value(self) -> Usage:
        prompt = self.prompt_tokens_details or _Details()
        completion = self.completion_tokens_details or _Details()
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            self.total_tokens,
            prompt.cached_tokens,
            completion.reasoning_tokens,
        )


class _Function(Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class _Call(Struct):
    function: _Function
    id: str | None = None


class _Message(Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    message: _Message
    finish_reason: str | None = None


class _Completion(Struct):
    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None


class _Vector(Struct):
    embedding: list[float]
    index: int | None = None


class _Embedded(Struct):
    data: list[_Vector]
    model: str | None = None
    usage: _Usage | None = field(default=None)


_completions = msgspec.json.Decoder(_Completion)
_embedded = msgspec.json.Decoder(_Embedded)


def of_body(body: bytes) -> Answer[None]:
    """A plain chat answer. Raises ProtocolError for one without choices."""
    try:
        found = _completions.decode(body)
    except msgspec.MsgspecError as error:
        raise _strange("a chat answer", error) from None
    if not found.choices:
        raise ProtocolError(
            "The answer has no choices. Check that the base URL leads to an OpenAI-compatible server."
        )
    choice = found.choices[0]
    message = choice.message
    return Answer(
        content=message.content or "",
        thinking=message.reasoning_content or message.reasoning or "",
        refusal=message.refusal or "",
        tool_calls=tuple(_call(n, call) for n, call in enumerate(message.tool_calls or ())),
        finish_reason=choice.finish_reason,
        usage=found.usage.value() if found.usage else None,
        model=found.model or "",
        body=body,
    )


def _call(number: int, call: _Call) -> ToolCall:
    arguments = call.function.arguments
    if not isinstance(arguments, str):
        # Some servers send an object.
        arguments = msgspec.json.encode(arguments or {}).decode()
    return ToolCall(call.id or f"call_{number}", call.function.name, arguments)


def of_chunks(chunks: Chunks) -> Answer[None]:
    """What has come of a stream."""
    outcome = chunks.outcome
    calls = tuple(
        ToolCall(call.id or f"call_{number}", call.name or "", call.arguments)
        for number, call in enumerate(chunks.tool_calls)
    )
    return Answer(
        content=chunks.content,
        thinking=chunks.thinking,
        refusal=chunks.refusal,
        tool_calls=calls,
        finish_reason=chunks.finish_reason,
        usage=chunks.usage,
        model=(outcome.upstream_model if outcome else None) or "",
    )


def embeddings_of_body(body: bytes, wanted: int) -> Embeddings:
    """Vectors by their index. Raises ProtocolError where they are not as many as the texts."""
    try:
        found = _embedded.decode(body)
    except msgspec.MsgspecError as error:
        raise _strange("a list of embeddings", error) from None
    if len(found.data) != wanted:
        raise ProtocolError(f"{wanted} texts were sent, and {len(found.data)} vectors came back.")
    ordered = sorted(found.data, key=lambda vector: vector.index or 0)
    vectors = tuple(vector.embedding for vector in ordered)
    return Embeddings(vectors, found.model or "", found.usage.value() if found.usage else None)


def total(usages: Sequence[Usage | None]) -> Usage | None:
    """The sum; a count that no step reports stays unknown."""
    known = [usage for usage in usages if usage is not None]
    if len(known) <= 1:
        return known[0] if known else None

    def added(name: str) -> int | None:
        counts = [count for usage in known if (count := getattr(usage, name)) is not None]
        return sum(counts) if counts else None

    return Usage(
        added("prompt_tokens"),
        added("completion_tokens"),
        added("total_tokens"),
        added("cached_tokens"),
        added("reasoning_tokens"),
    )


def _strange(what: str, error: Exception) -> ProtocolError:
    return ProtocolError(
        f"The answer is not {what}: {error}. Check that the base URL leads to an OpenAI-compatible server."
    )

"""The demo's answers in OpenAI's shapes: whole objects, and the events of a stream in their order."""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from sluicegate.demo.answers import FINGERPRINT, Answer, Piece

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """What all chunks of one answer share."""

    model: str
    prefix: str
    object: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:24])
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, chunk: bool = False) -> Json:
        """The first fields of an answer or a chunk."""
        named = f"{self.object}.chunk" if chunk and self.object == "chat.completion" else self.object
        return {
            "id": f"{self.prefix}-demo-{self.id}",
            "object": named,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
        }


def chat_identity(model: str) -> Identity:
    """For `/v1/chat/completions`."""
    return Identity(model, "chatcmpl", "chat.completion")


def text_identity(model: str) -> Identity:
    """For `/v1/completions`."""
    return Identity(model, "cmpl", "text_completion")


def usage(prompt: int, answers: Sequence[Answer]) -> Json:
    """Tokens are words here; see `answers`."""
    completion = sum(answer.tokens for answer in answers)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": sum(a.reasoning_tokens for a in answers)},
    }


def _call_id(identity: Identity, choice: int, call: int) -> str:
    return f"call_demo_{identity.id[:12]}_{choice}_{call}"


def _joined(answer: Answer, kind: str, index: int | None = None) -> str:
    pieces = (p for p in answer.pieces if p.kind == kind and index in (None, p.index))
    return "".join(piece.text for piece in pieces)


def _message(identity: Identity, choice: int, answer: Answer) -> Json:
    called = [piece for piece in answer.pieces if piece.kind == "call"]
    message: Json = {"role": "assistant", "content": _joined(answer, "content"), "refusal": None}
    if called:
        message["content"] = None
        message["tool_calls"] = [
            {
                "id": _call_id(identity, choice, piece.index),
                "type": "function",
                "function": {"name": piece.text, "arguments": _joined(answer, "arguments", piece.index)},
            }
            for piece in called
        ]
    if answer.reasoning_tokens:
        message["reasoning_content"] = _joined(answer, "reasoning")
    return message


def chat_body(identity: Identity, answers: Sequence[Answer], prompt: int) -> Json:
    """A whole chat completion."""
    choices = [
        {
            "index": i,
            "message": _message(identity, i, answer),
            "logprobs": None,
            "finish_reason": answer.finish,
        }
        for i, answer in enumerate(answers)
    ]
    return {**identity.head(), "choices": choices, "usage": usage(prompt, answers)}


def text_body(identity: Identity, answers: Sequence[Answer], prompt: int) -> Json:
    """A whole completion."""
    choices = [
        {"index": i, "text": _joined(answer, "content"), "logprobs": None, "finish_reason": answer.finish}
        for i, answer in enumerate(answers)
    ]
    return {**identity.head(), "choices": choices, "usage": usage(prompt, answers)}


def _delta(identity: Identity, choice: int, piece: Piece) -> Json:
    match piece.kind:
        case "reasoning":
            return {"reasoning_content": piece.text}
        case "content":
            return {"content": piece.text}
        case "call":
            function: Json = {"name": piece.text, "arguments": ""}
            call: Json = {"index": piece.index, "id": _call_id(identity, choice, piece.index)}
            return {"tool_calls": [{**call, "type": "function", "function": function}]}
        case "arguments":
            return {"tool_calls": [{"index": piece.index, "function": {"arguments": piece.text}}]}


def chat_chunks(
    identity: Identity, answers: Sequence[Answer], prompt: int, *, include_usage: bool
) -> Iterator[list[Json]]:
    """One list of chunks per beat of the pace: the next word of every choice, side by side."""
    rest: Json = {"usage": None} if include_usage else {}

    def chunk(choice: int, delta: Json, finish: str | None = None) -> Json:
        entry = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**identity.head(chunk=True), "choices": [entry], **rest}

    yield [chunk(i, {"role": "assistant", "content": ""}) for i in range(len(answers))]
    for beat in zip_longest(*(answer.pieces for answer in answers)):
        yield [chunk(i, _delta(identity, i, piece)) for i, piece in enumerate(beat) if piece is not None]
    yield [chunk(i, {}, answer.finish) for i, answer in enumerate(answers)]
    if include_usage:
        yield [{**identity.head(chunk=True), "choices": [], "usage": usage(prompt, answers)}]


def text_chunks(
    identity: Identity, answers: Sequence[Answer], prompt: int, *, include_usage: bool
) -> Iterator[list[Json]]:
    """As `chat_chunks`, for `/v1/completions`."""
    rest: Json = {"usage": None} if include_usage else {}

    def chunk(choice: int, text: str, finish: str | None = None) -> Json:
        entry = {"index": choice, "text": text, "logprobs": None, "finish_reason": finish}
        return {**identity.head(), "choices": [entry], **rest}

    for beat in zip_longest(*(answer.pieces for answer in answers)):
        yield [chunk(i, piece.text) for i, piece in enumerate(beat) if piece is not None]
    yield [chunk(i, "", answer.finish) for i, answer in enumerate(answers)]
    if include_usage:
        yield [{**identity.head(), "choices": [], "usage": usage(prompt, answers)}]

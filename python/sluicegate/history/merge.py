"""How a request and what is stored become one conversation. Nothing here reads or writes."""

import re
from collections.abc import Sequence
from enum import Enum
from typing import Any

import orjson

from sluicegate import errors
from sluicegate.engine import Message, chain, without_thoughts
from sluicegate.errors import GatewayError
from sluicegate.history.model import LONGEST_TITLE, New, Node

# Where servers put what a model thought; it is kept apart and never sent to a model again.
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks")
_THINKING_PARTS = ("thinking", "reasoning", "redacted_thinking")
# Of an answer, what no model has to read again.
_OF_ANSWERS = ("annotations",)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


class Shape(Enum):
    """What a request brings."""

    # No message but the system's.
    NOTHING = "nothing"
    # One message of the user: what came before is ours to add.
    TURN = "turn"
    # Results of tools, whose calls are ours to add.
    RESULTS = "results"
    # A conversation: the client keeps its own history, and is never given anything twice.
    WHOLE = "whole"


def shape_of(said: Sequence[Message]) -> Shape:
    """`said`: the messages without the system's."""
    if not said:
        return Shape.NOTHING
    roles = [message.role for message in said]
    if roles == ["user"]:
        return Shape.TURN
    if roles[0] == "tool" and all(role in ("tool", "user") for role in roles):
        return Shape.RESULTS
    return Shape.WHOLE


def news(said: Sequence[Message], body: bytes, base: bytes, *, thoughts: bool) -> list[New]:
    """The messages as they are stored, each with the digest of the conversation up to it.

    `base`: the digest of what they follow. `thoughts`: whether what a model thought is stored at all.
    """
    chains = chain(base, [message.digest for message in said])
    return [
        _new(message, body[message.start : message.end], link, thoughts=thoughts)
        for message, link in zip(said, chains, strict=True)
    ]


def whole_turns(path: Sequence[Node]) -> list[list[Node]]:
    """The messages by turns: each begins with what the user says, and holds all that follows from it."""
    turns: list[list[Node]] = []
    for node in path:
        if not turns or (node.role == "user" and turns[-1][-1].role != "user"):
            turns.append([])
        turns[-1].append(node)
    return turns


def settled(path: list[Node]) -> list[Node]:
    """The path without a last turn that still waits for the results of tools."""
    if not path or not path[-1].calls:
        return path
    return [node for turn in whole_turns(path)[:-1] for node in turn]


def results_of(said: Sequence[Message]) -> frozenset[str]:
    """The calls that a request has the results of. Raises 400 for a result that names none, or one twice."""
    ids = [message.answers for message in said if message.role == "tool"]
    if None in ids or len(set(ids)) < len(ids):
        raise errors.bad_request(
            "invalid_value",
            "Each message of the role tool needs the 'tool_call_id' of another call.",
            "messages",
        )
    return frozenset(ref for ref in ids if ref is not None)


def no_such_calls(wanted: frozenset[str], pending: Sequence[str]) -> GatewayError:
    """Results of tools that nobody waits for."""
    message = "The results of tools belong to no call that this conversation waits for"
    missing = [ref for ref in pending if ref not in wanted]
    if missing and wanted & set(pending):
        message = f"The results of some calls are missing: {', '.join(map(errors.printable, missing[:8]))}"
    return errors.bad_request(
        "tool_calls_not_pending",
        f"{message}. Send the results of all calls of its last answer, or the whole conversation.",
        "messages",
    )


def answers_of(answer: bytes, base: bytes, *, complete: bool, thoughts: bool) -> list[New]:
    """The messages of an answer, one for each choice; the first is the one that is gone on with.

    One without text and calls is not complete: no model could go on from it.
    """
    found = []
    for choice in orjson.loads(answer).get("choices") or ():
        message = choice.get("message")
        if not isinstance(message, dict):
            continue
        kept = {
            name: value
            for name, value in message.items()
            if name not in _OF_ANSWERS and (value not in (None, []) or name == "content")
        }
        text = orjson.dumps({**kept, "role": "assistant"})
        read = Message(text)
        (link,) = chain(base, [read.digest])
        new = _new(read, text, link, thoughts=thoughts)
        whole = complete and (bool(new.calls) or _says_something(orjson.loads(new.body)))
        found.append(New(**{**_fields(new), "complete": whole}))
    return found


def title_of(new: Sequence[New]) -> str:
    """What the conversation begins with, in a line."""
    first = next((message for message in new if message.role == "user"), None)
    return "" if first is None else line_of(orjson.loads(first.body).get("content"))


def line_of(content: Any) -> str:
    """What the content of a message, or of an item of a response, begins with, in a line."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = " ".join(text for text in texts if isinstance(text, str))
    text = _CONTROL.sub(" ", content if isinstance(content, str) else "").strip()
    return text if len(text) <= LONGEST_TITLE else f"{text[: LONGEST_TITLE - 1]}…"


def _new(message: Message, text: bytes, link: bytes, *, thoughts: bool) -> New:
    body, thought = text, None
    if message.role == "assistant":
        body, thought = _apart(text)
    # Escapes of other clients than this one would hide the text from a search.
    if b"\\u" in body:
        body = _plainly(body)
    return New(
        chain=link,
        role=message.role,
        body=body.decode(),
        thoughts=thought if thoughts else None,
        calls=tuple(message.calls),
    )


def _apart(text: bytes) -> tuple[bytes, str | None]:
    """A message without what the model thought, and that."""
    message = orjson.loads(text)
    thought: dict[str, Any] = {name: message.pop(name) for name in _THOUGHTS if message.get(name) is not None}
    content = message.get("content")
    if isinstance(content, str):
        said = without_thoughts(content)
        if said != content:
            thought["content"] = content.removesuffix(said)
            message["content"] = said
    elif isinstance(content, list):
        parts = [part for part in content if not _is_thought(part)]
        if len(parts) < len(content):
            thought["content"] = [part for part in content if _is_thought(part)]
            message["content"] = parts
    if not thought:
        return text, None
    return orjson.dumps(message), orjson.dumps(thought).decode()


def _is_thought(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _THINKING_PARTS


def _plainly(body: bytes) -> bytes:
    try:
        return orjson.dumps(orjson.loads(body))
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        # A number that is larger than orjson takes.
        return body


def _says_something(message: dict[str, Any]) -> bool:
    content = message.get("content")
    said = content.strip() if isinstance(content, str) else content
    return bool(said or message.get("refusal") or message.get("function_call") or message.get("audio"))


def _fields(new: New) -> dict[str, Any]:
    return {name: getattr(new, name) for name in New.__struct_fields__}

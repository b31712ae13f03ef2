"""What the demo says: texts, thinking, tool calls and JSON documents, the same for the same request.

An answer is a list of pieces, one per word; a piece counts as one token. That is not how a tokenizer counts,
but it makes `usage`, `max_tokens` and the pace easy to follow by eye.
"""

import json
import re
from dataclasses import dataclass
from typing import Literal

from sluicegate.demo.requests import ChatRequest, CompletionRequest, DemoError, Tool, stops
from sluicegate.demo.schema import SchemaError, document

Kind = Literal["reasoning", "content", "call", "arguments"]

FINGERPRINT = "sluicegate-demo"
# The part of the question that is quoted: long enough to see that it arrived, short enough to read.
QUOTED_WORDS = 12


@dataclass(frozen=True, slots=True)
class Piece:
    """One token: a word of some kind; `call` and `arguments` belong to the tool call number `index`."""

    kind: Kind
    text: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice: its pieces and why it ended."""

    pieces: tuple[Piece, ...]
    finish: Literal["stop", "length", "tool_calls"]

    @property
    def tokens(self) -> int:
        """What `usage.completion_tokens` counts; the name of a tool is free."""
        return sum(piece.kind != "call" for piece in self.pieces)

    @property
    def reasoning_tokens(self) -> int:
        """The part of `tokens` that was thinking."""
        return sum(piece.kind == "reasoning" for piece in self.pieces)


def words(text: str) -> list[str]:
    """Split so that joining gives the text again."""
    return re.findall(r"\s*\S+(?:\s+$)?|\s+", text)


def chat(request: ChatRequest, choice: int, *, thinking: bool) -> Answer:
    """The answer to a conversation; `choice` is its number when the client asked for several."""
    thoughts: list[Piece] = []
    if thinking and request.reasoning_effort != "none":
        text = "There is no model here, so there is little to think about. I answer with the demo text."
        thoughts = [Piece("reasoning", word) for word in words(text)]
    chosen = _chosen(request)
    if chosen:
        return _cut([*thoughts, *_calls(request, chosen, choice)], "tool_calls", request.limit, ())
    spoken = [Piece("content", word) for word in words(_content(request, choice))]
    return _cut([*thoughts, *spoken], "stop", request.limit, stops(request))


def completion(request: CompletionRequest, prompt: str, choice: int) -> Answer:
    """The continuation of a prompt."""
    text = f" … and here Sluicegate's demo goes on, with no model behind it. {_question(prompt)}"
    text += f" (choice {choice + 1})" if choice else ""
    pieces = [Piece("content", word) for word in words(text)]
    answer = _cut(pieces, "stop", request.max_tokens, stops(request))
    if request.echo:
        return Answer((Piece("content", prompt), *answer.pieces), answer.finish)
    return answer


def prompt_tokens(request: ChatRequest) -> int:
    """Words of all messages."""
    return sum(len(message.text.split()) for message in request.messages)


def _content(request: ChatRequest, choice: int) -> str:
    wanted = request.response_format
    last = request.messages[-1]
    if wanted and wanted.type == "json_schema":
        if wanted.json_schema is None:
            raise DemoError(400, "'json_schema' is missing.", param="response_format.json_schema")
        try:
            return json.dumps(document(wanted.json_schema.schema), ensure_ascii=False, indent=1)
        except SchemaError as error:
            raise DemoError(
                400, f"The demo cannot satisfy this schema: {error}.", param="response_format"
            ) from None
    if wanted and wanted.type == "json_object":
        said = {"answer": "This is Sluicegate's demo: no model is behind it.", "question": last.text}
        return json.dumps(said, ensure_ascii=False, indent=1)
    if last.role in ("tool", "function"):
        text = f"The tool answered: {last.text.strip()}. I only repeat it: no model is behind this demo."
    else:
        text = "Hello from Sluicegate's demo. No model is behind it: this text is fixed, and only passes "
        text += f"through the gateway as a real answer would. {_question(last.text)} "
        text += "Point the gateway at a real server to get real answers."
    return f"{text} (choice {choice + 1})" if choice else text


def _question(text: str) -> str:
    asked = text.split()
    if not asked:
        return "You sent no words."
    quoted = " ".join(asked[:QUOTED_WORDS]) + (" …" if len(asked) > QUOTED_WORDS else "")
    return f"You sent {len(asked)} word{'s' if len(asked) > 1 else ''}: “{quoted}”."


def _chosen(request: ChatRequest) -> list[Tool]:
    """The tools to call now: none, the named one, those the user names, or the first."""
    tools = request.tools or []
    choice = request.tool_choice or "auto"
    if not isinstance(choice, str):
        named = [tool for tool in tools if tool.function.name == choice.function.name]
        if not named:
            text = f"tool_choice names {choice.function.name!r}, which is not in tools."
            raise DemoError(400, text, param="tool_choice")
        return named[:1]
    if choice == "required" and not tools:
        raise DemoError(400, "tool_choice 'required' needs tools.", param="tool_choice")
    if not tools or choice == "none" or (choice == "auto" and request.messages[-1].role != "user"):
        return []
    asked = request.messages[-1].text
    mentioned = [tool for tool in tools if re.search(rf"\b{re.escape(tool.function.name)}\b", asked)]
    several = request.parallel_tool_calls is not False
    return (mentioned if several else mentioned[:1]) or tools[:1]


def _calls(request: ChatRequest, chosen: list[Tool], choice: int) -> list[Piece]:
    # A name in the question (a city, a person) makes a better argument than "demo city".
    names = re.findall(r"(?<=\s)[A-Z][\w-]+", request.messages[-1].text)
    pieces: list[Piece] = []
    for index, tool in enumerate(chosen):
        schema = tool.function.parameters or {"type": "object"}
        try:
            made = document(schema, word=names[choice % len(names)] if names else None)
        except SchemaError as error:
            text = f"The demo cannot make arguments for {tool.function.name!r}: {error}."
            raise DemoError(400, text, param="tools") from None
        pieces.append(Piece("call", tool.function.name, index))
        fragments = words(json.dumps(made, ensure_ascii=False))
        pieces += [Piece("arguments", fragment, index) for fragment in fragments]
    return pieces


def _cut(
    pieces: list[Piece],
    finish: Literal["stop", "tool_calls"],
    limit: int | None,
    stop_texts: tuple[str, ...],
) -> Answer:
    """End at the first stop text, or after `limit` tokens, whichever comes first."""
    content = "".join(piece.text for piece in pieces if piece.kind == "content")
    found = [content.find(text) for text in stop_texts if text in content]
    if found:
        other = [piece for piece in pieces if piece.kind != "content"]
        pieces = [*other, *(Piece("content", word) for word in words(content[: min(found)]))]
    kept: list[Piece] = []
    spent = 0
    for piece in pieces:
        spent += piece.kind != "call"
        if limit is not None and spent > limit:
            return Answer(tuple(kept), "length")
        kept.append(piece)
    return Answer(tuple(kept), finish)

"""Well-formed OpenAI answers as bytes: what the fault upstream would say if nothing went wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# Two-, three- and four-byte characters, so that a cut or a split can fall inside one.
WORDS = ("Hello", " wörld", " 你好", " 😀", ".")
TEXT = "".join(WORDS)
DONE = b"data: [DONE]\n\n"
HTTP_OK = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Asked:
    """One request as the upstream received it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    # How many requests this connection carried before this one.
    earlier: int = 0
    json: dict[str, Any] = field(default_factory=dict)

    @property
    def op(self) -> str:
        """The last part of the path that says which API it is."""
        for name in ("chat/completions", "completions", "embeddings", "models"):
            if self.target.split("?")[0].endswith("/" + name):
                return name.split("/", maxsplit=1)[0]
        return "other"

    @property
    def model(self) -> str:
        """The model asked for."""
        return str(self.json.get("model", ""))

    @property
    def scenario(self) -> str:
        """What is before the dot of the model: a test may ask for `u23-429-bare.mine`."""
        return self.model.split(".")[0]

    @property
    def stream(self) -> bool:
        """Whether events were asked for."""
        return self.json.get("stream") is True

    @property
    def include_usage(self) -> bool:
        """Whether the extra chunk with the usage was asked for."""
        options = self.json.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True


def dumps(value: object) -> bytes:
    """Compact JSON with the characters as they are."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event(value: object) -> bytes:
    """One SSE event."""
    return b"data: " + (value if isinstance(value, bytes) else dumps(value)) + b"\n\n"


def head(asked: Asked, stream: bool) -> dict[str, Any]:
    """The fields all answers begin with."""
    if asked.op == "chat":
        kind = "chat.completion.chunk" if stream else "chat.completion"
    else:
        kind = "text_completion"
    return {"id": "answer-1", "object": kind, "created": 1760000000, "model": asked.model}


def chunk(asked: Asked, text: str | None, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    """One streamed piece of text, or with `text` None the end of a choice."""
    choice: dict[str, Any] = {"index": index}
    if asked.op == "chat":
        choice["delta"] = {} if text is None else {"content": text}
    else:
        choice["text"] = text or ""
    choice["finish_reason"] = finish
    return {**head(asked, True), "choices": [choice]}


USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def usage_chunk(asked: Asked, usage: object = None) -> dict[str, Any]:
    """The last chunk of a stream that was asked for its usage."""
    return {**head(asked, True), "choices": [], "usage": usage or USAGE}


def text_events(asked: Asked, words: Iterable[str] = WORDS) -> list[bytes]:
    """The events that carry text, without an end."""
    return [event(chunk(asked, word)) for word in words]


def end_events(asked: Asked) -> list[bytes]:
    """The end of the only choice, the usage if asked for, and the marker."""
    usage = [event(usage_chunk(asked))] if asked.include_usage else []
    return [event(chunk(asked, None, "stop")), *usage, DONE]


def events(asked: Asked) -> list[bytes]:
    """A whole stream."""
    return [*text_events(asked), *end_events(asked)]


def answer(asked: Asked) -> dict[str, Any]:
    """A whole plain answer."""
    if asked.op == "embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}]
        return {"object": "list", "data": data, "model": asked.model, "usage": USAGE}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
    if asked.op == "chat":
        choice["message"] = {"role": "assistant", "content": TEXT}
    else:
        choice["text"] = TEXT
    return {**head(asked, False), "choices": [choice], "usage": USAGE}


def whole(asked: Asked) -> bytes:
    """The body that the request asks for: events or one object."""
    return b"".join(events(asked)) if asked.stream else dumps(answer(asked))


def content_type(asked: Asked) -> str:
    """The type of `whole`."""
    return "text/event-stream" if asked.stream else "application/json"


def http_head(status: str = "200 OK", *headers: str) -> bytes:
    """A status line, headers as given, and the empty line."""
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, "")).encode("latin-1")


def http(status: str, kind: str, body: bytes, *headers: str) -> bytes:
    """A whole response with its length."""
    return http_head(status, f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers) + body


def ok(asked: Asked) -> bytes:
    """The right answer, in the framing that a server of its kind uses."""
    if not asked.stream:
        return http("200 OK", "application/json", whole(asked))
    return chunked_head(asked) + b"".join(http_chunk(part) for part in events(asked)) + LAST_CHUNK


def chunked_head(asked: Asked, *headers: str) -> bytes:
    """200, chunked, of the type that was asked for."""
    return http_head("200 OK", f"Content-Type: {content_type(asked)}", "Transfer-Encoding: chunked", *headers)


LAST_CHUNK = b"0\r\n\r\n"


def http_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def error_body(message: str, code: str | None = None, kind: str = "server_error") -> bytes:
    """An error object as OpenAI-compatible servers send it."""
    return dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})

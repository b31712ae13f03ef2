"""The demo upstream as an ASGI application: routes, bodies in, objects and streams out."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from sluicegate.demo import answers, replies, vectors
from sluicegate.demo.requests import (
    MAX_BODY_BYTES,
    ChatRequest,
    CompletionRequest,
    DemoError,
    EmbeddingRequest,
    read,
    texts,
)

Json = dict[str, Any]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# A fixed date: the same list at every start.
CREATED: Final = 1_767_225_600
NOTE: Final = "Sluicegate's built-in demo: no model is behind it. Its tokens are words."


@dataclass(frozen=True, slots=True)
class Manner:
    """How a demo model behaves: seconds between words, and whether it thinks first."""

    pace: float
    thinking: bool = False


# 40 ms a word is 25 tokens a second, what one reader gets of a middling server.
CHAT_MODELS: Final[Mapping[str, Manner]] = {
    "demo": Manner(0.04),
    "demo-fast": Manner(0.0),
    "demo-slow": Manner(0.25),
    "demo-thinking": Manner(0.04, thinking=True),
    "demo-thinking-fast": Manner(0.0, thinking=True),
}
EMBEDDING_MODEL: Final = "demo-embedding"


@dataclass(frozen=True, slots=True)
class Streamed:
    """A streamed answer: lists of chunks, one list per beat."""

    beats: Iterator[list[Json]]
    pace: float


def _no_model(message: str) -> DemoError:
    return DemoError(404, message, param="model", code="model_not_found")


def _manner(model: str) -> Manner:
    if model == EMBEDDING_MODEL:
        chats = ", ".join(CHAT_MODELS)
        raise _no_model(
            f"The model {model!r} makes embeddings only, at /v1/embeddings. For text the demo has: {chats}."
        )
    if model not in CHAT_MODELS:
        known = ", ".join([*CHAT_MODELS, EMBEDDING_MODEL])
        raise _no_model(f"The model {model!r} does not exist here. The demo has: {known}.")
    return CHAT_MODELS[model]


def _pace(scope: Scope, manner: Manner) -> float:
    """`x-demo-pace-ms` overrides the model's pace, up to 10 s a word."""
    for name, value in scope["headers"]:
        if name == b"x-demo-pace-ms" and value.isdigit():
            return min(int(value), 10_000) / 1000
    return manner.pace


def _chat(scope: Scope, body: bytes) -> Json | Streamed:
    request = read(ChatRequest, body)
    manner = _manner(request.model)
    said = [answers.chat(request, i, thinking=manner.thinking) for i in range(request.n or 1)]
    prompt = answers.prompt_tokens(request)
    identity = replies.chat_identity(request.model)
    if not request.stream:
        return replies.chat_body(identity, said, prompt)
    wanted = bool(request.stream_options and request.stream_options.include_usage)
    beats = replies.chat_chunks(identity, said, prompt, include_usage=wanted)
    return Streamed(beats, _pace(scope, manner))


def _completions(scope: Scope, body: bytes) -> Json | Streamed:
    request = read(CompletionRequest, body)
    manner = _manner(request.model)
    prompts = texts(request.prompt, "prompt")
    said = [answers.completion(request, prompt, i) for prompt in prompts for i in range(request.n or 1)]
    tokens = sum(len(prompt.split()) for prompt in prompts)
    identity = replies.text_identity(request.model)
    if not request.stream:
        return replies.text_body(identity, said, tokens)
    wanted = bool(request.stream_options and request.stream_options.include_usage)
    beats = replies.text_chunks(identity, said, tokens, include_usage=wanted)
    return Streamed(beats, _pace(scope, manner))


def _embeddings(_scope: Scope, body: bytes) -> Json:
    request = read(EmbeddingRequest, body)
    if request.model != EMBEDDING_MODEL:
        raise _no_model(f"The model {request.model!r} does not embed. Use {EMBEDDING_MODEL!r}.")
    inputs = texts(request.input, "input")
    if len(inputs) > 2048 or not all(inputs):  # noqa: PLR2004 - OpenAI's limit
        raise DemoError(400, "'input' takes 1 to 2048 texts, none of them empty.", param="input")
    dimensions = request.dimensions or vectors.DIMENSIONS
    encoding = request.encoding_format or "float"
    data = [
        {
            "object": "embedding",
            "index": i,
            "embedding": vectors.encode(vectors.embed(text, dimensions), encoding),
        }
        for i, text in enumerate(inputs)
    ]
    tokens = sum(len(text.split()) for text in inputs)
    counted = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": request.model, "usage": counted}


def _model(name: str) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": answers.FINGERPRINT,
        "description": NOTE,
    }


def _models(scope: Scope, _body: bytes) -> Json:
    names = [*CHAT_MODELS, EMBEDDING_MODEL]
    wanted = scope["path"].removeprefix("/v1/models").strip("/")
    if not wanted:
        return {"object": "list", "data": [_model(name) for name in names]}
    if wanted not in names:
        raise _no_model(f"The model {wanted!r} does not exist here.")
    return _model(wanted)


_POSTED: Final = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completions,
    "/v1/embeddings": _embeddings,
}


def _answer(scope: Scope, body: bytes) -> Json | Streamed:
    path, method = scope["path"], scope["method"]
    if path in _POSTED:
        if method != "POST":
            raise DemoError(405, f"Use POST for {path}.")
        return _POSTED[path](scope, body)
    if path == "/v1/models" or path.startswith("/v1/models/"):
        if method != "GET":
            raise DemoError(405, f"Use GET for {path}.")
        return _models(scope, body)
    if path == "/":
        return {"about": NOTE, "models": "/v1/models"}
    raise DemoError(404, f"There is no {path} here.")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application."""
    if scope["type"] != "http":
        return
    try:
        body = await _read_body(receive)
        answer = _answer(scope, body)
    except DemoError as error:
        await _send_json(send, error.status, error.body)
        return
    if isinstance(answer, Streamed):
        await _send_stream(receive, send, answer)
    else:
        await _send_json(send, 200, answer)


async def _read_body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise DemoError(400, "The body ended early.")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise DemoError(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
        if not message.get("more_body"):
            return b"".join(parts)


async def _send_json(send: Send, status: int, body: Json) -> None:
    data = orjson.dumps(body)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def _send_stream(receive: Receive, send: Send, answer: Streamed) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    # The pause between two words is spent waiting for the client to leave: then nobody is written to.
    gone = asyncio.ensure_future(receive())
    try:
        for beat in answer.beats:
            data = b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in beat)
            await send({"type": "http.response.body", "body": data, "more_body": True})
            await asyncio.wait({gone}, timeout=answer.pace)
            if gone.done():
                return
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
    finally:
        gone.cancel()

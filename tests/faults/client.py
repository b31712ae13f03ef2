"""A client on raw TCP that keeps what really arrived: which bytes, when, and if the framing is complete."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

from faults.oracle import parse

KEY = "sk-fault-test-client-0123456789"
# Longer than every clock of the gateway under test: what reaches this is a hang.
LIMIT = 45.0
PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}


@dataclass
class Answer:
    """One response as it came."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    # The body ended as its framing said.
    complete: bool = False
    # The gateway closed the connection.
    closed: bool = False
    # The limit of the test passed first.
    hung: bool = False
    # When reading began, of time.monotonic(), and how long it took.
    began: float = 0.0
    seconds: float = 0.0
    # (seconds since the request, how many bytes of the body had arrived)
    arrivals: list[tuple[float, int]] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """The first of that name."""
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of a body that has exactly that."""
        value = self.json()
        assert set(value) == {"error"}, value
        assert set(value["error"]) == {"message", "type", "param", "code"}, value
        return dict(value["error"])

    @property
    def data(self) -> list[str]:
        """The data of each event."""
        return [event.data for event in parse(self.body)]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The events as JSON, without the marker."""
        return [json.loads(data) for data in self.data if data != "[DONE]"]

    @property
    def text(self) -> str:
        """All text of choice 0, streamed or plain."""
        sources = self.chunks if self.streamed else [self.json()]
        said = ""
        for choice in (c for source in sources for c in source.get("choices", []) if c["index"] == 0):
            part = choice.get("delta") or choice.get("message") or choice
            said += part.get("content") or part.get("text") or ""
        return said

    @property
    def streamed(self) -> bool:
        """Whether it is an event stream."""
        return (self.header("content-type") or "").startswith("text/event-stream")


def body_for(op: str, model: str, *, stream: bool = False, **fields: Any) -> dict[str, Any]:
    """The smallest good request."""
    body: dict[str, Any] = {"model": model}
    match op:
        case "chat":
            body["messages"] = [{"role": "user", "content": "hello"}]
        case "completions":
            body["prompt"] = "hello"
        case "embeddings":
            body["input"] = "hello"
    if stream:
        body["stream"] = True
    return {**body, **fields}


def request_bytes(
    path: str, body: bytes, *, key: str = KEY, headers: tuple[str, ...] = (), length: str | None = None
) -> bytes:
    """One POST as bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: gateway.test",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        *headers,
        f"Content-Length: {len(body) if length is None else length}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + body


async def ask(
    port: int,
    op: str,
    body: dict[str, Any] | bytes,
    *,
    headers: tuple[str, ...] = (),
    limit: float = LIMIT,
) -> Answer:
    """Send one request and read its answer to the end, or for `limit` seconds."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await exchange(port, request_bytes(PATHS[op], data, headers=headers), limit=limit)


async def exchange(port: int, data: bytes, *, limit: float = LIMIT, linger: bool = False) -> Answer:
    """Send these bytes and read one response; `linger` also waits for the connection to close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await read_answer(reader, limit=limit, linger=linger)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader, *, limit: float = LIMIT, linger: bool = False) -> Answer:
    """Read one response; one that breaks off or takes too long is not `complete`."""
    started = time.monotonic()
    answer = Answer(began=started)
    try:
        async with asyncio.timeout(limit):
            await _read(reader, answer, started)
            answer.complete = True
            while linger and await reader.read(65536):
                pass
            answer.closed = linger
    except (asyncio.IncompleteReadError, ConnectionError):
        answer.closed = True
    except TimeoutError:
        answer.hung = True
    answer.seconds = time.monotonic() - started
    return answer


async def _read(reader: asyncio.StreamReader, answer: Answer, started: float) -> None:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n").split("\r\n")
    answer.status = int(first.split(" ")[1])
    answer.headers = [(n.strip().lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines)]

    def arrived(part: bytes) -> None:
        answer.body += part
        answer.arrivals.append((time.monotonic() - started, len(answer.body)))

    length = answer.header("content-length")
    if answer.header("transfer-encoding") == "chunked":
        while True:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            part = await reader.readexactly(size + 2)
            if size == 0:
                return
            arrived(part[:-2])
    elif length is not None:
        left = int(length)
        while left:
            part = await reader.read(min(left, 65536))
            if not part:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(part)
            arrived(part)
    elif answer.status not in (204, 304):
        while part := await reader.read(65536):
            arrived(part)

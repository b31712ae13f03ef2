"""The server's side of ASGI: one request in, its messages out."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

KEY = "sk-test-0123456789abcdef"
AUTH = (b"authorization", f"Bearer {KEY}".encode())
JSON = (b"content-type", b"application/json")


@dataclass
class Answer:
    """What the application sent."""

    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.messages[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        pairs = [(name.decode(), value.decode()) for name, value in self.messages[0]["headers"]]
        assert len(dict(pairs)) == len(pairs), f"a header twice: {pairs}"
        return dict(pairs)

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object; anything else fails."""
        assert list(self.json) == ["error"]
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        return dict(self.json["error"])


class Client:
    """A connection whose body arrives in the given frames; then it stays open until `leave()`."""

    def __init__(self, frames: list[bytes], *, complete: bool = True) -> None:
        self.frames = list(frames)
        self.complete = complete
        self.gone = asyncio.Event()
        self.received = 0

    def leave(self) -> None:
        self.gone.set()

    async def receive(self) -> dict[str, Any]:
        self.received += 1
        if self.frames:
            body = self.frames.pop(0)
            return {
                "type": "http.request",
                "body": body,
                "more_body": bool(self.frames) or not self.complete,
            }
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def request(
    app: Any,
    path: str = "/v1/chat/completions",
    body: bytes = b'{"model":"m"}',
    headers: list[tuple[bytes, bytes]] | None = None,
    method: str = "POST",
    *,
    client: Client | None = None,
    raw_path: bytes | None = None,
    patience: float = 5,
) -> Answer:
    """Send one request through `app`."""
    client = client or Client([body])
    answer = Answer()

    async def send(message: dict[str, Any]) -> None:
        assert message["type"] == ("http.response.body" if answer.messages else "http.response.start")
        answer.messages.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode() if raw_path is None else raw_path,
        "query_string": b"",
        "http_version": "1.1",
        "headers": [AUTH, JSON] if headers is None else headers,
        "root_path": "",
        "state": {},
    }
    await asyncio.wait_for(app(scope, client.receive, send), patience)
    return answer

"""An upstream that answers as the request itself tells it to, and remembers what it was sent.

The request carries `x_script`, a field that no API knows: `{"key": "...", "steps": [{"status": 429}, {}]}`.
The n-th call with one key gets the n-th step, later calls the last one. `GET /recorded/KEY` lists the calls.
That the field arrives at all shows that the gateway passes unknown fields on.

A step: `status` (200), `headers`, `body` (the exact bytes as text), `chunks` (the data of each event; no
`[DONE]` is added), `delay` (seconds before the answer), `cut` (close after the chunks, without an end).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

UPSTREAM_KEY = "upstream-secret-1"
LONGEST_DELAY = 5.0


@dataclass
class Recorded:
    """What one call looked like when it arrived."""

    path: str
    headers: dict[str, str]
    body: str


@dataclass
class ScriptedUpstream:
    """A listening scripted upstream: its port and what it has recorded."""

    port: int
    calls: dict[str, list[Recorded]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    # The step of a call that brings no script.
    otherwise: dict[str, Any] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def record(self, key: str, call: Recorded) -> int:
        """Adds the call; how many with this key came before it."""
        with self.lock:
            known = self.calls.setdefault(key, [])
            known.append(call)
            return len(known) - 1

    def recorded(self, key: str) -> list[Recorded]:
        with self.lock:
            return list(self.calls.get(key, ()))


def completion(model: str) -> dict[str, Any]:
    """The smallest whole answer."""
    message = {"role": "assistant", "content": "scripted", "refusal": None}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }


class Conversation(BaseHTTPRequestHandler):
    """One connection to the scripted upstream."""

    server: Listener
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, format: str, *args: object) -> None:
        """Silent: what arrived is recorded."""

    def do_GET(self) -> None:
        if self.path.startswith("/recorded/"):
            calls = self.server.upstream.recorded(self.path.removeprefix("/recorded/"))
            self.answer(200, {}, json.dumps([vars(call) for call in calls]).encode())
        elif self.path == "/v1/models":
            self.answer(200, {}, json.dumps({"object": "list", "data": []}).encode())
        else:
            self.answer(404, {}, b'{"error":{"message":"no such path"}}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        request = json.loads(body)
        script = request.get("x_script") or {
            "key": "unscripted",
            "steps": [self.server.upstream.otherwise],
        }
        headers = {name.lower(): value for name, value in self.headers.items()}
        turn = self.server.upstream.record(script["key"], Recorded(self.path, headers, body.decode()))
        step = script["steps"][min(turn, len(script["steps"]) - 1)]
        time.sleep(min(step.get("delay", 0.0), LONGEST_DELAY))
        try:
            self.play(step, request)
        except OSError:
            self.close_connection = True

    def play(self, step: dict[str, Any], request: dict[str, Any]) -> None:
        if "chunks" in step:
            self.stream(step)
            return
        status = step.get("status", 200)
        text = step.get("body")
        if text is None and status == 200:
            text = json.dumps(completion(request["model"]))
        elif text is None:
            error = {
                "message": f"scripted {status}",
                "type": "scripted_error",
                "param": None,
                "code": None,
            }
            text = json.dumps({"error": error})
        self.answer(status, step.get("headers", {}), text.encode())

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, step: dict[str, Any]) -> None:
        self.send_response(200)
        for name, value in {"content-type": "text/event-stream", **step.get("headers", {})}.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for data in step["chunks"]:
            event = f"data: {data}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
        if step.get("cut"):
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


class Listener(ThreadingHTTPServer):
    """The socket of one scripted upstream; a thread for each connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.upstream = ScriptedUpstream(self.server_address[1])


@contextmanager
def scripted_upstream() -> Iterator[ScriptedUpstream]:
    """Listens on a free port until the block ends."""
    server = Listener()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.upstream
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)

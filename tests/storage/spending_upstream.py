"""An upstream that does what the prompt says: whole, streamed, cut, refused; and knows what it told whom."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Told:
    """One answer: what its usage said, and how many chunks were written before it ended, however it did."""

    prompt: int = 0
    completion: int = 0
    chunks: int = 0
    is_whole: bool = False


class Spending:
    """The answers by the gateway's request id. `first` refuses whoever is to be answered by another."""

    def __init__(self) -> None:
        self.told: dict[str, Told] = {}
        spending = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                with suppress(OSError):
                    spending.answer(self)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[Spending]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, http: BaseHTTPRequestHandler) -> None:
        body = json.loads(http.rfile.read(int(http.headers["content-length"])))
        script = json.loads(body["messages"][-1]["content"])
        kind = script["kind"]
        if kind == "refused":
            send(http, 400, {"error": {"message": "no", "type": "invalid_request_error", "code": "no"}})
        elif kind == "broken" or (kind == "fallback" and http.path.startswith("/first/")):
            send(http, 503, {"error": {"message": "busy", "type": "server_error", "code": "busy"}})
        else:
            told = self.told[http.headers["x-request-id"]] = Told()
            if body.get("stream"):
                self._stream(http, script, told, asked="stream_options" in body)
            else:
                self._whole(http, script, told)

    def _whole(self, http: BaseHTTPRequestHandler, script: Any, told: Told) -> None:
        message = {"role": "assistant", "content": "x" * script["completion"]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        told.prompt, told.completion, told.is_whole = script["prompt"], script["completion"], True
        send(http, 200, {"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage(script)})

    def _stream(self, http: BaseHTTPRequestHandler, script: Any, told: Told, *, asked: bool) -> None:
        http.send_response(200)
        http.send_header("content-type", "text/event-stream")
        http.send_header("transfer-encoding", "chunked")
        http.end_headers()
        for number in range(script["chunks"]):
            told.chunks += 1
            write(
                http, {"choices": [{"index": 0, "delta": {"content": f"w{number} "}, "finish_reason": None}]}
            )
            # So that a client can leave in the middle.
            time.sleep(script["pause"])
        if script["kind"] == "cut":
            http.close_connection = True
            http.connection.close()
            return
        write(http, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if asked:
            told.prompt, told.completion, told.is_whole = script["prompt"], script["completion"], True
            write(http, {"choices": [], "usage": usage(script)})
        piece(http, b"data: [DONE]\n\n")
        piece(http, b"")


def usage(script: Any) -> dict[str, int]:
    prompt, completion = script["prompt"], script["completion"]
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def send(http: BaseHTTPRequestHandler, status: int, value: Any) -> None:
    body = json.dumps(value).encode()
    http.send_response(status)
    http.send_header("content-type", "application/json")
    http.send_header("content-length", str(len(body)))
    http.end_headers()
    http.wfile.write(body)


def write(http: BaseHTTPRequestHandler, value: Any) -> None:
    piece(http, f"data: {json.dumps({'id': 'c', 'object': 'chat.completion.chunk', **value})}\n\n".encode())


def piece(http: BaseHTTPRequestHandler, data: bytes) -> None:
    http.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

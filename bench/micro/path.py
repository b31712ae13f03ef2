"""What a plain request costs in Python alone: the application called in process, its answer at hand.

`python -m bench.micro.path [--requests N] [--rounds N]` asks a real upstream once, and gives that reply to
all others. So neither the server, nor the network, nor the core's upstream call is in the figure, and it
is steady enough (2 %) to see what one attribute costs. Prints one line; asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import process_time_ns
from typing import Any

import uvloop

from sluicegate import engine
from sluicegate.app import create_app
from sluicegate.settings import load

KEY = "sk-bench"
BODY = b'{"model":"bench","messages":[{"role":"user","content":"Say hello."}]}'
ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17}}'
)
MODELS = b'{"object":"list","data":[{"id":"bench","object":"model"}]}'


class Upstream(BaseHTTPRequestHandler):
    """Answers the one real request, and the question for its models."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(MODELS)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._send(ANSWER)

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass(frozen=True)
class Ready:
    """An awaitable that never waits, and what it gives; the server's own future for `receive` is alike."""

    value: Any

    def __await__(self) -> Iterator[Any]:
        return self.value
        yield

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self.value


class NoCall:
    """The call of a reply that is at hand."""

    def cancel(self, cause: str = "") -> None:
        """Nothing to cancel."""


def scope() -> dict[str, Any]:
    """As the server makes it for each request."""
    headers = [
        (b"host", b"127.0.0.1"),
        (b"authorization", f"Bearer {KEY}".encode()),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(BODY)).encode()),
    ]
    path = "/v1/chat/completions"
    found = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": headers}
    return {**found, "query_string": b"", "root_path": "", "client": ("127.0.0.1", 5)}


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[None]:
    """The application between its start and its end, as a server runs it."""
    inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    started = asyncio.Event()

    async def told(message: dict[str, str]) -> None:
        if message["type"] == "lifespan.startup.complete":
            started.set()

    life = asyncio.create_task(app({"type": "lifespan", "state": {}}, inbox.get, told))
    await inbox.put({"type": "lifespan.startup"})
    await started.wait()
    yield
    await inbox.put({"type": "lifespan.shutdown"})
    await life


@contextmanager
def reply_at_hand() -> Iterator[None]:
    """The first call is real; its reply answers all that follow."""
    start = engine.Engine.start
    replies: list[Ready] = []

    def instead(self: engine.Engine, *what: Any, **options: Any) -> Any:
        if replies:
            return engine.PendingReply(NoCall(), replies[0])  # type: ignore[arg-type]
        pending = start(self, *what, **options)
        pending.future.add_done_callback(lambda future: replies.append(Ready(future.result())))
        return pending

    engine.Engine.start = instead  # type: ignore[method-assign]
    try:
        yield
    finally:
        engine.Engine.start = start  # type: ignore[method-assign]


async def measure(port: int, requests: int, rounds: int) -> list[float]:
    """Microseconds a request, of each round."""
    environment = {"OPENAI_COMPATIBLE_BASE_URL": f"http://127.0.0.1:{port}/v1", "SLUICEGATE_API_KEYS": KEY}
    app: Any = create_app(load(None, environment))
    asked = Ready({"type": "http.request", "body": BODY, "more_body": False})
    sent = Ready(None)
    statuses: set[int] = set()
    found: list[float] = []

    def send(message: dict[str, Any]) -> Ready:
        statuses.add(message.get("status", 200))
        return sent

    async with running(app):
        # The list of models is asked for at the start.
        await asyncio.sleep(0.3)
        with reply_at_hand():
            for _ in range(rounds + 1):
                begun = process_time_ns()
                for _ in range(requests):
                    await app(scope(), lambda: asked, send)
                found.append((process_time_ns() - begun) / requests / 1000)
    if statuses != {200}:
        raise SystemExit(f"The gateway answered {sorted(statuses)}.")
    # The first has the real call in it, and caches to fill.
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = sorted(runner.run(measure(server.server_port, arguments.requests, arguments.rounds)))
    server.shutdown()
    print(f"A plain request in Python: {found[0]:.2f} us at least, {statistics.median(found):.2f} by median.")


if __name__ == "__main__":
    main()

"""An upstream on raw sockets that does what the path of the base URL says, and loops to call it from."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import uvloop

from sluicegate.engine import Engine, Upstream

SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"
FLOOD_EVENTS = 2048
# The peer left, or the test is over: Python 3.11 logs a handler that ends cancelled.
ENDS = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError)
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

# A bound for what takes milliseconds: a machine may stand still for some seconds. The promise that an
# upstream is closed within a second is measured in tests/faults, by a clock that knows such machines.
BOUND = 15.0


class Engines:
    """Makes the engines of the test that runs."""

    def __init__(self) -> None:
        self.inline = False

    def __call__(self) -> Engine:
        return Engine(inline=self.inline)


# One test runs at a time, and each is run with both kinds: see `engine_kind`.
ENGINES = Engines()

Run = Callable[[Coroutine[Any, Any, None]], None]


def run_on(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], scenario: Coroutine[Any, Any, None]
) -> None:
    """A scenario on a loop of its own, at most 40 s."""

    async def bounded() -> None:
        async with asyncio.timeout(40):
            await scenario

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(bounded())


def event(nonce: str, number: int, text: str = "", finish: str | None = None) -> bytes:
    """One chunk of a chat stream."""
    choice = {"index": 0, "delta": {"content": f"{nonce}:{number}:{text}"}, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def stream_of(nonce: str, events: int, size: int = 0) -> list[bytes]:
    """What `short` and `flood` send."""
    parts = [event(nonce, i, "x" * size) for i in range(events)]
    return [*parts, event(nonce, events, "", "stop") + DONE]


def short(nonce: str) -> bytes:
    return b"".join(stream_of(nonce, 20))


def flood(nonce: str) -> bytes:
    """About 8 MiB."""
    return b"".join(stream_of(nonce, FLOOD_EVENTS, 4096))


def request_body(nonce: str, *, stream: bool = True) -> bytes:
    message = {"role": "user", "content": "hi"}
    return json.dumps({"model": "m", "messages": [message], "stream": stream, "user": nonce}).encode()


def plain_answer(nonce: str) -> bytes:
    message = {"role": "assistant", "content": nonce}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    answer = {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]}
    return json.dumps(answer).encode()


@dataclass
class Exchange:
    """One request; `sent` are the bytes of the answer that the kernel has taken."""

    connection: int
    nonce: str
    sent: int = 0
    closed: threading.Event = field(default_factory=threading.Event)


class Scripted:
    """`with Scripted() as server:`; scripts: plain, hang, short, flood, endless."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._connections = 0
        self._serving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="scripted-upstream")
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(BOUND)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(BOUND)
        assert not self._thread.is_alive()

    def base_url(self, script: str) -> str:
        return f"http://127.0.0.1:{self.port}/{script}/v1"

    def upstream(self, script: str, **options: Any) -> Upstream:
        return Upstream(self.base_url(script), **options)

    async def of(self, nonce: str, seconds: float = BOUND) -> Exchange:
        """The request with this nonce, once it has arrived."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for exchange in list(self.exchanges):
                if exchange.nonce == nonce:
                    return exchange
            await asyncio.sleep(0.01)
        raise AssertionError(f"{nonce} did not arrive")

    async def closes(self, nonce: str, seconds: float = BOUND) -> bool:
        """Whether the connection of this request is closed by its client in time."""
        exchange = await self.of(nonce)
        return await asyncio.to_thread(exchange.closed.wait, seconds)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        # Accepted sockets inherit it; without a fixed size the kernel would take up to 4 MiB.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        server = await asyncio.start_server(self._connection, sock=listener, backlog=512)
        self.port = listener.getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        # The loop closes a socket one turn after its transport.
        await asyncio.sleep(0.01)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number = self._connections
        if task := asyncio.current_task():
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        writer.transport.set_write_buffer_limits(high=0)
        with contextlib.closing(writer), contextlib.suppress(*ENDS):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                script = head.split(b"/", 2)[1].decode()
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                exchange = Exchange(number, json.loads(body).get("user", ""))
                self.exchanges.append(exchange)
                await self._answer(script, exchange, reader, writer)
                if script != "plain":
                    break

    async def _answer(
        self, script: str, exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if script == "plain":
            answer = plain_answer(exchange.nonce)
            head = (
                f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
            )
            writer.write(head.encode() + answer)
            await writer.drain()
            return
        writing = asyncio.create_task(self._stream(script, exchange, writer))
        leaving = asyncio.create_task(reader.read(1))
        try:
            done, _ = await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if leaving in done:
                exchange.closed.set()
        finally:
            for task in (writing, leaving):
                task.cancel()
        for end in await asyncio.gather(writing, leaving, return_exceptions=True):
            assert end in (None, b"") or isinstance(end, OSError | asyncio.CancelledError), end

    async def _stream(self, script: str, exchange: Exchange, writer: asyncio.StreamWriter) -> None:
        if script == "hang":
            await asyncio.sleep(60)
        writer.write(SSE)
        try:
            if script == "endless":
                for number in range(3000):
                    await self._write(writer, exchange, event(exchange.nonce, number))
                    await asyncio.sleep(0.02)
            size, events = (4096, FLOOD_EVENTS) if script == "flood" else (0, 20)
            for part in stream_of(exchange.nonce, events, size):
                await self._write(writer, exchange, part)
                if script == "short":
                    await asyncio.sleep(0)
        except OSError:
            # Writing found out first that the peer has gone.
            exchange.closed.set()

    async def _write(self, writer: asyncio.StreamWriter, exchange: Exchange, part: bytes) -> None:
        writer.write(part)
        await writer.drain()
        exchange.sent += len(part)

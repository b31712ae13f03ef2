"""A server on raw TCP that misbehaves as the `model` of the request says, and records each connection.

Alone: `python tests/faults/upstream.py --port 9300 --list`. `GET /v1/models` lists the scenarios; with
`GET /records` it tells what it saw. In tests it runs in a thread: `with FaultUpstream() as upstream: ...`.

A scenario is a generator of steps: bytes to write, a number of seconds to wait, or CLOSE or RESET. Without
one of the last two, the connection stays open for the next request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import socket
import ssl
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import WeakSet

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults import (  # noqa: F401 - they register themselves
    content,
    scenarios_broken,
    scenarios_http,
    scenarios_odd,
)
from faults.content import Asked
from faults.steps import BY_NAME, EARLY, End, Scenario, Step, Steps, World

_EARLY = re.compile(rb'"model"\s*:\s*"([^"]+)"')
# A write is paused above this, so that an endless scenario notices a peer that does not read.
WRITE_HIGH_WATER = 64 * 1024


@dataclass
class Connection:
    """What happened on one connection; times are of time.monotonic()."""

    number: int
    listener: str
    opened: float
    requests: list[Asked] = field(default_factory=list)
    received: int = 0
    sent: int = 0
    # Seconds when the peer sent its FIN or RST, and when the connection was gone for good.
    peer_closed: float | None = None
    closed: float | None = None
    # Between two requests: the last scenario is over, and nothing of the next request has come.
    idle: bool = True

    def nonces(self) -> list[str]:
        """The `user` fields: tests mark their requests with them."""
        return [str(asked.json.get("user", "")) for asked in self.requests]


class Records:
    """All connections so far; written by the server's thread, read by tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: list[Connection] = []

    def add(self, listener: str) -> Connection:
        """A new connection."""
        with self._lock:
            connection = Connection(len(self._connections), listener, time.monotonic())
            self._connections.append(connection)
            return connection

    def all(self, listener: str | None = None) -> list[Connection]:
        """Every connection, or those of one listener."""
        with self._lock:
            return [c for c in self._connections if listener in (None, c.listener)]

    def of(self, nonce: str) -> list[Connection]:
        """The connections that carried a request with this `user`."""
        return [c for c in self.all() if nonce in c.nonces()]


class Peer(asyncio.Protocol):
    """One connection: reads requests, runs their scenarios, notices when the other side leaves."""

    def __init__(self, server: FaultUpstream, listener: str) -> None:
        self._server = server
        self._listener = listener
        self._buffer = bytearray()
        self._more = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.transports.add(transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.facts = self._server.records.add(self._listener)
        match self._listener:
            case "closing":
                transport.close()
            case "silent" | "canary":
                pass
            case _:
                self._task = asyncio.get_running_loop().create_task(self._serve())
                self._task.add_done_callback(self._server.note_end)

    def data_received(self, data: bytes) -> None:
        self.facts.received += len(data)
        if self._task is not None:
            self._buffer += data
            self._more.set()

    def eof_received(self) -> bool:
        self.facts.peer_closed = self.facts.peer_closed or time.monotonic()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        now = time.monotonic()
        if exc is not None:
            self.facts.peer_closed = self.facts.peer_closed or now
        self.facts.closed = now
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    async def _serve(self) -> None:
        while True:
            asked = await self._read_request()
            self.facts.idle = False
            self.facts.requests.append(asked)
            scenario = self._server.scenario(asked)
            for step in scenario(asked, self._server.world):
                if not await self._take(step):
                    return
            self.facts.idle = True

    async def _take(self, step: Step) -> bool:
        match step:
            case End.CLOSE:
                self._transport.close()
                return False
            case End.RESET:
                sock = self._transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self._transport.abort()
                return False
            case bytes():
                self._transport.write(step)
                self.facts.sent += len(step)
                await self._writable.wait()
                # One turn of the loop even when nothing blocks: an endless scenario must not starve others.
                await asyncio.sleep(0)
            case _:
                await asyncio.sleep(step)
        return True

    async def _fill(self) -> None:
        self._more.clear()
        await self._more.wait()

    async def _read_request(self) -> Asked:
        while b"\r\n\r\n" not in self._buffer:
            await self._fill()
        head, _, _ = bytes(self._buffer).partition(b"\r\n\r\n")
        del self._buffer[: len(head) + 4]
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = tuple((n.strip().lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines))
        named = dict(headers)
        earlier = len(self.facts.requests)
        if named.get("transfer-encoding") == "chunked":
            body = await self._read_chunked()
        else:
            length = int(named.get("content-length", "0"))
            while len(self._buffer) < length:
                early = _EARLY.search(self._buffer)
                if early and early[1].decode() in EARLY:
                    json_body = {"model": early[1].decode(), "user": _early_user(bytes(self._buffer))}
                    return Asked(method, target, headers, b"", earlier, json_body)
                await self._fill()
            body = bytes(self._buffer[:length])
            del self._buffer[:length]
        return Asked(method, target, headers, body, earlier, _object(body))

    async def _read_chunked(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._buffer:
                await self._fill()
            line, _, _ = bytes(self._buffer).partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            whole = len(line) + 2 + size + 2
            while len(self._buffer) < whole:
                await self._fill()
            body += self._buffer[len(line) + 2 : whole - 2]
            del self._buffer[:whole]
            if size == 0:
                return body


def _early_user(start: bytes) -> str:
    found = re.search(rb'"user"\s*:\s*"([^"]+)"', start)
    return found[1].decode() if found else ""


def _object(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class FaultUpstream:
    """The server with all its listeners, running in a thread of its own."""

    def __init__(self, port: int = 0, *, seed: int = 1, tls: dict[str, ssl.SSLContext] | None = None) -> None:
        self.records = Records()
        self.ports: dict[str, int] = {}
        self.crashes: list[BaseException | None] = []
        self.world = World(random.Random(seed), self.ports)
        self._wanted_port = port
        self._tls = tls or {}
        self._extra: dict[str, Scenario] = {}
        self._servers: list[asyncio.Server] = []
        self.transports: WeakSet[asyncio.Transport] = WeakSet()
        self._sockets: list[socket.socket] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-upstream", daemon=True)
        self._ready = threading.Event()

    def add(self, name: str, scenario: Scenario) -> None:
        """One more scenario, for a test that makes its own."""
        self._extra[name] = scenario

    def scenario(self, asked: Asked) -> Scenario:
        """What to do with this request."""
        if asked.op == "models":
            return self._list_models
        if asked.target == "/records":
            return self._list_records
        return self._extra.get(asked.scenario) or BY_NAME.get(asked.scenario) or _unknown

    def note_end(self, task: asyncio.Task[None]) -> None:
        """A scenario must not fail unseen: its error would look like a fault of the gateway."""
        if not task.cancelled() and task.exception() is not None:
            self.crashes.append(task.exception())

    def _list_models(self, _asked: Asked, _world: World) -> Steps:
        data = [{"id": n, "object": "model", "created": 1, "owned_by": "faults"} for n in BY_NAME]
        yield content.http("200 OK", "application/json", content.dumps({"object": "list", "data": data}))

    def _list_records(self, _asked: Asked, _world: World) -> Steps:
        seen = [{**vars(c), "requests": len(c.requests), "nonces": c.nonces()} for c in self.records.all()]
        yield content.http("200 OK", "application/json", content.dumps(seen))

    def __enter__(self) -> Self:
        for stream in (True, False):
            scenarios_odd.bomb(stream)
        self._thread.start()
        assert self._ready.wait(10), "the fault upstream did not start within 10 s"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        for held in self._sockets:
            held.close()

    @property
    def port(self) -> int:
        """Of the listener that speaks HTTP."""
        return self.ports["main"]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        for server in self._servers:
            server.close()
        for transport in list(self.transports):
            # One that has closed after sending its last bytes cannot be aborted: it has no loop any more.
            if not transport.is_closing() or transport.get_write_buffer_size():
                transport.abort()
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, asyncio.sleep(0), return_exceptions=True))
        self._loop.close()

    async def _listen(self) -> None:
        plain = {"main": self._wanted_port, "closing": 0, "silent": 0, "canary": 0}
        for name, port in plain.items():
            await self._open(name, port, None)
        for name, context in self._tls.items():
            await self._open(name, 0, context)
        self._hold_refused()
        self._hold_blackhole()

    async def _open(self, name: str, port: int, context: ssl.SSLContext | None) -> None:
        listener = socket.create_server(("127.0.0.1", port))
        # Accepted sockets inherit it. The kernel would take up to 4 MiB of an answer that nobody reads.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, WRITE_HIGH_WATER)
        # Said here, or asyncio listens anew with its own 100: while this thread waits for its turn on a busy
        # machine more than that may come, and each SYN that is dropped is sent again after 1, then 2 seconds.
        server = await self._loop.create_server(
            lambda: Peer(self, name), sock=listener, ssl=context, backlog=2048
        )
        self._servers.append(server)
        self.ports[name] = server.sockets[0].getsockname()[1]

    def _hold_refused(self) -> None:
        """A port that is ours but where nobody listens."""
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        self._sockets.append(held)
        self.ports["refused"] = held.getsockname()[1]

    def _hold_blackhole(self) -> None:
        """A full accept queue: the kernel drops further SYNs, as a firewall would."""
        held = socket.socket()
        held.bind(("127.0.0.1", 0))
        held.listen(0)
        self._sockets.append(held)
        self.ports["blackhole"] = held.getsockname()[1]
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(held.getsockname())
            self._sockets.append(filler)


def _unknown(asked: Asked, _world: World) -> Steps:
    body = content.error_body(f"no scenario {asked.model!r}", "model_not_found", "invalid_request_error")
    yield content.http("404 Not Found", "application/json", body)


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the scenarios")
    options = parser.parse_args()
    upstream = FaultUpstream(options.port, seed=options.seed)
    out = sys.stdout
    if options.list:
        for name, scenario in BY_NAME.items():
            out.write(f"{name:32} {' '.join((scenario.__doc__ or '').split())}\n")
    with upstream:
        out.write(json.dumps({"listening": upstream.ports}) + "\n")
        out.flush()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()

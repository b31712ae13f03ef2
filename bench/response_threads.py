"""Conversations by `previous_response_id`, thousands at once: each sees its own last turn, and no other's.

    python -m bench.response_threads --threads 10000 --workers 4

Starts a gateway with a database of its own (or SLUICEGATE_DATABASE_URL, an empty one of PostgreSQL), and an
upstream that answers with all that it was told. Each thread sends its next turn as soon as it has the answer
to the one before, over whichever connection is free, so that turns of one thread meet different workers.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY = "sk-bench-threads-0123456789abcdef0123"
CONNECTIONS = 256
TURNS = 3
START_SECONDS = 30.0

SETTINGS = """
[[upstreams]]
name = "echo"
base_url = "http://127.0.0.1:{port}/v1"
models = ["echo"]
kind = "custom"
"""


@dataclass
class Found:
    """What came of it."""

    turns: int = 0
    # Turns whose context lacked one of its own turns, and turns that saw something of others.
    lost: int = 0
    foreign: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Every turn saw exactly its own."""
        return self.turns > 0 and not (self.lost or self.foreign or self.failed)

    def __str__(self) -> str:
        rate = self.turns / self.seconds if self.seconds else 0.0
        return (
            f"{self.turns} turns, {self.seconds:.1f} s, {rate:.0f}/s: {self.lost} without one of its own, "
            f"{self.foreign} with one of another's, {sum(self.failed.values())} failed {dict(self.failed)}"
        )


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """An upstream on a free port, whose answer is the list of what the user has said."""

    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = json.loads(await reader.readexactly(_length(head)) or b"{}")
                said = [m["content"] for m in body.get("messages", ()) if m["role"] == "user"]
                message = {"role": "assistant", "content": json.dumps(said)}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                answer = json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode()
                kind = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                writer.write(b"%scontent-length: %d\r\n\r\n%s" % (kind, len(answer), answer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=2048)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


class Client:
    """As many connections as given, each for one request at a time."""

    def __init__(self, port: int, key: str, connections: int) -> None:
        self._port = port
        self._head = f"Host: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        self._free: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(connections):
            self._free.put_nowait(None)

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one request."""
        streams = await self._free.get()
        try:
            streams = streams or await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = streams
            data = json.dumps(body).encode()
            head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(data)}\r\n\r\n"
            writer.write(head.encode() + data)
            answered = await reader.readuntil(b"\r\n\r\n")
            return int(answered[9:12]), json.loads(await reader.readexactly(_length(answered)))
        except BaseException:
            if streams is not None:
                streams[1].close()
            streams = None
            raise
        finally:
            self._free.put_nowait(streams)

    async def close(self) -> None:
        """Close all connections; none is in use."""
        while not self._free.empty():
            streams = self._free.get_nowait()
            if streams is not None:
                streams[1].close()
                await streams[1].wait_closed()


async def drive(port: int, key: str, threads: int, turns: int = TURNS, model: str = "echo") -> Found:
    """All threads at once."""
    client, found, began = Client(port, key, CONNECTIONS), Found(), time.monotonic()

    async def thread(number: int) -> None:
        previous: str | None = None
        own: list[str] = []
        for turn in range(turns):
            own.append(f"thread {number} turn {turn}")
            body = {"model": model, "input": own[-1], "previous_response_id": previous}
            status, answer = await client.post("/v1/responses", body)
            if status != 200:
                found.failed[f"{status} {answer['error']['code']}"] += 1
                return
            seen = json.loads(answer["output"][0]["content"][0]["text"])
            found.turns += 1
            found.lost += not set(own) <= set(seen)
            found.foreign += not set(seen) <= set(own)
            found.lost += seen != own and set(seen) == set(own)
            previous = answer["id"]

    await asyncio.gather(*(thread(number) for number in range(threads)))
    found.seconds = time.monotonic() - began
    await client.close()
    return found


async def _main(threads: int, workers: int, turns: int) -> int:
    with tempfile.TemporaryDirectory(prefix="sluicegate-threads-") as folder:
        async with echo() as upstream:
            port = _free_port()
            settings = Path(folder) / "sluicegate.toml"
            settings.write_text(SETTINGS.format(port=upstream))
            kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
            url = {n: v for n, v in os.environ.items() if n == "SLUICEGATE_DATABASE_URL"}
            own = {"SLUICEGATE_API_KEYS": KEY, "SLUICEGATE_DATA_DIR": f"{folder}/data"}
            command = ["-m", "sluicegate", "serve", "--config", str(settings), "--port", str(port)]
            environment = {**kept, **url, **own}
            if url:
                # A server's database is not made by the gateway.
                migrate = [sys.executable, "-m", "sluicegate", "migrate"]
                done = await asyncio.create_subprocess_exec(*migrate, env=environment)
                if await done.wait():
                    return 2
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, "--workers", str(workers), env=environment
            )
            try:
                await _ready(port)
                found = await drive(port, KEY, threads, turns)
            finally:
                process.terminate()
                await process.wait()
    print(f"{threads} threads, {workers} workers: {found}")
    return 0 if found.is_good else 1


async def _ready(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
            if b" 200 " in await reader.readline():
                writer.close()
                return
            writer.close()
        except OSError:
            pass
        await asyncio.sleep(0.05)
    raise SystemExit("the gateway does not get ready")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--turns", type=int, default=TURNS)
    given = parser.parse_args()
    sys.exit(asyncio.run(_main(given.threads, given.workers, given.turns)))

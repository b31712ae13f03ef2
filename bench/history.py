"""What kept conversations cost, and whether they are right under load.

    python -m bench.history latency              # added to the first byte, with 50 stored turns
    python -m bench.history threads --threads 10000 --workers 4
    python -m bench.history cpu --before DIR     # DIR: the `python` folder of another version, built
    python -m bench.history kills --rounds 100

Starts gateways with databases of their own (SLUICEGATE_DATABASE_URL: an empty one of PostgreSQL) before an
upstream of its own.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from bench.response_threads import KEY, Client, Found, _free_port, _length, _ready, echo

SETTINGS = """
[[upstreams]]
name = "echo"
base_url = "http://127.0.0.1:{port}/v1"
models = ["echo"]
kind = "custom"

[[assistants]]
name = "off"
model = ["echo/echo"]

[[assistants]]
name = "on"
model = ["echo/echo"]
chat_history = "default_on"
"""
HERE = str(Path(__file__).resolve().parents[1] / "python")
CHAT = "/v1/chat/completions"
TURNS = 50
MODEL_SECONDS = 0.02
# A turn as people write them: 200 characters asked, 600 answered.
ASKED, ANSWERED = "Why does it do that? " * 10, "Because of the way it was made. " * 19


@asynccontextmanager
async def gateway(
    folder: Path, upstream: int, workers: int, python: str | None = None
) -> AsyncIterator[tuple[int, int]]:
    """`sluicegate serve` with a database in `folder`: its port and its process id."""
    port = _free_port()
    settings = folder / "sluicegate.toml"
    settings.write_text(SETTINGS.format(port=upstream))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
    url = {name: value for name, value in os.environ.items() if name == "SLUICEGATE_DATABASE_URL"}
    environment |= {**url, "SLUICEGATE_API_KEYS": KEY, "SLUICEGATE_DATA_DIR": f"{folder}/data"}
    if python is not None:
        environment["PYTHONPATH"] = python
    if url:
        # A server's database is not made by the gateway.
        migrate = [sys.executable, "-m", "sluicegate", "migrate"]
        await (await asyncio.create_subprocess_exec(*migrate, env=environment)).wait()
    command = ["-m", "sluicegate", "serve", "--config", str(settings), "--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--workers", str(workers), env=environment
    )
    try:
        await _ready(port)
        yield port, process.pid
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@asynccontextmanager
async def upstream(delay: float = MODEL_SECONDS) -> AsyncIterator[int]:
    """Answers as soon as the fastest models do, plain or streamed, always the same."""
    message = {"role": "assistant", "content": ANSWERED}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode()
    delta = {"index": 0, "delta": {"content": ANSWERED}, "finish_reason": "stop"}
    chunk = json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": [delta]})
    events = f"data: {chunk}\n\ndata: [DONE]\n\n".encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = await reader.readexactly(_length(head))
                streams = b'"stream":true' in body.replace(b" ", b"")
                kind, text = (b"text/event-stream", events) if streams else (b"application/json", whole)
                start = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
                await asyncio.sleep(delay)
                writer.write(start % (kind, len(text)) + text)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Line:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> "Line":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, body: Mapping[str, Any]) -> tuple[float, float, bytes]:
        """Seconds to the first byte and to the last, and the head of the answer."""
        data = json.dumps(body).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        began = time.perf_counter()
        self._writer.write(head.encode() + data)
        answered = await self._reader.readuntil(b"\r\n\r\n")
        first = time.perf_counter() - began
        if length := _length(answered):
            await self._reader.readexactly(length)
        else:
            await self._reader.readuntil(b"\r\n0\r\n\r\n")
        assert b" 200 " in answered[:16], answered
        return first, time.perf_counter() - began, answered

    def close(self) -> None:
        self._writer.close()


def _named(name: str, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": ASKED}
    return {"model": "on", "metadata": {"conversation_id": name}, "messages": [message], **more}


async def latency(rounds: int) -> int:
    """Requests of an assistant without and with history, one after the other."""
    turn = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}]
    with tempfile.TemporaryDirectory(prefix="sluicegate-history-") as folder:
        async with upstream() as behind, gateway(Path(folder), behind, 1) as (port, _):
            line = await Line.open(port)
            for number in range(2 * rounds):
                # A client that sends everything stores 50 turns with one request, its answer among them.
                body = _named(str(number))
                body["messages"] = [*(turn * (TURNS - 1)), *body["messages"]]
                await line.ask(body)
            for stream in (False, True):
                took: dict[str, list[tuple[float, float]]] = {"off": [], "on": []}
                for number in range(rounds):
                    name = str(number + rounds * stream)
                    for model in ("off", "on"):
                        first, last, head = await line.ask(_named(name, model=model, stream=stream))
                        took[model].append((first, last))
                    assert f"injected={2 * TURNS} trimmed=0".encode() in head, head
                kind = "streamed" if stream else "plain"
                for what, place in (("first byte", 0), ("last byte", 1)):
                    for name, of in (("p50", statistics.median), ("least", min)):
                        off, on = (of([t[place] for t in took[m]]) * 1000 for m in ("off", "on"))
                        added = f"added {on - off:.2f} ms ({name})"
                        print(f"{kind}, {what}: off {off:.2f} ms, on {on:.2f} ms, {added}")
            line.close()
    return 0


async def threads(count: int, workers: int, turns: int) -> int:
    """Named conversations at once: each sees exactly its own turns."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="sluicegate-history-") as folder:
        async with echo() as behind, gateway(Path(folder), behind, workers) as (port, _):
            client, began = Client(port, KEY, 256), time.monotonic()

            async def thread(number: int) -> None:
                own: list[str] = []
                for turn in range(turns):
                    own.append(f"thread {number} turn {turn}")
                    body = _named(f"thread-{number}", messages=[{"role": "user", "content": own[-1]}])
                    status, answer = await client.post(CHAT, body)
                    if status != 200:
                        found.failed[f"{status} {answer['error']['code']}"] += 1
                        return
                    seen = json.loads(answer["choices"][0]["message"]["content"])
                    found.turns += 1
                    found.lost += not set(own) <= set(seen)
                    found.foreign += not set(seen) <= set(own)
                    found.lost += seen != own and set(seen) == set(own)

            await asyncio.gather(*(thread(number) for number in range(count)))
            found.seconds = time.monotonic() - began
            await client.close()
    print(f"{count} threads, {workers} workers: {found}")
    return 0 if found.is_good else 1


def _cpu(pid: int) -> float:
    """Seconds of CPU of a process and all below it, to the nanosecond: ticks are 10 ms."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    own = sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return own + sum(_cpu(int(child)) for child in below)


async def cpu(before: str, rounds: int, requests: int) -> int:
    """CPU of a request without history, before and now, in turns."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-history-") as folder:
        (Path(folder) / "before").mkdir()
        (Path(folder) / "now").mkdir()
        async with (
            upstream(0) as behind,
            gateway(Path(folder) / "before", behind, 1, before) as old,
            gateway(Path(folder) / "now", behind, 1, HERE) as new,
        ):
            took: dict[str, list[float]] = {"before": [], "now": []}
            body = _named("x", model="off")
            for number in range(rounds + 1):
                both = [("before", old), ("now", new)]
                # Each is the first as often as the other.
                for name, (port, pid) in both if number % 2 else reversed(both):
                    lines = [await Line.open(port) for _ in range(8)]
                    began = _cpu(pid)

                    async def many(line: Line) -> None:
                        for _ in range(requests // 8):
                            await line.ask(body)

                    await asyncio.gather(*(many(line) for line in lines))
                    # The first round warms up.
                    if number:
                        took[name].append((_cpu(pid) - began) / (requests // 8 * 8) * 1e6)
                    for line in lines:
                        line.close()
    # The least: what others on the machine add is never negative.
    was, now = (min(took[name]) for name in ("before", "now"))
    print(f"CPU a request: before {was:.1f} us, now {now:.1f} us, {now / was - 1:+.1%}")
    return 0


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = [int(text) for text in children.read_text().split()] if children.exists() else []
    return [pid, *(found for child in below for found in family(child))]


async def talk(port: int, said: dict[str, list[str]], before: str) -> None:
    """Conversations until the gateway is gone. `said`: all that was acknowledged, by conversation."""
    client = Client(port, KEY, 8)

    async def one(number: int) -> None:
        name = f"{before}-{number}"
        own = said.setdefault(name, [])
        while True:
            text = f"{name} {len(own)}"
            body = _named(name, messages=[{"role": "user", "content": text}])
            status, answer = await client.post(CHAT, body)
            assert status == 200, answer
            seen = json.loads(answer["choices"][0]["message"]["content"])
            assert seen == [*own, text], (seen, own, text)
            own.append(text)

    results = await asyncio.gather(*(one(number) for number in range(8)), return_exceptions=True)
    await client.close()
    wrong = [r for r in results if not isinstance(r, asyncio.IncompleteReadError | OSError)]
    assert not wrong, wrong


async def kills(rounds: int, workers: int = 2) -> int:
    """Kill -9 in the middle of conversations, again and again: what was acknowledged is there."""
    said: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory(prefix="sluicegate-history-") as folder:
        async with echo() as behind:
            for number in range(rounds):
                async with gateway(Path(folder), behind, workers) as (port, pid):
                    driving = asyncio.create_task(talk(port, said, str(number)))
                    before = sum(map(len, said.values()))
                    # Polled: the driver knows no event, and this happens once a round.
                    while sum(map(len, said.values())) < before + 8 and not driving.done():  # noqa: ASYNC110
                        await asyncio.sleep(0.005)
                    # Somewhere in the middle of the next ones.
                    await asyncio.sleep(0.007 * (number % 10))
                    for one in family(pid):
                        os.kill(one, signal.SIGKILL)
                    await asyncio.wait_for(driving, 30)
            lost = 0
            async with gateway(Path(folder), behind, workers) as (port, _):
                client = Client(port, KEY, 8)
                for name, own in said.items():
                    body = _named(name, messages=[{"role": "user", "content": "last"}])
                    status, answer = await client.post(CHAT, body)
                    assert status == 200, answer
                    seen = json.loads(answer["choices"][0]["message"]["content"])
                    # One more may be there: it was stored, and the kill came before its last byte.
                    lost += seen[: len(own)] != own or len(seen) > len(own) + 2
                await client.close()
    turns = sum(len(own) for own in said.values())
    print(f"{rounds} kills, {len(said)} conversations, {turns} acknowledged turns: {lost} lost some")
    return 1 if lost or not turns else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["latency", "threads", "cpu", "kills"])
    parser.add_argument("--threads", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--requests", type=int, default=4_000)
    parser.add_argument("--before", default="")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    work = {
        "latency": lambda: latency(given.rounds),
        "threads": lambda: threads(given.threads, given.workers, given.turns),
        "cpu": lambda: cpu(given.before, given.rounds, given.requests),
        "kills": lambda: kills(given.rounds),
    }
    return asyncio.run(work[given.what]())


if __name__ == "__main__":
    sys.exit(main())

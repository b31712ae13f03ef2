"""CPU for each streamed chunk in a Python program: this client beside `openai` and httpx; and leaks.

    python -m bench.micro.client              # three scenarios, rounds interleaved
    python -m bench.micro.client --leaks      # 100,000 calls, what memory does
    python -m bench.micro.client --waiting    # how the blocking client waits, beside a loop in a thread

All talk to the scripted upstream of `bench/upstream`, in a process of its own. CPU is that of this process,
its I/O thread included.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai

from bench import children
from sluicegate.client import AsyncClient, Client

# Name, model, streams at once, chunks of each.
SCENARIOS = (
    ("1 stream, a chunk each 10 ms", "bench-n100-d10-b40", 1, 100),
    ("20 streams, 100 chunks a second each", "bench-n100-d10-b40", 20, 100),
    ("200 streams, 100 chunks a second each", "bench-n100-d10-b40", 200, 100),
    ("10 streams, 200 chunks at once", "bench-n200-d0-b40", 10, 200),
)
QUESTION = [{"role": "user", "content": "Say something."}]
Streamed = Callable[[str], Awaitable[int]]


def by_sluicegate(base_url: str) -> Streamed:
    client = AsyncClient(base_url)

    async def run(model: str) -> int:
        size = 0
        async with client.stream(QUESTION, model=model) as stream:
            async for chunk in stream:
                size += len(chunk.content)
        return size

    return run


def by_openai(base_url: str) -> Streamed:
    # On a busy machine 200 connections at once take longer than the 5 s it allows by default.
    client = openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60)

    async def run(model: str) -> int:
        size = 0
        stream: Any = await client.chat.completions.create(
            model=model, stream=True, messages=QUESTION, stream_options={"include_usage": True}
        )
        async for chunk in stream:
            if chunk.choices:
                size += len(chunk.choices[0].delta.content or "")
        return size

    return run


def by_httpx(base_url: str) -> Streamed:
    """What somebody writes without any client: lines, and json of the standard library."""
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None))

    async def run(model: str) -> int:
        size = 0
        body = {
            "model": model,
            "stream": True,
            "messages": QUESTION,
            "stream_options": {"include_usage": True},
        }
        async with client.stream("POST", f"{base_url}/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        size += len(choice["delta"].get("content") or "")
        return size

    return run


class _Bytes(asyncio.Protocol):
    """Counts what comes, and looks for nothing but the end."""

    def __init__(self) -> None:
        self.whole: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._size = 0
        self._tail = b""

    def data_received(self, data: bytes) -> None:
        self._size += len(data)
        self._tail = (self._tail + data)[-32:]
        if b"[DONE]" in self._tail and not self.whole.done():
            self.whole.set_result(self._size)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.whole.done():
            self.whole.set_result(0)


def by_sockets(base_url: str) -> Streamed:
    """What asyncio itself costs: nobody reads HTTP, events or JSON. No client of it can be below."""
    host, _, port = urlsplit(base_url).netloc.partition(":")

    async def run(model: str) -> int:
        fields = {
            "model": model,
            "stream": True,
            "messages": QUESTION,
            "stream_options": {"include_usage": True},
        }
        body = json.dumps(fields).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        transport, protocol = await asyncio.get_running_loop().create_connection(_Bytes, host, int(port))
        transport.write(head.encode() + body)
        try:
            return await protocol.whole
        finally:
            transport.close()

    return run


CLIENTS = {
    "sluicegate": by_sluicegate,
    "openai": by_openai,
    "httpx + json": by_httpx,
    "bare sockets": by_sockets,
}


async def cpu_of(run: Streamed, model: str, streams: int, chunks: int) -> float:
    """Microseconds of CPU a chunk."""
    begun = time.process_time()
    sizes = await asyncio.gather(*(run(model) for _ in range(streams)))
    used = time.process_time() - begun
    assert min(sizes) >= 40 * chunks, "chunks are missing"
    return used / (streams * chunks) * 1e6


async def compare(base_url: str, rounds: int) -> None:
    runs = {name: make(base_url) for name, make in CLIENTS.items()}
    for title, model, streams, chunks in SCENARIOS:
        found: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(rounds + 1):
            for name, run in runs.items():
                gc.collect()
                cost = await cpu_of(run, model, streams, chunks)
                # The first round makes connections and warms caches.
                if number:
                    found[name].append(cost)
        print(f"\n{title}: CPU µs a chunk, median of {rounds} rounds (smallest, largest)")
        own = statistics.median(found["sluicegate"])
        for name, costs in found.items():
            middle = statistics.median(costs)
            print(f"  {name:14} {middle:8.1f}  ({min(costs):.1f}, {max(costs):.1f})   {middle / own:6.1f} x")


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def leaks(base_url: str, calls: int) -> None:
    """Plain, streamed and left streams, blocking and not, a quarter each."""
    client = Client(base_url, model="bench-n3")

    async def several(client: AsyncClient, count: int) -> None:
        for _ in range(count):
            await client.generate(QUESTION)
            async with client.stream(QUESTION) as stream:
                await anext(stream)

    print("calls, MiB resident, objects, open descriptors, threads")
    done = 0
    while done < calls:
        for _ in range(1000):
            client.generate(QUESTION)
            with client.stream(QUESTION) as stream:
                next(stream)
        asyncio.run(several(AsyncClient(base_url, model="bench-n3"), 1000))
        done += 4000
        if done % 20_000 == 0 or done == 4000:
            gc.collect()
            fds = len(list(Path("/proc/self/fd").iterdir()))
            print(f"{done:8} {rss_mib():8.1f} {len(gc.get_objects()):8} {fds:4} {threading.active_count():3}")


def waiting(base_url: str, calls: int) -> None:
    """One plain call after another: poll(2) on the descriptor, and a loop in a background thread."""
    blocking = Client(base_url, model="bench-n1")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    behind = AsyncClient(base_url, model="bench-n1")

    def by_poll() -> None:
        blocking.generate(QUESTION)

    def by_thread() -> None:
        asyncio.run_coroutine_threadsafe(behind.generate(QUESTION), loop).result()

    ways = {"poll on the descriptor": by_poll, "loop in a thread": by_thread}
    best = {name: (float("inf"), float("inf")) for name in ways}
    for _ in range(5):
        for name, way in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(calls):
                way()
            used = ((time.process_time() - cpu) / calls * 1e6, (time.perf_counter() - wall) / calls * 1e6)
            best[name] = min(best[name], used)
    for name, (cpu, wall) in best.items():
        print(f"{name:24} {cpu:7.1f} µs CPU, {wall:7.1f} µs a call")
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--leaks", action="store_true")
    parser.add_argument("--waiting", action="store_true")
    parser.add_argument("--calls", type=int, default=100_000)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        children.upstream(children.build(), Path(folder)) as upstream,
    ):
        base_url = f"http://127.0.0.1:{upstream.port}/v1"
        if options.leaks:
            leaks(base_url, options.calls)
        elif options.waiting:
            waiting(base_url, min(options.calls, 2000))
        else:
            asyncio.run(compare(base_url, options.rounds))


if __name__ == "__main__":
    main()

"""What the context window costs a request of the gateway: proven by its length, counted, counted again.

    python -m bench.micro.counting

The parts of the gateway in one process, without a network. Sizes are those of whole request bodies.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import statistics
import time
import timeit
from typing import Any

from sluicegate import engine as core
from sluicegate.chat.count import PromptCounter
from sluicegate.chat.directory import Plan, View
from sluicegate.chat.prepare import CHAT, Ask
from sluicegate.chat.window import ContextWindows, Prompt
from sluicegate.models.catalog import Catalog, Source
from sluicegate.settings import UpstreamConfig
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams.model import Upstream
from sluicegate.workspaces.model import WorkspaceSettings

MODEL = "gpt-4o"
CONFIG = UpstreamConfig(
    name="u", base_url="https://api.openai.com/v1", models=(MODEL,), context_lengths={MODEL: 128_000}
)
TURNS = 20
AGAIN = 50


def body(size: int, seed: int) -> bytes:
    """A chat of about this many bytes, unlike every other one."""
    words = random.Random(seed)
    text = [
        " ".join(
            words.choice(("the", "gateway", "counts", "reihum", "tokens,", f"{i}", "and", "so"))
            for i in range(9)
        )
        for _ in range(size // 60)
    ]
    share = max(1, len(text) // TURNS)
    messages = [
        {"role": "user", "content": "\n".join(text[at : at + share])} for at in range(0, len(text), share)
    ]
    return json.dumps({"model": MODEL, "messages": messages}).encode()


def proven(windows: ContextWindows, upstream: Upstream) -> float:
    """Microseconds of a request whose length proves that it fits."""
    catalog = Catalog([Source(upstream, "u", (MODEL,), {}, 0)], None, 0, None)
    view = View("default", WorkspaceSettings(), (), {"u": upstream}, catalog)
    plan = Plan(MODEL, (((upstream, MODEL),),), view)
    ask = Ask(plan, CHAT, core.scan("chat", body(2000, 0)))
    rounds = 100_000
    found = timeit.repeat(lambda: windows.proven_limit(ask, (upstream, MODEL)), number=rounds, repeat=5)
    return min(found) / rounds * 1e6


async def counted(counter: PromptCounter, upstream: Upstream) -> None:
    """Tokens, and microseconds until they are known: at first sight, and when the chat is sent again."""
    begun = time.perf_counter()
    await counter.count(Prompt((upstream, MODEL), "chat", body(100, 0), 100, 0))
    print(f"the first count of all, with the encoding loaded: {(time.perf_counter() - begun) * 1e3:.0f} ms")
    print(f"{'bytes':>10} {'tokens':>8} {'first µs':>9} {'again µs':>9}")
    for seed, size in enumerate((2_000, 20_000, 200_000, 2_000_000), start=1):
        prompt = Prompt((upstream, MODEL), "chat", body(size, seed), size, 0)
        took = []
        for _ in range(AGAIN + 1):
            begun = time.perf_counter()
            count = await counter.count(prompt)
            took.append((time.perf_counter() - begun) * 1e6)
        assert count.exact, "there was no time to count"
        first, *again = took
        print(f"{len(prompt.body):10} {count.tokens:8} {first:9.0f} {statistics.median(again):9.0f}")


def main() -> None:
    log = Log(io.StringIO())
    counter = PromptCounter(log)
    handle: Any = None
    upstream = Upstream(CONFIG, handle)
    print(f"proven by its length: {proven(ContextWindows(counter, log), upstream):.1f} µs")
    asyncio.run(counted(counter, upstream))
    counter.close()


if __name__ == "__main__":
    main()

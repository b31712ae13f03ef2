"""Processes that ask one limit at once, each as a machine of its own."""

from __future__ import annotations

import asyncio
import random
import time
from multiprocessing.connection import Connection

from sluicegate.engine import Limits as Counting
from sluicegate.limits.admit import scope
from sluicegate.limits.alone import Alone
from sluicegate.limits.model import Budget, Limits
from sluicegate.limits.shared import SharedLimits
from sluicegate.storage.redis_link import RedisLink
from sluicegate.telemetry.logs import Log


def hammer(connection: Connection, url: str, limits: Limits, budget: Budget, asks: int) -> None:
    """Ask so often, 16 at a time, and send how many passed, what they used, and the longest wait."""
    asyncio.run(_hammer(connection, url, limits, budget, asks))


async def _hammer(connection: Connection, url: str, limits: Limits, budget: Budget, asks: int) -> None:
    log = Log()
    shared = SharedLimits(
        # The machine of the tests may be busy: here only exactness is looked at.
        RedisLink(url),
        Alone(lambda n: Counting(None, n), 8),
        log,
        source="",
        deadline=1.0,
    )
    await shared.start()
    made = scope("key", "crowd", "crowd", limits, budget)
    assert made is not None
    connection.send("ready")
    connection.recv()
    passed, used, longest, left = 0, 0, 0.0, asks
    rng = random.Random(time.time_ns())

    async def client() -> None:
        nonlocal passed, used, longest, left
        while left > 0:
            left -= 1
            begun = time.monotonic()
            found = await shared.admit((made,), 100, 100)
            longest = max(longest, time.monotonic() - begun)
            if found.refused is None:
                passed += 1
                actual = rng.randrange(101)
                used += actual
                await asyncio.sleep(rng.random() * 0.003)
                found.settle(actual, actual)

    await asyncio.gather(*(client() for _ in range(16)))
    alone = shared.counted_alone
    await shared.stop()
    connection.send((passed, used, longest, alone))

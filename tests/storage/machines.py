"""Machines that count their limits in one Redis, all in this process, and a clock without stalls."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from typing import Any

from redis_server import RedisServer
from sluicegate.engine import Limits as Counting
from sluicegate.limits.admit import Scope, scope
from sluicegate.limits.alone import Alone
from sluicegate.limits.model import Budget, Limits
from sluicegate.limits.shared import SharedLimits
from sluicegate.storage.redis_link import RedisLink
from sluicegate.telemetry.logs import Log


class Machine(SharedLimits):
    """One process of one machine."""

    def __init__(
        self, server: RedisServer, *, processes: int = 4, source: str = "", deadline: float = 5.0
    ) -> None:
        # Of a busy machine nothing is learnt about outages: only tests of these have the usual deadline.
        self.output = io.StringIO()
        self.own_log = Log(self.output)
        alone = Alone(lambda n: Counting(None, n), processes)
        super().__init__(RedisLink(server.url), alone, self.own_log, source=source, deadline=deadline)

    async def ask(self, scopes: tuple[Scope, ...], tokens: int = 0, micros: int = 0) -> Any:
        return await self.admit(scopes, tokens, micros)

    @property
    def lines(self) -> list[dict[str, Any]]:
        self.own_log.close()
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


def of(limits: Limits = Limits(), budget: Budget = Budget(), name: str = "k") -> tuple[Scope, ...]:  # noqa: B008
    made = scope("key", name, name, limits, budget)
    assert made is not None
    return (made,)


class Pace:
    """The loop's clock, without the time in which the loop or the machine stood still."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late = 0.0
        self._beat()

    @property
    def now(self) -> float:
        return self._loop.time() - self._late

    def __enter__(self) -> Pace:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        due = self._loop.time() + 0.01

        def late() -> None:
            self._late += max(self._loop.time() - due - 0.01, 0)
            self._beat()

        self._timer = self._loop.call_at(due, late)


async def told(*machines: Machine) -> None:
    """All that has ended is known to Redis: what is asked now is asked after it."""
    for one in machines:
        while one._untold:  # noqa: ASYNC110 (it looks at another task)
            await asyncio.sleep(0.01)
        await one.ask(of(Limits(requests_per_day=10**9), name="probe"))


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (it looks at another process)
            await asyncio.sleep(0.01)

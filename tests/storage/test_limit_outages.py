"""Redis frozen, killed, emptied and back: nothing hangs, nobody passes uncounted."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any

import pytest
from machines import Machine, Pace, of, told, until

from redis_server import RedisServer
from sluicegate.limits.admit import Scope
from sluicegate.limits.model import Budget, Limits
from sluicegate.telemetry.logs import Log
from sluicegate.usage.parts import Usage

# `TEST_OUTAGES=20` for the whole promise.
OUTAGES = int(os.environ.get("TEST_OUTAGES", "3"))

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120 + 10 * OUTAGES)]


async def test_without_redis_each_process_has_its_share(machine: Any, server: RedisServer) -> None:
    one = await machine(deadline=0.5)
    await machine()
    scopes = of(Limits(requests_per_day=100, concurrent_requests=20), Budget(tokens_total=1000))
    held = await one.ask(scopes, 400)
    server.freeze()
    with Pace() as pace:
        begun = pace.now
        alone = await one.ask(scopes, 100)
        assert pace.now - begun < 1
    assert alone.headers[-1] == (b"x-limits-counted", b"alone")
    assert one.processes == 2
    # Half of the places, of which the one from before takes one too, and half of what was left of the budget.
    found = [await one.ask(scopes, 100) for _ in range(30)]
    passed = [answer for answer in found if answer.refused is None]
    assert 1 <= len(passed) <= 3
    assert {answer.reason for answer in found if answer.refused is not None} == {"budget"}
    for lease in (held, alone, *passed):
        lease.settle(50, 0)
    server.thaw()
    await until(lambda: one.is_shared)
    back = await one.ask(scopes, 1)
    assert back.headers[-1] != (b"x-limits-counted", b"alone")
    assert back.budget == (50 * (2 + len(passed)), 1000)
    assert [line["event"] for line in one.lines] == ["limits_not_shared", "limits_shared_again"]


async def test_who_watches_is_told(machine: Any, server: RedisServer) -> None:
    usage = Usage(None, 1, Log())
    usage.sharing = one = await machine(deadline=0.5)
    assert (usage.counts_together, usage.counted_alone) == (True, 0)
    server.freeze()
    (await one.ask(of(Limits(requests_per_day=100)))).settle(0, 0)
    assert (usage.counts_together, usage.counted_alone) == (False, 1)
    server.thaw()
    await until(lambda: usage.counts_together)


async def test_nobody_waits_for_a_process_that_ends(machine: Any, server: RedisServer) -> None:
    one = await machine()
    scopes = of(Limits(requests_per_day=100))
    server.freeze()
    waiting = [asyncio.create_task(one.ask(scopes)) for _ in range(5)]
    await asyncio.sleep(0.05)
    one._task.cancel()
    async with asyncio.timeout(10):
        for found in await asyncio.gather(*waiting, one.ask(scopes)):
            assert found.headers[-1] == (b"x-limits-counted", b"alone")
        server.thaw()
        await one.stop()
        assert (await one.ask(scopes)).headers[-1] == (b"x-limits-counted", b"alone")


async def test_a_loop_that_stands_still_is_no_outage(machine: Any) -> None:
    one = await machine(deadline=0.2)
    scopes = of(Limits(requests_per_day=100))
    for _ in range(5):
        task = asyncio.create_task(one.ask(scopes))
        for _ in range(4):
            await asyncio.sleep(0)
        # The question is on its way; the answer comes while nobody looks.
        time.sleep(0.4)  # noqa: ASYNC251 (the loop stands still)
        assert (await task).headers[-1] != (b"x-limits-counted", b"alone")
    assert one.counted_alone == 0


async def test_redis_that_forgets_everything_is_told(machine: Any, server: RedisServer) -> None:
    one = await machine()
    scopes = of(Limits(concurrent_requests=2))
    held = await one.ask(scopes)
    assert server.command("FLUSHALL") == b"+OK\r\n"
    assert server.command("SCRIPT", "FLUSH") == b"+OK\r\n"
    second = await one.ask(scopes)
    assert (held.refused, second.refused) == (None, None)
    assert (await one.ask(scopes)).reason == "concurrent"
    held.settle(0, 0)
    assert (await one.ask(scopes)).refused is None


async def test_a_start_without_redis_is_a_share_of_what_was_said(server: RedisServer) -> None:
    server.freeze()
    try:
        one = Machine(server, processes=4, deadline=0.1)
        await one.start()
        assert not one.is_shared
        found = [await one.ask(of(Limits(requests_per_day=100))) for _ in range(100)]
        assert sum(answer.refused is None for answer in found) == 25
        # Of a budget that nothing is known of, the records tell what is left to be shared.
        asked: list[Scope] = []
        one.on_unseeded = asked.append
        scopes = of(budget=Budget(tokens_total=1000), name="new")
        (await one.ask(scopes, 1)).settle(1, 0)
        one.seed(asked[0], "budget_tokens_total", 900)
        found = [await one.ask(scopes, 10) for _ in range(10)]
        # A quarter of a hundred, of which one is spent: that lets two pass, and the one that passes it.
        assert sum(answer.refused is None for answer in found) == 3
        assert len(asked) == 1
    finally:
        server.thaw()
    await until(lambda: one.is_shared)
    await one.stop()


@pytest.mark.parametrize("kills", [False, True])
async def test_outages_under_load_let_nothing_hang_and_nobody_pass_free(
    machine: Any, server: RedisServer, kills: bool
) -> None:
    machines = [await machine(deadline=0.1) for _ in range(3)]
    pace = Pace()
    most = 12
    scopes = of(Limits(concurrent_requests=most), Budget(tokens_total=10**12))
    running = peak = passed = 0
    slowest = 0.0
    ended = asyncio.Event()

    async def client(number: int) -> None:
        nonlocal running, peak, passed, slowest
        rng = random.Random(number)
        while not ended.is_set():
            begun = pace.now
            found = await machines[number % 3].ask(scopes, 10)
            slowest = max(slowest, pace.now - begun)
            if found.refused is None:
                running, passed = running + 1, passed + 1
                peak = max(peak, running)
                await asyncio.sleep(rng.random() * 0.01)
                running -= 1
                found.settle(5, 0)
            else:
                await asyncio.sleep(0.002)

    clients = [asyncio.create_task(client(number)) for number in range(30)]
    for _ in range(OUTAGES):
        await asyncio.sleep(0.3)
        if kills:
            server.kill()
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
        else:
            server.freeze()
            await asyncio.sleep(0.3)
            server.thaw()
        await until(lambda: all(one.is_shared for one in machines))
    ended.set()
    await asyncio.gather(*clients)
    pace.stop()
    assert slowest < 1.0
    # At the change to shares what was admitted before is still under way: places of both, at most.
    assert peak <= 2 * most
    assert sum(one.counted_alone for one in machines) > 0
    await told(*machines)
    last = await machines[0].ask(scopes, 1)
    assert last.refused is None
    if not kills:
        assert last.budget[0] == passed * 5

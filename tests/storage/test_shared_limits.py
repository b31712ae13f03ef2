"""Limits that several machines count in a real Redis: exact, whoever dies or goes when."""

from __future__ import annotations

import asyncio
import os
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import crew
import msgspec
import pytest
from limit_crew import hammer
from machines import of, told, until

from redis_server import RedisServer
from sluicegate.engine import Limits as Counting
from sluicegate.limits.admit import Scope
from sluicegate.limits.lease import Lease
from sluicegate.limits.model import Budget, Limits
from sluicegate.limits.shared import LEASE_US
from sluicegate.storage.redis_link import LIMITS, RedisLink

# `TEST_CANCELS=10000` for the whole promise.
CANCELS = int(os.environ.get("TEST_CANCELS", "800"))

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]


async def test_two_machines_pass_exactly_the_limit(machine: Any) -> None:
    both = [await machine(), await machine()]
    scopes = of(Limits(requests_per_day=100))
    found = await asyncio.gather(*(both[n % 2].ask(scopes) for n in range(300)))
    assert sum(one.refused is None for one in found) == 100
    refused = next(one for one in found if one.refused is not None)
    assert (refused.refused, refused.reason) == ((0, "requests_per_day"), "rate")
    assert refused.retry_after_ms == pytest.approx(864_000, abs=3000)


@pytest.mark.parametrize(
    ("limits", "budget"),
    [
        (Limits(requests_per_day=1000), Budget()),
        (Limits(requests_per_minute=1_000_000, concurrent_requests=128), Budget()),
        (Limits(), Budget(usd_per_month=0.02)),
    ],
)
async def test_eight_processes_on_one_limit(server: RedisServer, limits: Limits, budget: Budget) -> None:
    started = [crew.start(hammer, server.url, limits, budget, 400) for _ in range(8)]
    assert [crew.receive(connection) for _, connection in started] == ["ready"] * 8
    for _, connection in started:
        connection.send("go")
    found = [crew.receive(connection) for _, connection in started]
    for process, _ in started:
        crew.finish(process)
    passed, used = sum(one[0] for one in found), sum(one[1] for one in found)
    assert sum(one[3] for one in found) == 0
    assert max(one[2] for one in found) < 1.0
    if limits.requests_per_day:
        assert passed == 1000
    elif limits.concurrent_requests:
        # 16 at a time in each of 8: all 128 have a place, and 3200 pass, as nothing else stands against it.
        assert passed == 3200
    else:
        # Of 20,000 millionths at most one estimate more.
        assert 20_000 <= used <= 20_000 + 100


async def test_who_waits_exactly_as_told_gets_in(machine: Any) -> None:
    one = await machine()
    scopes = of(Limits(requests_per_minute=600, request_burst=1))
    for _ in range(15):
        found = await one.ask(scopes)
        if found.refused is not None:
            assert 0 < found.retry_after_ms <= 100
            await asyncio.sleep(found.retry_after_ms / 1000)
            found = await one.ask(scopes)
        assert found.refused is None
        found.settle(0, 0)


async def test_all_limits_of_a_request_or_none(machine: Any) -> None:
    one = await machine()
    both = of(Limits(requests_per_day=100)) + of(Limits(concurrent_requests=1), name="other")
    held = await one.ask(both)
    for _ in range(50):
        refused = await one.ask(both)
        assert (refused.refused, refused.reason) == ((1, "concurrent_requests"), "concurrent")
    held.settle(0, 0)
    headers = dict((await one.ask(both)).headers)
    assert headers[b"x-ratelimit-limit-requests"] == b"100"
    assert headers[b"x-ratelimit-remaining-requests"] == b"98"


async def test_tokens_are_settled_to_what_was_used(machine: Any) -> None:
    one = await machine()
    scopes = of(Limits(tokens_per_day=100_000))
    rng, used, open_ones = random.Random(7), 0, []
    for _ in range(200):
        estimate = rng.randrange(1, 400)
        held = await one.ask(scopes, estimate)
        actual = rng.randrange(estimate + 100)
        used += actual
        open_ones.append((held, actual))
        if rng.random() < 0.7:
            lease, tokens = open_ones.pop(rng.randrange(len(open_ones)))
            lease.settle(tokens, 0)
    for lease, tokens in open_ones:
        lease.settle(tokens, 0)
    left = int(dict((await one.ask(scopes, 0)).headers)[b"x-ratelimit-remaining-tokens"])
    # A day's limit flows back by one token and a little each second.
    assert 0 <= left - (100_000 - used) <= 20
    too_much = await one.ask(scopes, 100_001)
    assert (too_much.reason, too_much.retry_after_ms) == ("too_large", None)


async def test_a_budget_is_passed_by_one_estimate_at_most(machine: Any) -> None:
    both = [await machine(), await machine()]
    scopes = of(budget=Budget(usd_per_month=0.01))
    found = await asyncio.gather(*(both[n % 2].ask(scopes, 0, 300) for n in range(64)))
    passed = [one for one in found if one.refused is None]
    # 10,000 millionths: 33 whole ones, and the one that passes it.
    assert len(passed) == 34
    for one in passed:
        one.settle(0, 100)
    await told(*both)
    more = [await both[0].ask(scopes, 0, 300) for _ in range(5)]
    assert [one.refused for one in more] == [None] * 5
    assert more[0].budget == (3400, 10_000)


async def test_the_places_of_a_dead_machine_are_free_when_its_lease_ends(machine: Any) -> None:
    dying, other = await machine(), await machine()
    scopes = of(Limits(concurrent_requests=3), Budget(tokens_total=1000))
    held = [await dying.ask(scopes, 100) for _ in range(3)]
    assert (await other.ask(scopes, 1)).reason == "concurrent"
    # It dies without a word.
    dying._task.cancel()
    dying._beat.cancel()
    begun = asyncio.get_running_loop().time()
    while (found := await other.ask(scopes, 1)).refused is not None:
        assert asyncio.get_running_loop().time() - begun < LEASE_US / 1e6 + 3
        await asyncio.sleep(0.1)
    # What it had reserved counts as spent, until the records say more.
    assert found.budget == (300, 1000)
    other.correct("sluicegate:key:k:budget_tokens_total", "total", -250, 0)
    assert (await other.ask(scopes, 1)).budget == (51, 1000)
    assert len(held) == 3


async def test_a_machine_that_was_taken_for_dead_comes_back_with_what_it_holds(
    machine: Any, server: RedisServer
) -> None:
    frozen, other = await machine(), await machine()
    scopes = of(Limits(concurrent_requests=3), Budget(tokens_total=1000))
    held = [await frozen.ask(scopes, 100) for _ in range(2)]
    # As its lease ends: the next beat of the other one finds it dead.
    server.command("ZADD", "sluicegate:alive", "1", frozen._name)
    before = frozen._name
    await until(lambda: frozen._name != before)
    third = await other.ask(scopes, 100)
    assert third.budget == (200, 1000)
    assert (await other.ask(scopes, 100)).reason == "concurrent"
    for lease in (*held, third):
        lease.settle(10, 0)
    last = await frozen.ask(scopes, 1)
    assert last.refused is None
    await told(frozen, other)
    assert (await other.ask(scopes, 1)).budget == (31, 1000)


async def test_who_goes_while_waiting_holds_nothing_and_nobody_gets_another_answer(machine: Any) -> None:
    one = await machine()
    common = of(Limits(concurrent_requests=5), Budget(tokens_total=10**12))
    rng = random.Random(3)
    for number in range(CANCELS // 4):
        # Each has a limit of its own, which its answer tells.
        wanted = range(4 * number + 1, 4 * number + 5)
        tasks = [
            asyncio.create_task(one.ask(common + of(Limits(requests_per_day=n), name=f"n{n}"), 7))
            for n in wanted
        ]
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() * 0.0005)
        for task in tasks[:3]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for n, answer in zip(wanted, found, strict=True):
            if isinstance(answer, Lease):
                assert dict(answer.headers)[b"x-ratelimit-limit-requests"] == b"%d" % n
                answer.settle(0, 0)
            else:
                assert isinstance(answer, asyncio.CancelledError) or answer.reason == "concurrent"
    await until(lambda: not one._open)
    await told(one)
    assert one.counted_alone == 0
    found = await asyncio.gather(*(one.ask(common, 7) for _ in range(8)))
    assert sum(answer.refused is None for answer in found) == 5
    assert one.counted_alone == 0
    assert max(answer.budget[0] for answer in found if answer.refused is None) == 4 * 7


async def test_budgets_read_the_records_once_for_each_source(machine: Any) -> None:
    scopes = of(budget=Budget(tokens_per_day=1000))
    for source, spent in (("a", 300), ("a", 300), ("b", 200)):
        one = await machine(source=source)
        asked: list[Scope] = []
        one.on_unseeded = asked.append
        (await one.ask(scopes, 1)).settle(0, 0)
        for new in asked:
            one.seed(new, "budget_tokens_per_day", spent)
    assert (await one.ask(scopes, 1)).budget == (500, 1000)


async def test_periods_begin_as_in_the_core(server: RedisServer) -> None:
    head = LIMITS.split("-- Held by a process.")[0]
    parts = ", ".join(f"ordinal('{every}', ask.at)" for every in ("day", "week", "month"))
    link = RedisLink(server.url, f"{head} return cmsgpack.pack({{ {parts} }})")
    await link.open()
    rng = random.Random(11)
    for day in (*range(0, 60_000, 29), *(rng.randrange(60_000) for _ in range(500))):
        for within in (0, 86_399_999_999):
            asked = msgspec.msgpack.encode({"process": "", "source": "", "at": day * 86_400_000_000 + within})
            found = msgspec.msgpack.decode(await link.call(asked, 5))
            date = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
            month = (date.year - 1970) * 12 + date.month
            assert found == [day + 1, (day + 3) // 7 + 1, month], date
    link.close()


async def test_the_demand_of_the_limiter_goes_there(machine: Any) -> None:
    from sluicegate.errors import GatewayError
    from sluicegate.limits.admit import Limiter, together

    one = await machine()
    limiter = Limiter(Counting(None), lambda _scope, _percent: None, one)
    limited = together(*of(Limits(requests_per_minute=1)))
    assert limiter.at_once(limited, 2, 0) is None
    held = await limiter.hold(limited, 2, 0)
    assert dict(held.headers)[b"x-ratelimit-reset-requests"].startswith(b"1m0s")
    with pytest.raises(GatewayError, match="rate_limit_exceeded") as refused:
        await limiter.hold(limited, 2, 0)
    assert 59_000 < int(dict(refused.value.headers)[b"retry-after-ms"]) <= 60_000

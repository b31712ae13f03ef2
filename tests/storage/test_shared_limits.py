"""Limits that several machines count in a real Redis: exact, and never a hang or a free pass without it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import crew
import pytest
import pytest_asyncio
from limit_crew import hammer

import redis_server
from redis_server import RedisServer
from sluicegate.engine import Limits as Counting
from sluicegate.limits.admit import Demand, Scope, scope
from sluicegate.limits.alone import Alone
from sluicegate.limits.lease import Lease
from sluicegate.limits.model import Budget, Limits
from sluicegate.limits.shared import LEASE_US, SharedLimits
from sluicegate.storage.redis_link import RedisLink
from sluicegate.telemetry.logs import Log

# `TEST_OUTAGES=20` for the whole promise.
OUTAGES = int(os.environ.get("TEST_OUTAGES", "3"))

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120 + 10 * OUTAGES)]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server.running() as found:
        yield found


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


@pytest_asyncio.fixture
async def machine(server: RedisServer) -> AsyncIterator[Callable[..., Any]]:
    """Starts machines, and stops them."""
    if server.command("FLUSHALL") != b"+OK\r\n":
        server.start()
    made: list[Machine] = []

    async def make(**options: Any) -> Machine:
        made.append(Machine(server, **options))
        await made[-1].start()
        assert made[-1].is_shared
        return made[-1]

    yield make
    for one in made:
        await one.stop()


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
        while one._untold:
            await asyncio.sleep(0.01)
        await one.ask(of(Limits(requests_per_day=10**9), name="probe"))


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (it looks at another process)
            await asyncio.sleep(0.01)


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
        (Limits(requests_per_minute=1_000_000, request_burst=900, concurrent_requests=128), Budget()),
        (Limits(), Budget(usd_per_month=0.02)),
    ],
)
async def test_eight_processes_on_one_limit(server: RedisServer, limits: Limits, budget: Budget) -> None:
    server.command("FLUSHALL")
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


async def test_who_goes_while_waiting_holds_nothing(machine: Any) -> None:
    one = await machine()
    scopes = of(Limits(concurrent_requests=5), Budget(tokens_total=10**9))
    rng = random.Random(3)
    for _ in range(300):
        tasks = [asyncio.create_task(one.ask(scopes, 7)) for _ in range(3)]
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() * 0.0005)
        for task in tasks:
            task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(found, Lease):
                found.settle(0, 0)
    await until(lambda: not one._open)
    await told(one)
    assert one.counted_alone == 0
    found = await asyncio.gather(*(one.ask(scopes, 7) for _ in range(8)))
    assert sum(answer.refused is None for answer in found) == 5
    assert one.counted_alone == 0
    assert found[0].budget[0] <= 7 * 5


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
    server.command("FLUSHALL")
    server.freeze()
    try:
        one = Machine(server, processes=4, deadline=0.1)
        await one.start()
        assert not one.is_shared
        found = [await one.ask(of(Limits(requests_per_day=100))) for _ in range(100)]
        assert sum(answer.refused is None for answer in found) == 25
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


async def test_the_demand_of_the_limiter_goes_there(machine: Any) -> None:
    from sluicegate.errors import GatewayError
    from sluicegate.limits.admit import Limiter

    one = await machine()
    limiter = Limiter(Counting(None), lambda _scope, _percent: None, one)
    scopes = of(Limits(requests_per_minute=1))
    held = await limiter.hold(scopes, Demand(1, 1))
    assert dict(held.headers)[b"x-ratelimit-reset-requests"].startswith(b"1m0s")
    with pytest.raises(GatewayError, match="rate_limit_exceeded") as refused:
        await limiter.hold(scopes, Demand(1, 1))
    assert 59_000 < int(dict(refused.value.headers)[b"retry-after-ms"]) <= 60_000

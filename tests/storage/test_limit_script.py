"""The script that counts for several machines, on a clock of the tests: orders, steps, deaths, returns."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redis_server import RedisServer
from sluicegate.limits.shared import LEASE_US
from sluicegate.storage.redis_link import LIMITS

MINUTE = 60_000_000
START = 1_800_000_000_000_000
EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_names = count(1)


class Script:
    """The script as one process calls it, at times that the test says."""

    def __init__(self, server: RedisServer) -> None:
        self._client = redis.Redis.from_url(server.url, protocol=2)
        self._client.flushall()
        clock = "{ math.floor(ask.at / 1000000), ask.at % 1000000 }"
        self._script = self._client.register_script(LIMITS.replace("redis.call('TIME')", clock))
        self.at = START

    def call(self, process: str, number: int, **more: Any) -> Any:
        asked = {"process": process, "source": "", "lease": LEASE_US, "number": number, "at": self.at}
        asked |= {"settles": [], "admits": [], **more}
        found = self._script(args=[msgspec.msgpack.encode(asked)])
        return msgspec.msgpack.decode(found)  # type: ignore[arg-type]

    def join(self, process: str, **news: Any) -> None:
        empty: dict[str, Any] = {"unsure": [], "before": [], "spent": [], "holds": []}
        assert self.call(process, 1, join=empty | news)[0]

    def admit(self, *rules: list[Any], process: str = "a", number: int = 2) -> list[Any]:
        known, _, _, answers = self.call(process, number, admits=[list(rules)])
        assert known
        return list(answers[0])

    def field(self, key: str, name: str) -> int:
        return int(self._client.hget(key, name) or 0)  # type: ignore[arg-type]

    def beat(self) -> None:
        """All that live say so, however far the clock went."""
        self._client.zadd("sluicegate:alive", {"a": self.at + LEASE_US})


@pytest.fixture
def script(server: RedisServer) -> Script:
    made = Script(server)
    made.join("a")
    return made


@EXAMPLES
@given(
    limit=st.integers(1, 5000),
    burst=st.integers(1, 200),
    steps=st.lists(st.tuples(st.integers(-300_000_000, 400_000_000), st.integers(1, 50)), max_size=80),
)
def test_no_order_and_no_step_of_the_clock_lets_more_through(
    script: Script, limit: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    key = f"rate-{next(_names)}"
    # What was left, in tokens times microseconds of a minute, and when: time that goes back gives nothing.
    left, known = burst * MINUTE, script.at
    for step, wish in steps:
        amount = min(wish, burst)
        script.at += step
        known = min(known, script.at)
        level = min(left + (script.at - known) * limit, burst * MINUTE)
        script.beat()
        found = script.admit(["rate", key, amount, limit, burst, MINUTE])
        assert found[0] == (level >= amount * MINUTE)
        if found[0]:
            left, known = level - amount * MINUTE, script.at
        else:
            assert found[2] == "rate"
            assert found[3] == -(-(amount * MINUTE - level) // limit)


@EXAMPLES
@given(limit=st.integers(1, 2_000_000), burst=st.integers(1, 100_000), wishes=st.lists(st.integers(1, 5000)))
def test_who_waits_exactly_as_told_gets_in(script: Script, limit: int, burst: int, wishes: list[int]) -> None:
    key = f"rate-{next(_names)}"
    for wish in wishes:
        rule = ["rate", key, min(wish, burst), limit, burst, MINUTE]
        script.beat()
        found = script.admit(rule)
        if not found[0]:
            script.at += found[3] - 1
            script.beat()
            assert not script.admit(rule)[0]
            script.at += 1
            script.beat()
            assert script.admit(rule)[0]


@EXAMPLES
@given(steps=st.lists(st.tuples(st.integers(1, 600), st.integers(0, 600), st.integers(0, 20)), max_size=50))
def test_a_late_settlement_never_lets_more_through(script: Script, steps: list[tuple[int, int, int]]) -> None:
    key, begun = f"rate-{next(_names)}", script.at
    used, held = 0, []
    for estimate, actual, seconds in steps:
        script.beat()
        found = script.admit(["rate", key, estimate, 600, 600, MINUTE])
        if found[0]:
            held.append((estimate, min(actual, estimate), found[1][0], script.at))
        script.at += seconds * 1_000_000
        if seconds % 3 == 0 and held:
            reserved, tokens, mark, at = held.pop(0)
            used += tokens
            script.beat()
            script.call("a", 3, settles=[["rate", key, 600, MINUTE, 600, reserved, tokens, mark, at]])
    assert used <= 600 + 600 * (script.at - begun) // MINUTE + 1


@EXAMPLES
@given(
    most=st.integers(1, 8),
    moves=st.lists(st.tuples(st.sampled_from(["ask", "end", "die", "wait"]), st.integers(0, 2)), max_size=80),
)
def test_places_and_budgets_are_right_whoever_dies_and_comes_back(
    server: RedisServer, most: int, moves: list[tuple[str, int]]
) -> None:
    script = Script(server)
    place, budget = ["place", "p", most], ["budget", "b", 100, 10**9, "total"]
    # Of three processes: the name, the number of the next round, and how many requests are under way.
    names, numbers, open_ones = ["0-0", "1-0", "2-0"], [2, 2, 2], [0, 0, 0]
    spent = lives = 0
    for name in names:
        script.join(name)

    def round_of(who: int, **what: Any) -> Any:
        """As SharedLimits does: who is not known any more joins anew with what it holds, and asks again."""
        nonlocal lives
        found = script.call(names[who], numbers[who], **what)
        numbers[who] += 1
        if not found[0]:
            before, lives = names[who], lives + 1
            names[who], numbers[who] = f"{who}-{lives}", 2
            holds = [["p", "", open_ones[who]], ["b", "total", 100 * open_ones[who]]]
            script.join(names[who], before=[before], holds=holds)
            found = script.call(names[who], numbers[who], **what)
            numbers[who] += 1
        assert found[0]
        return found[3]

    for move, who in moves:
        if move == "ask":
            (answer,) = round_of(who, admits=[[place, budget]])
            open_ones[who] += bool(answer[0])
        elif move == "end" and open_ones[who]:
            # Joined first, if it has to: what it gives back it then holds.
            round_of(who)
            round_of(who, settles=[["place", "p"], ["budget", "b", "total", 100, 30]])
            open_ones[who] -= 1
            spent += 30
        elif move == "die":
            # Silent until somebody else finds it dead.
            script._client.zadd("sluicegate:alive", {names[who]: 1})
        elif move == "wait":
            script.at += LEASE_US // 2
    for who in range(3):
        round_of(who)
    assert script.field("p", "h") == sum(open_ones)
    assert (script.field("b", "s"), script.field("b", "h")) == (spent, 100 * sum(open_ones))


@pytest.mark.parametrize("was_done", [True, False])
def test_a_round_without_an_answer_counts_once(script: Script, was_done: bool) -> None:
    script.admit(["budget", "b", 100, 1000, "total"], number=2)
    lost = {"settles": [["budget", "b", "total", 100, 40]]}
    if was_done:
        script.call("a", 3, **lost)
    script.join("b", before=["a"], unsure=[[[["a", 3]], [["b", "total", 40]]]], holds=[])
    assert (script.field("b", "s"), script.field("b", "h")) == (40, 0)
    # The same of a joining that had no answer, and was done.
    script.join("c", before=["b"], unsure=[[[["a", 3], ["b", 1]], [["b", "total", 40]]]], holds=[])
    assert script.field("b", "s") == 40


def test_periods_of_budgets_end_and_do_not_come_again(script: Script) -> None:
    rule = ["budget", "b", 1000, 1000, "day"]
    day = 86_400_000_000
    script.at = day * 20_000
    script.beat()
    assert script.admit(rule)[0]
    script.call("a", 3, settles=[["budget", "b", "day", 1000, 1000]])
    for at, passes in ((1, True), (0, False), (1, False), (30_000, True), (1, False), (2, False)):
        # Days from then on; one far ahead is a fault of the clock.
        script.at = day * (20_000 + at) + day - 1
        script.beat()
        found = script.admit(rule)
        assert found[0] == passes, at
        if passes:
            script.call("a", 4, settles=[["budget", "b", "day", 1000, 1000]])
        else:
            assert found[2] == "budget"

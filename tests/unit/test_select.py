"""Which upstream is asked: weights, the breaker, rate limits, and the budget for second tries."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from fakes.engine import FakeFailure, FakeOutcome, limited
from sluicegate.clock import monotonic
from sluicegate.errors import GatewayError
from sluicegate.settings import UpstreamConfig
from sluicegate.upstreams.health import FAILURES_TO_OPEN, FIRST_PAUSE, LONGEST_PAUSE, Health
from sluicegate.upstreams.model import Candidate, Steps, Upstream
from sluicegate.upstreams.select import RetryBudget, select, select_other, shortest_wait_ms


def upstream(name: str, weight: int = 1) -> Upstream:
    handle: Any = None
    return Upstream(UpstreamConfig(name=name, base_url="http://x", weight=weight), handle)


def step(*candidates: Candidate) -> Steps:
    """A choice by weight, and nobody after it."""
    return (candidates,)


def shares(candidates: list[Candidate], rounds: int = 4000) -> dict[str, float]:
    counts = Counter(select(step(*candidates))[0].name for _ in range(rounds))
    return {name: count / rounds for name, count in counts.items()}


def break_it(broken: Upstream) -> None:
    for _ in range(FAILURES_TO_OPEN):
        broken.note_failure("m", FakeFailure())


def test_shares_follow_the_weights() -> None:
    found = shares([(upstream("a", 3), "m"), (upstream("b", 1), "m"), (upstream("c", 0), "m")])
    assert found.keys() == {"a", "b"}
    assert found["a"] == pytest.approx(0.75, abs=0.05)


def test_weight_zero_is_asked_when_the_others_are_out() -> None:
    first, spare = upstream("a"), upstream("spare", 0)
    candidates = [(first, "m"), (spare, "m")]
    assert select_other(step(*candidates), [(first, "m")]) == (spare, "m")
    break_it(first)
    assert shares(candidates, 50) == {"spare": 1}


def test_an_open_breaker_gives_way_but_never_refuses() -> None:
    a, b = upstream("a"), upstream("b")
    break_it(a)
    assert shares([(a, "m"), (b, "m")], 50) == {"b": 1}
    assert select(step((a, "m"))) == (a, "m")
    break_it(b)
    assert set(shares([(a, "m"), (b, "m")], 100)) == {"a", "b"}


def test_a_success_closes_the_breaker() -> None:
    a, b = upstream("a"), upstream("b")
    break_it(a)
    a.note_outcome("m", FakeOutcome())
    assert a.health.is_spotless
    assert set(shares([(a, "m"), (b, "m")], 100)) == {"a", "b"}


def test_what_the_client_ended_or_did_wrong_says_nothing() -> None:
    a = upstream("a")
    for _ in range(20):
        a.note_outcome("m", None)
        a.note_outcome(
            "m", FakeOutcome("cancelled", FakeFailure("client_closed", 499, counts_against_upstream=False))
        )
        a.note_failure("m", FakeFailure(status=400, counts_against_upstream=False))
    assert a.health.is_spotless


def test_streams_that_break_open_it_too() -> None:
    a = upstream("a")
    for _ in range(FAILURES_TO_OPEN):
        a.note_outcome("m", FakeOutcome("failed", FakeFailure("upstream_truncated")))
    assert a.health.is_open(monotonic())


def test_the_pause_doubles_only_when_it_was_over() -> None:
    health = Health()
    for _ in range(FAILURES_TO_OPEN - 1):
        health.failed(100.0)
    assert not health.is_open(100.0)
    for _ in range(50):  # many calls were under way when it broke
        health.failed(100.0)
    assert health.is_open(100.0 + FIRST_PAUSE - 0.01)
    assert not health.is_open(100.0 + FIRST_PAUSE)
    now = 100.0
    for pause in (10, 20, 40, LONGEST_PAUSE, LONGEST_PAUSE):
        now += 1000
        health.failed(now)
        assert health.is_open(now + pause - 0.01)
        assert not health.is_open(now + pause)
    health.succeeded()
    health.failed(now)
    assert not health.is_open(now)


def test_a_rate_limited_model_is_not_asked_early() -> None:
    a, b = upstream("a"), upstream("b")
    a.note_failure("m", limited(30_000))
    assert shares([(a, "m"), (b, "m")], 50) == {"b": 1}
    assert select(step((a, "other"))) == (a, "other")
    with pytest.raises(GatewayError, match="429") as caught:
        select(step((a, "m")))
    assert dict(caught.value.headers)[b"retry-after"] in (b"30", b"31")
    b.note_failure("m", limited(5_000))
    with pytest.raises(GatewayError) as caught:
        select(step((a, "m"), (b, "m")))
    assert dict(caught.value.headers)[b"retry-after"] in (b"5", b"6")
    assert select_other(step((a, "m"), (b, "m")), []) is None


def test_a_limit_ends_and_one_without_a_time_is_none() -> None:
    health = Health()
    health.limited("m", 10, now=100.0)
    assert health.limited_for("m", 104.0) == 6
    assert health.limited_for("m", 110.0) == 0
    assert health.is_spotless
    health.limited("m", 10**9, now=100.0)
    assert health.limited_for("m", 100.0) == 120
    a = upstream("a")
    a.note_failure("m", limited(None))
    assert select(step((a, "m"))) == (a, "m")


def test_the_table_of_limits_is_bounded() -> None:
    health = Health()
    for number in range(5000):
        health.limited(f"m{number}", 100, now=float(number // 1000))
    assert health.limited_for("m1", 1.0) > 0
    assert health.limited_for("m4999", 4.0) == 0
    health.limited("late", 100, now=1000.0)
    assert health.limited_for("late", 1000.0) == 100


def test_the_shortest_wait_needs_all_to_be_limited() -> None:
    a, b = upstream("a"), upstream("b")
    a.note_failure("m", limited(9_000))
    assert shortest_wait_ms(step((a, "m"), (b, "m"))) is None
    b.note_failure("m", limited(2_000))
    wait = shortest_wait_ms(step((a, "m"), (b, "m")))
    assert wait is not None
    assert 1900 < wait <= 2001


def test_the_budget_is_a_fifth_and_ten_a_second() -> None:
    budget = RetryBudget()
    now = monotonic()
    assert sum(budget.withdraw(now) for _ in range(100)) == pytest.approx(10, abs=1)
    for _ in range(100):
        budget.deposit()
    assert sum(budget.withdraw(now) for _ in range(100)) == pytest.approx(20, abs=1)
    assert sum(budget.withdraw(now + 2) for _ in range(100)) == pytest.approx(20, abs=1)
    for _ in range(100_000):
        budget.deposit()
    assert sum(budget.withdraw(now + 2) for _ in range(1000)) == pytest.approx(100, abs=1)


def test_a_step_is_asked_only_when_nobody_of_those_before_it_is_left() -> None:
    a, b, c = upstream("a"), upstream("b"), upstream("c")
    steps: Steps = (((a, "m"), (b, "m")), ((c, "n"),))
    for _ in range(50):
        assert select(steps)[0] is not c
    assert select_other(steps, [(a, "m")]) == (b, "m")
    assert select_other(steps, [(a, "m"), (b, "m")]) == (c, "n")
    assert select_other(steps, [(a, "m"), (b, "m"), (c, "n")]) is None
    break_it(a)
    assert select(steps) == (b, "m")
    b.note_failure("m", limited(30_000))
    assert select(steps) == (c, "n")
    break_it(c)
    # All are doubtful: the first one that may be asked at all.
    assert select(steps) == (a, "m")
    a.note_failure("m", limited(9_000))
    assert select(steps) == (c, "n")
    c.note_failure("n", limited(20_000))
    with pytest.raises(GatewayError) as caught:
        select(steps)
    assert dict(caught.value.headers)[b"retry-after"] in (b"9", b"10")

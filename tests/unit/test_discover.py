"""Discovery: in the background, bounded, repeated, and shared by all who wait for it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fakes.engine import Asked, FakeEngine, FakeFailure, FakeReply, failed
from sluicegate.settings import UpstreamConfig
from sluicegate.telemetry.logs import Log
from sluicegate.upstreams import discover
from sluicegate.upstreams.discover import Discovery
from sluicegate.upstreams.model import Upstream


def listing(*ids: Any) -> FakeReply:
    return FakeReply(
        body=json.dumps({"object": "list", "data": [{"id": i, "object": "model"} for i in ids]}).encode()
    )


class Set:
    """A discovery over scripted upstreams, and what it has learned."""

    def __init__(
        self, script: Callable[[Asked], FakeReply | None], names: tuple[str, ...] = ("one",)
    ) -> None:
        self.engine = FakeEngine(script)
        self.learned: list[tuple[str, tuple[str, ...] | None]] = []
        self.created: dict[str, int | None] = {}
        self.output = io.StringIO()
        self.log = Log(self.output)
        engine: Any = self.engine
        upstreams = [Upstream(UpstreamConfig(name=n, base_url=f"http://{n}"), n) for n in names]  # type: ignore[arg-type]
        self.discovery = Discovery(engine, upstreams, self.learn, self.log)

    def learn(self, name: str, models: Mapping[str, int | None] | None) -> None:
        self.learned.append((name, None if models is None else tuple(models)))
        self.created |= models or {}

    def lines(self) -> list[dict[str, Any]]:
        self.log.close()
        return [json.loads(line) for line in self.output.getvalue().splitlines()]


async def until(condition: Callable[[], bool]) -> None:
    """Not a pause: on a machine that stands still, all timers of a while are due in one turn."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (it is the timers that are tested)
            await asyncio.sleep(0.001)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_the_list_is_learned_without_anybody_waiting() -> None:
    made = Set(lambda _: listing("b", "a", "b"))
    made.discovery.start()
    assert made.engine.asked == []
    assert not made.discovery.is_settled
    await turns()
    assert made.learned == [("one", ("b", "a"))]
    assert made.discovery.is_settled
    (asked,) = made.engine.asked
    assert (asked.operation, asked.body) == ("models", None)
    assert asked.options == {"first_event_timeout": 5.0, "total_timeout": 5.0}
    await made.discovery.stop()
    assert made.lines() == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (failed(FakeFailure("upstream_timeout")), "upstream_timeout"),
        (FakeReply(body=b"<html>"), "upstream_invalid_answer"),
        (FakeReply(body=b'{"data":5}'), "upstream_invalid_answer"),
        (FakeReply(body=b'{"data":[{"name":"x"}]}'), "upstream_invalid_answer"),
        (listing(1), "upstream_invalid_answer"),
        (FakeReply(body=b"\xff"), "upstream_invalid_answer"),
        (listing(), "upstream_empty"),
        (listing("", "a\nb"), "upstream_empty"),
    ],
)
async def test_anything_else_is_a_failure_with_one_warning(
    reply: FakeReply, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "FIRST_RETRY", 0.001)
    made = Set(lambda _: reply)
    made.discovery.start()
    await until(lambda: len(made.learned) > 1)
    assert made.discovery.is_settled
    assert set(made.learned) == {("one", None)}
    await made.discovery.stop()
    (line,) = made.lines()
    assert (line["event"], line["upstream"], line["cause"]) == ("discovery_failed", "one", cause)


@pytest.mark.asyncio
async def test_it_is_repeated_after_a_success_and_sooner_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(discover, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(discover, "PERIOD", 0.02)
    replies = [failed(), listing("a"), listing("a", "b")]
    made = Set(lambda asked: replies[min(len(made.engine.asked), 3) - 1])
    made.discovery.start()
    await until(lambda: len(made.learned) > 2)
    await made.discovery.stop()
    assert made.learned[:3] == [("one", None), ("one", ("a",)), ("one", ("a", "b"))]


@pytest.mark.asyncio
async def test_one_slow_upstream_does_not_hold_up_another() -> None:
    made = Set(lambda asked: listing("m") if asked.upstream == "quick" else None, ("slow", "quick"))
    made.discovery.start()
    await turns()
    assert made.learned == [("quick", ("m",))]
    assert not made.discovery.is_settled
    await made.discovery.stop()


@pytest.mark.asyncio
async def test_those_who_need_it_share_one_question() -> None:
    made = Set(lambda _: None)
    made.discovery.start()
    waiting = [asyncio.create_task(made.discovery.settle()) for _ in range(20)]
    await turns()
    (asked,) = made.engine.asked
    asked.call.future.set_result(listing("m"))
    await asyncio.wait_for(asyncio.gather(*waiting), 1)
    assert made.learned == [("one", ("m",))]
    await made.discovery.settle()
    assert len(made.engine.asked) == 1
    await made.discovery.stop()


@pytest.mark.asyncio
async def test_it_also_works_without_a_lifespan() -> None:
    made = Set(lambda _: listing("m"))
    await asyncio.wait_for(made.discovery.settle(), 1)
    assert made.learned == [("one", ("m",))]


@pytest.mark.asyncio
async def test_waiting_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "LIMIT", 0.02)
    made = Set(lambda _: None)
    await asyncio.wait_for(made.discovery.settle(), 1)
    assert made.learned == []
    await made.discovery.stop()


@pytest.mark.asyncio
async def test_a_failed_one_is_asked_again_on_demand_but_not_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Set(lambda _: failed())
    made.discovery.start()
    await turns()
    await made.discovery.settle()
    assert len(made.engine.asked) == 1
    monkeypatch.setattr(discover, "FIRST_RETRY", 0.0)
    await made.discovery.settle()
    assert len(made.engine.asked) == 2
    await made.discovery.stop()


@pytest.mark.asyncio
async def test_stopping_leaves_no_task() -> None:
    made = Set(lambda _: None)
    made.discovery.start()
    await turns()
    await made.discovery.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.asyncio
async def test_times_are_learned_and_odd_ones_left_out() -> None:
    odd = [True, None, "2024-01-01", -1, 0, 10**30, [], 1e300]
    cards = [
        {"id": "whole", "created": 1_700_000_000},
        {"id": "float", "created": 1_700_000_000.7},
        {"id": "none"},
    ]
    cards += [{"id": f"odd-{i}", "created": value} for i, value in enumerate(odd)]
    made = Set(lambda _: FakeReply(body=json.dumps({"data": cards}).encode()))
    made.discovery.start()
    await turns()
    expected = {"whole": 1_700_000_000, "float": 1_700_000_000, "none": None}
    assert made.created == expected | {f"odd-{i}": None for i in range(len(odd))}
    await made.discovery.stop()

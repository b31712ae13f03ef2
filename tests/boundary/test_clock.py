"""A clock wakes the loop while chunks come one by one; the sockets do at other times."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from loop_upstream import BOUND, ENGINES, Run, Scripted, request_body, steady

from sluicegate import engine as engine_module
from sluicegate.engine import Bridge, Engine
from sluicegate.http.relay import send_stream


async def relayed(engine: Engine, server: Scripted, nonce: str) -> bytes:
    """The body of one streamed answer."""
    parts: list[bytes] = []

    async def send(message: dict[str, Any]) -> None:
        parts.append(message.get("body", b""))

    reply = await engine.call(server.upstream("steady"), "chat", request_body(nonce), stream=True)
    assert reply.stream is not None
    await send_stream(send, reply.stream, [], lambda _: None)
    return b"".join(parts)


def test_a_clock_wakes_the_loop_while_chunks_come_one_by_one(
    run: Run, server: Scripted, engine_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    watch = engine_module._watch

    def heard(bridge: Bridge, by_clock: bool) -> None:
        told.append(by_clock)
        watch(bridge, by_clock)

    monkeypatch.setattr(engine_module, "_watch", heard)

    async def one(engine: Engine, nonce: str) -> None:
        assert await relayed(engine, server, nonce) == steady(nonce)

    async def scenario() -> None:
        engine = ENGINES()
        # From 1,000 to 3,000 chunks a second: a slow machine gathers some of them by itself.
        for streams in (10, 15, 20, 25, 30):
            await asyncio.gather(*(one(engine, f"{streams}-{i}") for i in range(streams)))
        # And a call without chunks ends, whoever wakes the loop.
        assert (await engine.call(server.upstream("plain"), "chat", request_body("p"))).failure is None
        async with asyncio.timeout(BOUND):
            while told and told[-1]:  # noqa: ASYNC110 (the core calls without an event)
                await asyncio.sleep(0.01)
        await engine.close()

    run(scenario())
    # It takes turns: by the clock, by the sockets.
    assert told == [number % 2 == 0 for number in range(len(told))]
    assert bool(told) == (engine_kind == "inline")

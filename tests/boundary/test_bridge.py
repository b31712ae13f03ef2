"""Engine, relay and the built core over real sockets: answers, slow clients, and clients that leave."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from loop_upstream import (
    BOUND,
    DONE,
    ENGINES,
    FLOOD_EVENTS,
    Run,
    Scripted,
    event,
    flood,
    plain_answer,
    request_body,
    short,
)

from sluicegate.engine import Engine, Outcome, Reply, Stream
from sluicegate.http.relay import ClientWatches, send_stream

Message = dict[str, Any]
MIB = 1024 * 1024


class Client:
    """An ASGI `send` that keeps what it gets, and lets a test act before a batch."""

    def __init__(self, before: Callable[[int], Any] | None = None) -> None:
        self.messages: list[Message] = []
        self.before = before
        self.batches = 0
        self.outcomes: list[Outcome | None] = []

    async def send(self, message: Message) -> None:
        # Only batches: the last message has more_body false.
        if message.get("more_body"):
            self.batches += 1
            if self.before is not None:
                await self.before(self.batches)
        self.messages.append(message)

    async def relay(self, stream: Stream, **options: Any) -> None:
        await send_stream(self.send, stream, [], self.outcomes.append, **options)

    @property
    def body(self) -> bytes:
        assert self.messages[0]["type"] == "http.response.start"
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def outcome(self) -> Outcome:
        assert len(self.outcomes) == 1
        assert self.outcomes[0] is not None
        return self.outcomes[0]


@asynccontextmanager
async def opened() -> AsyncIterator[Engine]:
    """An engine that must have no call left soon after."""
    engine = ENGINES()
    yield engine
    async with asyncio.timeout(BOUND):
        while engine.open_calls:  # noqa: ASYNC110 - the I/O thread knows no asyncio event
            await asyncio.sleep(0.005)
    await engine.close()


async def open_stream(engine: Engine, server: Scripted, script: str, nonce: str) -> Stream:
    reply = await engine.call(server.upstream(script), "chat", request_body(nonce), stream=True)
    assert reply.failure is None, reply.failure.message
    assert reply.stream is not None
    return reply.stream


async def stalled(server: Scripted, nonce: str) -> int:
    """Waits until the upstream has been unable to send for 0.4 s; what it had sent by then."""
    exchange = await server.of(nonce)
    before = 0
    while not before or before != exchange.sent:
        before = exchange.sent
        await asyncio.sleep(0.4)
    return before


def test_a_plain_call(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        async with opened() as engine:
            body = request_body("p", stream=False)
            reply = await engine.call(server.upstream("plain"), "chat", body)
            assert (reply.failure, reply.stream, reply.body) == (None, None, plain_answer("p"))
            assert reply.outcome is not None
            assert (reply.outcome.state, reply.outcome.finish_reasons) == ("finished", ["stop"])

    run(scenario())


def test_a_stream_is_relayed_byte_for_byte(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        async with opened() as engine:
            client = Client()
            await client.relay(await open_stream(engine, server, "short", "s"))
            assert client.body == short("s")
            assert [m["more_body"] for m in client.messages[1:]] == [True] * client.batches + [False]
            assert client.outcome.state == "finished"
            assert client.outcome.events >= 21

    run(scenario())


def test_a_blocked_client_stops_the_upstream(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        go = asyncio.Event()

        async def before(batch: int) -> None:
            if batch > 1:
                await go.wait()

        async with opened() as engine:
            client = Client(before)
            relay = asyncio.create_task(client.relay(await open_stream(engine, server, "flood", "b")))
            sent = await stalled(server, "b")
            assert 0 < sent < MIB
            assert len(client.messages) == 2
            go.set()
            await relay
            assert client.body == flood("b")

    run(scenario())


@pytest.mark.parametrize("script", ["short", "flood"])
def test_a_send_that_yields_several_times(run: Run, server: Scripted, script: str) -> None:
    async def before(batch: int) -> None:
        for _ in range(1 + batch % 3):
            await asyncio.sleep(0)

    async def scenario() -> None:
        async with opened() as engine:
            client = Client(before)
            await client.relay(await open_stream(engine, server, script, "y"))
            assert client.body == (short if script == "short" else flood)("y")

    run(scenario())


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("fatal", [1, 3])
def test_a_send_that_raises_closes_the_upstream(run: Run, server: Scripted, waits: bool, fatal: int) -> None:
    async def before(batch: int) -> None:
        if batch == fatal:
            if waits:
                await asyncio.sleep(0.01)
            raise ConnectionResetError("no client")

    async def scenario() -> None:
        async with opened() as engine:
            client = Client(before)
            stream = await open_stream(engine, server, "endless", "r")
            with pytest.raises(ConnectionResetError, match="no client"):
                await client.relay(stream)
            assert await server.closes("r")
            assert client.outcomes == [None]
            assert client.batches == fatal

    run(scenario())


@pytest.mark.parametrize("script", ["endless", "flood"])
def test_a_client_that_takes_nothing_is_given_up(run: Run, server: Scripted, script: str) -> None:
    async def before(_batch: int) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with opened() as engine:
            client = Client(before)
            stream = await open_stream(engine, server, script, "w")
            began = asyncio.get_running_loop().time()
            with pytest.raises(TimeoutError):
                await client.relay(stream, write_stall=0.2)
            assert 0.19 < asyncio.get_running_loop().time() - began < BOUND
            assert await server.closes("w")
            assert client.outcomes == [None]

    run(scenario())


def test_cancelling_the_task_ends_a_call_before_its_headers(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        async with opened() as engine:
            call = engine.call(server.upstream("hang"), "chat", request_body("c", stream=False))
            task = asyncio.create_task(call)
            exchange = await server.of("c")
            assert not exchange.closed.is_set()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert await server.closes("c")

    run(scenario())


@pytest.mark.parametrize("blocked", [False, True])
def test_cancelling_the_task_ends_a_stream(run: Run, server: Scripted, blocked: bool) -> None:
    async def scenario() -> None:
        third = asyncio.Event()

        async def before(batch: int) -> None:
            if batch == 3:
                third.set()
                if blocked:
                    await asyncio.Event().wait()

        async with opened() as engine:
            client = Client(before)
            relay = asyncio.create_task(client.relay(await open_stream(engine, server, "endless", "t")))
            await third.wait()
            await asyncio.sleep(0)
            relay.cancel()
            with suppress(asyncio.CancelledError):
                await relay
            assert relay.cancelled()
            assert await server.closes("t")
            assert client.outcomes == [None]

    run(scenario())


def test_call_cancel_settles_the_reply(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        async with opened() as engine:
            pending = engine.start(server.upstream("hang"), "chat", request_body("k", stream=False))
            await server.of("k")
            pending.call.cancel()
            reply = await pending.future
            assert reply.failure is not None
            assert reply.failure.cause == "client_closed"
            assert await server.closes("k")

    run(scenario())


def test_dropping_a_pending_reply_ends_its_call(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        async with opened() as engine:
            pending = engine.start(server.upstream("hang"), "chat", request_body("d", stream=False))
            await server.of("d")
            del pending
            assert await server.closes("d")

    run(scenario())


def test_dropping_a_stream_ends_it(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        async with opened() as engine:
            stream = await open_stream(engine, server, "endless", "d")
            assert not await server.closes("d", 0.2)
            del stream
            assert await server.closes("d")

    run(scenario())


def test_a_disconnect_ends_a_call_before_its_headers(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        left = asyncio.Event()
        watches = ClientWatches()
        async with opened() as engine:
            watch = watches.begin(receiver(left))
            pending = engine.start(server.upstream("hang"), "chat", request_body("x", stream=False))
            watch.on_gone(pending.call)
            await server.of("x")
            left.set()
            reply = await pending.future
            assert watch.gone
            assert reply.failure is not None
            assert reply.failure.cause == "client_closed"
            assert await server.closes("x")
            watch.stop()

    run(scenario())


def test_a_disconnect_ends_a_stream(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        left = asyncio.Event()

        async def before(batch: int) -> None:
            if batch == 3:
                left.set()

        watches = ClientWatches()
        async with opened() as engine:
            watch = watches.begin(receiver(left))
            client = Client(before)
            stream = await open_stream(engine, server, "endless", "x")
            watch.on_gone(stream)
            await client.relay(stream)
            assert watch.gone
            assert client.outcome.state == "cancelled"
            assert DONE not in client.body
            assert await server.closes("x")
            watch.stop()

    run(scenario())


def receiver(left: asyncio.Event) -> Callable[[], Any]:
    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    return receive


def test_200_streams_at_once_get_their_own_bytes(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        upstream = server.upstream("short")
        async with opened() as engine:

            async def one(nonce: str) -> None:
                reply = await engine.call(upstream, "chat", request_body(nonce), stream=True)
                assert reply.failure is None, reply.failure.message
                assert reply.stream is not None
                client = Client()
                await client.relay(reply.stream)
                assert client.body == short(nonce)

            await asyncio.gather(*(one(f"n{i}") for i in range(200)))

    run(scenario())


def test_a_callback_that_raises_costs_no_other_call_its_reply(
    run: Run, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        """A future that cannot be settled."""

        def done(self) -> bool:
            return False

        def set_result(self, _reply: Reply) -> None:
            raise ZeroDivisionError

    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: unraisable.append(found.exc_type))

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reported: list[Any] = []
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        upstream = server.upstream("plain")
        async with opened() as engine:
            await engine.call(upstream, "chat", request_body("first", stream=False))
            pending = [engine.start(upstream, "chat", request_body(f"e{i}", stream=False)) for i in range(20)]
            bridge = engine._bridges[loop].bridge
            broken: Any = Broken()
            calls = [
                bridge.exchange(upstream, "chat", request_body("no", stream=False), broken) for _ in range(3)
            ]
            pending[3].future.add_done_callback(lambda _: 1 / 0)
            replies = await asyncio.gather(*(one.future for one in pending))
            assert [reply.body for reply in replies] == [plain_answer(f"e{i}") for i in range(20)]
            while len(unraisable) < len(calls):  # noqa: ASYNC110 - the hook knows no loop
                await asyncio.sleep(0.01)
            assert unraisable == [ZeroDivisionError] * 3
            assert [type(one) for one in reported] == [ZeroDivisionError]

    run(scenario())


def test_the_bytes_that_a_test_expects_are_what_it_thinks() -> None:
    first = json.loads(event("n", 7, "t")[6:])
    assert first["choices"][0]["delta"]["content"] == "n:7:t"
    assert len(flood("n")) > 8 * MIB
    assert flood("n").count(b"data: ") == FLOOD_EVENTS + 2

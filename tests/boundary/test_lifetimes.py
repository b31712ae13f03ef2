"""Engine over its lifetimes: closing, several loops, several threads, a fork, an in-process application."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from loop_upstream import (
    BOUND,
    DONE,
    ENGINES,
    LOOPS,
    Run,
    Scripted,
    plain_answer,
    request_body,
    run_on,
    short,
)

from fakes.asgi import KEY
from processes import clean_environment
from sluicegate.app import create_app
from sluicegate.engine import Engine, Outcome, Upstream
from sluicegate.http.relay import send_stream
from sluicegate.settings import KeyConfig, Secret, ServerConfig, Settings, UpstreamConfig


async def plain(engine: Engine, upstream: Upstream, nonce: str) -> None:
    reply = await engine.call(upstream, "chat", request_body(nonce, stream=False))
    assert reply.failure is None, reply.failure.message
    assert reply.body == plain_answer(nonce)


async def streamed(
    engine: Engine,
    upstream: Upstream,
    nonce: str,
    blocked: asyncio.Event | None = None,
    begun: Callable[[], object] = lambda: None,
) -> bytes:
    """A relayed stream; with `blocked`, its second batch waits for that. `begun` is called with its first."""
    reply = await engine.call(upstream, "chat", request_body(nonce), stream=True)
    assert reply.failure is None, reply.failure.message
    assert reply.stream is not None
    messages: list[dict[str, Any]] = []
    outcomes: list[Outcome | None] = []

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)
        if len(messages) == 2:
            begun()
        if blocked is not None and len(messages) == 3:
            await blocked.wait()

    await send_stream(send, reply.stream, [], outcomes.append)
    assert len(outcomes) == 1
    assert outcomes[0] is not None
    return b"".join(message["body"] for message in messages[1:])


@pytest.mark.parametrize("slow", [False, True])
def test_close_ends_open_streams_with_an_error_event(run: Run, server: Scripted, slow: bool) -> None:
    async def scenario() -> None:
        engine = ENGINES()
        upstream = server.upstream("endless")
        go = asyncio.Event()
        begun = asyncio.Semaphore(0)
        streams = [
            asyncio.create_task(
                streamed(engine, upstream, f"z{i}", go if slow else None, begun=begun.release)
            )
            for i in range(5)
        ]
        for _ in streams:
            await begun.acquire()
        await asyncio.sleep(0.2)
        bridge = engine._bridges[asyncio.get_running_loop()].bridge
        assert bridge.open_calls == 5
        await engine.close()
        assert (bridge.open_calls, engine.open_calls) == (0, 0)
        go.set()
        for body in await asyncio.gather(*streams):
            assert body.startswith(b"data: ")
            assert DONE not in body
            last = json.loads(body.rstrip().rsplit(b"\n\n", 1)[1].removeprefix(b"data: "))
            assert last["error"]["code"] == "server_shutdown"
        for i in range(5):
            assert await server.closes(f"z{i}")

    run(scenario())


def test_close_fails_calls_that_wait_for_headers(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        engine = ENGINES()
        pending = engine.start(server.upstream("hang"), "chat", request_body("h", stream=False))
        await server.of("h")
        await engine.close()
        reply = await pending.future
        assert reply.failure is not None
        assert reply.failure.cause == "server_shutdown"
        assert await server.closes("h")

    run(scenario())


def test_close_with_nothing_open_and_twice(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        engine = ENGINES()
        await engine.close()
        await plain(engine, server.upstream("plain"), "a")
        await engine.close()
        await engine.close()
        assert engine.open_calls == 0

    run(scenario())


def test_loops_one_after_another(server: Scripted, engine_kind: str) -> None:
    engine = ENGINES()
    calls, streams = server.upstream("plain"), server.upstream("short")

    async def scenario(nonce: str) -> None:
        await plain(engine, calls, nonce)
        assert await streamed(engine, streams, nonce) == short(nonce)
        # What a call does after its reply needs the loop that it runs on; a thread outlives the loop.
        if engine_kind == "inline":
            await engine.close()

    for turn in range(3):
        for kind, factory in LOOPS.items():
            run_on(factory, scenario(f"{kind}{turn}"))
    # The I/O thread strikes a call off after it has told the loop.
    deadline = time.monotonic() + BOUND
    while engine.open_calls and time.monotonic() < deadline:
        time.sleep(0.005)
    assert engine.open_calls == 0


@pytest.mark.parametrize("kinds", [("asyncio", "asyncio"), ("asyncio", "uvloop"), ("uvloop", "uvloop")])
def test_two_threads_at_once(server: Scripted, kinds: tuple[str, str]) -> None:
    engine = ENGINES()
    calls, streams = server.upstream("plain"), server.upstream("short")
    both = threading.Barrier(2, timeout=BOUND)
    ends: list[str] = []

    async def scenario(name: str) -> None:
        both.wait()
        for turn in range(25):
            nonce = f"{name}-{turn}"
            _, body = await asyncio.gather(plain(engine, calls, nonce), streamed(engine, streams, nonce))
            assert body == short(nonce)
        ends.append(name)

    threads = [
        threading.Thread(target=run_on, args=(LOOPS[kind], scenario(f"{kind}{i}")))
        for i, kind in enumerate(kinds)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert len(ends) == 2


FORK = """
import asyncio, os, sys, uvloop
sys.path[:0] = sys.argv[4:]
from loop_upstream import LOOPS, Scripted, plain_answer, request_body, short
from sluicegate.engine import Engine, Upstream
from test_lifetimes import plain, streamed

factory = LOOPS[sys.argv[2]]
engine = Engine(inline=sys.argv[3] == "inline")
calls, streams = Upstream(f"{sys.argv[1]}/plain/v1"), Upstream(f"{sys.argv[1]}/short/v1")
endless = Upstream(f"{sys.argv[1]}/endless/v1")

async def both(nonce):
    async with asyncio.timeout(15):
        await plain(engine, calls, nonce)
        assert await streamed(engine, streams, nonce) == short(nonce)

async def begin():
    reply = await engine.call(endless, "chat", request_body("open"), stream=True)
    assert reply.failure is None
    return reply.stream

async def go_on(stream):
    arrived = []
    enough = asyncio.Event()
    async def send(message):
        arrived.append(message)
        if len(arrived) == 5:
            enough.set()
    future = asyncio.get_running_loop().create_future()
    assert stream.attach(send, future) is None
    async with asyncio.timeout(15):
        await enough.wait()
        stream.cancel()
        assert (await future).state == "cancelled"

parent = asyncio.Runner(loop_factory=factory)
parent.run(both("before"))
stream = parent.run(begin())
pid = os.fork()
if pid == 0:
    code = 1
    try:
        with asyncio.Runner(loop_factory=factory) as child:
            child.run(both("child"))
            child.run(both("again"))
            child.run(engine.close())
        code = 0
    finally:
        sys.stderr.flush()
        if code:
            import traceback
            traceback.print_exc()
        os._exit(code)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
parent.run(both("after"))
parent.run(go_on(stream))
parent.run(engine.close())
parent.close()
print("whole")
"""


@pytest.mark.parametrize("kind", list(LOOPS))
def test_a_fork(server: Scripted, kind: str, engine_kind: str) -> None:
    """The child calls on a connection and a loop of its own; the parent's connection and stream live on."""
    origin = server.base_url("").removesuffix("//v1")
    command = [sys.executable, "-c", FORK, origin, kind, engine_kind, *sys.path]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=50, env=clean_environment({}), check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "whole\n"), ended.stderr
    # The plain exchange of each nonce comes first.
    found: dict[str, int] = {}
    for exchange in server.exchanges:
        found.setdefault(exchange.nonce, exchange.connection)
    assert found["before"] == found["after"]
    assert found["child"] == found["again"]
    assert found["child"] != found["before"]


def settings(server: Scripted, script: str) -> Settings:
    return Settings(
        server=ServerConfig(),
        keys=(KeyConfig(name="tester", key=Secret(KEY)),),
        upstreams=(UpstreamConfig(name="one", base_url=server.base_url(script), models=("m",)),),
    )


@asynccontextmanager
async def in_process(server: Scripted, script: str) -> AsyncIterator[httpx.AsyncClient]:
    """An SDK's view of the application, without a server between."""
    transport = httpx.ASGITransport(app=create_app(settings(server, script)))
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
        yield client


def test_an_in_process_client_gets_a_plain_answer(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        async with in_process(server, "plain") as client:
            for nonce in ("one", "two"):
                body = request_body(nonce, stream=False)
                answer = await client.post("/v1/chat/completions", content=body)
                assert answer.status_code == 200, answer.text
                assert answer.json()["choices"][0]["message"]["content"] == nonce

    run(scenario())


def test_an_in_process_client_gets_a_stream(run: Run, server: Scripted) -> None:
    async def scenario() -> None:
        async with in_process(server, "short") as client:
            path = "/v1/chat/completions"
            async with client.stream("POST", path, content=request_body("s")) as answer:
                assert answer.status_code == 200
                assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
                assert await answer.aread() == short("s")

    run(scenario())


def test_a_timeout_ends_the_call_while_it_is_handled(run: Run, server: Scripted) -> None:
    """The traceback of a cancellation keeps the frame of the call alive; its upstream closes all the same."""

    async def scenario() -> None:
        engine = ENGINES()

        async def soon(limit: asyncio.Timeout) -> None:
            await server.of("c")
            limit.reschedule(0)

        try:
            async with asyncio.timeout(None) as limit:
                arrival = asyncio.create_task(soon(limit))
                await engine.call(server.upstream("hang"), "chat", request_body("c", stream=False))
        except TimeoutError:
            await arrival
            assert await server.closes("c")

    run(scenario())

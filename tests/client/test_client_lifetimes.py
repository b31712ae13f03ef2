"""The clients in threads, several loops, after a fork, under test plugins; leaving early; leaks."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop
from client_setup import Script, closes_within, endless, silent

from processes import Server, clean_environment
from sluicegate.client import Answer, AsyncClient, Client, ClosedError
from sluicegate.client.news import News

HELLO = Answer("Hello there.")


def fast(demo: Server) -> dict[str, Any]:
    return {"base_url": demo.base_url, "model": "demo-fast"}


async def both_ways(client: AsyncClient) -> None:
    plain = await client.generate("Hi there")
    assert (await client.stream("Hi there").until_end()).content == plain.content


def test_one_client_in_loops_one_after_another(demo: Server) -> None:
    client = AsyncClient(**fast(demo))
    for _ in range(3):
        asyncio.run(both_ways(client))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(both_ways(client))
    anyio.run(both_ways, client)


@pytest.mark.asyncio
async def test_under_pytest_asyncio(demo: Server) -> None:
    async with AsyncClient(**fast(demo)) as client:
        await both_ways(client)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_under_anyio(demo: Server) -> None:
    async with AsyncClient(**fast(demo)) as client:
        with anyio.fail_after(20):
            await both_ways(client)


def test_one_client_in_threads(demo: Server) -> None:
    shared, loops = Client(**fast(demo)), AsyncClient(**fast(demo))
    ended: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            if number % 2:
                asyncio.run(both_ways(loops))
            else:
                plain = shared.generate("Hi")
                assert shared.stream("Hi").until_end().content == plain.content
        ended.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ended) == 6


def test_a_stream_may_move_to_another_thread(demo: Server) -> None:
    with Client(**fast(demo)) as client:
        stream = client.stream("Hi")
        first = next(stream)
        rest: list[str] = []
        thread = threading.Thread(target=lambda: rest.extend(chunk.content for chunk in stream))
        thread.start()
        thread.join(20)
        assert first.content + "".join(rest) == stream.answer.content


def test_streams_side_by_side_in_one_thread(demo: Server) -> None:
    with Client(**fast(demo)) as client:
        streams = [client.stream("Hi there") for _ in range(5)]
        texts = ["".join(chunk.content for chunk in chunks) for chunks in zip(*streams, strict=True)]
        assert "".join(texts).count("Sluicegate's") == 5


def test_the_blocking_client_inside_a_loop(demo: Server) -> None:
    async def scenario() -> str:
        with Client(**fast(demo)) as client:
            return client.generate("Hi").content

    assert asyncio.run(scenario())


FORKING = """
import os, sys, asyncio
from sluicegate.client import AsyncClient, Client
client, loops = Client(), AsyncClient()
def use():
    assert client.generate("Hi").content == client.stream("Hi").until_end().content
    assert asyncio.run(loops.generate("Hi")).content
use()
child = os.fork()
use()
if child:
    _, status = os.waitpid(child, 0)
    use()
    sys.exit(os.waitstatus_to_exitcode(status))
os._exit(0)
"""


def test_after_a_fork(demo: Server) -> None:
    environment = clean_environment(
        {"OPENAI_COMPATIBLE_BASE_URL": demo.base_url, "OPENAI_COMPATIBLE_MODEL": "demo-fast"}
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING],
        env=environment,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- leaving early
# --------------------------------------------------------------------------------------------


def test_leaving_the_loop_closes_the_connection(script: Script) -> None:
    async def scenario() -> None:
        client = AsyncClient(**script.says(endless))
        async with client.stream("Go") as stream:
            async for chunk in stream:
                assert chunk.content == "word "
                break
        assert await asyncio.to_thread(closes_within, script.connections, 1.0)

    asyncio.run(scenario())


def test_leaving_without_a_block_closes_it_too(script: Script) -> None:
    async def scenario() -> None:
        client = AsyncClient(**script.says(endless))
        async for _ in client.stream("Go"):
            break
        gc.collect()
        assert await asyncio.to_thread(closes_within, script.connections, 1.0)

    asyncio.run(scenario())


def test_leaving_the_blocking_loop(script: Script) -> None:
    client = Client(**script.says(endless))
    with client.stream("Go") as stream:
        assert next(stream).content == "word "
    assert closes_within(script.connections, 1.0)
    assert list(stream) == []


@pytest.mark.parametrize("streamed", [True, False])
def test_cancelling_closes_the_connection(script: Script, streamed: bool) -> None:
    async def scenario() -> None:
        client = AsyncClient(**script.says(endless if streamed else silent))
        work = client.stream("Go").until_end() if streamed else client.generate("Go")
        task = asyncio.ensure_future(work)
        assert await asyncio.to_thread(script.is_asked)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(closes_within, script.connections, 1.0)

    asyncio.run(scenario())


def test_a_timeout_around_it_closes_it(script: Script) -> None:
    async def scenario() -> None:
        client = AsyncClient(**script.says(silent))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.generate("Go")
        assert await asyncio.to_thread(closes_within, script.connections, 1.0)

    asyncio.run(scenario())


def test_a_loop_that_stood_still_is_no_timeout(demo: Server) -> None:
    # Calls run on the loop's thread: what came while it was busy counts before its clocks do.
    async def scenario() -> None:
        async with AsyncClient(demo.base_url, model="demo", timeout=1.0) as client:
            async with client.stream("Hi there") as stream:
                await anext(stream)
                time.sleep(2.0)  # noqa: ASYNC251 - a program that computes
                streamed = "".join([chunk.content async for chunk in stream])
            plain = asyncio.ensure_future(client.generate("Hi there"))
            await asyncio.sleep(0)
            time.sleep(2.0)  # noqa: ASYNC251
            assert streamed
            assert (await plain).content == stream.answer.content

    asyncio.run(scenario())


def test_closing_the_client_ends_what_runs(script: Script) -> None:
    client = Client(**script.says(endless))
    stream = client.stream("Go")
    next(stream)
    timer = threading.Timer(0.2, client.close)
    timer.start()
    with pytest.raises(ClosedError):
        stream.until_end()
    assert closes_within(script.connections, 1.0)


def test_a_signal_interrupts_the_blocking_client(script: Script) -> None:
    environment = clean_environment({"OPENAI_COMPATIBLE_BASE_URL": script.says(silent)["base_url"]})
    code = f"from sluicegate.client import Client; Client(model={script.model!r}).generate('Hi')"
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while not script.asked and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(2)
        assert b"KeyboardInterrupt" in process.communicate(timeout=10)[1]
    assert closes_within(script.connections, 1.0)


def test_a_slow_reader_holds_the_server_back(script: Script) -> None:
    """What nobody takes is not read: memory stays bounded."""
    sent = 0

    def flood(asked: Any) -> Any:
        nonlocal sent
        from faults import content

        yield content.chunked_head(asked)
        event = content.http_chunk(content.event(content.chunk(asked, "x" * 8000)))
        while True:
            sent += len(event)
            yield event

    with Client(**script.says(flood)).stream("Go") as stream:
        next(stream)
        before = -1
        deadline = time.monotonic() + 10
        # Until nothing moves any more: the sockets between are full.
        while sent != before and time.monotonic() < deadline:
            before = sent
            time.sleep(0.3)
        assert sent == before
        assert sent < 32 * 1024 * 1024


# --- nothing stays behind
# -------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts descriptors in /proc")
def test_nothing_is_left_behind(demo: Server) -> None:
    """A small form of `bench/micro/client.py --leaks`, which makes 100,000 calls."""
    client = Client(**fast(demo))
    loops = AsyncClient(**fast(demo))

    async def several() -> None:
        await both_ways(loops)
        async with loops.stream("Hi") as stream:
            await anext(stream)

    def use() -> None:
        client.generate("Hi")
        with client.stream("Hi") as stream:
            next(stream)
        asyncio.run(several())

    for _ in range(10):
        use()
    gc.collect()
    before, objects, fds = memory(), len(gc.get_objects()), descriptors()
    for _ in range(60):
        use()
    gc.collect()
    assert len(gc.get_objects()) - objects < 200
    assert descriptors() - fds <= 4
    assert memory() - before < 8 * 1024 * 1024


def memory() -> int:
    """Resident bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- the future of a batch ----------------------------------------------------------------------------------


def test_what_a_task_raises_to_the_loop_arrives(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """SystemExit in the body of `async for` ends the program, as it does everywhere else."""

    async def scenario() -> None:
        # Not `wait_for`: its task would keep the exception, which nobody retrieves. The collector logs
        # that, wherever it runs next; in the middle of `ast.parse` that is a SystemError of Python 3.11.
        async with asyncio.timeout(20), AsyncClient(**script.says(endless)).stream("Go") as stream:
            async for _ in stream:
                await anext(stream)
                raise SystemExit(7)

    with pytest.raises(SystemExit, match="7"):
        asyncio.run(scenario())
    gc.collect()
    assert not caplog.records


def test_news_outside_and_inside_of_a_task() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        order: list[str] = []

        async def wait(news: News) -> None:
            await news
            order.append("woken")

        # From a callback of the loop, the task goes on at once; from another task, in its own turn.
        for inside, expected in ((False, ["woken", "settled"]), (True, ["settled", "woken"])):
            order.clear()
            news = News(loop)
            task = asyncio.create_task(wait(news))
            await asyncio.sleep(0)

            def settle(news: News = news) -> None:
                news.set_result(None)
                order.append("settled")

            if inside:
                settle()
            else:
                loop.call_soon(settle)
            await task
            assert order == expected
            assert news.done()
            news.set_result(None)
            assert not news.cancel()

        news = News(loop)
        news.set_result(None)
        await news

        task = asyncio.create_task(wait(News(loop)))
        await asyncio.sleep(0)
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_context_variables_stay_with_their_task(demo: Server) -> None:
    name: ContextVar[str] = ContextVar("name")

    async def one(client: AsyncClient, mine: str) -> None:
        name.set(mine)
        async for _ in client.stream("Hi"):
            assert name.get() == mine
            assert asyncio.current_task() is not None

    async def scenario() -> None:
        async with AsyncClient(demo.base_url, model="demo-fast") as client:
            await asyncio.gather(*(one(client, f"task {number}") for number in range(5)))

    asyncio.run(scenario())

"""How the asynchronous client waits: on the running loop, for replies, chunks, tools and time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from sluicegate.client.execution import Done, Job, call_now, failure, in_thread, too_slow
from sluicegate.client.news import News
from sluicegate.engine import Chunk, Chunks, Engine, Reply, Upstream

if TYPE_CHECKING:
    from sluicegate.engine import PendingReply


class Line(Protocol):
    """One call under way."""

    chunks: Chunks | None

    async def reply(self) -> Reply:
        """The reply; of a stream, once its first event is there. Then `chunks` is set."""

    async def more(self) -> list[Chunk]:
        """The chunks that are ready, at least one; none at the end."""

    def close(self) -> None:
        """End the call, if it has not ended, and with it the upstream's connection."""


class Transport(Protocol):
    """What differs between the two clients."""

    def open(
        self, upstream: Upstream, operation: Any, body: bytes | None, options: dict[str, Any]
    ) -> Line: ...
    async def run(self, jobs: Sequence[Job]) -> list[Done]: ...
    async def sleep(self, seconds: float) -> None: ...


# One for the process: it keeps a bridge for each loop. Calls run on the loop's own thread: to wake it
# from another one was up to half of what a chunk cost (`python -m bench.micro.client`).
_engine = Engine(inline=True)


class AsyncLine:
    """A call on the running loop."""

    __slots__ = ("__weakref__", "_loop", "_pending", "chunks")

    def __init__(self, pending: PendingReply) -> None:
        self._loop = pending.future.get_loop()
        self._pending = pending
        self.chunks: Chunks | None = None

    async def reply(self) -> Reply:
        reply = await self._pending.future
        if reply.stream is not None:
            self.chunks = Chunks(reply.stream)
        return reply

    async def more(self) -> list[Chunk]:
        chunks = self.chunks
        if chunks is None:
            return []
        while not (ready := chunks.take()) and chunks.outcome is None:
            news = News(self._loop)
            chunks.wait(news)
            await news
        return ready

    def close(self) -> None:
        self._pending.call.cancel()
        if self.chunks is not None:
            self.chunks.cancel()


class AsyncTransport:
    """The running loop, whichever that is."""

    def open(
        self, upstream: Upstream, operation: Any, body: bytes | None, options: dict[str, Any]
    ) -> AsyncLine:
        return AsyncLine(_engine.start(upstream, operation, body, **options))

    async def run(self, jobs: Sequence[Job]) -> list[Done]:
        return list(await asyncio.gather(*map(_run, jobs)))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _run(job: Job) -> Done:
    clock = asyncio.timeout(job.timeout)
    try:
        async with clock:
            if job.is_async:
                return Done(await job.function(**job.arguments))
            return await _threaded(job)
    except TimeoutError as error:
        # A tool may raise it itself.
        return too_slow(job) if clock.expired() else failure(error)
    except Exception as error:  # noqa: BLE001 - whatever a tool raises is for the model
        return failure(error)


async def _threaded(job: Job) -> Done:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Done] = loop.create_future()

    def settle(done: Done) -> None:
        if not future.done():
            future.set_result(done)

    def tell(done: Done) -> None:
        # The loop may be closed by the time that a slow tool ends.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, done)

    in_thread(lambda: call_now(job), tell)
    done = await future
    if asyncio.iscoroutine(done.value):
        # A plain function that gives a coroutine, like functools.partial of an async one.
        return Done(await done.value)
    return done

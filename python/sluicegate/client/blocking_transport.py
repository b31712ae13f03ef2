"""How the blocking client waits: in poll(2) on the completion descriptor, without any event loop.

Measured beside a loop in a background thread: that takes two more switches between threads for each wait.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import Coroutine, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sluicegate.client.execution import Done, Job, call_now, failure, in_thread, too_slow
from sluicegate.engine import Bridge, Chunk, Chunks, Reply, Upstream

T = TypeVar("T")
# Waiters that are kept for the next calls: as many as threads that call at once.
_MOST_KEPT = 32


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits for a loop, which holds for all of the client on a blocking
    transport.
    """
    try:
        work.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    work.close()
    raise RuntimeError(
        "a hook waited for an event loop: with the blocking client, hooks must not; use AsyncClient"
    )


class _Slot:
    """What the bridge settles: the part of a future that it uses."""

    __slots__ = ("_settled", "value")

    def __init__(self) -> None:
        self._settled = False
        self.value: Any = None

    def done(self) -> bool:
        return self._settled

    def set_result(self, value: Any) -> None:
        self._settled = True
        self.value = value


class _Waiter:
    """A bridge with nobody but one call at a time on it, so that any thread may wait there."""

    __slots__ = ("_poll", "bridge")

    def __init__(self) -> None:
        self.bridge = Bridge()
        self._poll = select.poll()
        self._poll.register(self.bridge.fileno(), select.POLLIN)

    def until(self, slot: _Slot) -> None:
        """Returns when it is settled, which the clocks of the call see to."""
        while not slot.done():
            self._poll.poll()
            self.bridge.drain()


class BlockingLine:
    """A call of the thread that waits for it; another thread may go on with it later."""

    __slots__ = ("__weakref__", "_call", "_kept", "_released", "_slot", "_waiter", "chunks")

    def __init__(self, waiter: _Waiter, kept: list[_Waiter], call: Any, slot: _Slot) -> None:
        self._waiter = waiter
        self._released = False
        self._kept = kept
        self._call = call
        self._slot = slot
        self.chunks: Chunks | None = None

    async def reply(self) -> Reply:
        self._waiter.until(self._slot)
        reply: Reply = self._slot.value
        if reply.stream is not None:
            self.chunks = Chunks(reply.stream)
        else:
            self._release()
        return reply

    async def more(self) -> list[Chunk]:
        chunks = self.chunks
        if chunks is None:
            return []
        while not (ready := chunks.take()) and chunks.outcome is None:
            slot = _Slot()
            chunks.wait(slot)
            self._waiter.until(slot)
        if chunks.outcome is not None:
            self._release()
        return ready

    def close(self) -> None:
        self._call.cancel()
        if self.chunks is not None:
            self.chunks.cancel()

    def _release(self) -> None:
        # Only at the end of a call: one that is closed early may have a thread that waits for it.
        if not self._released and len(self._kept) < _MOST_KEPT:
            self._kept.append(self._waiter)
        self._released = True


class BlockingTransport:
    """The calling thread, whichever that is."""

    def __init__(self) -> None:
        self._kept: list[_Waiter] = []
        self._process = os.getpid()

    def open(
        self, upstream: Upstream, operation: Any, body: bytes | None, options: dict[str, Any]
    ) -> BlockingLine:
        if self._process != os.getpid():
            # The child of a fork: those are the parent's.
            self._kept, self._process = [], os.getpid()
        try:
            waiter = self._kept.pop()
        except IndexError:
            waiter = _Waiter()
        slot = _Slot()
        call = waiter.bridge.exchange(upstream, operation, body, slot, **options)
        return BlockingLine(waiter, self._kept, call, slot)

    async def run(self, jobs: Sequence[Job]) -> list[Done]:
        begun = time.monotonic()
        # For each job a queue of its own: one that is late has nobody to disturb.
        queues: list[SimpleQueue[Done]] = [SimpleQueue() for _ in jobs]
        for job, queue in zip(jobs, queues, strict=True):
            in_thread(lambda job=job: _run(job), queue.put)  # type: ignore[misc]
        return [_wait(job, queue, begun) for job, queue in zip(jobs, queues, strict=True)]

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - this transport blocks: that is what it is for


def _wait(job: Job, queue: SimpleQueue[Done], begun: float) -> Done:
    left = None if job.timeout is None else max(begun + job.timeout - time.monotonic(), 0)
    try:
        return queue.get(timeout=left)
    except Empty:
        return too_slow(job)


def _run(job: Job) -> Done:
    if not job.is_async:
        done = call_now(job)
        return _awaited(job, done.value) if asyncio.iscoroutine(done.value) else done
    return _awaited(job, job.function(**job.arguments))


def _awaited(job: Job, work: Coroutine[Any, Any, Any]) -> Done:
    async def bounded() -> Done:
        # Beside the clock of `_wait`, which may be a little later: both have to say the same.
        clock = asyncio.timeout(job.timeout)
        try:
            async with clock:
                return Done(await work)
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is for the model
            return too_slow(job) if clock.expired() else failure(error)

    return asyncio.run(bounded())

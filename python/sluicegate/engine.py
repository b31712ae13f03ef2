"""The Rust core behind one small class: the only module that imports `_core`.

One `Engine` serves a process. Each event loop that calls through it gets a bridge of its own, made at the
first call, so it works in worker processes, in tests with a loop each, in several threads, and after a fork.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from sluicegate._core import (
    Bridge,
    Call,
    Failure,
    Outcome,
    Reply,
    Request,
    RequestError,
    SharedTable,
    Stream,
    Upstream,
    __version__,
    scan,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = [
    "Bridge",
    "Call",
    "Engine",
    "Failure",
    "Outcome",
    "PendingReply",
    "Reply",
    "Request",
    "RequestError",
    "SharedTable",
    "Stream",
    "Upstream",
    "__version__",
    "scan",
]

Operation = Literal["chat", "completions", "embeddings", "models"]

# Closing waits this long for cancelled calls to say so; each needs one turn of the I/O thread.
CLOSE_SECONDS = 1.0


class PendingReply(NamedTuple):
    """A call under way: await `future`; `call.cancel()` ends it early, and so does dropping it."""

    call: Call
    future: Future[Reply]


class Engine:
    """Starts upstream calls from whichever event loop is running."""

    def __init__(self) -> None:
        self._bridges: WeakKeyDictionary[AbstractEventLoop, Bridge] = WeakKeyDictionary()
        # The loop that called last, with its bridge: one comparison instead of a look-up for each request.
        self._last: tuple[AbstractEventLoop, Bridge] | None = None
        _engines.add(self)

    def start(
        self, upstream: Upstream, operation: Operation, body: bytes | None, **options: Any
    ) -> PendingReply:
        """Start one call; `options` are those of `_core.Bridge.exchange`.

        Never fails for anything the upstream does: that is in the `Reply`.
        """
        loop = asyncio.get_running_loop()
        last = self._last
        bridge = last[1] if last is not None and last[0] is loop else self._attach(loop)
        future: Future[Reply] = loop.create_future()
        return PendingReply(bridge.exchange(upstream, operation, body, future, **options), future)

    async def call(
        self, upstream: Upstream, operation: Operation, body: bytes | None, **options: Any
    ) -> Reply:
        """`start` and wait. Cancelling the waiting task cancels the upstream call."""
        pending = self.start(upstream, operation, body, **options)
        try:
            return await pending.future
        except BaseException:
            # Not left to the garbage collector: the traceback of the cancellation keeps this frame alive.
            pending.call.cancel()
            raise

    @property
    def open_calls(self) -> int:
        """Calls that have not ended, over all loops."""
        return sum(bridge.open_calls for bridge in self._bridges.values())

    def forget_loops(self) -> None:
        """Begin anew in the child of a fork: loops, bridges and calls from before are the parent's."""
        self._bridges = WeakKeyDictionary()
        self._last = None

    async def close(self) -> None:
        """Cancel the calls of the running loop, wait until they have ended, and detach from the loop."""
        loop = asyncio.get_running_loop()
        bridge = self._bridges.pop(loop, None)
        self._last = None
        if bridge is None:
            return
        bridge.close()
        deadline = loop.time() + CLOSE_SECONDS
        # Polled: the calls end on the I/O thread, which knows no asyncio event, and this happens once.
        while bridge.open_calls and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        bridge.drain()
        loop.remove_reader(bridge.fileno())

    def _attach(self, loop: AbstractEventLoop) -> Bridge:
        bridge = self._bridges.get(loop)
        if bridge is None:
            bridge = Bridge()
            loop.add_reader(bridge.fileno(), bridge.drain)
            self._bridges[loop] = bridge
        self._last = (loop, bridge)
        return bridge


_engines: WeakSet[Engine] = WeakSet()


def _after_fork() -> None:
    for engine in _engines:
        engine.forget_loops()


os.register_at_fork(after_in_child=_after_fork)

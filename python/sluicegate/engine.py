"""The Rust core behind one small class: the only module that imports `_core`.

One `Engine` serves a process. Each event loop that calls through it gets a bridge of its own, made at the
first call, so it works in worker processes, in tests with a loop each, in several threads, and after a fork.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary, WeakSet

from msgspec import Struct

from sluicegate._core import (
    Admission,
    Bridge,
    Call,
    Chunk,
    Chunks,
    Event,
    EventDecoder,
    EventEncoder,
    EventTooLargeError,
    Failure,
    Journal,
    JournalSegment,
    LimitRules,
    Limits,
    LimitSets,
    Marks,
    Message,
    Metrics,
    Outcome,
    QualityChecks,
    Ranks,
    Recipe,
    Reply,
    Request,
    RequestError,
    SharedTable,
    Stream,
    ToolCallDelta,
    Upstream,
    Usage,
    __version__,
    ask_logprobs,
    chain,
    journal_segments,
    rate_headers,
    record_rows,
    record_sums,
    scan,
    sha256,
    stream_of,
    without_thoughts,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = [
    "Admission",
    "Bridge",
    "Call",
    "CancelCause",
    "Chunk",
    "Chunks",
    "Engine",
    "Event",
    "EventDecoder",
    "EventEncoder",
    "EventTooLargeError",
    "Failure",
    "Journal",
    "JournalSegment",
    "LimitRules",
    "LimitSets",
    "Limits",
    "Marks",
    "Message",
    "Metrics",
    "Outcome",
    "PendingReply",
    "QualityChecks",
    "Ranks",
    "Recipe",
    "Reply",
    "Request",
    "RequestError",
    "SharedTable",
    "Stream",
    "ToolCallDelta",
    "Upstream",
    "Usage",
    "__version__",
    "ask_logprobs",
    "chain",
    "journal_segments",
    "rate_headers",
    "record_rows",
    "record_sums",
    "scan",
    "sha256",
    "stream_of",
    "without_thoughts",
]

# Whom a call ends for: the client that left, or what the answer then says in its error event.
CancelCause = Literal["client_closed", "server_shutdown", "api_key_revoked", "api_key_expired"]
Operation = Literal["chat", "completions", "embeddings", "models", "responses"]

# Without a thread of their own, the clocks of calls are looked at so often; they are seconds long.
TICK_SECONDS = 0.05

# Closing waits this long for cancelled calls to say so; each needs one turn of the I/O thread.
CLOSE_SECONDS = 1.0


class PendingReply(Struct, frozen=True):
    """A call under way: await `reply()`; `call.cancel()` ends it early, and so does dropping it."""

    call: Call
    future: Future[Reply]

    async def reply(self) -> Reply:
        """The reply. Cancelling the waiting task cancels the call."""
        try:
            return await self.future
        except BaseException:
            # Not left to the garbage collector: the traceback of the cancellation keeps this frame alive.
            self.call.cancel()
            raise


class _Ticks:
    """Has a bridge look at its clocks while calls are open.

    Keeps no timer: that would hold its loop, and the loop is what this is forgotten with.
    """

    __slots__ = ("_bridge", "_stopped", "_ticking")

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._ticking = False
        self._stopped = False

    def begin(self, loop: AbstractEventLoop) -> None:
        if not self._ticking:
            self._ticking = True
            loop.call_later(TICK_SECONDS, self._tick)

    def stop(self) -> None:
        self._stopped = True

    def _tick(self) -> None:
        self._ticking = False
        if self._stopped:
            return
        self._bridge.turn()
        if self._bridge.open_calls:
            self.begin(asyncio.get_running_loop())


class _Attached(Struct, frozen=True):
    bridge: Bridge
    # None where a thread of the core looks at the clocks.
    ticks: _Ticks | None


class Engine:
    """Starts upstream calls from whichever event loop is running.

    With `inline`, calls run on the thread of that loop instead of one of their own: two switches between
    threads less for each answer and each chunk. Right where the loop does little else, as in a worker.
    """

    def __init__(self, *, inline: bool = False) -> None:
        self._inline = inline
        self._bridges: WeakKeyDictionary[AbstractEventLoop, _Attached] = WeakKeyDictionary()
        # The loop that called last, with its bridge: one comparison instead of a look-up for each request.
        self._last: tuple[AbstractEventLoop, _Attached] | None = None
        _engines.add(self)

    def start(
        self, upstream: Upstream, operation: Operation, body: bytes | None, **options: Any
    ) -> PendingReply:
        """Start one call; `options` are those of `_core.Bridge.exchange`.

        Never fails for anything the upstream does: that is in the `Reply`.
        """
        loop = asyncio.get_running_loop()
        last = self._last
        attached = last[1] if last is not None and last[0] is loop else self._attach(loop)
        future: Future[Reply] = loop.create_future()
        call = attached.bridge.exchange(upstream, operation, body, future, **options)
        if attached.ticks is not None:
            attached.ticks.begin(loop)
        return PendingReply(call, future)

    async def call(
        self, upstream: Upstream, operation: Operation, body: bytes | None, **options: Any
    ) -> Reply:
        """`start` and wait. Cancelling the waiting task cancels the upstream call."""
        return await self.start(upstream, operation, body, **options).reply()

    @property
    def open_calls(self) -> int:
        """Calls that have not ended, over all loops."""
        return sum(attached.bridge.open_calls for attached in self._bridges.values())

    def forget_loops(self) -> None:
        """Begin anew in the child of a fork: loops, bridges and calls from before are the parent's."""
        self._bridges = WeakKeyDictionary()
        self._last = None

    async def close(self) -> None:
        """Cancel the calls of the running loop, wait until they have ended, and detach from the loop."""
        loop = asyncio.get_running_loop()
        attached = self._bridges.pop(loop, None)
        self._last = None
        if attached is None:
            return
        bridge = attached.bridge
        bridge.close()
        deadline = loop.time() + CLOSE_SECONDS
        # Polled: calls end in turns that know no asyncio event, and this happens once.
        while bridge.open_calls and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        bridge.drain()
        loop.remove_reader(bridge.fileno())
        reactor = bridge.reactor_fileno()
        if attached.ticks is not None and reactor is not None:
            attached.ticks.stop()
            loop.remove_reader(reactor)

    def _attach(self, loop: AbstractEventLoop) -> _Attached:
        attached = self._bridges.get(loop)
        if attached is None:
            bridge = Bridge(inline=self._inline)
            loop.add_reader(bridge.fileno(), bridge.drain)
            ticks = None
            reactor = bridge.reactor_fileno()
            if reactor is not None:
                loop.add_reader(reactor, bridge.turn)
                ticks = _Ticks(bridge)
            attached = self._bridges[loop] = _Attached(bridge, ticks)
        self._last = (loop, attached)
        return attached


_engines: WeakSet[Engine] = WeakSet()


def _after_fork() -> None:
    for engine in _engines:
        engine.forget_loops()


os.register_at_fork(after_in_child=_after_fork)

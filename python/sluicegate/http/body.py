"""Read a request body once, as bytes, with a cap and a pace."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sluicegate import errors
from sluicegate.clock import monotonic

# How long a refused body is still taken in, and how much of it: see `discard`.
_LINGER_IDLE = 0.5
_LINGER_TOTAL = 5.0
_LINGER_BYTES = 64 * 1024 * 1024

Receive = Callable[[], Awaitable[Any]]


class _Reading:
    """One body on its way in: the task to wake, and the window that its pace is measured in."""

    __slots__ = ("count", "slow", "task", "window_count", "window_start")

    def __init__(self, task: "asyncio.Task[Any]", now: float) -> None:
        self.task = task
        self.count = 0
        self.window_start = now
        self.window_count = 0
        self.slow = False


class BodyReader:
    """Reads bodies for one worker.

    The server has no timeout of its own for bodies. One timer for all readings, instead of one for each,
    keeps a body that arrives at once at the price of a set insertion.
    """

    def __init__(self, max_bytes: int, window: float, min_rate: int) -> None:
        self._max_bytes = max_bytes
        self._window = window
        self._min_rate = min_rate
        self._readings: set[_Reading] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def read(self, receive: Receive, length: int | None) -> bytes:
        """The whole body. Raises 413, 408 or ClientGoneError."""
        first = self.first(receive, length)
        whole = self.at_once(first, length)
        return await self.rest(first, receive, length) if whole is None else whole

    def first(self, receive: Receive, length: int | None) -> Awaitable[Any]:
        """The first message, perhaps still to come. Raises 413 where the length alone says it."""
        if length is not None and length > self._max_bytes:
            raise errors.body_too_large(self._max_bytes)
        return receive()

    async def rest(self, first: Awaitable[Any], receive: Receive, length: int | None) -> bytes:
        """The body, where `at_once` has none. Raises 413, 408 or ClientGoneError."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request must run in a task")
        reading = _Reading(task, monotonic())
        self._readings.add(reading)
        if self._timer is None:
            self._arm()
        try:
            return await self._collect(first, receive, length, reading)
        except asyncio.CancelledError:
            if not reading.slow:
                raise
            # Ours: take it back, so that the answer's own awaits are not cancelled.
            task.uncancel()
            raise errors.body_too_slow(self._window, self._min_rate) from None
        finally:
            self._readings.discard(reading)

    def at_once(self, first: Any, length: int | None) -> bytes | None:
        """The body, where all of it has come with `first`: it needs no clock, and no task.

        The server's futures tell; a test client's coroutine does not.
        """
        if not hasattr(first, "done") or not first.done():
            return None
        message = first.result()
        part: bytes = message.get("body", b"")
        if message["type"] != "http.request" or len(part) > self._max_bytes:
            return None
        return part if len(part) == length or not message.get("more_body", False) else None

    async def _collect(
        self, first: Awaitable[Any], receive: Receive, length: int | None, reading: _Reading
    ) -> bytes:
        # One buffer and not a list of parts: a body of one-byte frames would cost 40 times its size.
        buffer: bytearray | None = None
        message = await first
        while True:
            if message["type"] != "http.request":
                raise errors.ClientGoneError
            part: bytes = message.get("body", b"")
            reading.count += len(part)
            if reading.count > self._max_bytes:
                raise errors.body_too_large(self._max_bytes)
            # With the declared length complete there is nothing to wait for: one receive less per request.
            if reading.count == length or not message.get("more_body", False):
                return part if buffer is None else bytes(buffer + part)
            if buffer is None:
                buffer = bytearray(part)
            else:
                buffer += part
            message = await receive()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._window / 8, self._sweep)

    def _sweep(self) -> None:
        """Cancel the readings whose window is over and brought too little."""
        self._timer = None
        now = monotonic()
        for reading in self._readings:
            elapsed = now - reading.window_start
            if elapsed < self._window or reading.slow:
                continue
            if reading.count - reading.window_count < self._min_rate * elapsed:
                reading.slow = True
                reading.task.cancel()
            else:
                reading.window_start = now
                reading.window_count = reading.count
        if self._readings:
            self._arm()


async def discard(receive: Receive) -> None:
    """After a refusal: take what the client is still sending, for a moment, and drop it.

    Closing at once would reset the connection, and the client would lose the answer that says why.
    """
    taken = 0
    try:
        async with asyncio.timeout(_LINGER_TOTAL):
            while taken < _LINGER_BYTES:
                async with asyncio.timeout(_LINGER_IDLE):
                    message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                taken += len(message.get("body", b""))
    except TimeoutError:
        return

"""The ASGI side of an answer: start, batches, disconnect, end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from sluicegate.engine import CancelCause, Outcome, Stream

if TYPE_CHECKING:
    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]
    Headers = list[tuple[bytes, bytes]]
    _Watches = set["ClientWatch"]

# Gives the last bytes of an answer, once what has to be kept of it is kept.
Last = Callable[[Outcome], Awaitable[bytes]]

# Finds out what is not known of an answer that has ended.
Measure = Callable[[Outcome], Awaitable[None]]

# Sitting in receive() from the start costs 25-30 us a request; most plain requests are over before.
WATCH_AFTER_SECONDS = 0.05
# A client that takes nothing for so long is taken for gone.
WRITE_STALL_SECONDS = 60.0


class Cancellable(Protocol):
    """A call or a stream."""

    def cancel(self, cause: CancelCause = "client_closed") -> None:
        """Close the upstream."""


class ClientWatches:
    """All requests of one worker that wait for an answer, on one timer.

    A timer for each costs 4 us a request (uvloop); an entry in a set costs 0.3. A request begun in one tick
    sits in `receive()` from the second tick after it, so after 50 to 100 ms.
    """

    __slots__ = ("_loop", "_new", "_old", "_timer", "long")

    def __init__(self) -> None:
        # Those that have taken longer than that: most requests never cost an entry here.
        self.long: set[ClientWatch] = set()
        self._new: set[ClientWatch] = set()
        self._old: set[ClientWatch] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, receive: Receive, caller: Any = None, began: float = 0.0) -> ClientWatch:
        """Watch the client of a request whose body was read; `began` is before its key was looked at."""
        watch = ClientWatch(receive, (self._new, self.long), caller, began)
        self._new.add(watch)
        if self._timer is None:
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(WATCH_AFTER_SECONDS, self._tick)
        return watch

    def unattended(self, caller: Any, began: float) -> ClientWatch:
        """For work that goes on without its client."""
        watch = ClientWatch(None, (self.long, self.long), caller, began)
        self.long.add(watch)
        return watch

    def _tick(self) -> None:
        for watch in self._old:
            watch.sit()
        self._old, self._new = self._new, set()
        self._timer = None
        if self._old and self._loop is not None:
            self._timer = self._loop.call_later(WATCH_AFTER_SECONDS, self._tick)


class ClientWatch:
    """Notices that the client has gone, and cancels whatever the request is doing upstream.

    Granian tells it only through `receive()`, so a task sits there, from a little after the request began.
    """

    __slots__ = ("_among", "_cause", "_doing", "_long", "_receive", "_task", "began", "caller", "checked")

    def __init__(
        self, receive: Receive | None, sets: tuple[_Watches, _Watches], caller: Any, began: float
    ) -> None:
        """`sets`: where it stands now, and where it goes when it takes longer."""
        # Who asks, since when, and the number of changes at which the key was good: `keys/cut.py` uses them.
        self.caller = caller
        self.began = began
        self.checked = -1
        self._receive = receive
        self._among, self._long = sets
        self._cause: CancelCause | None = None
        self._doing: Cancellable | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def gone(self) -> bool:
        """The client has left."""
        return self._cause == "client_closed"

    def on_gone(self, doing: Cancellable) -> None:
        """Cancel this when the client goes; at once if it has gone."""
        self._doing = doing
        if self._cause is not None:
            doing.cancel(self._cause)

    def cut(self, cause: CancelCause) -> None:
        """End what the request is doing, and what it would do next. The first cause stays."""
        self._cause = self._cause or cause
        if self._doing is not None:
            self._doing.cancel(cause)

    def stop(self) -> None:
        """The request is over."""
        self._doing = None
        self._among.discard(self)
        if self._task is not None:
            self._task.cancel()

    def sit(self) -> None:
        """Begin to wait for the disconnect."""
        self._among = self._long
        self._long.add(self)
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        assert self._receive is not None  # noqa: S101 (who has no client does not sit)
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.cut("client_closed")


async def send_stream(  # noqa: PLR0913 (one answer: where to, what, and how it ends)
    send: Send,
    stream: Stream,
    headers: Headers,
    settle: Callable[[Outcome | None], None],
    last: Last | None = None,
    *,
    measure: Measure | None = None,
    write_stall: float = WRITE_STALL_SECONDS,
) -> None:
    """Relay a streamed answer to its end.

    `settle` gets the outcome before the last bytes leave, so what a client has seen complete is on record;
    it gets None where the task ended in another way (cancelled, or the client took nothing for too long).
    `last` gives the bytes that leave then, instead of the outcome's own. `measure` comes before both.
    """
    try:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        outcome = await _relay(send, stream, write_stall)
        if measure is not None:
            await measure(outcome)
    except BaseException:
        stream.cancel()
        settle(None)
        raise
    settle(outcome)
    tail = outcome.tail if last is None else await last(outcome)
    await send({"type": "http.response.body", "body": tail, "more_body": False})


async def _relay(send: Send, stream: Stream, write_stall: float) -> Outcome:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    outcome = stream.attach(send, future)
    while outcome is None:
        settled = await future
        if type(settled) is Outcome:
            return settled
        # The client is slow: until its send goes through, the upstream is not read either.
        async with asyncio.timeout(write_stall):
            await settled
        future = loop.create_future()
        outcome = stream.resume(future)
    return outcome

"""A worker of the server: Granian's own, but a request with a body wakes the event loop once, not twice.

Granian tells the loop of a request when its head is there, and again when the application has asked for the
body. Here the body's first part is asked for at once, on the thread that built the scope, and the loop hears
of the request together with it. Of a body that is slow to come it hears after 50 to 100 ms, without it.
"""

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import granian._signals
import granian.server.mp
from granian._granian import CallbackScheduler
from granian._signals import set_loop_signals
from msgspec import Struct

from sluicegate.app import DRAIN_SIGNAL

# A request waits for its body's first part from one tick to the next but one.
TICK_SECONDS = 0.05

# What ends a process. They are held back while a worker starts, but for its imports: the handlers of the main
# process, which it has at first, would swallow them, and so does Granian until it serves.
STOPS = (signal.SIGINT, signal.SIGTERM)
# A worker looks so often whether the main process lives.
PARENT_SECONDS = 1.0


# Structs: a NamedTuple takes four times as long to make.
class _Receive(Struct):
    """ASGI's `receive`, whose first answer is under way already.

    It does not know the scope: an application that keeps it there would make a cycle of every request.
    """

    first: Any
    more: Callable[[], Any]

    def __call__(self) -> Any:
        first = self.first
        if first is None:
            return self.more()
        self.first = None
        return first


class _Protocol(Struct):
    receive: _Receive
    send: Callable[[Any], Any]


class _Watched(Struct):
    """What Granian's watcher has (scope, connection, how the application ended), with another `receive`."""

    scope: Any
    proto: _Protocol
    done: Callable[[], None]
    err: Callable[[BaseException], None]


class Requests:
    """Begins requests on the loop. `arrived` runs on the server's Python thread, all else on the loop's.

    The server has one such thread (Granian allows ASGI no more), and the two take turns by the GIL: what they
    share is one dictionary that is never replaced, and a flag; each use of them is a single step.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, application: Callable[[Any], Coroutine[Any, Any, None]]
    ) -> None:
        """`application` takes a watcher."""
        self._loop = loop
        self._application = application
        # First part of a body → its request.
        self._waiting: dict[Any, Any] = {}
        self._ticking = False
        # Of the loop's thread alone: those that were waiting at the last tick.
        self._seen: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None

    def arrived(self, watcher: Any) -> None:
        """A request whose head is there."""
        if watcher.scope["method"] != "POST":
            self._loop.call_soon_threadsafe(self._begin, watcher, watcher)
            return
        # It is completed by this thread, so not before we are through.
        first = watcher.proto.receive()
        self._waiting[first] = watcher
        first.add_done_callback(self._came)
        if not self._ticking:
            self._ticking = True
            self._loop.call_soon_threadsafe(self._arm)

    def _came(self, first: Any) -> None:
        """The first part is there, or the client has gone. Called on the loop."""
        watcher = self._waiting.pop(first, None)
        if watcher is not None:
            self._begin_with(first, watcher)

    def _begin_with(self, first: Any, watcher: Any) -> None:
        proto = watcher.proto
        protocol = _Protocol(_Receive(first, proto.receive), proto.send)
        self._begin(watcher, _Watched(watcher.scope, protocol, watcher.done, watcher.err))

    def _begin(self, watcher: Any, watched: Any) -> None:
        # The watcher keeps the task, to which the loop itself has only a weak reference.
        watcher.taskref(self._loop.create_task(self._application(watched)))

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        """Begin the requests that were waiting at the last tick already."""
        self._timer = None
        for first in self._seen:
            self._came(first)
        self._seen = list(self._waiting)
        # First the flag, then the look: a request between the two finds it down and arms by itself.
        self._ticking = False
        if self._waiting:
            self._ticking = True
            self._arm()


class _Scheduler(CallbackScheduler):
    """What Granian calls for each request."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def begin(self, arrived: Callable[[Any], None]) -> None:
        self._schedule_fn = arrived


def _scheduler(loop: Any, application: Any, *, impl_asyncio: bool) -> _Scheduler:
    """In the place of Granian's `_new_cbscheduler`."""
    assert impl_asyncio, "requests are asyncio's tasks here"  # noqa: S101 (Granian's default)
    scheduler = _Scheduler(loop, application, None, None, None)
    scheduler.begin(Requests(loop, application).arrived)
    _watch_parent(loop, os.getppid())
    # It runs once Granian serves.
    loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, STOPS)
    # All that the application has made by now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    return scheduler


def _watch_parent(loop: asyncio.AbstractEventLoop, parent: int) -> None:
    """End as if told to when the main process is gone: nobody would, and the port would stay taken."""
    if os.getppid() == parent:
        loop.call_later(PARENT_SECONDS, _watch_parent, loop, parent)
        return
    os.kill(os.getpid(), DRAIN_SIGNAL)
    os.kill(os.getpid(), signal.SIGTERM)


def _set_loop_signals(loop: asyncio.AbstractEventLoop) -> Any:
    """In the place of Granian's: what it would hear before it serves, it would not act on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    return set_loop_signals(loop)  # type: ignore[no-untyped-call]


def spawn(*args: Any) -> None:
    """A worker process, with `Requests` as its scheduler; for `spawn_target` of Granian's `serve`."""
    for stop in STOPS:
        signal.signal(stop, signal.SIG_DFL)
    # One that came meanwhile ends the process here and now.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    granian._signals.set_loop_signals = _set_loop_signals
    granian.server.mp._new_cbscheduler = _scheduler  # type: ignore[assignment, attr-defined]
    granian.server.mp.MPServer._spawn_asgi_lifespan_worker(*args)

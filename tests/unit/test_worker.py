"""How a worker begins its requests: with the first part of the body, or without it when that is slow."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from sluicegate.cli.worker import TICK_SECONDS, Requests

pytestmark = pytest.mark.asyncio


class Part:
    """The server's future: completed on its own thread, and heard of on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._told: Callable[[Any], None] | None = None
        self.message: dict[str, Any] | None = None

    def add_done_callback(self, told: Callable[[Any], None]) -> None:
        self._told = told

    def complete(self, body: bytes) -> None:
        self.message = {"type": "http.request", "body": body}
        if self._told is not None:
            self._loop.call_soon_threadsafe(self._told, self)


class Scope(dict[str, Any]):
    """A scope whose end can be seen."""


class Connection:
    """Makes the parts of a body; it does not know the request's scope."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.parts: list[Part] = []

    def receive(self) -> Part:
        self.parts.append(Part(self.loop))
        return self.parts[-1]

    def send(self, _message: Any) -> None:
        raise AssertionError("nothing is answered here")


class Watcher:
    """One request, as the server describes it."""

    def __init__(self, method: str = "POST") -> None:
        self.scope = Scope(method=method)
        self.proto = Connection()
        self.parts = self.proto.parts
        self.task: Any = None

    def taskref(self, task: Any) -> None:
        self.task = task

    def done(self) -> None:
        """Called at the end."""

    def err(self, error: BaseException) -> None:
        raise error


class Application:
    """Keeps what it was begun with."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.firsts: list[Part] = []

    async def __call__(self, watched: Any) -> None:
        self.begun.append(watched)
        self.firsts.append(watched.proto.receive())


def arrive(requests: Requests, *watchers: Watcher) -> None:
    """As the server does it: on a thread that is not the loop's."""
    thread = threading.Thread(target=lambda: [requests.arrived(watcher) for watcher in watchers])
    thread.start()
    thread.join()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.001)


@pytest.fixture
def application() -> Application:
    return Application()


async def test_a_request_begins_with_the_first_part_of_its_body(application: Application) -> None:
    requests = Requests(asyncio.get_running_loop(), application)
    watcher = Watcher()
    arrive(requests, watcher)
    assert application.begun == []
    watcher.parts[0].complete(b"whole")
    await until(lambda: bool(application.begun))
    assert application.firsts == watcher.parts
    assert application.firsts[0].message == {"type": "http.request", "body": b"whole"}
    # Only the first is prepared; what follows is the server's own.
    application.begun[0].proto.receive()
    assert len(watcher.parts) == 2


async def test_a_request_whose_body_is_slow_begins_without_it_and_once(application: Application) -> None:
    requests = Requests(asyncio.get_running_loop(), application)
    watcher = Watcher()
    arrive(requests, watcher)
    began = asyncio.get_running_loop().time()
    await until(lambda: bool(application.begun))
    assert asyncio.get_running_loop().time() - began >= TICK_SECONDS
    assert application.firsts[0].message is None
    watcher.parts[0].complete(b"late")
    await asyncio.sleep(3 * TICK_SECONDS)
    assert len(application.begun) == 1


async def test_a_request_without_a_body_begins_at_once(application: Application) -> None:
    requests = Requests(asyncio.get_running_loop(), application)
    watcher = Watcher("GET")
    arrive(requests, watcher)
    assert watcher.parts == []
    await until(lambda: bool(application.begun))
    assert application.firsts == watcher.parts


async def test_a_request_that_is_over_leaves_nothing_to_the_collector() -> None:
    """With a cycle in each request, the collector took a third of a worker's time."""

    async def application(watched: Any) -> None:
        # As the envelope does it: the exchange, which is in the scope, keeps both ends of the connection.
        watched.scope["exchange"] = (watched.proto.receive, watched.proto.send)
        await asyncio.sleep(0)

    requests = Requests(asyncio.get_running_loop(), application)
    watcher = Watcher()
    ends = weakref.ref(watcher.scope)
    gc.disable()
    try:
        arrive(requests, watcher)
        watcher.parts[0].complete(b"whole")
        await until(lambda it=watcher: it.task is not None)  # type: ignore[misc]
        await watcher.task
        del watcher
        await asyncio.sleep(0)
        assert ends() is None
    finally:
        gc.enable()


async def test_each_of_many_begins_once_however_they_come(application: Application) -> None:
    loop = asyncio.get_running_loop()
    requests = Requests(loop, application)
    watchers = [Watcher(random.Random(i).choice(["POST", "POST", "GET"])) for i in range(3000)]
    pause = threading.Event()

    def serve() -> None:
        chance = random.Random(7)
        open_parts: list[Part] = []
        for watcher in watchers:
            requests.arrived(watcher)
            open_parts += watcher.parts
            while open_parts and chance.random() < 0.6:
                open_parts.pop(chance.randrange(len(open_parts))).complete(b"x")
            if chance.random() < 0.02:
                pause.wait(chance.random() * TICK_SECONDS)
        # The rest never sends anything.

    thread = threading.Thread(target=serve)
    thread.start()
    await until(lambda: not thread.is_alive() and len(application.begun) == len(watchers))
    await asyncio.sleep(3 * TICK_SECONDS)
    assert len(application.begun) == len({id(watched.scope) for watched in application.begun}) == 3000
    # Nothing is waited for, so the loop is left alone.
    assert requests._timer is None

"""What the tests of the clients share: one way to call either, and upstreams that follow a script."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from faults import content
from faults.content import Asked
from faults.steps import FOREVER, Steps, World
from faults.upstream import Connection, FaultUpstream
from sluicegate.client import Answer, AsyncClient, Chunk, Client, ClientError

LIMIT = 30.0


@dataclass
class Both:
    """Calls the asynchronous or the blocking client; each call has a client, and a loop, of its own."""

    kind: type[AsyncClient] | type[Client]

    @property
    def is_async(self) -> bool:
        return self.kind is AsyncClient

    def call(self, name: str, *arguments: Any, client: dict[str, Any], **options: Any) -> Any:
        """One method of the client."""
        if not self.is_async:
            with Client(**client) as made:
                return getattr(made, name)(*arguments, **options)

        async def called() -> Any:
            async with AsyncClient(**client) as made:
                return await getattr(made, name)(*arguments, **options)

        return asyncio.run(asyncio.wait_for(called(), LIMIT))

    def generate(self, *arguments: Any, client: dict[str, Any], **options: Any) -> Answer[Any]:
        """`generate`."""
        answer = self.call("generate", *arguments, client=client, **options)
        assert isinstance(answer, Answer)
        return answer

    def stream(
        self, *arguments: Any, client: dict[str, Any], **options: Any
    ) -> tuple[list[Chunk], Answer[Any]]:
        """`stream` to its end: the chunks and the answer."""
        if not self.is_async:
            with Client(**client) as made, made.stream(*arguments, **options) as stream:
                return list(stream), stream.answer

        async def called() -> tuple[list[Chunk], Answer[Any]]:
            async with AsyncClient(**client) as made, made.stream(*arguments, **options) as stream:
                return [chunk async for chunk in stream], stream.answer

        return asyncio.run(asyncio.wait_for(called(), LIMIT))

    def error(self, how: str, *arguments: Any, client: dict[str, Any], **options: Any) -> ClientError:
        """The error that a call ends with."""
        try:
            getattr(self, how)(*arguments, client=client, **options)
        except ClientError as error:
            return error
        raise AssertionError("no error")


def at(upstream: FaultUpstream, model: str, **settings: Any) -> dict[str, Any]:
    """The settings of a client that calls a scenario."""
    return {"base_url": f"http://127.0.0.1:{upstream.port}/v1", "model": model, **settings}


@dataclass
class Script:
    """A model that answers in turns, and notes what it was asked."""

    upstream: FaultUpstream
    model: str
    asked: list[dict[str, Any]] = field(default_factory=list)

    def says(self, *turns: Answer[Any] | Callable[[Asked], Steps] | bytes) -> dict[str, Any]:
        """The turns, one a request; the last stays. Returns the settings of a client."""

        def scenario(asked: Asked, _world: World) -> Steps:
            turn = turns[min(len(self.asked), len(turns) - 1)]
            self.asked.append(asked.json)
            if isinstance(turn, bytes):
                yield turn
            elif isinstance(turn, Answer):
                yield from answered(asked, turn)
            else:
                yield from turn(asked)

        self.upstream.add(self.model, scenario)
        return at(self.upstream, self.model)

    def is_asked(self) -> bool:
        """Whether a request comes within 20 s."""
        deadline = time.monotonic() + 20
        while not self.asked and time.monotonic() < deadline:
            time.sleep(0.005)
        return bool(self.asked)

    def connections(self) -> list[Connection]:
        """Those that carried a request of this model."""
        return [c for c in self.upstream.records.all() if any(a.model == self.model for a in c.requests)]


def answered(asked: Asked, answer: Answer[Any]) -> Steps:
    """An answer in the form that was asked for; streamed, its texts come in two halves."""
    if not asked.stream:
        choice = {"index": 0, "message": answer.message(), "finish_reason": answer.finish_reason or "stop"}
        body = {**content.head(asked, False), "choices": [choice], "usage": content.USAGE}
        yield content.http("200 OK", "application/json", content.dumps(body))
        return
    events: list[bytes] = []

    def delta(**fields: Any) -> None:
        choice = {"index": 0, "delta": fields, "finish_reason": None}
        events.append(content.event({**content.head(asked, True), "choices": [choice]}))

    for half in halves(answer.content):
        delta(content=half)
    for index, call in enumerate(answer.tool_calls):
        first = {
            "index": index,
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }
        delta(tool_calls=[first])
        for half in halves(call.arguments):
            delta(tool_calls=[{"index": index, "function": {"arguments": half}}])
    finish = content.chunk(asked, None, answer.finish_reason or "stop")
    events += [content.event(finish), content.event(content.usage_chunk(asked)), content.DONE]
    yield content.chunked_head(asked) + b"".join(map(content.http_chunk, events)) + content.LAST_CHUNK


def halves(text: str) -> Sequence[str]:
    """Two parts, where there are two."""
    middle = len(text) // 2
    return [part for part in (text[:middle], text[middle:]) if part]


def endless(asked: Asked) -> Steps:
    """A stream that says one word each 20 ms, for ever."""
    yield content.chunked_head(asked)
    while True:
        yield content.http_chunk(content.event(content.chunk(asked, "word ")))
        yield 0.02


def silent(asked: Asked) -> Steps:
    """Reads the request and says nothing."""
    yield FOREVER


def closes_within(connections: Callable[[], Sequence[Connection]], seconds: float) -> bool:
    """Whether all of them are closed by then, and there is one."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = connections()
        if found and all(c.closed or c.peer_closed for c in found):
            return True
        time.sleep(0.01)
    return False

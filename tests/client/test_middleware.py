"""Middleware: the order of hooks, caching, changed chunks, and the shipped Retry."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from client_setup import Both, Script, at

from faults import content
from faults.upstream import FaultUpstream
from sluicegate.client import (
    Answer,
    AsyncClient,
    Chunk,
    Client,
    ClientError,
    Middleware,
    RateLimitedError,
    Request,
    Retry,
    ServerError,
)

HELLO = Answer("Hello there.")


def failing(status: str, *headers: str) -> bytes:
    return content.http(status, "application/json", content.error_body("busy"), *headers)


class Noting(Middleware):
    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def before(self, request: Request) -> Request:
        self.notes.append(f"before {self.name}")
        return msgspec.structs.replace(request, body={**request.body, self.name: len(self.notes)})

    def after(self, request: Request, result: Any) -> None:
        assert self.name in request.body
        self.notes.append(f"after {self.name}")


@pytest.mark.parametrize("how", ["generate", "stream"])
def test_the_first_is_the_outermost(both: Both, script: Script, how: str) -> None:
    notes: list[str] = []
    client = script.says(HELLO)
    getattr(both, how)("Hi", client={**client, "middleware": [Noting("a", notes), Noting("b", notes)]})
    assert notes == ["before a", "before b", "after b", "after a"]
    assert (script.asked[0]["a"], script.asked[0]["b"]) == (1, 2)


class Cache(Middleware):
    def __init__(self) -> None:
        self.kept: dict[bytes, Any] = {}

    async def before(self, request: Request) -> Any:
        return self.kept.get(msgspec.json.encode(request.body["messages"]))

    async def after(self, request: Request, result: Any) -> None:
        self.kept[msgspec.json.encode(request.body["messages"])] = result


def test_a_cache(both: Both, script: Script) -> None:
    client = {**script.says(HELLO), "middleware": [Cache()]}
    first = both.generate("Hi", client=client)
    assert both.generate("Hi", client=client).content == first.content
    chunks, answer = both.stream("Hi", client=client)
    assert [chunk.content for chunk in chunks] == [answer.content] == [HELLO.content]
    assert len(script.asked) == 1


class Shout(Middleware):
    def on_chunk(self, request: Request, chunk: Chunk) -> Chunk | None:
        return Chunk(chunk.content.upper()) if chunk.content else None


class Quote(Middleware):
    async def on_chunk(self, request: Request, chunk: Chunk) -> Chunk:
        return Chunk(f"<{chunk.content}>")


def test_chunks_may_be_changed_and_left_out(both: Both, script: Script) -> None:
    client = {**script.says(HELLO), "middleware": [Quote(), Shout()]}
    chunks, answer = both.stream("Hi", client=client)
    assert [chunk.content for chunk in chunks] == ["<HELLO >", "<THERE.>"]
    assert answer.content == HELLO.content


class Last(Middleware):
    def after(self, request: Request, result: Any) -> Any:
        return msgspec.structs.replace(result, content="changed")


def test_answers_may_be_changed(both: Both, script: Script) -> None:
    client = {**script.says(HELLO), "middleware": [Last()]}
    assert both.generate("Hi", client=client).content == "changed"
    assert both.stream("Hi", client=client)[1].content == "changed"


def test_a_hook_that_raises_ends_the_call(both: Both, script: Script) -> None:
    class Refuse(Middleware):
        def before(self, request: Request) -> None:
            raise PermissionError("not today")

    for how in ("generate", "stream"):
        with pytest.raises(PermissionError, match="not today"):
            getattr(both, how)("Hi", client={**script.says(HELLO), "middleware": [Refuse()]})
    assert script.asked == []


def test_a_hook_that_waits_needs_the_other_client(script: Script) -> None:
    class Sleepy(Middleware):
        async def before(self, request: Request) -> None:
            await asyncio.sleep(0.01)

    with (
        Client(**script.says(HELLO), middleware=[Sleepy()]) as client,
        pytest.raises(RuntimeError, match="event loop"),
    ):
        client.generate("Hi")

    async def scenario() -> Answer[None]:
        async with AsyncClient(**script.says(HELLO), middleware=[Sleepy()]) as client:
            return await client.generate("Hi")

    assert asyncio.run(scenario()).content == HELLO.content


@pytest.mark.parametrize("how", ["generate", "stream"])
def test_retry(both: Both, script: Script, how: str) -> None:
    bad = failing("503 Service Unavailable")
    client = {**script.says(bad, bad, HELLO), "middleware": [Retry(3, first=0.01)]}
    found = getattr(both, how)("Hi", client=client)
    assert (found if how == "generate" else found[1]).content == HELLO.content
    assert len(script.asked) == 3


def test_retry_ends(both: Both, script: Script) -> None:
    client = {**script.says(failing("503 Service Unavailable")), "middleware": [Retry(2, first=0.01)]}
    assert isinstance(both.error("generate", "Hi", client=client), ServerError)
    assert len(script.asked) == 2


def test_retry_waits_as_long_as_the_server_says(both: Both, script: Script) -> None:
    client = script.says(failing("429 Too Many Requests", "Retry-After-Ms: 300"), HELLO)
    begun = time.monotonic()
    both.generate("Hi", client={**client, "middleware": [Retry(first=0)]})
    assert time.monotonic() - begun >= 0.3


def test_retry_does_not_wait_too_long(both: Both, script: Script) -> None:
    client = script.says(failing("429 Too Many Requests", "Retry-After: 100"))
    error = both.error("generate", "Hi", client={**client, "middleware": [Retry(longest=5)]})
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == 100
    assert len(script.asked) == 1


def test_what_stays_wrong_is_not_tried_again(both: Both, faulty: FaultUpstream, script: Script) -> None:
    bad = failing("400 Bad Request")
    client = {**script.says(bad), "middleware": [Retry(first=0.01)]}
    both.error("generate", "Hi", client=client)
    assert len(script.asked) == 1
    both.error("generate", "Hi", client=at(faulty, "u23-429-quota", middleware=[Retry(first=0.01)]))


def test_a_stream_that_has_begun_is_not_tried_again(both: Both, script: Script) -> None:
    def cut(asked: content.Asked) -> Any:
        yield (
            content.chunked_head(asked)
            + content.http_chunk(content.text_events(asked)[0])
            + content.LAST_CHUNK
        )

    both.error("stream", "Hi", client={**script.says(cut), "middleware": [Retry(first=0.01)]})
    assert len(script.asked) == 1


def test_waits_grow_and_are_bounded() -> None:
    retry = Retry(10, first=1, longest=4)
    request = Request("chat", "m", {})
    error = ClientError("x")
    assert retry.on_error(request, error, 1) is None
    error.retryable = True
    waits = [retry.on_error(request, error, attempt) or 0 for attempt in range(1, 10)]
    for attempt, wait in enumerate(waits):
        whole = min(2.0**attempt, 4)
        assert whole / 2 <= wait <= whole
    assert retry.on_error(request, error, 10) is None
    with pytest.raises(ValueError, match="tries"):
        Retry(0)

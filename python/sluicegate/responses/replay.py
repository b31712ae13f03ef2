"""A stored response as the events of a stream: the same ones, with the same numbers, each time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import orjson

from sluicegate.conversations.model import Json
from sluicegate.errors import GatewayError, Header
from sluicegate.http.exchange import Exchange
from sluicegate.http.relay import WRITE_STALL_SECONDS

RUNNING = ("queued", "in_progress")
# How often a response that is still worked on is looked at, by whichever worker has the client.
POLL_SECONDS = 1.0
# Of those looks, one in so many tells the client that somebody is there.
_QUIET_LOOKS = 15
_FIRST_5XX = 500

# How it is stored now. Raises GatewayError.
Look = Callable[[], Awaitable[Json]]
_HEADERS: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_CLOSINGS = {"completed": "response.completed", "incomplete": "response.incomplete"}


def events(response: Json) -> list[bytes]:
    """All of them, each as its bytes; of a response that has not ended, those that are certain."""
    return [
        b"event: %s\ndata: %s\n\n"
        % (kind.encode(), orjson.dumps({"type": kind, **data, "sequence_number": n}))
        for n, (kind, data) in enumerate(_events(response))
    ]


async def follow(
    exchange: Exchange,
    look: Look,
    after: int | None = None,
    *,
    headers: tuple[Header, ...] = (),
    work: "asyncio.Task[None] | None" = None,
) -> None:
    """Send the events behind the number `after`, until the response has ended.

    Raises what the first look does. `work` is what makes it, where that is in this process.
    """
    shown, sent = await look(), 0 if after is None else after + 1
    gone = asyncio.ensure_future(_gone(exchange.receive))
    exchange.started = True
    start = {"type": "http.response.start", "status": 200}
    try:
        await exchange.send({**start, "headers": [*_HEADERS, *headers, *exchange.owed_headers()]})
        looks = 0
        while True:
            known = events(shown)
            await _send(exchange, b"".join(known[sent:]))
            sent = max(sent, len(known))
            if shown["status"] not in RUNNING:
                break
            looks += 1
            if looks % _QUIET_LOOKS == 0:
                await _send(exchange, b": keep-alive\n\n")
            waiting = {gone} if work is None or work.done() else {gone, work}
            await asyncio.wait(waiting, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return
            try:
                shown = await look()
            except GatewayError as error:
                if error.status < _FIRST_5XX:
                    # Deleted meanwhile.
                    await _send(exchange, _error(error, sent))
                    break
        await exchange.send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        # A client that takes nothing for so long is gone.
        return
    finally:
        gone.cancel()


def _events(response: Json) -> Iterator[tuple[str, Json]]:
    begun: Json = {**response, "status": "in_progress", "output": [], "usage": None}
    begun |= {"error": None, "incomplete_details": None}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    if response["status"] in RUNNING:
        return
    for place, item in enumerate(response["output"]):
        yield "response.output_item.added", {"output_index": place, "item": _begun(item)}
        yield from _said(item, {"item_id": item.get("id"), "output_index": place})
        yield "response.output_item.done", {"output_index": place, "item": item}
    # There is no event for one that was cancelled: it says so in its status.
    yield _CLOSINGS.get(response["status"], "response.failed"), {"response": response}


def _begun(item: Json) -> Json:
    return {**item, **_EMPTY.get(item["type"], {}), "status": "in_progress"}


_EMPTY: dict[str, Json] = {
    "message": {"content": []},
    "function_call": {"arguments": ""},
    "reasoning": {"summary": [], "content": []},
}


def _said(item: Json, at: Json) -> Iterator[tuple[str, Json]]:
    if item["type"] == "function_call":
        arguments = item["arguments"]
        yield "response.function_call_arguments.delta", {**at, "delta": arguments}
        done = {**at, "name": item["name"], "arguments": arguments}
        yield "response.function_call_arguments.done", done
    elif item["type"] == "message":
        for index, part in enumerate(item["content"]):
            yield from _part(part, {**at, "content_index": index}, "content_part")
    elif item["type"] == "reasoning":
        for index, part in enumerate(item.get("summary") or ()):
            yield from _part(part, {**at, "summary_index": index}, "reasoning_summary_part")
        for index, part in enumerate(item.get("content") or ()):
            yield from _part(part, {**at, "content_index": index}, "content_part")


# By the type of a part: the event that tells it, the field that has it, and what else the event says.
_PARTS: dict[str, tuple[str, str, Json]] = {
    "output_text": ("output_text", "text", {"logprobs": []}),
    "refusal": ("refusal", "refusal", {}),
    "summary_text": ("reasoning_summary_text", "text", {}),
    "reasoning_text": ("reasoning_text", "text", {}),
}


def _part(part: Json, at: Json, kind: str) -> Iterator[tuple[str, Json]]:
    name, field, more = _PARTS.get(part["type"], ("", "", {}))
    more = {key: part.get(key) or value for key, value in more.items()}
    yield f"response.{kind}.added", {**at, "part": {**part, field: "", **{key: [] for key in more}}}
    if name:
        yield f"response.{name}.delta", {**at, "delta": part[field], **more}
        yield f"response.{name}.done", {**at, field: part[field], **more}
    yield f"response.{kind}.done", {**at, "part": part}


def _error(error: GatewayError, number: int) -> bytes:
    said = {"code": error.code, "message": error.message, "param": error.param}
    return b"event: error\ndata: %s\n\n" % orjson.dumps({"type": "error", **said, "sequence_number": number})


async def _send(exchange: Exchange, body: bytes) -> None:
    if body:
        async with asyncio.timeout(WRITE_STALL_SECONDS):
            await exchange.send({"type": "http.response.body", "body": body, "more_body": True})


async def _gone(receive: Any) -> None:
    with suppress(Exception):
        while (await receive())["type"] != "http.disconnect":
            pass

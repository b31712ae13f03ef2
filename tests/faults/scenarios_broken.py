"""Scenarios U30 to U37: answers that break off, stall, or never end."""

from __future__ import annotations

from collections.abc import Iterable

from faults.content import (
    DONE,
    LAST_CHUNK,
    Asked,
    chunk,
    chunked_head,
    content_type,
    event,
    events,
    http,
    http_chunk,
    http_head,
    text_events,
    whole,
)
from faults.steps import CLOSE, FOREVER, RESET, Steps, World, fault

JSON = "application/json"


def first_part(asked: Asked) -> bytes:
    """The five text events of a stream, or half of a plain answer."""
    return b"".join(text_events(asked)) if asked.stream else whole(asked)[: len(whole(asked)) // 2]


def chunks(parts: Iterable[bytes]) -> bytes:
    """A chunked body, complete."""
    return b"".join(http_chunk(part) for part in parts) + LAST_CHUNK


def stream(asked: Asked, *parts: bytes) -> bytes:
    """A complete response with this body."""
    return chunked_head(asked) + chunks(parts)


@fault("u30-short-length")
def short_length(asked: Asked, _: World) -> Steps:
    """Closes before Content-Length is reached."""
    body = first_part(asked)
    kind = f"Content-Type: {content_type(asked)}"
    yield http_head("200 OK", kind, f"Content-Length: {len(body) + 100}") + body
    yield 0.05
    yield CLOSE


@fault("u31-no-last-chunk")
def no_last_chunk(asked: Asked, _: World) -> Steps:
    """Closes without the last chunk."""
    yield chunked_head(asked) + http_chunk(first_part(asked))
    yield 0.05
    yield CLOSE


@fault("u31-half-chunk")
def half_chunk(asked: Asked, _: World) -> Steps:
    """Closes in the middle of a chunk."""
    yield chunked_head(asked) + http_chunk(first_part(asked)) + b"ff\r\ndata: {"
    yield 0.05
    yield CLOSE


@fault("u32-clean-eof")
def clean_eof(asked: Asked, _: World) -> Steps:
    """Ends in order, but the answer does not: the case that looks finished to a careless reader."""
    yield stream(asked, first_part(asked))


@fault("u32-close-eof")
def close_eof(asked: Asked, _: World) -> Steps:
    """As clean-eof, with a body that ends where the connection does."""
    yield http_head("200 OK", f"Content-Type: {content_type(asked)}", "Connection: close")
    yield first_part(asked)
    yield CLOSE


@fault("u32-partial-event")
def partial_event(asked: Asked, _: World) -> Steps:
    """Ends in the middle of an event, and of a character."""
    cut = event(chunk(asked, "€"))
    yield stream(asked, first_part(asked), cut[: cut.index("€".encode()) + 1])


@fault("u32-finish-no-done")
def finish_no_done(asked: Asked, _: World) -> Steps:
    """All choices finish, but there is no marker: such servers exist, and the answer is whole."""
    yield stream(asked, *text_events(asked), event(chunk(asked, None, "stop")))


@fault("u33-rst-mid")
def reset_mid(asked: Asked, _: World) -> Steps:
    """Resets in the middle."""
    yield chunked_head(asked) + http_chunk(first_part(asked))
    yield 0.1
    yield RESET


@fault("u33-rst-first")
def reset_first(asked: Asked, _: World) -> Steps:
    """Resets after the head."""
    yield chunked_head(asked)
    yield 0.05
    yield RESET


@fault("u34-stall-mid", "c1-stall-mid")
def stall_mid(asked: Asked, _: World) -> Steps:
    """Says nothing more in the middle."""
    yield chunked_head(asked) + http_chunk(first_part(asked))
    yield FOREVER


@fault("u34-stall-first", "c1-stall-first")
def stall_first(asked: Asked, _: World) -> Steps:
    """Says nothing more after the head."""
    yield chunked_head(asked)
    yield FOREVER


@fault("u35-slow-loris")
def slow_loris(asked: Asked, _: World) -> Steps:
    """A byte each 100 ms, for ever: bytes, but no events."""
    yield chunked_head(asked) + http_chunk(first_part(asked)) + http_chunk(b'data: {"a":"')
    while True:
        yield 0.1
        yield http_chunk(b"a")


@fault("u35-comments")
def comments(asked: Asked, _: World) -> Steps:
    """A comment each 100 ms, for ever."""
    yield chunked_head(asked) + http_chunk(first_part(asked))
    while True:
        yield 0.1
        yield http_chunk(b": ping\n\n")


@fault("u35-comments-first")
def comments_first(asked: Asked, _: World) -> Steps:
    """Comments instead of a first event."""
    yield chunked_head(asked)
    while True:
        yield 0.1
        yield http_chunk(b": ping\n\n")


@fault("u36-endless-fast", "c2-endless-fast")
def endless_fast(asked: Asked, _: World) -> Steps:
    """An answer without an end, as fast as it is read."""
    yield chunked_head(asked)
    part = http_chunk(event(chunk(asked, "x" * 1000)) * 16 if asked.stream else b" " * 16384)
    while True:
        yield part


@fault("u36-endless-slow", "c1-endless-slow")
def endless_slow(asked: Asked, _: World) -> Steps:
    """An answer without an end, an event each 100 ms."""
    yield chunked_head(asked)
    while True:
        yield http_chunk(event(chunk(asked, "x")) if asked.stream else b" ")
        yield 0.1


@fault("u37-after-done")
def after_done(asked: Asked, _: World) -> Steps:
    """Goes on after the marker."""
    yield stream(asked, *events(asked), event(chunk(asked, "and another thing")), DONE)


@fault("u37-after-done-open")
def after_done_open(asked: Asked, _: World) -> Steps:
    """The marker, but the body does not end."""
    yield chunked_head(asked) + b"".join(http_chunk(part) for part in events(asked))
    yield FOREVER


@fault("u37-unasked")
def unasked(asked: Asked, _: World) -> Steps:
    """A second response that nobody asked for, behind the first."""
    yield http("200 OK", content_type(asked), whole(asked)) + http("200 OK", JSON, b'{"stolen":true}')

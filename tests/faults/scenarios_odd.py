"""Scenarios U38 to U47: answers that are encoded, malformed or odd."""

from __future__ import annotations

import base64
import functools
import gzip
import zlib
from collections.abc import Callable

from faults.content import (
    DONE,
    LAST_CHUNK,
    USAGE,
    Asked,
    answer,
    chunk,
    chunked_head,
    content_type,
    dumps,
    end_events,
    event,
    events,
    head,
    http,
    http_chunk,
    text_events,
    usage_chunk,
    whole,
)
from faults.encoded import ENCODED
from faults.scenarios_broken import chunks, first_part, stream
from faults.steps import Steps, World, fault

JSON = "application/json"


def _encoded(asked: Asked, encoding: str, body: bytes) -> bytes:
    return http("200 OK", content_type(asked), body, f"Content-Encoding: {encoding}")


@fault("u38-gzip")
def gzipped(asked: Asked, _: World) -> Steps:
    """gzip although identity was asked."""
    yield _encoded(asked, "gzip", gzip.compress(whole(asked)))


@fault("u38-deflate")
def deflated(asked: Asked, _: World) -> Steps:
    """deflate in its zlib form."""
    yield _encoded(asked, "deflate", zlib.compress(whole(asked)))


@fault("u38-br", "u38-zstd")
def brotli_or_zstd(asked: Asked, _: World) -> Steps:
    """br and zstd, prepared beforehand: the standard library cannot write them."""
    name = asked.scenario.removeprefix("u38-")
    yield _encoded(asked, name, base64.b64decode(ENCODED[name, asked.stream]))


@fault("u38-gzip-flushed")
def gzip_flushed(asked: Asked, _: World) -> Steps:
    """gzip, flushed after each event, some milliseconds apart."""
    packer = zlib.compressobj(wbits=31)
    yield chunked_head(asked, "Content-Encoding: gzip")
    for part in events(asked) if asked.stream else [whole(asked)]:
        yield http_chunk(packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH))
        yield 0.02
    yield http_chunk(packer.flush()) + LAST_CHUNK


@functools.cache
def bomb(stream: bool) -> bytes:
    """32 MiB of one event (or of one JSON text) in 32 KiB, made before the server starts."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(b'data: {"a":"' if stream else b'{"a":"')]
    parts += [packer.compress(b" " * (1 << 20)) for _ in range(32)]
    return b"".join([*parts, packer.flush()])


@fault("u39-gzip-bomb")
def gzip_bomb(asked: Asked, _: World) -> Steps:
    """32 KiB that become 32 MiB."""
    yield _encoded(asked, "gzip", bomb(asked.stream))


@fault("u39-gzip-bomb-later")
def gzip_bomb_later(asked: Asked, _: World) -> Steps:
    """Real events first, then many small ones of nothing."""
    packer = zlib.compressobj(9, wbits=31)
    yield chunked_head(asked, "Content-Encoding: gzip")
    yield http_chunk(packer.compress(first_part(asked)) + packer.flush(zlib.Z_SYNC_FLUSH))
    yield 0.2
    while True:
        packed = packer.compress((b": " + b" " * 8190 + b"\n\n") * 128) + packer.flush(zlib.Z_SYNC_FLUSH)
        yield http_chunk(packed)


@fault("u39-nested")
def nested(asked: Asked, _: World) -> Steps:
    """gzip in gzip."""
    yield _encoded(asked, "gzip, gzip", gzip.compress(gzip.compress(whole(asked))))


@fault("u39-unknown")
def unknown_encoding(asked: Asked, _: World) -> Steps:
    """An encoding that nobody knows."""
    yield _encoded(asked, "rot13", whole(asked))


@fault("u39-corrupt")
def corrupt(asked: Asked, _: World) -> Steps:
    """Not gzip at all."""
    yield _encoded(asked, "gzip", b"\x1f\x8b\x08\x00" + b"\xff" * 200)


@fault("u40-first")
def bad_utf8_first(asked: Asked, _: World) -> Steps:
    """Bytes that are not UTF-8 in the first event, or in a plain answer."""
    if asked.stream:
        yield stream(asked, event(chunk(asked, "a!b")).replace(b"!", b"\xff"), *events(asked))
    else:
        yield http("200 OK", JSON, dumps({**answer(asked), "note": "a!b"}).replace(b"!", b"\xff"))


@fault("u40-later")
def bad_utf8_later(asked: Asked, _: World) -> Steps:
    """As first, after good events; the bytes are a surrogate."""
    yield stream(asked, first_part(asked), event(chunk(asked, "a!b")).replace(b"!", b"\xed\xa0\x80"), DONE)


@fault("u41-bytewise")
def bytewise(asked: Asked, _: World) -> Steps:
    """Each byte is a chunk of its own; every 33 bytes a read ends, so also inside characters."""
    body = whole(asked)
    yield chunked_head(asked)
    for start in range(0, len(body), 33):
        yield b"".join(http_chunk(bytes([number])) for number in body[start : start + 33])
        yield 0.001
    yield LAST_CHUNK


def many_ends(parts: list[bytes]) -> bytes:
    """Each event with another line end."""
    ends = [b"\n", b"\r\n", b"\r"]
    return b"".join(part.replace(b"\n", ends[i % 3]) for i, part in enumerate(parts))


FIELDS = b"id: 1\x00\nretry: 10\nunknown\nfoo: bar\nevent: message\n"
# The same events in other ways that the standard allows.
SPELLED: dict[str, Callable[[list[bytes]], bytes]] = {
    "lf": b"".join,
    "crlf": lambda parts: b"".join(parts).replace(b"\n", b"\r\n"),
    "cr": lambda parts: b"".join(parts).replace(b"\n", b"\r"),
    "cr-split": lambda parts: b"".join(parts).replace(b"\n", b"\r\n"),
    "mixed": many_ends,
    "bom": lambda parts: b"\xef\xbb\xbf" + b"".join(parts),
    "comments": lambda parts: b": start\n\n" + b":\n".join(parts) + b": end\n",
    "no-space": lambda parts: b"".join(parts).replace(b"data: ", b"data:"),
    "fields": lambda parts: b"".join(FIELDS + part for part in parts),
    "many-data": lambda parts: b"".join(parts).replace(b',"choices"', b'\ndata: ,"choices"'),
}


@fault(*(f"u42-{name}" for name in SPELLED))
def spelled(asked: Asked, _: World) -> Steps:
    """Line ends, byte order mark, comments and fields as WHATWG allows them."""
    name = asked.scenario.removeprefix("u42-")
    body = SPELLED[name](events(asked))
    yield chunked_head(asked)
    if name != "cr-split":
        yield chunks([body])
        return
    for part in body.split(b"\n"):
        yield http_chunk(part + b"\n" if part else b"\n")
        yield 0.001
    yield LAST_CHUNK


@fault("u43-big-first")
def big_first(asked: Asked, _world: World) -> Steps:
    """A first event of 16 MiB."""
    yield chunked_head(asked)
    yield http_chunk(b'data: {"a":"')
    for _ in range(256):
        yield http_chunk(b"a" * 65536)
    yield http_chunk(b'"}\n\n') + chunks(events(asked))


@fault("u43-big-later")
def big_later(asked: Asked, _: World) -> Steps:
    """Good events, then one of 16 MiB."""
    yield chunked_head(asked) + http_chunk(first_part(asked))
    yield from big_first_body(asked)


def big_first_body(asked: Asked) -> Steps:
    """The 16 MiB and a good end."""
    yield http_chunk(b'data: {"a":"')
    for _ in range(256):
        yield http_chunk(b"a" * 65536)
    yield http_chunk(b'"}\n\n') + chunks(end_events(asked))


@fault("u43-no-newline")
def no_newline(asked: Asked, _: World) -> Steps:
    """A line without an end."""
    yield chunked_head(asked) + http_chunk(first_part(asked))
    while True:
        yield http_chunk(b"x" * 65536)


@fault("u44-first")
def bad_json_first(asked: Asked, _: World) -> Steps:
    """An event (or an answer) that is not JSON."""
    body = [event(b'{"id":'), *events(asked)] if asked.stream else [b'{"id": "x", "choices": [}']
    yield stream(asked, *body)


@fault("u44-later")
def bad_json_later(asked: Asked, _: World) -> Steps:
    """Good events, then one that is not JSON, then a good end."""
    yield stream(asked, first_part(asked), event(b"{'id': 1}"), *end_events(asked))


@fault("u44-not-object")
def not_object(asked: Asked, _: World) -> Steps:
    """JSON, but no object."""
    yield stream(asked, *([event(b"[1,2]"), *events(asked)] if asked.stream else [b"[1,2]"]))


ON_FIRE = {"message": "The engine is on fire.", "type": "engine_error", "param": None, "code": "on_fire"}


@fault("u45-first")
def in_band_first(asked: Asked, _: World) -> Steps:
    """The first event is an error."""
    yield stream(asked, event({"error": ON_FIRE}), DONE)


@fault("u45-first-429")
def in_band_limited(asked: Asked, _: World) -> Steps:
    """The first event is an error whose code says which status it would have had."""
    yield stream(asked, event({"error": {**ON_FIRE, "code": "rate_limit_exceeded"}}), DONE)


@fault("u45-later")
def in_band_later(asked: Asked, _: World) -> Steps:
    """An error after good events; the server adds its marker all the same."""
    yield stream(asked, first_part(asked), event({"error": ON_FIRE}), DONE)


@fault("u45-event-name")
def in_band_named(asked: Asked, _: World) -> Steps:
    """`event: error`, the message at the top."""
    yield stream(asked, first_part(asked), b"event: error\n" + event(ON_FIRE), DONE)


@fault("u45-empty-choices")
def in_band_choices(asked: Asked, _: World) -> Steps:
    """A chunk that has both no choices and an error."""
    yield stream(
        asked, first_part(asked), event({**head(asked, True), "choices": [], "error": ON_FIRE}), DONE
    )


ODD_USAGE: dict[str, list[object]] = {
    "missing": [],
    "twice": [USAGE, {**USAGE, "completion_tokens": 6, "total_tokens": 13}],
    "negative": [{"prompt_tokens": -7, "completion_tokens": -5, "total_tokens": -12}],
    "huge": [{"prompt_tokens": 10**30, "completion_tokens": 10**30, "total_tokens": 2 * 10**30}],
    "contradicting": [{"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 9000}],
    "text": [{"prompt_tokens": "seven", "completion_tokens": None, "total_tokens": 1.5}],
    "list": [[1, 2, 3]],
}


@fault(*(f"u46-{name}" for name in ODD_USAGE))
def odd_usage(asked: Asked, _: World) -> Steps:
    """A usage that cannot be right."""
    usages = ODD_USAGE[asked.scenario.removeprefix("u46-")]
    if asked.stream:
        end = [event(chunk(asked, None, "stop")), *(event(usage_chunk(asked, u)) for u in usages), DONE]
        yield stream(asked, *text_events(asked), *end)
    else:
        body = {**answer(asked), "usage": usages[-1]} if usages else answer(asked)
        if not usages:
            del body["usage"]
        yield http("200 OK", JSON, dumps(body))


def interleaved_events(asked: Asked) -> list[bytes]:
    """Three choices, in an order of their own."""
    order = [(2, "c1"), (0, "a1"), (1, "b1"), (0, "a2"), (2, "c2"), (1, "b2")]
    parts = [event(chunk(asked, text, index=i)) for i, text in order]
    ends = [event(chunk(asked, None, reason, i)) for i, reason in ((1, "stop"), (2, "length"), (0, "stop"))]
    return [*parts, *ends, DONE]


@fault("u47-interleaved")
def interleaved(asked: Asked, _: World) -> Steps:
    """Choices that alternate; a stream whatever was asked."""
    yield http("200 OK", "text/event-stream", b"".join(interleaved_events(asked)))


def tool_events(asked: Asked) -> list[bytes]:
    """Tool calls 0 and 2 (there is no 1), their arguments in fragments, one index used twice."""

    def delta(*calls: object) -> bytes:
        choice = {"index": 0, "delta": {"tool_calls": list(calls)}, "finish_reason": None}
        return event({**head(asked, True), "choices": [choice]})

    def opened(index: int, name: str) -> dict[str, object]:
        function = {"name": name, "arguments": ""}
        return {"index": index, "id": f"call_{index}", "type": "function", "function": function}

    def more(index: int, text: str) -> dict[str, object]:
        return {"index": index, "function": {"arguments": text}}

    parts = [delta(opened(0, "weather")), delta(opened(2, "time")), delta(more(2, '{"zone'), more(0, '{"ci'))]
    parts += [delta(more(0, 'ty":"Z')), delta(more(0, "ürich"), more(0, '"}')), delta(more(2, '":"UTC"}'))]
    return [*parts, event(chunk(asked, None, "tool_calls")), DONE]


@fault("u47-tools")
def tools(asked: Asked, _: World) -> Steps:
    """Tool calls with a gap and a repeated index; a stream whatever was asked."""
    yield http("200 OK", "text/event-stream", b"".join(tool_events(asked)))

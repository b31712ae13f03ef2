"""`sluicegate.sse`: the platform's vectors at any split, values, the encoder, and every kind of source."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.sse import Decoder, Encoder, Event, EventTooLargeError, aiter_events, encode, iter_events

# The web platform tests, eventsource/format-*: bytes, and (data, event, id) of each event.
VECTORS: dict[str, tuple[bytes, list[tuple[str, str, str]]]] = {
    "bom": (
        b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n",
        [("1", "message", ""), ("3", "message", "")],
    ),
    "bom-2": (
        b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\ndata:3\n\n",
        [("2", "message", ""), ("3", "message", "")],
    ),
    "comments": (
        b"data:1\r:\0\n:\r\ndata:2\n:"
        + b"x" * 4096
        + b"\rdata:3\n:data:fail\r:"
        + b"x" * 4096
        + b"\ndata:4\n\n",
        [("1\n2\n3\n4", "message", "")],
    ),
    "data-before-final-empty-line": (
        b"retry:1000\ndata:test1\n\nid:test\ndata:test2",
        [("test1", "message", "")],
    ),
    "field-data": (
        b"data:\n\ndata\ndata\n\ndata:test\n\n",
        [("", "message", ""), ("\n", "message", ""), ("test", "message", "")],
    ),
    "field-event": (b"event:test\ndata:x\n\ndata:x\n\n", [("x", "test", ""), ("x", "message", "")]),
    "field-event-empty": (b"event: \ndata:data\n\n", [("data", "message", "")]),
    "field-id": (
        b"id: 1\ndata:a\n\ndata:b\n\nid\ndata:c\n\n",
        [("a", "message", "1"), ("b", "message", "1"), ("c", "message", "")],
    ),
    "field-id-null": (
        b"id:1\ndata:a\n\nid: 2\0x\ndata:b\n\n",
        [("a", "message", "1"), ("b", "message", "1")],
    ),
    "field-parsing": (
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\n"
        b"data:3\rdata:\r\n data:32\ndata:4\n\n",
        [("\0\n 2\n1\n3\n\n4", "message", "")],
    ),
    "leading-space": (b"data:\ttest\rdata: \ndata:test\n\n", [("\ttest\n\ntest", "message", "")]),
    "newlines": (b"data:test\r\ndata\ndata:test\r\n\r", [("test\n\ntest", "message", "")]),
    "null-character": (b"data:\0\n\n\n\n", [("\0", "message", "")]),
    "unknown-fields": (
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\n\n",
        [("test\n", "message", "")],
    ),
    "utf-8": ("data:ok…\n\n".encode(), [("ok…", "message", "")]),
    "wrong-utf-8": (b"data:a\xffb\xe2\x82\n\n", [("a\ufffdb\ufffd", "message", "")]),
}


def values(events: list[Event]) -> list[tuple[str, str, str]]:
    return [(event.data, event.event, event.id) for event in events]


def decode(reads: list[bytes]) -> list[Event]:
    decoder = Decoder()
    found = [event for read in reads for event in decoder.feed(read)]
    decoder.close()
    return found


@pytest.mark.parametrize("name", VECTORS)
def test_the_platforms_vectors_at_any_split(name: str) -> None:
    text, expected = VECTORS[name]
    assert values(decode([text])) == expected
    assert values(decode([text[i : i + 1] for i in range(len(text))])) == expected
    for cut in range(len(text) if len(text) < 500 else 60):
        assert values(decode([text[:cut], b"", text[cut:]])) == expected, cut


LINES = st.sampled_from(
    [b"data", b"event", b"id", b"retry", b"", b":", b"data:x", b"id:7", b"event: e", b"retry:5"]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b": \xe4\xbd\xa0\n"])


@given(
    st.lists(st.tuples(LINES, ENDS), max_size=20),
    st.lists(st.integers(0, 400), max_size=12),
    st.binary(max_size=9),
)
def test_any_split_gives_the_same(lines: list[tuple[bytes, bytes]], cuts: list[int], noise: bytes) -> None:
    text = noise + b"".join(line + end for line, end in lines)
    places = sorted({0, len(text), *(cut for cut in cuts if cut <= len(text))})
    reads = [text[a:b] for a, b in pairwise(places)]
    assert decode(reads) == decode([text])


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
WORD = TEXT.filter(lambda text: not set(text) & set("\r\n\0"))
EVENTS = st.builds(
    Event,
    TEXT.filter(lambda text: "\r" not in text),
    event=WORD,
    id=WORD,
    retry=st.none() | st.integers(0, 2**63),
)


@given(st.lists(EVENTS, max_size=8))
def test_what_is_encoded_is_decoded(events: list[Event]) -> None:
    encoder = Encoder()
    assert decode([encoder.encode(event) for event in events]) == events
    for event in events:
        if not event.id.startswith("\ufeff"):
            assert decode([b"\n" + encode(event)]) == [event]


def test_an_id_is_written_where_it_changes() -> None:
    encoder = Encoder()
    written = [encoder.encode(Event("x", id=id)) for id in ("1", "1", "2", "", "")]
    assert written == [
        b"id: 1\ndata: x\n\n",
        b"data: x\n\n",
        b"id: 2\ndata: x\n\n",
        b"id\ndata: x\n\n",
        b"data: x\n\n",
    ]
    assert encoder.comment("still\nhere") == b": still\n: here\n\n"
    assert decode([encoder.comment("data: no")]) == []


def test_events_are_values() -> None:
    one = Event("a", event="e", id="1", retry=5)
    assert one == Event("a", event="e", id="1", retry=5)
    assert hash(one) == hash(Event("a", event="e", id="1", retry=5))
    others = [
        Event("b", event="e", id="1", retry=5),
        Event("a", id="1", retry=5),
        Event("a", event="e", retry=5),
    ]
    assert one not in [*others, Event("a", event="e", id="1"), "a", None]
    assert repr(one) == "Event('a', event='e', id='1', retry=5)"
    assert repr(Event("a", event="")) == "Event('a')"
    with pytest.raises(AttributeError):
        one.data = "b"  # type: ignore[misc]
    for wrong in ({"event": "a\nb"}, {"id": "a\rb"}, {"id": "a\0b"}):
        with pytest.raises(ValueError, match="one line"):
            Event("x", **wrong)  # type: ignore[arg-type]


def test_the_time_to_reconnect() -> None:
    decoder = Decoder()
    assert decoder.retry is None
    (event,) = decoder.feed(b"retry:7\ndata:x\n\n")
    assert (event.retry, decoder.retry) == (7, 7)
    assert decoder.feed(b"retry:8\n\nretry:x\ndata:y\n\n")[0].retry is None
    assert decoder.retry == 8


def test_what_the_end_cuts_off_is_no_event() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data:x\n") == []
    assert decoder.pending == 7
    decoder.close()
    with pytest.raises(ValueError, match="closed"):
        decoder.feed(b"\n")


@pytest.mark.parametrize(
    "reads", [[b"data:ok\n\ndata:" + b"x" * 99 + b"\n\n"], [b"data:ok\n\nda", b"ta:" + b"x" * 99]]
)
def test_events_are_bounded(reads: list[bytes]) -> None:
    decoder = Decoder(50)
    found: list[Event] = []
    with pytest.raises(EventTooLargeError, match="50 bytes"):
        for read in reads:
            found += decoder.feed(read)
        decoder.close()
    assert values(found) == [("ok", "message", "")]
    with pytest.raises(EventTooLargeError):
        decoder.feed(b"data:x\n\n")
    events = iter_events(reads, max_event_bytes=50)
    assert next(events).data == "ok"
    with pytest.raises(EventTooLargeError):
        next(events)
    assert issubclass(EventTooLargeError, ValueError)


@pytest.mark.parametrize(
    "data", [bytearray(b"data:x\n\n"), memoryview(b"data:x\n\n"), memoryview(b"dxaxtxax:xxx\nx\nx")[::2]]
)
def test_any_buffer_will_do(data: Any) -> None:
    assert Decoder().feed(data)[0].data == "x"


@pytest.mark.parametrize("data", ["data:x\n\n", None, 5, [b"x"]])
def test_what_is_not_bytes(data: Any) -> None:
    with pytest.raises(TypeError, match="bytes"):
        Decoder().feed(data)


# --- sources
# --------------------------------------------------------------------------------------------------

STREAM = b"".join(b"id: %d\ndata: %d \xe4\xbd\xa0\n\n" % (n, n) for n in range(50))
EXPECTED = decode([STREAM])


def pieces() -> Iterator[bytes]:
    for at in range(0, len(STREAM), 7):
        yield STREAM[at : at + 7]


def test_plain_sources(tmp_path: Any) -> None:
    file = tmp_path / "stream"
    file.write_bytes(STREAM)
    with file.open("rb") as buffered, file.open("rb", buffering=0) as raw:
        for source in (
            STREAM,
            pieces(),
            list(pieces()),
            io.BytesIO(STREAM),
            buffered,
            raw,
            httpx.Response(200, content=STREAM),
        ):
            assert list(iter_events(source)) == EXPECTED


def test_a_file_gives_events_before_it_ends() -> None:
    here, there = socket.socketpair()
    with here, there, here.makefile("rb") as file:
        there.sendall(b"data: 1\n\ndata: 2")
        events = iter_events(file)
        here.settimeout(10)
        assert next(events).data == "1"
        there.sendall(b"\n\n")
        assert next(events).data == "2"
        there.close()
        assert list(events) == []


@pytest.mark.parametrize("source", ["text", 5, None])
def test_sources_that_are_none(source: Any) -> None:
    with pytest.raises(TypeError, match="bytes"):
        list(iter_events(source))
    with pytest.raises(TypeError, match="async"):
        asyncio.run(anext(aiter_events(source)))  # type: ignore[arg-type]


async def pieces_later() -> AsyncIterator[bytes]:
    for piece in pieces():
        yield piece


class LikeAiohttp:
    """`response.content` of aiohttp: iterating over it gives lines."""

    async def iter_any(self) -> AsyncIterator[bytes]:
        async for piece in pieces_later():
            yield piece


def test_async_sources() -> None:
    async def scenario() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(STREAM)
        reader.feed_eof()
        sources: list[Any] = [
            pieces_later(),
            LikeAiohttp(),
            reader,
            httpx.Response(200, content=pieces_later()),
        ]
        for source in sources:
            assert [event async for event in aiter_events(source)] == EXPECTED

    asyncio.run(scenario())


def test_a_line_beyond_the_readers_limit() -> None:
    async def scenario() -> None:
        reader = asyncio.StreamReader(limit=64)
        reader.feed_data(b"data: " + b"x" * 1000 + b"\n\n")
        reader.feed_eof()
        assert [len(event.data) async for event in aiter_events(reader)] == [1000]

    asyncio.run(scenario())


def test_two_threads_on_one_decoder_do_no_harm() -> None:
    decoder = Decoder()
    found: list[int] = []
    refused: list[Exception] = []

    def feed() -> None:
        for _ in range(200):
            try:
                found.append(len(decoder.feed(b"data:x\n\n" * 50)))
            except RuntimeError as error:
                refused.append(error)

    threads = [threading.Thread(target=feed) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(found) == 50 * (400 - len(refused))

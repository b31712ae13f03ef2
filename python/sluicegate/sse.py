"""Server-sent events for any source of bytes: an incremental decoder, an encoder, and iterators.

The decoder follows the WHATWG HTML standard exactly, and any split of the bytes gives the same events.

    with httpx.stream("GET", url) as response:
        for event in iter_events(response):
            print(event.event, event.data)
"""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Protocol

from sluicegate.engine import Event, EventTooLargeError
from sluicegate.engine import EventDecoder as Decoder
from sluicegate.engine import EventEncoder as Encoder

__all__ = ["Decoder", "Encoder", "Event", "EventTooLargeError", "aiter_events", "encode", "iter_events"]

MAX_EVENT_BYTES = 1024 * 1024
READ_BYTES = 64 * 1024


class Readable(Protocol):
    """A binary file object, also an `http.client.HTTPResponse`."""

    def read(self, size: int, /) -> bytes: ...


class AsyncReadable(Protocol):
    """An `asyncio.StreamReader` and its like."""

    async def read(self, size: int, /) -> bytes: ...


class SyncResponse(Protocol):
    """An `httpx.Response`."""

    def iter_bytes(self) -> Iterator[bytes]: ...


class AsyncResponse(Protocol):
    """An `httpx.Response` of an asynchronous client."""

    def aiter_bytes(self) -> AsyncIterator[bytes]: ...


def encode(event: Event) -> bytes:
    """The bytes of one event alone; an `Encoder` writes a stream, each id only once."""
    return event.encode()


def iter_events(
    source: bytes | Iterable[bytes] | Readable | SyncResponse, *, max_event_bytes: int = MAX_EVENT_BYTES
) -> Iterator[Event]:
    """The events of a source: bytes, an iterable of bytes, a binary file object, or an httpx response.

    An event that the end of the source cuts off is no event. Raises EventTooLargeError, after the events
    before it, for one of more than `max_event_bytes`; TypeError for a source that gives no bytes.
    """
    # A generator would be entered again for each event, which costs a third of what decoding it does.
    decoder = Decoder(max_event_bytes)
    return chain.from_iterable(chain(map(decoder.feed, _reads(source)), _at_the_end(decoder)))


async def aiter_events(
    source: AsyncIterable[bytes] | AsyncReadable | AsyncResponse, *, max_event_bytes: int = MAX_EVENT_BYTES
) -> AsyncIterator[Event]:
    """As `iter_events`, for an async iterable of bytes, an `asyncio.StreamReader`, aiohttp's
    `response.content`, or the httpx response of an asynchronous client.
    """
    decoder = Decoder(max_event_bytes)
    async for data in _async_reads(source):
        for event in decoder.feed(data):
            yield event
    decoder.close()


def _at_the_end(decoder: Decoder) -> Iterator[list[Event]]:
    """Nothing; run when all reads are decoded."""
    decoder.close()
    yield from ()


def _reads(source: Any) -> Iterable[bytes]:
    if isinstance(source, bytes | bytearray | memoryview):
        return (bytes(source),)
    if hasattr(source, "iter_bytes"):
        reads: Iterable[bytes] = source.iter_bytes()
        return reads
    # `read` of a buffered file waits until it has everything; `read1` gives what is there. Iterating over a
    # file would give lines, and wait for each one's end.
    read: Callable[[int], bytes] | None = getattr(source, "read1", None) or getattr(source, "read", None)
    if read is not None:
        return iter(lambda: read(READ_BYTES), b"")
    if isinstance(source, Iterable) and not isinstance(source, str):
        return source
    raise TypeError(f"events are read from bytes, an iterable of bytes or a binary file, not {_kind(source)}")


def _async_reads(source: Any) -> AsyncIterable[bytes]:
    # asyncio's and aiohttp's readers are iterable too, by lines, and refuse a line of more than 64 KiB.
    for name in ("aiter_bytes", "iter_any"):
        if hasattr(source, name):
            reads: AsyncIterable[bytes] = getattr(source, name)()
            return reads
    if hasattr(source, "read"):
        return _read_on(source)
    if isinstance(source, AsyncIterable):
        return source
    raise TypeError(
        f"events are read from an async iterable of bytes or a stream reader, not {_kind(source)}; "
        "for other sources there is iter_events"
    )


async def _read_on(source: AsyncReadable) -> AsyncIterator[bytes]:
    while data := await source.read(READ_BYTES):
        yield data


def _kind(source: object) -> str:
    return type(source).__name__

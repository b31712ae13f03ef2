"""An upstream that speaks HTTP/2 over TLS, does what the request's `model` says, and records each stream.

A scenario is a generator of steps: bytes for DATA, a number of seconds to wait, Reset, GoAway or Hangup.
The head goes out before the first bytes; at the end of the generator the stream ends.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError

from faults.content import Asked, chunk, content_type, event, events, text_events, whole
from faults.steps import FOREVER


@dataclass(frozen=True)
class Reset:
    """RST_STREAM for this stream."""

    code: ErrorCodes


@dataclass(frozen=True)
class GoAway:
    """GOAWAY; `unseen` claims that this very stream was not looked at."""

    unseen: bool = False


class Hangup:
    """The TCP connection is cut."""


Step = bytes | float | Reset | GoAway | Hangup
Scenario = Callable[[Asked], Iterator[Step]]


@dataclass
class StreamRecord:
    """One request; times are of time.monotonic()."""

    connection: int
    asked: Asked
    reset: float | None = None
    reset_code: int | None = None
    ended: bool = False
    sent: int = 0


def ok(asked: Asked) -> Iterator[Step]:
    """The right answer, an event a frame."""
    yield from events(asked) if asked.stream else [whole(asked)]


def slow(asked: Asked) -> Iterator[Step]:
    """The right answer, 30 ms before each event."""
    for part in events(asked):
        yield 0.03
        yield part


def silence(_asked: Asked) -> Iterator[Step]:
    """No answer."""
    yield FOREVER


def stall_first(_asked: Asked) -> Iterator[Step]:
    """The head, and no more."""
    yield b""
    yield FOREVER


def endless(asked: Asked) -> Iterator[Step]:
    """An event each 50 ms, for ever."""
    while True:
        yield event(chunk(asked, "x")) if asked.stream else b" "
        yield 0.05


def flood(asked: Asked) -> Iterator[Step]:
    """Events for ever, as fast as they are taken."""
    while True:
        yield event(chunk(asked, "x" * 1000)) * 16


def reset_mid(asked: Asked) -> Iterator[Step]:
    """Text, then RST_STREAM."""
    yield from text_events(asked)
    yield 0.1
    yield Reset(ErrorCodes.INTERNAL_ERROR)


def reset_first(_asked: Asked) -> Iterator[Step]:
    """RST_STREAM instead of an answer."""
    yield Reset(ErrorCodes.INTERNAL_ERROR)


def refused_once(asked: Asked) -> Iterator[Step]:
    """REFUSED_STREAM on a connection that was used before."""
    if asked.earlier:
        yield Reset(ErrorCodes.REFUSED_STREAM)
    yield from ok(asked)


def go_away(asked: Asked) -> Iterator[Step]:
    """GOAWAY, then the rest of the answer: this connection takes no new streams."""
    first, *rest = events(asked)
    yield first
    yield GoAway()
    for part in rest:
        yield 0.03
        yield part


def go_away_unseen(asked: Asked) -> Iterator[Step]:
    """On a used connection: GOAWAY that says this request was not looked at."""
    if asked.earlier:
        yield GoAway(unseen=True)
        yield FOREVER
    yield from ok(asked)


def hangup(asked: Asked) -> Iterator[Step]:
    """The connection is cut in the middle."""
    yield from text_events(asked)
    yield 0.1
    yield Hangup()


SCENARIOS: dict[str, Scenario] = {
    "h2-ok": ok,
    "h2-slow": slow,
    "h2-silence": silence,
    "h2-stall-first": stall_first,
    "h2-endless": endless,
    "h2-flood": flood,
    "h2-reset-mid": reset_mid,
    "h2-reset-first": reset_first,
    "h2-refused-once": refused_once,
    "h2-go-away": go_away,
    "h2-go-away-unseen": go_away_unseen,
    "h2-hangup": hangup,
}


class Peer(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: Http2Upstream) -> None:
        self._server = server
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._requests: dict[int, tuple[dict[str, str], bytearray]] = {}
        self._records: dict[int, StreamRecord] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        self._served = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.protocols.append(transport.get_extra_info("ssl_object").selected_alpn_protocol())
        self._number = len(self._server.protocols)
        self._h2.initiate_connection()
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            received = self._h2.receive_data(data)
        except ProtocolError:
            self._server.broken += 1
            self._transport.close()
            return
        for one in received:
            self._take(one)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _take(self, one: Event) -> None:
        match one:
            case RequestReceived(stream_id=int(number), headers=list(headers)):
                self._requests[number] = ({str(n): str(v) for n, v in headers}, bytearray())
            case DataReceived(stream_id=int(number), data=bytes(data), flow_controlled_length=int(length)):
                self._requests[number][1].extend(data)
                self._h2.acknowledge_received_data(length, number)
            case StreamEnded(stream_id=int(number)):
                self._begin(number)
            case StreamReset(stream_id=int(number), error_code=code):
                if record := self._records.get(number):
                    record.reset, record.reset_code = time.monotonic(), int(code or 0)
                    self._tasks[number].cancel()
            case WindowUpdated():
                self._room.set()

    def _begin(self, number: int) -> None:
        headers, body = self._requests.pop(number)
        fields = json.loads(bytes(body) or b"{}")
        asked = Asked(
            headers[":method"], headers[":path"], tuple(headers.items()), bytes(body), self._served, fields
        )
        self._served += 1
        record = StreamRecord(self._number, asked)
        self._records[number] = record
        self._server.streams.append(record)
        self._tasks[number] = asyncio.get_running_loop().create_task(self._serve(number, record))

    async def _serve(self, number: int, record: StreamRecord) -> None:
        asked = record.asked
        begun = False
        for step in SCENARIOS[asked.scenario](asked):
            match step:
                case bytes():
                    if not begun:
                        self._h2.send_headers(
                            number, [(":status", "200"), ("content-type", content_type(asked))]
                        )
                        begun = True
                    await self._send(number, record, step)
                case Reset(code=code):
                    self._h2.reset_stream(number, code)
                    self._flush()
                    return
                case GoAway(unseen=unseen):
                    # H2Connection would close itself with it; streams that run must go on.
                    last = number - 2 if unseen else number
                    payload = last.to_bytes(4) + int(ErrorCodes.NO_ERROR).to_bytes(4)
                    self._transport.write(b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + payload)
                case Hangup():
                    self._transport.abort()
                    return
                case _:
                    self._flush()
                    await asyncio.sleep(step)
        self._h2.end_stream(number)
        record.ended = True
        self._flush()

    async def _send(self, number: int, record: StreamRecord, data: bytes) -> None:
        self._flush()
        while data:
            room = min(
                self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size, len(data)
            )
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            self._h2.send_data(number, data[:room])
            record.sent += room
            data = data[room:]
            self._flush()
            await asyncio.sleep(0)

    def _flush(self) -> None:
        if (data := self._h2.data_to_send()) and not self._transport.is_closing():
            self._transport.write(data)


@dataclass
class Http2Upstream:
    """`with Http2Upstream(context) as upstream:`; it runs in a thread of its own."""

    tls: ssl.SSLContext
    # The ALPN protocol of each connection, in the order of their opening.
    protocols: list[str | None] = field(default_factory=list)
    streams: list[StreamRecord] = field(default_factory=list)
    # Connections on which the gateway spoke wrong HTTP/2.
    broken: int = 0
    port: int = 0

    def of(self, nonce: str) -> list[StreamRecord]:
        """The streams whose request had this `user`."""
        return [s for s in list(self.streams) if s.asked.json.get("user") == nonce]

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="http2-upstream", daemon=True)
        self._thread.start()
        assert self._ready.wait(15)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(15)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        server = await asyncio.get_running_loop().create_server(
            lambda: Peer(self), "127.0.0.1", 0, ssl=self.tls, backlog=512
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ended.wait()
        server.close()

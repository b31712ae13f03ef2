"""C1 to C7: clients that leave, do not read, or do not send what they announced."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from faults.client import PATHS, Answer, ask, body_for, exchange, read_answer, request_bytes
from faults.pace import LONGEST
from faults.rig import BODY_TIMEOUT, MAX_BODY, SOON, Rig
from processes import Server

pytestmark = pytest.mark.timeout(60)

READERS = 1000
# hyper's limit for request heads, as the gateway starts Granian.
HEADER_TIMEOUT = 30.0


@dataclass(frozen=True)
class Phase:
    """A moment at which a client leaves."""

    name: str
    model: str
    stream: bool
    ops: tuple[str, ...] = ("chat", "completions")


PHASES = (
    Phase("before-headers", "c1-silence", True),
    Phase("before-first-byte", "c1-stall-first", True),
    Phase("mid-stream", "c1-endless-slow", True),
    Phase("stalled-stream", "c1-stall-mid", True),
    Phase("plain", "c1-silence", False, ("chat", "completions", "embeddings")),
    Phase("plain-body", "c1-stall-mid", False, ("chat", "completions", "embeddings")),
)
WAYS = ("fin", "rst", "half-close")
LEAVINGS = [(phase, op, way) for phase in PHASES for op in phase.ops for way in WAYS]


@pytest.mark.parametrize("after", [0.0, 0.3], ids=["at-once", "later"])
def test_the_upstream_is_closed_when_the_client_leaves(after: float, rig: Rig) -> None:
    """All phases, endpoints and ways side by side; `after` is how long the client stays."""

    async def all_of_them() -> list[str | None]:
        return await asyncio.gather(*(leave(rig, *leaving, after) for leaving in LEAVINGS))

    late = [problem for problem in asyncio.run(all_of_them()) if problem]
    assert not late, "\n".join(late)
    assert asyncio.run(ask(rig.port, "chat", body_for("chat", "ok-neighbour"))).status == 200


async def leave(rig: Rig, phase: Phase, op: str, way: str, after: float) -> str | None:
    """Start a request, leave, and say if the upstream was closed too late."""
    nonce = f"leave-{phase.name}-{op}-{way}-{after}"
    body = json.dumps(body_for(op, phase.model, stream=phase.stream, user=nonce)).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request_bytes(PATHS[op], body))
    deadline = time.monotonic() + LONGEST
    while not rig.connections(nonce):
        if time.monotonic() > deadline:
            return f"{nonce}: the request never reached the upstream"
        await asyncio.sleep(0.005)
    await asyncio.sleep(after)
    left = time.monotonic()
    depart(writer, way)
    try:
        while time.monotonic() < left + LONGEST:
            (connection,) = rig.connections(nonce)
            if connection.closed is not None:
                took = await asyncio.to_thread(rig.pace.seconds, left, connection.closed)
                return None if took <= SOON else f"{nonce}: closed after {took:.2f} s"
            await asyncio.sleep(0.01)
        return f"{nonce}: still open after {LONGEST} s"
    finally:
        writer.close()


def depart(writer: asyncio.StreamWriter, way: str) -> None:
    """Close, reset, or say only that nothing more will be sent."""
    match way:
        case "fin":
            writer.close()
        case "rst":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        case "half-close":
            writer.write_eof()


def test_a_request_whose_body_never_ends_is_not_sent(rig: Rig) -> None:
    async def start_and_leave() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(request_bytes(PATHS["chat"], b'{"model":"ok","user":"half-sent"', length="5000"))
        await asyncio.sleep(0.2)
        writer.close()

    before = len(rig.upstream.records.all("main"))
    asyncio.run(start_and_leave())
    time.sleep(0.3)
    seen = rig.upstream.records.all("main")[before:]
    assert not [c for c in seen if c.requests], "an incomplete request was sent on"


def test_slow_readers_hold_the_upstream_and_not_the_memory(rig: Rig) -> None:
    """1,000 clients that do not read, against an upstream that sends as fast as it can."""
    nonce = "slow-reader"
    # The first ones grow pools and arenas that all later ones share: they are not counted.
    readers = slow_readers(rig, "slow-reader-warm", 50)
    try:
        wait_until_nothing_is_sent(rig, "slow-reader-warm")
        before = rig.worker_rss()
        readers += slow_readers(rig, nonce, READERS)
        wait_until_nothing_is_sent(rig, nonce)
        grown = rig.worker_rss() - before
        sent = [c.sent for c in rig.connections(nonce)]
        assert len(sent) == READERS
        assert min(sent) > 0
        assert grown <= READERS * 256 * 1024, f"{grown / READERS / 1024:.0f} KiB for each reader"
        answer = asyncio.run(ask(rig.port, "chat", body_for("chat", "ok-neighbour")))
        assert answer.status == 200
        assert seconds(rig, answer) < SOON
    finally:
        for reader in readers:
            reader.close()
    # A thousand at once are more than one client's second.
    assert rig.wait_closed(nonce, 5 * SOON), "upstream connections stay open after their clients have left"


def slow_readers(rig: Rig, nonce: str, count: int) -> list[socket.socket]:
    """Clients that read the first bytes of the head, and then nothing."""
    body = json.dumps(body_for("chat", "c2-endless-fast", stream=True, user=nonce)).encode()
    readers = []
    for _ in range(count):
        sock = socket.socket()
        # The smallest buffer, and segments that make the gateway's kernel choose a small one too: what these
        # take is nobody's memory but the kernel's, and only makes the test slow.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        sock.settimeout(LONGEST)
        sock.connect(("127.0.0.1", rig.port))
        sock.sendall(request_bytes(PATHS["chat"], body))
        readers.append(sock)
    for sock in readers:
        assert sock.recv(12) == b"HTTP/1.1 200"
    return readers


def wait_until_nothing_is_sent(rig: Rig, nonce: str) -> None:
    """Returns when the upstream has sent nothing for a second."""
    sent, since = -1, time.monotonic()
    deadline = since + 3 * LONGEST
    while rig.pace.seconds(since, time.monotonic()) < SOON:
        assert time.monotonic() < deadline, "the upstream is still read, though nobody reads the answers"
        time.sleep(0.1)
        now = sum(c.sent for c in rig.connections(nonce))
        if now != sent:
            sent, since = now, time.monotonic()


@pytest.fixture(scope="module")
def unfinished_head(served: Server) -> Iterator[tuple[list[socket.socket], float]]:
    """Connections that have sent half a head, and nothing at all, since the first test of this module."""
    where = ("127.0.0.1", served.port)
    with socket.create_connection(where) as half, socket.create_connection(where) as silent:
        half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        yield [half, silent], time.monotonic()


def test_an_unfinished_head_bothers_nobody(
    unfinished_head: tuple[list[socket.socket], float], rig: Rig
) -> None:
    assert asyncio.run(ask(rig.port, "chat", body_for("chat", "ok"))).status == 200


def seconds(rig: Rig, answer: Answer) -> float:
    """How long it took, on the clock that stands still while the machine does."""
    return rig.pace.seconds(answer.began, answer.began + answer.seconds)


def slow_body(rig: Rig, pieces: list[bytes], pause: float, length: str) -> Answer:
    """Send the head, then the pieces with pauses between them, while reading until the gateway closes."""

    async def run() -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(request_bytes(PATHS["chat"], b"", length=length))
        answer = asyncio.create_task(read_answer(reader, linger=True))
        for piece in pieces:
            if answer.done():
                break
            writer.write(piece)
            await asyncio.sleep(pause)
        try:
            return await answer
        finally:
            writer.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("pieces", "length"),
    [([b'{"model"'], "1000"), ([b"x"] * 60, "1000"), ([b" " * 999], "1000")],
    ids=["stops", "a-byte-each-100-ms", "one-byte-short"],
)
def test_a_body_that_does_not_come_is_408(pieces: list[bytes], length: str, rig: Rig) -> None:
    answer = slow_body(rig, pieces, 0.1, length)
    assert answer.status == 408, answer
    assert answer.error["code"] == "request_timeout"
    assert answer.header("connection") == "close"
    assert answer.closed, "the connection stays open"
    assert seconds(rig, answer) < BODY_TIMEOUT * 2


def test_what_is_left_of_a_given_up_body_is_not_a_request(rig: Rig) -> None:
    async def run() -> Answer:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(request_bytes(PATHS["chat"], b"{", length="100"))
        answer = await read_answer(reader)
        rest = json.dumps(body_for("chat", "ok", user="after-408")).encode()
        writer.write(b" " * 99 + request_bytes(PATHS["chat"], rest))
        await asyncio.sleep(0.3)
        writer.close()
        return answer

    assert asyncio.run(run()).status == 408
    assert rig.connections("after-408") == []


def test_a_slow_body_that_keeps_its_pace_is_accepted(rig: Rig) -> None:
    """4 kB/s, four times the floor."""
    body = json.dumps(body_for("chat", "ok", metadata={"padding": "x" * 12_000})).encode()
    pieces = [body[i : i + 400] for i in range(0, len(body), 400)]
    answer = asyncio.run(paced(rig, pieces))
    if answer.status == 408:
        # A machine that stands still for two seconds makes a slow client; twice in a row it is the gateway.
        answer = asyncio.run(paced(rig, pieces))
    assert answer.status == 200, answer


async def paced(rig: Rig, pieces: list[bytes]) -> Answer:
    """A piece each 100 ms."""
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(request_bytes(PATHS["chat"], b"", length=str(sum(map(len, pieces)))))
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.1)
    try:
        return await read_answer(reader)
    finally:
        writer.close()


def chunked_request(*chunks: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    head = request_bytes(PATHS["chat"], b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + last


def test_a_chunked_body_is_accepted(rig: Rig) -> None:
    body = json.dumps(body_for("chat", "ok")).encode()
    assert asyncio.run(exchange(rig.port, chunked_request(body[:10], body[10:]))).status == 200


def test_a_declared_body_over_the_cap_is_413_before_it_is_read(rig: Rig) -> None:
    answer = asyncio.run(
        exchange(rig.port, request_bytes(PATHS["chat"], b"{", length=str(MAX_BODY + 1)), linger=True)
    )
    assert answer.status == 413, answer
    assert answer.error["code"] == "request_too_large"
    assert answer.closed
    assert seconds(rig, answer) < SOON


def test_a_chunked_body_over_the_cap_is_413(rig: Rig) -> None:
    data = chunked_request(*([b" " * 65536] * (MAX_BODY // 65536 + 2)))
    answer = asyncio.run(exchange(rig.port, data, linger=True))
    assert answer.status == 413, answer
    assert answer.error["code"] == "request_too_large"
    assert answer.closed


def test_a_body_at_the_cap_is_accepted(rig: Rig) -> None:
    body = json.dumps(body_for("chat", "ok", metadata={"p": ""})).encode()
    filled = body.replace(b'"p": ""', b'"p": "' + b"x" * (MAX_BODY - len(body)) + b'"')
    assert len(filled) == MAX_BODY
    assert asyncio.run(ask(rig.port, "chat", filled)).status == 200


def test_a_body_longer_than_it_says_is_not_a_second_request(rig: Rig) -> None:
    inner = json.dumps(body_for("chat", "ok", user="smuggled-by-length")).encode()
    body = json.dumps(body_for("chat", "ok")).encode()
    data = request_bytes(PATHS["chat"], body + inner, length=str(len(body)))
    answer = asyncio.run(exchange(rig.port, data))
    assert answer.status == 200, answer
    time.sleep(0.1)
    assert rig.connections("smuggled-by-length") == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip", "zstd"])
def test_a_compressed_request_is_415(encoding: str, rig: Rig) -> None:
    body = b"\x1f\x8b\x08\x00" + b"\x00" * 100
    answer = asyncio.run(ask(rig.port, "chat", body, headers=(f"Content-Encoding: {encoding}",)))
    assert answer.status == 415, answer
    assert answer.error["code"] == "unsupported_content_encoding"


def test_an_unfinished_head_is_given_up(unfinished_head: tuple[list[socket.socket], float]) -> None:
    """Last in the module, as it waits for the server's fixed 30 s."""
    sockets, since = unfinished_head
    for sock in sockets:
        sock.settimeout(max(since + HEADER_TIMEOUT + LONGEST - time.monotonic(), 0.1))
        assert sock.recv(4096)[:12] in (b"", b"HTTP/1.1 408")

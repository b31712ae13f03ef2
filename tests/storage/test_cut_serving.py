"""A key is revoked while its answers stream from a gateway of several workers, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_serving import do, wait_until

from fakes.tenants import Tenants
from served import served
from sluicegate.storage.location import Location
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.model import Filter

WORKERS = 3
STREAMS = 9
# The promise.
LIMIT_SECONDS = 5.0

pytestmark = pytest.mark.timeout(150)


class Endless(BaseHTTPRequestHandler):
    """Streams until its reader leaves; a plain request hangs."""

    protocol_version = "HTTP/1.1"
    open_answers: set[int]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        me = threading.get_ident()
        self.open_answers.add(me)
        try:
            if body.get("stream"):
                self._stream()
            else:
                # The end of the connection is all that comes.
                self.rfile.read(1)
        finally:
            self.open_answers.discard(me)
            self.close_connection = True

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        delta = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
        event = b"data: " + json.dumps({**chunk, "choices": [delta]}).encode() + b"\n\n"
        with suppress(OSError):
            while True:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                time.sleep(0.05)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def endless() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Mine", (Endless,), {"open_answers": set()}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Reader:
    """One answer, read by a thread of its own."""

    port: int
    key: str
    stream: bool = True
    status: int = 0
    events: list[str] = field(default_factory=list)
    ended_at: float | None = None

    def __post_init__(self) -> None:
        self._connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        with suppress(OSError):
            assert self._connection.sock is not None
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)

    def _read(self) -> None:
        body = {"model": "Helper", "messages": [{"role": "user", "content": "x"}], "stream": self.stream}
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        with suppress(OSError), closing(self._connection):
            self._connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            with self._connection.getresponse() as response:
                self.status = response.status
                while line := response.readline():
                    if line.strip():
                        self.events.append(line.decode().strip())
        self.ended_at = time.monotonic()


def set_up(location: Location, port: int) -> tuple[tuple[str, str], str]:
    """Id and text of the key that will be revoked, and the text of another."""

    async def work(tenants: Tenants) -> tuple[tuple[str, str], str]:
        await tenants.workspace("acme")
        await tenants.upstream("acme", "endless", f"http://127.0.0.1:{port}/v1", models=("m",))
        await tenants.assistant("acme", "Helper", "endless/m")
        return await tenants.key("acme", "lost"), (await tenants.key("acme", "kept"))[1]

    found: tuple[tuple[str, str], str] = do(location, work)
    return found


def test_answers_of_a_revoked_key_end(location: Location, tmp_path: Path) -> None:
    with ExitStack() as stack:
        upstream = stack.enter_context(endless())
        (key, text), kept_text = set_up(location, upstream.server_address[1])
        gateway = stack.enter_context(served(location, tmp_path, workers=WORKERS))
        lost = [Reader(gateway.port, text) for _ in range(STREAMS)]
        plain = Reader(gateway.port, text, stream=False)
        kept = [Reader(gateway.port, kept_text) for _ in range(WORKERS)]
        answers: set[int] = upstream.RequestHandlerClass.open_answers  # type: ignore[attr-defined]
        wait_until(lambda: all(len(reader.events) >= 2 for reader in lost + kept))
        wait_until(lambda: len(answers) == STREAMS + 1 + WORKERS)
        do(location, lambda tenants: tenants.revoke("acme", key))
        revoked_at = time.monotonic()
        wait_until(lambda: all(reader.ended_at is not None for reader in [*lost, plain]))
        for reader in lost:
            assert reader.ended_at is not None
            assert reader.ended_at - revoked_at <= LIMIT_SECONDS
            error = json.loads(reader.events[-1].removeprefix("data: "))["error"]
            assert (error["code"], error["type"]) == ("api_key_revoked", "authentication_error")
            assert "[DONE]" not in "".join(reader.events)
        assert (plain.status, json.loads(plain.events[0])["error"]["code"]) == (401, "api_key_revoked")
        # The upstreams are closed, and nobody else has noticed anything.
        wait_until(lambda: len(answers) == WORKERS)
        before = [len(reader.events) for reader in kept]
        wait_until(lambda: all(len(r.events) > n + 5 for r, n in zip(kept, before, strict=True)))
        assert [reader.ended_at for reader in kept] == [None] * WORKERS
        for reader in kept:
            reader.leave()
    with closing(open_logbook(location)) as logbook:
        records = logbook.page(Filter(key=key), limit=100).records
    assert sorted((record.stream, record.status, record.code) for record in records) == [
        (False, 401, "api_key_revoked"),
        *[(True, 200, "api_key_revoked")] * STREAMS,
    ]
    # What was delivered is on record, and counted.
    assert all(record.completion_tokens > 0 for record in records if record.stream)


def test_it_can_be_turned_off(location: Location, tmp_path: Path) -> None:
    settings = tmp_path / "sluicegate.toml"
    settings.write_text("[server]\ncut_revoked = false\n")
    with ExitStack() as stack:
        upstream = stack.enter_context(endless())
        (key, text), _ = set_up(location, upstream.server_address[1])
        gateway = stack.enter_context(served(location, tmp_path, SLUICEGATE_CONFIG=str(settings)))
        reader = Reader(gateway.port, text)
        wait_until(lambda: len(reader.events) >= 2)
        do(location, lambda tenants: tenants.revoke("acme", key))
        time.sleep(LIMIT_SECONDS)
        assert reader.ended_at is None
        reader.leave()

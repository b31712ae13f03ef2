"""Kept conversations while processes are killed, the database is away and clients leave.

`SLUICEGATE_KILL_ROUNDS=100` kills a hundred times.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from bench.history import SETTINGS, family, talk
from bench.response_threads import KEY, Client, echo

from processes import Server, gateway
from sluicegate.storage.location import Location

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(600)]

ROUNDS = int(os.environ.get("SLUICEGATE_KILL_ROUNDS", "4"))
CHAT = "/v1/chat/completions"


class Upstream:
    """Does what a request says in `x_do`, and counts the requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Upstream]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
            for writer in self._writers:
                writer.close()
            # The tasks of the connections see that they are closed.
            await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r")[0])
                body = json.loads(await reader.readexactly(length))
                do = body.get("x_do", {})
                self.asked.append(do.get("key", ""))
                await asyncio.sleep(do.get("delay", 0))
                if body.get("stream"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                    writer.write("".join(f"data: {one}\n\n" for one in do["events"]).encode())
                    await writer.drain()
                    await asyncio.sleep(do.get("pause", 0))
                    break
                message = {"role": "assistant", "content": "whole"}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                text = json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode()
                kind = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                writer.write(b"%scontent-length: %d\r\n\r\n%s" % (kind, len(text), text))
        writer.close()


def event(text: str, finish: str | None = None) -> str:
    delta = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [delta]})


@asynccontextmanager
async def behind(folder: Path) -> AsyncIterator[tuple[Server, Upstream, Path]]:
    """A gateway on SQLite before such an upstream."""
    data = folder / "data"
    async with Upstream().listening() as upstream:
        settings = SETTINGS.format(port=upstream.port)
        variables = {"SLUICEGATE_DATA_DIR": str(data)}
        with gateway(settings, folder, keys=KEY, environment=variables) as server:
            yield server, upstream, data


def environment(location: Location) -> dict[str, str]:
    found = {"SLUICEGATE_DATA_DIR": str(location.data_dir)}
    if location.database_url is not None:
        found["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    return found


def acknowledged(said: dict[str, list[str]]) -> int:
    return sum(len(own) for own in said.values())


def named(name: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "model": "on",
        "metadata": {"conversation_id": name},
        "messages": [{"role": "user", "content": text}],
        **more,
    }


async def test_what_was_acknowledged_survives_kill_9(location: Location, tmp_path: Path) -> None:
    said: dict[str, list[str]] = {}
    variables = environment(location)
    async with echo() as upstream:
        settings = SETTINGS.format(port=upstream)
        for number in range(ROUNDS):
            with gateway(settings, tmp_path, keys=KEY, workers=2, environment=variables) as server:
                driving = asyncio.create_task(talk(server.port, said, str(number)))
                before = acknowledged(said)
                await until(lambda before=before: acknowledged(said) > before + 8)  # type: ignore[misc]
                # Somewhere in the middle of the next ones.
                await asyncio.sleep(0.007 * (number % 10))
                # The parent first: it would start new workers.
                for pid in family(server.process.pid):
                    os.kill(pid, signal.SIGKILL)
                await asyncio.wait_for(driving, 60)
        with gateway(settings, tmp_path, keys=KEY, environment=variables) as server:
            client = Client(server.port, KEY, 8)
            for name, own in said.items():
                status, answer = await client.post(CHAT, named(name, "last"))
                assert status == 200, answer
                seen = json.loads(answer["choices"][0]["message"]["content"])
                # One more may be there: it was stored, and the kill came before its last byte.
                assert seen[: len(own)] == own
                assert len(seen) <= len(own) + 2
            await client.close()


async def test_each_sees_its_own_last_turn_over_all_workers(location: Location, tmp_path: Path) -> None:
    async with echo() as upstream:
        settings = SETTINGS.format(port=upstream)
        with gateway(settings, tmp_path, keys=KEY, workers=3, environment=environment(location)) as server:
            client = Client(server.port, KEY, 32)

            async def thread(number: int) -> None:
                own: list[str] = []
                for turn in range(4):
                    own.append(f"{number} {turn}")
                    # Over whichever connection is free, so in another process each time.
                    status, answer = await client.post(CHAT, named(f"t{number}", own[-1]))
                    assert status == 200, answer
                    assert json.loads(answer["choices"][0]["message"]["content"]) == own

            await asyncio.gather(*(thread(number) for number in range(60)))
            await client.close()


def post(port: int, body: dict[str, Any]) -> tuple[int, dict[str, str], str]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=90)) as connection:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request("POST", CHAT, json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read().decode()


async def test_without_the_database_nobody_is_asked(tmp_path: Path) -> None:
    """Locked by somebody else: a 503 before the call, and neither half of a turn."""
    async with behind(tmp_path) as (server, upstream, data):
        with closing(sqlite3.connect(data / "sluicegate.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            refused, off = await asyncio.gather(
                asyncio.to_thread(post, server.port, named("a", "x", x_do={"key": "locked"})),
                asyncio.to_thread(post, server.port, named("a", "x", model="off")),
            )
            other.execute("ROLLBACK")
        again = await asyncio.to_thread(post, server.port, named("a", "y"))
    assert refused[0] == 503
    assert json.loads(refused[2])["error"]["code"] == "storage_unavailable"
    assert "retry-after" in {name.lower() for name in refused[1]}
    assert "locked" not in upstream.asked
    assert off[0] == 200
    assert (again[0], again[1]["x-history"]) == (200, "injected=0 trimmed=0 branch=main")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_an_answer_that_cannot_be_stored_is_not_complete(stream: bool, tmp_path: Path) -> None:
    async with behind(tmp_path) as (server, upstream, data):
        do = {"key": "slow", "delay": 2.0, "events": [event("hello", "stop"), "[DONE]"]}
        body = named("a", "x", stream=stream, x_do=do)
        asking = asyncio.create_task(asyncio.to_thread(post, server.port, body))
        await until(lambda: "slow" in upstream.asked)
        with closing(sqlite3.connect(data / "sluicegate.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            status, headers, text = await asking
            other.execute("ROLLBACK")
        # The same message again: it is not stored twice, and this time the answer is.
        again = await asyncio.to_thread(post, server.port, named("a", "x"))
        more = await asyncio.to_thread(post, server.port, named("a", "y"))
    assert headers["x-conversation-id"] == "a"
    assert "storage_unavailable" in text
    assert status == (200 if stream else 503)
    assert "[DONE]" not in text
    assert again[1]["x-history"] == "injected=0 trimmed=0 branch=main"
    assert more[1]["x-history"] == "injected=2 trimmed=0 branch=main"


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def rows(data: Path) -> list[tuple[str, bool, str]]:
    with closing(sqlite3.connect(data / "sluicegate.db")) as database:
        found = database.execute("SELECT role, complete, body FROM history_messages ORDER BY id").fetchall()
    return [(role, bool(complete), body) for role, complete, body in found]


async def test_a_client_that_leaves_has_its_message_and_what_had_come(tmp_path: Path) -> None:
    async with behind(tmp_path) as (server, _, data):
        await asyncio.to_thread(leave, server.port)
        await until(lambda: len(rows(data)) == 2)
        status, headers, _ = await asyncio.to_thread(post, server.port, named("a", "next"))
        found = rows(data)[:2]
    assert [(role, complete) for role, complete, _ in found] == [("user", True), ("assistant", False)]
    assert "half of it" in found[1][2]
    # What broke off is put into no request.
    assert (status, headers["x-history"].split()[0]) == (200, "injected=0")


def leave(port: int) -> None:
    """Read the beginning of a stream, and go."""
    do = {"events": [event("half of it")], "pause": 3.0}
    body = json.dumps(named("a", "x", stream=True, x_do=do)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        seen = b""
        while b"half of it" not in seen:
            seen += connection.recv(4096)


async def test_an_upstream_that_breaks_off_leaves_an_answer_that_is_not_continued(tmp_path: Path) -> None:
    async with behind(tmp_path) as (server, _, data):
        body = named("a", "x", stream=True, x_do={"events": [event("half")]})
        status, _, text = await asyncio.to_thread(post, server.port, body)
        found = rows(data)
    assert status == 200
    assert "[DONE]" not in text
    assert '"error"' in text
    assert [(role, complete) for role, complete, _ in found] == [("user", True), ("assistant", False)]

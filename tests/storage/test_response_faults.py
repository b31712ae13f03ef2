"""Responses while processes are killed and the database is locked: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from bench.response_threads import SETTINGS, Client, echo

from processes import gateway
from sluicegate.storage.location import Location

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(240)]

KEY = "sk-faults-test-0123456789abcdef012345"
ROUNDS = 6


def environment(location: Location) -> dict[str, str]:
    found = {"SLUICEGATE_DATA_DIR": str(location.data_dir)}
    if location.database_url is not None:
        found["SLUICEGATE_DATABASE_URL"] = location.database_url.reveal()
    return found


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = [int(text) for text in children.read_text().split()] if children.exists() else []
    return [pid, *(found for child in below for found in family(child))]


async def chains(port: int, acknowledged: list[str], stop: asyncio.Event) -> None:
    """Chains of responses until the gateway is gone; notes each id when its answer is whole."""
    client = Client(port, KEY, 8)

    async def chain() -> None:
        previous: str | None = None
        while not stop.is_set():
            body = {"model": "echo", "input": "x", "previous_response_id": previous}
            status, answer = await client.post("/v1/responses", body)
            assert status == 200, answer
            previous = answer["id"]
            acknowledged.append(answer["id"])

    results = await asyncio.gather(*(chain() for _ in range(8)), return_exceptions=True)
    await client.close()
    # Killed in the middle of it: nothing else may go wrong.
    assert all(isinstance(result, asyncio.IncompleteReadError | OSError) for result in results), results


async def test_what_was_acknowledged_survives_kill_9(location: Location, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    async with echo() as upstream:
        settings, variables = SETTINGS.format(port=upstream), environment(location)
        for turn in range(ROUNDS):
            with gateway(
                settings, tmp_path, keys=KEY, workers=2, environment=environment(location)
            ) as server:
                before = len(acknowledged)
                driving = asyncio.create_task(chains(server.port, acknowledged, asyncio.Event()))
                # After a first answer, however slow the machine is.
                async with asyncio.timeout(60):
                    while len(acknowledged) == before:  # noqa: ASYNC110 (a list cannot be waited for)
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0.1 * turn)
                # The parent first: it would start new workers.
                for pid in family(server.process.pid):
                    os.kill(pid, signal.SIGKILL)
                await asyncio.wait_for(driving, 30)
        with gateway(settings, tmp_path, keys=KEY, environment=variables) as server:
            lost = [ref for ref in acknowledged if status_of(server.port, ref) != 200]
    assert len(set(acknowledged)) == len(acknowledged)
    assert lost == []


def status_of(port: int, ref: str) -> int:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", f"/v1/responses/{ref}", headers={"Authorization": f"Bearer {KEY}"})
        return connection.getresponse().status


def post(port: int, path: str, body: dict[str, Any]) -> tuple[int, str]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


async def test_what_cannot_be_stored_is_never_completed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    messages = [{"role": "user", "content": "x"}]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/responses", {"model": "echo", "input": "x"}),
        ("/v1/responses", {"model": "echo", "input": "x", "stream": True}),
        ("/v1/responses", {"model": "echo", "input": "x", "store": False, "stream": True}),
        ("/v1/chat/completions", {"model": "echo", "messages": messages, "store": True, "stream": True}),
    ]
    async with echo() as upstream:
        variables = {"SLUICEGATE_DATA_DIR": str(data)}
        with gateway(SETTINGS.format(port=upstream), tmp_path, keys=KEY, environment=variables) as server:
            with closing(sqlite3.connect(data / "sluicegate.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                plain, streamed, unstored, chat = await asyncio.gather(
                    *(asyncio.to_thread(post, server.port, path, body) for path, body in asked)
                )
                other.execute("ROLLBACK")
            again = await asyncio.to_thread(post, server.port, *asked[1])
    assert plain[0] == 503
    assert json.loads(plain[1])["error"]["code"] == "storage_unavailable"
    assert streamed[0] == 200
    assert "response.completed" not in streamed[1]
    last = json.loads(streamed[1].rstrip().rpartition("data: ")[2])
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "storage_unavailable"
    # What need not be stored waits for nobody.
    assert "event: response.completed" in unstored[1]
    assert "[DONE]" not in chat[1]
    assert "storage_unavailable" in chat[1]
    assert "event: response.completed" in again[1]

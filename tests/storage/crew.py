"""Processes that work on one database at once: writers that acknowledge, and readers that look keys up."""

from __future__ import annotations

import asyncio
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import AssistantDraft, AssistantSpec
from sluicegate.keys import store as keys
from sluicegate.keys.cache import KeyReader
from sluicegate.keys.model import KeyDraft
from sluicegate.storage.database import Database
from sluicegate.storage.freshness import Freshness
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import Actor
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft

# A server that has imported everything: a process is there in milliseconds, and has no thread of the tests.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["crew", "aiosqlite", "psycopg", "alembic.command"])

WAIT_SECONDS = 40


def start(work: Any, *arguments: Any) -> tuple[ForkServerProcess, Connection]:
    """A process that runs `work(connection, *arguments)`, and this end of its connection."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=work, args=(theirs, *arguments), daemon=True)
    process.start()
    # Without this end of theirs, the end of the process is the end of the connection.
    theirs.close()
    return process, ours


def receive(connection: Connection) -> Any:
    """What the process says next; fails after a while."""
    assert connection.poll(WAIT_SECONDS), "the process says nothing"
    return connection.recv()


def finish(process: ForkServerProcess) -> None:
    """Wait until it has ended by itself."""
    process.join(WAIT_SECONDS)
    assert process.exitcode == 0


def write(connection: Connection, location: Location, name: str, count: int) -> None:
    """Make `count` workspaces with a key and two assistants each; name each one when it is committed."""
    asyncio.run(_write(connection, location, name, count))


async def _write(connection: Connection, location: Location, name: str, count: int) -> None:
    database = await Database.open(location)
    connection.send("ready")
    for number in range(count):
        workspace = f"{name}-{number}"
        async with database.change(Actor(f"user:{name}")) as change:
            await workspaces.create(change, workspace, WorkspaceDraft(name=workspace))
            await keys.create(change, workspace, KeyDraft(name="app"))
            for assistant in ("one", "two"):
                spec = AssistantSpec(model=("u/m",), system_prompt="x" * 2000)
                await assistants.create(change, workspace, AssistantDraft(name=assistant, spec=spec))
        connection.send(workspace)
    await database.close()


def look_up(connection: Connection, location: Location, key: bytes, revoked: Any, tries: int) -> None:
    """Look a key up again and again; tell when it was found, and how often it was after its revocation."""
    asyncio.run(_look_up(connection, location, key, revoked, tries))


async def _look_up(connection: Connection, location: Location, key: bytes, revoked: Any, tries: int) -> None:
    database = await Database.open(location)
    reader = KeyReader(database, Freshness(database))
    made = successes = 0
    told = False
    while made < tries:
        # Before the look-up: what begins after the acknowledgement must not succeed.
        after = revoked.value
        grant = reader.peek(key) or await reader.find(key)
        good = grant is not None and grant.refused is None
        if good and not told:
            connection.send("found")
            told = True
        made += after
        successes += bool(after and good)
    connection.send(successes)
    await database.close()

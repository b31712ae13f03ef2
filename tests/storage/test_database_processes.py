"""Several processes on one database: nothing lost, nothing half, and a revoked key stops in all of them."""

from __future__ import annotations

import asyncio
import os
import random
import time

import crew
import pytest

from sluicegate.assistants import store as assistants
from sluicegate.audit import store as audit
from sluicegate.keys import store as keys
from sluicegate.keys.model import KeyDraft
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.storage.page import PageQuery
from sluicegate.storage.transaction import SYSTEM
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import WorkspaceDraft

# The full number is 100: TEST_KILLS=100.
KILLS = int(os.environ.get("TEST_KILLS", "4"))
LONGEST_LIFE = 0.12
READERS = 4
TRIES = 25_000


async def state(location: Location) -> tuple[set[str], int]:
    """The workspaces that are there, each of them whole, and the generation."""
    database = await Database.open(location)
    found: set[str] = set()
    async with database.read() as view:
        cursor = None
        while True:
            page = await workspaces.entries(view, PageQuery(cursor, limit=200))
            for workspace in page.items:
                assert len((await keys.entries(view, workspace.id)).items) == 1
                assert len(await assistants.names(view, workspace.id)) == 2
                found.add(workspace.id)
            cursor = page.next
            if cursor is None:
                break
        # Four entries a workspace, and not one of a change that was cut off.
        assert await audit.verify(view) == audit.Verdict(4 * len(found))
    row = await database.row_generation()
    await database.close()
    return found, row


@pytest.mark.timeout(60 + KILLS * 10)
def test_a_kill_at_any_moment_loses_nothing(location: Location) -> None:
    chance = random.Random(20261124)
    acknowledged: set[str] = set()
    for run in range(KILLS):
        process, connection = crew.start(crew.write, location, f"run{run}", 10_000)
        assert crew.receive(connection) == "ready"
        time.sleep(chance.uniform(0, LONGEST_LIFE))
        process.kill()
        process.join(crew.WAIT_SECONDS)
        try:
            while True:
                acknowledged.add(connection.recv())
        except EOFError:
            pass
        found, row = asyncio.run(state(location))
        assert acknowledged <= found
        # At most the one that was on its way when each process was killed.
        assert len(found - acknowledged) <= run + 1
        assert row == len(found)
    assert acknowledged


def test_writers_do_not_disturb_each_other(location: Location) -> None:
    crews = [crew.start(crew.write, location, f"writer{n}", 10) for n in range(3)]
    told = [[crew.receive(connection) for _ in range(11)] for _, connection in crews]
    for process, _ in crews:
        crew.finish(process)
    found, row = asyncio.run(state(location))
    assert found == {name for names in told for name in names if name != "ready"}
    assert (len(found), row) == (30, 30)


def test_a_revoked_key_stops_in_every_process(location: Location) -> None:
    key, shown = asyncio.run(_make_key(location))
    revoked = crew.CONTEXT.Value("b", 0)
    crews = [crew.start(crew.look_up, location, shown.encode(), revoked, TRIES) for _ in range(READERS)]
    assert [crew.receive(connection) for _, connection in crews] == ["found"] * READERS
    asyncio.run(_revoke(location, key))
    revoked.value = 1
    assert [crew.receive(connection) for _, connection in crews] == [0] * READERS
    for process, _ in crews:
        crew.finish(process)


async def _make_key(location: Location) -> tuple[str, str]:
    database = await Database.open(location)
    async with database.change(SYSTEM) as change:
        await workspaces.create(change, "acme", WorkspaceDraft(name="acme"))
        key, shown = await keys.create(change, "acme", KeyDraft(name="app"))
    await database.close()
    return key.id, shown


async def _revoke(location: Location, key: str) -> None:
    """As the command line does: a process of its own, with its own connection to the shared file."""
    database = await Database.open(location)
    async with database.change(SYSTEM) as change:
        await keys.revoke(change, "acme", key)
    await database.close()

"""kill -9 at any moment of an apply: what was acknowledged is there, and nothing is half."""

from __future__ import annotations

import asyncio
import os
import random
import time

import config_crew
import crew
import pytest

from sluicegate.assistants import store as assistants
from sluicegate.audit import store as audit
from sluicegate.config import stored
from sluicegate.config.export import export
from sluicegate.storage.database import Database
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import View
from sluicegate.upstreams import store as upstreams

# The full number is 100: TEST_KILLS=100.
KILLS = int(os.environ.get("TEST_KILLS", "6"))


async def whole(view: View, space: stored.StoredWorkspace) -> None:
    """Everything that one file says of a workspace is there."""
    (upstream,) = space.upstreams.values()
    (assistant,) = space.assistants.values()
    assert len(space.keys) == config_crew.KEYS
    assert all(len(key.secrets) == 1 for key in space.keys.values())
    secrets = await upstreams.own_credentials(view, space.record.id, upstream.id)
    assert secrets.api_key is not None
    assert secrets.api_key.reveal() == config_crew.SECRET
    assert len((await assistants.versions(view, space.record.id, assistant.id)).items) == 1


async def state(location: Location) -> set[int]:
    """The numbers of the files that are there, each of them whole."""
    database = await Database.open(location)
    async with database.read() as view:
        found = await stored.read(view)
        numbers = set()
        for space in found.workspaces.values():
            if space.record.id != config_crew.SHARED:
                await whole(view, space)
                numbers.add(int(space.record.id.removeprefix("w")))
        if numbers:
            # The other object of the same transaction.
            assert found.workspaces[config_crew.SHARED].record.settings.max_tokens == max(numbers) + 1
        assert (await audit.verify(view)).broken_at is None
        assert await export(view)
    assert await database.row_generation() == len(numbers)
    await database.close()
    return numbers


@pytest.mark.timeout(60 + KILLS * 20)
def test_a_killed_apply_leaves_nothing_half(location: Location) -> None:
    chance = random.Random(20261125)
    acknowledged: set[int] = set()
    length = 0.1
    for run in range(KILLS):
        process, connection = crew.start(config_crew.apply_files, location, run * 1000)
        assert crew.receive(connection) == "ready"
        began = time.monotonic()
        if run % 2 == 0:
            # After a first one: how long one takes here is what the moments are spread over.
            acknowledged.add(crew.receive(connection))
            length = time.monotonic() - began
        time.sleep(chance.uniform(0, length))
        process.kill()
        process.join(crew.WAIT_SECONDS)
        try:
            while True:
                acknowledged.add(connection.recv())
        except EOFError:
            pass
        found = asyncio.run(state(location))
        assert acknowledged <= found
        # At most the one that was on its way when each process was killed.
        assert len(found - acknowledged) <= run + 1
    assert acknowledged

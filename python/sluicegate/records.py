"""The database side of one process: the database, what is kept of it in memory, and what keeps that right.

The one place where it is put together, for the gateway's workers, its management and its tests. Importing
this imports SQLAlchemy, which takes half a second of CPU: who needs no database must not do so.
"""

import asyncio
from contextlib import suppress
from typing import Self

from msgspec import Struct

from sluicegate.assistants import store as assistants
from sluicegate.assistants.model import Assistant
from sluicegate.keys.cache import KeyReader
from sluicegate.storage.cache import Cache
from sluicegate.storage.database import Database
from sluicegate.storage.freshness import Freshness
from sluicegate.storage.location import Location
from sluicegate.storage.transaction import View
from sluicegate.storage.watch import Watcher
from sluicegate.upstreams import store as upstreams
from sluicegate.upstreams.record import Usable
from sluicegate.usage.logbook import open_logbook
from sluicegate.usage.retention import Kept
from sluicegate.workspaces import store as workspaces
from sluicegate.workspaces.model import DEFAULT, Workspace, WorkspaceSettings

# Workspaces in use at the same time in one worker. One of ten assistants with prompts of 2 KB takes 30 KB.
SIZE = 2_000
# A database that says nothing must not hold up the end.
CLOSE_SECONDS = 5.0


class Space(Struct, frozen=True):
    """A workspace with everything that its requests need, as it was at one moment."""

    # None: the settings' own workspace, which the database does not have.
    workspace: Workspace | None
    assistants: tuple[Assistant, ...]
    upstreams: tuple[Usable, ...]


class SpaceReader:
    """The workspaces, as one worker sees them. What is read of one comes from one view of the database."""

    def __init__(self, database: Database, freshness: Freshness, size: int = SIZE) -> None:
        self._freshness = freshness
        self._cache: Cache[str, Space] = Cache(database, freshness, size)

    @property
    def mark(self) -> int | None:
        """As long as it is the same, so are all that `peek` gives. None: ask `find`."""
        return self._freshness.epoch if self._freshness.is_current else None

    def peek(self, workspace: str) -> Space | None:
        """One that was used before and has not changed, without waiting; None: ask `find`."""
        return self._cache.peek(workspace) if self._freshness.is_current else None

    async def find(self, workspace: str) -> Space | None:
        """One workspace, if it is there; `default` is always. Raises UnavailableError."""

        async def load(view: View) -> tuple[str, Space | None]:
            found = await workspaces.find(view, workspace)
            if found is None:
                return workspace, Space(None, (), ()) if workspace == DEFAULT else None
            ours = await assistants.in_use(view, workspace)
            return workspace, Space(found, ours, await upstreams.in_use(view, workspace))

        return await self._cache.get(workspace, load)


class Records:
    """An open database with its readers. For one event loop; open it in the process that uses it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.freshness = Freshness(database)
        self.keys = KeyReader(database, self.freshness)
        self.spaces = SpaceReader(database, self.freshness)
        self.logbook = open_logbook(database.location)
        self._watcher = Watcher(database, self.freshness, [self.keys.write_used])

    @classmethod
    async def open(cls, location: Location) -> Self:
        """Open; on SQLite make and migrate. Raises StorageError."""
        return cls(await Database.open(location))

    async def retention(self, own: WorkspaceSettings) -> list[Kept]:
        """How long each workspace keeps its log; `own`: of the settings' own. Raises StorageError."""
        async with self.database.read() as view:
            found = {space.id: space.settings async for space in workspaces.every(view)}
        if DEFAULT not in found or own != WorkspaceSettings():
            found[DEFAULT] = own
        return [Kept(id, rules.retention_days, rules.bodies.days) for id, rules in found.items()]

    def start(self) -> None:
        """Begin to hear of changes; returns at once."""
        self._watcher.start()

    async def close(self) -> None:
        """Write what waits, and close all connections."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._watcher.stop()
                await self.database.close()
        self.logbook.close()
